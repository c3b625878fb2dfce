"""A grid while jobs are killed at random: what gets lost, and what runs twice.

    eval "$(python -m tests.testbed env)"; python benchmarks/soak.py [--minutes 20] [--epochs 60] [--seed 0]

Submits Tables 1-8 at the smoke profile (19 runs) to the running testbed, and every few seconds does
something to it: SIGKILL to a training process, a preempting job, the signal of a time limit, a node that
loses its power, a job put back in the queue by hand, a second launch of the same grid. When all is quiet it
checks every run and prints counts. Exit code 1 when a run is not done, was finished twice, was trained by two
processes at once, or has other epochs than it should.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slurm.tokens import current, read
from tests.testbed import Testbed
from yolor_core.runs.directory import RunDirectory

PROFILE = """
partition = "main"
gpus = 1
cpus = 1
memory_gb = 1
time = "00:30:00"
signal_delay = 30
device = "cpu"
parallel = 3
retries = 50
"""


class Soak:
    """One results folder on one testbed."""

    def __init__(self, bed: Testbed, folder: Path, epochs: int) -> None:
        self.bed, self.results, self.epochs = bed, folder / "results", epochs
        self.profile = folder / "soak.toml"
        self.profile.write_text(PROFILE)
        self.doubles: set[str] = set()
        self.pairs: dict[str, set[int]] = {}
        self.counts: collections.Counter[str] = collections.Counter()

    def ablate(self, *words: str) -> str:
        """Output of a command on this grid."""
        command = [sys.executable, "-m", "ablations", *words, "--results", str(self.results)]
        environment = os.environ | self.bed.environment | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stdout

    def launch(self) -> None:
        """All of Tables 1-8."""
        self.ablate(
            "launch", "--all", "--profile", "smoke", "--set", f"train.epochs={self.epochs}", "--force",
            "--cluster", str(self.profile),
        )  # fmt: skip

    def states(self) -> list[str]:
        """Of all runs."""
        return [record["state"] for record in json.loads(self.ablate("status", "--json"))]

    def running(self) -> list[RunDirectory]:
        """Runs whose state.json says so."""
        found = []
        for path in (self.results / "runs").iterdir():
            run = RunDirectory(path)
            if (run.read_state() or {}).get("state") == "running":
                found.append(run)
        return found

    def trainers(self) -> dict[str, list[int]]:
        """The processes that train, by the job that they belong to."""
        found: dict[str, list[int]] = {}
        for folder in Path("/proc").iterdir():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if b"slurm.worker" not in words or not words[0].endswith(b"python"):
                    continue  # srun has the same words behind its own
                text = (folder / "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            variables = dict(line.partition("=")[::2] for line in text.split("\0"))
            if str(self.results) in variables.get("PYTHONPATH", ""):
                array, task = variables.get("SLURM_ARRAY_JOB_ID"), variables.get("SLURM_ARRAY_TASK_ID")
                job = f"{array}_{task}" if array else variables.get("SLURM_JOB_ID", "")
                found.setdefault(job, []).append(int(folder.name))
        return found

    # What can happen.

    def kill_process(self) -> None:
        """As the out-of-memory killer or a bug would."""
        run = random.choice(self.running())
        os.kill(int((run.read_state() or {})["pid"]), signal.SIGKILL)

    def preempt(self) -> None:
        """A job that goes before ours, on a node or on all."""
        nodes = random.choice(["1", "3"])
        self.bed.ask(
            "sbatch", "-p", "urgent", f"-N{nodes}", "--exclusive", "--output=/dev/null", "--wrap", "sleep 4"
        )

    def signal(self) -> None:
        """What comes before a time limit."""
        token = current(random.choice(self.running()).path)
        self.bed.ask("scancel", "--signal=USR2", str(token.job if token else ""))

    def requeue(self) -> None:
        """By an administrator."""
        token = current(random.choice(self.running()).path)
        self.bed.ask("scontrol", "requeue", str(token.job if token else ""))

    def lose_node(self) -> None:
        """Its power fails."""
        node = random.choice(self.bed.nodes)
        self.bed.kill_node(node)
        time.sleep(random.uniform(0, 3))
        self.bed.revive_node(node)

    def launch_again(self) -> None:
        """Somebody who is not sure."""
        self.launch()

    def disturb(self) -> None:
        """One of the above; one that finds nothing to do is no disturbance."""
        deeds: list[Callable[[], None]] = [
            self.kill_process, self.kill_process, self.preempt, self.signal, self.requeue, self.lose_node,
            self.launch_again,
        ]  # fmt: skip
        deed = random.choice(deeds)
        try:
            deed()
            self.counts[deed.__name__] += 1
        except Exception as error:
            self.counts[f"{deed.__name__}: nothing to do ({type(error).__name__})"] += 1

    def watch(self) -> None:
        """Look for runs that two processes train, at two moments: one that is killed is there for a while."""
        trainers, now = self.trainers(), {}
        for path in (self.results / "runs").iterdir():
            token = current(path)
            jobs = [read(path, number).job for number in range(1, (token.number if token else 0) + 1)]
            processes = {pid for job in jobs for pid in trainers.get(str(job), [])}
            if len(processes) > 1:
                now[path.name] = processes
                if len(processes & self.pairs.get(path.name, set())) > 1:
                    self.doubles.add(f"{path.name}: {sorted(processes)}")
        self.pairs = now

    def verdict(self) -> dict[str, Any]:
        """Counts over all runs, and what is wrong."""
        wrong, attempts, kinds = [], 0, collections.Counter[str]()
        for path in sorted((self.results / "runs").iterdir()):
            run, token = RunDirectory(path), current(path)
            records = token.attempts() if token else []
            attempts += sum(record["event"] == "start" for record in records)
            ends = [str(record["kind"]) for record in records if record["event"] == "end"]
            kinds.update(ends)
            if not run.complete():
                wrong.append(f"{path.name} is not done")
                continue
            epochs = [record["epoch"] for record in run.read_metrics()]
            total = (run.read_state() or {})["epochs"]
            if epochs != list(range(1, total + 1)):
                wrong.append(f"{path.name} has epochs {epochs}")
            if ends.count("done") > 1:
                wrong.append(f"{path.name} was finished {ends.count('done')} times")
        return {"attempts": attempts, "endings": dict(kinds), "wrong": wrong, "doubles": sorted(self.doubles)}


def main() -> int:
    """Launch, disturb for a while, let it come to rest, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="of disturbances")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    bed = Testbed(os.environ["ABLATE_TESTBED"])
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soak = Soak(bed, Path(folder), options.epochs)
        soak.launch()
        began = time.monotonic()
        while time.monotonic() - began < 60 * options.minutes and set(soak.states()) != {"done"}:
            until = time.monotonic() + random.uniform(2, 8)
            while time.monotonic() < until:
                soak.watch()
                time.sleep(0.3)
            soak.disturb()
        for _ in range(20):  # the user's part: the same command goes on from anywhere
            if set(soak.states()) == {"done"}:
                break
            soak.launch()
            for _ in range(60):
                soak.watch()
                if not {"queued", "starting", "running"} & set(soak.states()):
                    break
                time.sleep(1.0)
        found = soak.verdict()
        print(f"{len(soak.states())} runs in {(time.monotonic() - began) / 60:.1f} minutes")
        for name, count in sorted(soak.counts.items()):
            print(f"  {name:<40} {count}")
        print(f"  attempts {found['attempts']}, endings {found['endings']}")
        print(f"  lost or wrong: {found['wrong'] or 'none'}; by two at once: {found['doubles'] or 'none'}")
        return 1 if found["wrong"] or found["doubles"] else 0


if __name__ == "__main__":
    sys.exit(main())
