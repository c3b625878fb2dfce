"""Planned runs as processes of this machine: how many at a time, and what becomes of each."""

from __future__ import annotations

import math
import os
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ablations.display import LaunchDisplay, ended_as
from ablations.plan import cores, visible_gpus
from ablations.planned import PlannedRun, planned_record
from ablations.worker import claim, leave
from slurm.files import replace_json
from slurm.local import Job, Outcome, run_jobs
from slurm.worker import stop_on
from yolor_core.errors import RunError
from yolor_core.runs.directory import RunDirectory


def require_writable(folder: Path) -> None:
    """Make the folder. Raises RunError, before anything is started, where no file can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RunError(
            f"{folder} cannot be written: {error.strerror}. Choose another folder with --results or "
            "ABLATE_RESULTS, or get leave to write there"
        ) from error


def run_missing(missing: Sequence[PlannedRun], parallel: int, output: Any) -> tuple[dict[str, Outcome], bool]:
    """Train the runs; outcomes by run id, and whether a signal ended it."""
    # Read by OpenMP when a process starts; without it two runs on two cores would use four threads.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(run.config.execution.threads for run in missing)))
    jobs = [as_job(run) for run in missing]
    records = {run.run_id: planned_record(run) for run in missing}

    def planned_and_claimed(job: Job) -> str:
        free = claim(RunDirectory(job.run_dir))
        if free == "start":
            replace_json(job.run_dir / "planned.json", records[job.name])
        return free

    with (
        stop_on(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as stop,
        LaunchDisplay(jobs, Console(file=output), on_end=write_ending) as progress,
    ):
        outcomes = run_jobs(jobs, parallel, progress, stop, planned_and_claimed, visible_gpus())
        ended = [(job, outcomes[job.name]) for job in jobs]
        return {job.name: replace(each, state=ended_as(job, each)) for job, each in ended}, stop()


def as_job(run: PlannedRun) -> Job:
    """A planned run as something to launch."""
    label = f"{run.config.experiment} s{run.config.seed}"  # the profile is that of the whole launch
    return Job(run.run_id, run.run_dir, "ablations.worker", run.after, cost(run), label)


def cost(run: PlannedRun) -> float:
    """Roughly proportional to the time a run takes: epochs, pixels, and channels over the network's width."""
    train, model = run.config.science.train, run.config.science.model
    phases = train.phases[1:] if run.after else train.phases
    return sum(phase.epochs for phase in phases) * train.size**2 * model.width


def fitting(planned: Sequence[PlannedRun]) -> int:
    """Runs at a time: by cores, and one per GPU where there are GPUs; more share them only when asked for."""
    each = max((run.config.execution.threads + run.config.execution.workers for run in planned), default=1)
    by_cores = max(1, cores() // each)
    gpus = visible_gpus()
    return min(by_cores, len(gpus)) if gpus else by_cores


def at_a_time(runs: int) -> str:
    """`4 at a time`, and how many of them are on one GPU."""
    gpus = len(visible_gpus())
    each = math.ceil(runs / gpus) if gpus else 1
    return f"{runs} at a time" + (f", up to {each} on each GPU" if each > 1 else "")


def write_ending(job: Job, outcome: Outcome) -> None:
    """Leave in state.json what the run could not write itself, because its process was killed."""
    if outcome.state == "failed" or (outcome.state == "preempted" and outcome.reason):
        leave(job.run_dir, outcome.state, outcome.reason or "")
