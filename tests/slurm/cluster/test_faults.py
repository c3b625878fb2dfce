"""What a site, its users and a busy moment do to a launch and its jobs, on a real cluster."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from slurm.submission import freeze
from slurm.tokens import current
from tests.slurm.cluster.grid import Grid, process_of
from tests.slurm.cluster.test_grid import jobs
from tests.slurm.cluster.test_life import endings, starts, token
from tests.testbed.processes import steps
from yolor_core.runs.directory import RunDirectory

pytestmark = pytest.mark.slow
THREE = ("csp-fast", "csp-fast.add-fa", "csp-fast.add-pr")
LONG = ("csp-fast", "--set", "train.epochs=2000")


def behind(grid: Grid, command: str, number: int, then: str) -> dict[str, str]:
    """Variables with which call `number` of a command, once SLURM has answered it, does `then` first."""
    folder, real = grid.folder.with_name("wrapped"), shutil.which(command)
    folder.mkdir()
    path = folder / command
    path.write_text(
        f"""#!/bin/sh
case "$*" in *--test-only*) exec {real} "$@" ;; esac
count=$(ls {folder} | grep -c sent-)
touch {folder}/sent-$count
{real} "$@" > {folder}/answer || exit
[ $count = {number} ] && {then}
cat {folder}/answer
"""
    )
    path.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_a_launch_killed_behind_sbatch_leaves_nothing_undone_or_done_twice(grid: Grid) -> None:
    grid.more = behind(grid, "sbatch", 1, "kill -KILL $PPID")
    profile = grid.profile(max_array=1)
    killed = grid.call("launch", *THREE, "--profile", "smoke", "--cluster", profile, code=None)
    assert killed.returncode == -signal.SIGKILL
    grid.more = {}
    assert grid.states().count("not sent") == 1  # at once; the second one is known by its name
    assert "submitted 1 run" in grid.call("retry", "--failed").stdout
    grid.ended(seconds=400)
    for path in (grid.folder / "runs").iterdir():
        record = RunDirectory(path).read_run()
        assert record is not None and len(record["jobs"]) == 1 and record["resumes"] == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_launch_with_word_of_what_was_sent(grid: Grid, signum: signal.Signals) -> None:
    grid.more = behind(grid, "sbatch", 0, f"kill -{signum.name[3:]} $PPID")
    profile = grid.profile(max_array=1)
    words = ("launch", *THREE, "--set", "train.epochs=2000", "--profile", "smoke", "--cluster", profile)
    ended = grid.call(*words, code=128 + signum)
    assert "submitted 1 run" in ended.stdout
    assert "not sent: 2 runs: the launch was interrupted" in ended.stderr
    assert len(jobs(grid)) == 1 and grid.states().count("not sent") == 2


def test_options_in_a_users_shell_do_not_beat_the_profile(grid: Grid) -> None:
    options = {
        "SBATCH_PARTITION": "nowhere",
        "SBATCH_TIMELIMIT": "3",
        "SBATCH_NO_REQUEUE": "1",
        "SBATCH_EXPORT": "NONE",
        "SBATCH_ACCOUNT": "nobody",
        "SLURM_CLUSTERS": "elsewhere",
        "SQUEUE_PARTITION": "urgent",
        "SQUEUE_USERS": "nobody",
        "SACCT_FORMAT": "Account",
    }
    grid.more = options
    words = ("launch", *LONG, "--profile", "smoke", "--cluster", grid.profile())
    sent = grid.call(*words)
    assert all(name in sent.stderr for name in options)
    run = grid.training(1)
    job = str(token(run).job)
    shown = grid.bed.ask("scontrol", "show", "job", job)
    for expected in ("Partition=main", "TimeLimit=00:30:00", "Requeue=1"):
        assert expected in shown
    assert grid.states() == ["running"]
    assert "submitted" not in grid.call(*words).stdout.replace("submitted  to send", "")
    assert jobs(grid) == {job}
    assert grid.call("cancel", "--all").stdout == "cancelled 1 run\n"
    grid.until(lambda: not jobs(grid))


def prolog(folder: Path, line: str) -> list[str]:
    """Lines of `setup` that do as a site's TaskProlog that says this line."""
    path = folder / "prolog.sh"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho {line}\n")
    path.chmod(0o755)
    return [f"export SLURM_TASK_PROLOG={path}"]


def test_what_a_site_does_before_a_run_begins_is_named_and_no_crash(grid: Grid, tmp_path: Path) -> None:
    other = freeze(tmp_path / "other", {})
    sites = {
        "purge": (["export PATH=/nowhere"], "srun is not on the PATH"),
        "python": (prolog(tmp_path / "a", f"export PYTHONPATH={other}"), f"runs the code in {other}"),
        "slow": (["sleep 600"], "`setup` takes longer than its `time`"),
    }
    grids = {name: Grid(grid.bed, tmp_path / name / "results") for name in sites}
    for name, (setup, _) in sites.items():
        grids[name].folder.parent.mkdir()
        time = "1" if name == "slow" else "10"
        grids[name].launch("csp-fast", "--force", setup=setup, time=time)
    for name, (_, words) in sites.items():
        grids[name].ended("failed", 300)
        run, record = grids[name].only()
        assert words in record["reason"]
        # The time limit ends the script with its `setup`; where `setup` dies first, the script still speaks.
        assert endings(run) == ["failed"] or (name == "slow" and not endings(run))


def test_a_banner_of_the_site_is_no_word_of_the_run(grid: Grid, tmp_path: Path) -> None:
    setup = prolog(tmp_path / "a", '"print jobs that run out of memory are killed"')
    grid.launch("csp-fast", "--set", "train.epochs=12", setup=setup)
    run = grid.training(2)
    os.kill(process_of(run), signal.SIGKILL)
    grid.until(lambda: len(endings(run)) == 2, 240)
    assert endings(run) == ["crash", "done"]
    log = token(run).log
    assert log is not None and log.read_text().count("jobs that run out of memory are killed") == 2


def test_what_an_administrator_does_is_no_crash(grid: Grid) -> None:
    grid.launch("csp-fast", "--set", "train.epochs=24", retries=0)
    run = grid.training(1)
    job = str(token(run).job)
    grid.bed.ask("scontrol", "requeue", job)
    grid.until(lambda: endings(run) == ["preempted"])
    grid.until(lambda: grid.states() == ["queued"] or len(starts(run)) == 2)
    if len(starts(run)) == 1 and "held" in str(grid.only()[1]["reason"]):
        assert "scontrol release" in str(grid.only()[1]["reason"])
        grid.bed.ask("scontrol", "release", job)
    grid.until(lambda: len(starts(run)) == 2)
    grid.training(1)
    node = grid.bed.ask("squeue", "-h", "-j", job, "-o", "%N").strip()
    # A node that is only down returns as soon as its slurmd reports, and SLURM may then kill the next attempt
    # there with what is left of this one.
    for state in ("down", "drain"):
        grid.bed.ask("scontrol", "update", f"nodename={node}", f"state={state}", "reason=test")
    try:
        grid.until(lambda: endings(run) == ["preempted"] * 2)
        grid.until(lambda: not steps(grid.bed.layout, [node]))
    finally:
        grid.bed.ask("scontrol", "update", f"nodename={node}", "state=resume")
    grid.until(lambda: endings(run) == ["preempted", "preempted", "done"], 300)


def test_one_job_of_an_array_that_is_cancelled_while_it_waits_is_cancelled(grid: Grid) -> None:
    grid.launch(*THREE, "--set", "train.epochs=2000", parallel=1)
    waiting = next(v for v in grid.status().values() if v["job"].endswith("_2"))
    grid.bed.ask("scancel", waiting["job"])
    grid.until(lambda: grid.status()[waiting["run"]]["state"] == "cancelled")
    assert len(jobs(grid)) == 2
    again = grid.launch(*THREE, "--set", "train.epochs=2000", parallel=1)
    assert [run["run"] for run in again["runs"] if run["job"]] == [waiting["run"]]


def test_a_launch_while_all_nodes_are_drained_waits_for_them(grid: Grid) -> None:
    nodes = f"nodename={','.join(grid.bed.nodes)}"
    grid.bed.ask("scontrol", "update", nodes, "state=drain", "reason=test")
    try:
        words = ("launch", *LONG, "--profile", "smoke", "--cluster")
        sent = grid.call(*words, grid.profile())
        assert "drained" in sent.stderr and "submitted 1 run" in sent.stdout
        assert grid.states() == ["queued"]
    finally:
        grid.bed.ask("scontrol", "update", nodes, "state=resume")
    assert (found := current(grid.training(1).path)) is not None and found.number == 1
