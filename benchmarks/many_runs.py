"""A thousand runs: planning them for a cluster, and `ablate status` over them.

    python benchmarks/many_runs.py [--runs 1000]

Prints seconds of whole commands, and the ratio of `status` to a bare loop that parses the same files. With a
running testbed (SLURM_CONF) there is a scheduler to ask.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from slurm.tokens import claim
from yolor_core.runs.directory import RunDirectory

EXPERIMENTS = 19  # of Tables 1-8


def main() -> None:
    """Make the runs, time the commands, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        seeds = -(-runs // EXPERIMENTS)
        words = f"launch --all --seeds {seeds} --profile mini --cluster testbed --dry-run".split()
        seconds, text = timed([*words, "--json"], results)
        print(f"launch --dry-run  {len(json.loads(text)['runs'])} runs planned in {seconds:.2f} s")
        for state in ("done", "running", "queued"):
            store = results / state
            make(store, runs, state)
            bare = read_alone(store)
            seconds, text = min(timed(["status"], store) for _ in range(3))
            said = text.splitlines()[-1]
            print(f"status            {said}: {seconds:.2f} s, {seconds / bare:.1f} times the files alone")


def timed(words: list[str], results: Path) -> tuple[float, str]:
    """Seconds and output of an `ablate` command, the start of Python included."""
    command = [sys.executable, "-m", "ablations", *words, "--results", str(results)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return time.monotonic() - began, done.stdout


def make(results: Path, runs: int, state: str) -> None:
    """Runs as a cluster leaves them; job 900001_0 and so on, of which the scheduler knows nothing."""
    for index in range(runs):
        run = RunDirectory(results / "runs" / f"csp-fast-mini-s{index}-{index:010x}")
        run.path.mkdir(parents=True)
        token = claim(run.path, 0, name="ablate-benchmark-0", gpus=1, hours=1.0, folder=str(results))
        if token is not None:
            token.update(job=f"{900001 + index // 500}_{index % 500}")
        if state != "queued":
            run.write_state(state, epoch=3, epochs=24, ap=0.2, seconds=60.0)
        if state == "done":
            run.run.write_text(json.dumps({"config": {"filler": ["x" * 40] * 200}}))
            run.evaluation.write_text(json.dumps({"filler": ["x" * 40] * 50}))
            run.weights.touch()


def read_alone(results: Path) -> float:
    """Seconds to parse every state.json, a process of its own included."""
    code = (
        "import json, pathlib, sys\n"
        "for p in pathlib.Path(sys.argv[1]).glob('runs/*'):\n"
        "    for f in (p / 'state.json', p / 'submits' / '0001.json'):\n"
        "        f.exists() and json.loads(f.read_text())"
    )
    best = float("inf")
    for _ in range(3):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", code, str(results)], check=True)
        best = min(best, time.monotonic() - began)
    return best


if __name__ == "__main__":
    main()
