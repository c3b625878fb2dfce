"""What a run survives on a real cluster: its result is that of an undisturbed run, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ablations.planned import read_planned
from slurm.tokens import Token, current
from tests.slurm.cluster.grid import Grid, process_of
from tests.yolor_core.training.results import assert_same_result
from yolor_core.runs.directory import RunDirectory
from yolor_core.training import train

pytestmark = pytest.mark.slow
# Long enough to be met in the middle, on a busy machine too.
LONG = ("csp-fast.add-fa", "--set", "train.epochs=80")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of LONG, trained in one go by one process, without any scheduler."""
    if not os.environ.get("ABLATE_TESTBED"):
        pytest.skip("no SLURM to test on: python -m tests.testbed start, then eval the lines it prints")
    folder = tmp_path_factory.mktemp("undisturbed")
    command = [sys.executable, "-m", "ablations", "train", *LONG, "--profile", "smoke"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    subprocess.run(
        [*command, "--results", str(folder)],
        env=environment | {"OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,
        capture_output=True,
    )
    (run,) = (folder / "runs").iterdir()
    return run


def token(run: RunDirectory) -> Token:
    found = current(run.path)
    assert found is not None
    return found


def endings(run: RunDirectory) -> list[str]:
    """How the attempts of a run ended, in order."""
    return [str(record["kind"]) for record in token(run).attempts() if record["event"] == "end"]


def test_a_preempted_run_ends_as_an_undisturbed_one(grid: Grid, undisturbed: Path) -> None:
    grid.launch(*LONG)
    run = grid.training(3)
    job = str(token(run).job)
    # An attempt that was killed while it wrote has left this.
    (run.path / ".checkpoint.pt.k9x2.tmp").write_bytes(b"half a checkpoint")
    urgent = ("sbatch", "--parsable", "-p", "urgent", "-N3", "--exclusive", "--wrap", "sleep 2")
    grid.bed.ask(*urgent)
    grid.until(lambda: endings(run) == ["preempted"])
    saved = run.read_state()
    assert saved is not None and saved["state"] == "preempted" and 3 <= saved["epoch"] < 80
    grid.until(lambda: endings(run) == ["preempted", "done"])
    record = run.read_run()
    assert record is not None and record["resumes"] == 1 and record["jobs"] == [job]
    assert_same_result(run, RunDirectory(undisturbed))


def test_a_run_longer_than_its_time_limit_goes_on_until_it_is_done(grid: Grid, undisturbed: Path) -> None:
    grid.launch(*LONG, "--force", time="2", signal_delay=50)
    run = grid.training(1)
    # So slow a machine that the limit comes in the middle; SLURM's signal wakes it.
    os.kill(process_of(run), signal.SIGSTOP)
    limit = grid.bed.ask("squeue", "-h", "-j", str(token(run).job), "-o", "%l").strip()
    assert limit == "2:00"
    grid.until(lambda: endings(run) == ["preempted"], seconds=240.0)
    # Each further attempt has 70 seconds to start and for epochs: a busy machine may need several.
    grid.until(lambda: endings(run)[-1] == "done", seconds=600.0)
    assert set(endings(run)) == {"preempted", "done"}
    assert_same_result(run, RunDirectory(undisturbed))


def test_a_killed_process_is_a_crash_and_the_run_goes_on(grid: Grid, undisturbed: Path) -> None:
    grid.launch(*LONG)
    run = grid.training(2)
    os.kill(process_of(run), signal.SIGKILL)
    grid.until(lambda: endings(run) == ["crash", "done"])
    assert_same_result(run, RunDirectory(undisturbed))


def test_crashes_are_retried_so_often_and_no_more(grid: Grid) -> None:
    grid.launch(*LONG, retries=1)
    run = grid.training(1)
    first = process_of(run)
    os.kill(first, signal.SIGKILL)
    grid.until(lambda: endings(run) == ["crash"] and process_of(run) != first)
    os.kill(process_of(run), signal.SIGKILL)
    grid.until(lambda: len(endings(run)) == 2)
    assert endings(run) == ["crash", "failed"]
    grid.until(lambda: grid.states() == ["failed"])
    _, record = grid.only()
    assert "killed by signal 9" in record["reason"] and "after 1 retry" in record["reason"]
    last = token(run).attempts()[-1]
    assert last["event"] == "failed" and last["log"]


def starts(run: RunDirectory) -> list[int]:
    return [int(record["restart"]) for record in token(run).attempts() if record["event"] == "start"]


def test_runs_that_share_a_gpu_live_and_end_each_by_itself(grid: Grid, tmp_path: Path) -> None:
    runs = ("csp-fast.add-fa", "--seeds", "3", "--set", "train.epochs=16")
    grid.launch(*runs, runs_per_gpu=3, memory_gb=2)
    packed = [RunDirectory(path) for path in sorted((grid.folder / "runs").iterdir())]
    (job,) = {str(token(run).job) for run in packed}
    stopped: set[Path] = set()  # in the middle, whichever began first; SLURM's signal wakes them

    def all_stopped() -> bool:
        for run in packed:
            if run.path not in stopped and (run.read_state() or {}).get("epoch", 0) >= 1:
                os.kill(process_of(run), signal.SIGSTOP)
                stopped.add(run.path)
        return len(stopped) == 3

    grid.until(all_stopped)
    os.kill(process_of(packed[1]), signal.SIGKILL)
    grid.until(lambda: endings(packed[1]) == ["crash"])  # at once, not when the others have ended
    seen = grid.status()
    assert [seen[run.path.name]["state"] for run in packed] == ["running", "queued", "running"]
    assert seen[packed[1].path.name]["reason"] == "waits: the other runs of its job"
    grid.bed.ask("sbatch", "--parsable", "-p", "urgent", "-N3", "--exclusive", "--wrap", "sleep 2")
    ends = [["preempted", "done"], ["crash", "done"], ["preempted", "done"]]
    grid.until(lambda: [endings(run) for run in packed] == ends)
    for run in packed:
        alone = RunDirectory(tmp_path / "alone" / run.path.name)
        assert train(read_planned(run.path)[0].config, alone.path, lambda: False) == "done"
        assert_same_result(run, alone)
    grid.until(lambda: not grid.bed.ask("squeue", "-h", "-j", job).strip())
    elapsed = grid.bed.ask("sacct", "-X", "-n", "-P", "-D", "-j", job, "-o", "ElapsedRaw").split()
    (cost,) = json.loads(grid.call("cost", "--json").stdout)
    assert cost["booked"] == pytest.approx(sum(map(int, elapsed)) / 3600, abs=1e-3)


def test_a_lost_node_costs_a_two_node_run_nothing_but_time(grid: Grid) -> None:
    two, short = {"nodes": 2, "gpus": 1}, ("csp-fast.add-fa", "--set", "train.epochs=24")
    other = Grid(grid.bed, grid.folder.with_name("other"))
    other.launch(*short, **two)
    other.ended(seconds=240)
    grid.launch(*short, **two)
    run = grid.training(3)
    _, record = grid.only()
    assert record["node"] in ("n[1-2]", "n1,n2")
    grid.bed.kill_node("n2")
    grid.bed.revive_node("n2")
    grid.until(lambda: len(starts(run)) == 2, 180)
    grid.until(lambda: endings(run)[-1:] == ["done"], 240)
    there = run.read_run()
    assert there is not None and there["ranks"] == 2 and there["resumes"] == 1
    assert_same_result(run, other.only()[0])


def test_a_rank_that_hangs_ends_the_attempt_and_the_run_goes_on(grid: Grid) -> None:
    grid.launch("csp-fast", "--set", "train.epochs=24", "--set", "execution.rank_timeout=5", gpus=2)
    run = grid.training(2)
    chief = process_of(run)
    (other,) = (pid for pid in ranks_of(token(run)) if pid != chief)
    os.kill(other, signal.SIGSTOP)
    grid.until(lambda: endings(run) == ["crash"])
    assert "does not answer" in str(token(run).attempts()[-1]["reason"])
    # SLURM sends a signal that a node did not confirm again a minute later, to that step of the next attempt.
    grid.until(lambda: len(endings(run)) == 2, 300)
    assert endings(run) == ["crash", "done"]


def ranks_of(sent: Token) -> list[int]:
    """The processes of a job that train: those in which the worker was started."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        mine = f"SLURM_JOB_ID={sent.job}".encode() in variables
        if mine and b"slurm.worker" in words and words[0].endswith(b"python"):
            found.append(int(folder.name))
    return found
