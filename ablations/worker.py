"""The work of one run: train as planned.json in its folder says, here, in a local launch or in a job."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.planned import Place, PlannedRun, read_planned
from yolor_core.config import CocoConfig
from yolor_core.errors import RunError
from yolor_core.runs import State
from yolor_core.runs.directory import RunDirectory

if TYPE_CHECKING:
    from ablations.watching import TrainingWatch

LET_GO_SECONDS = 60.0  # in which processes of an earlier attempt are dead, and have let go of their lock


def work(run_dir: Path, stop: Callable[[], bool]) -> str:
    """What `slurm.worker` calls: "done", "preempted", or "elsewhere" when another process has the run.

    On a cluster the submit token says that the run is this job's; what an earlier attempt left is waited for,
    and the first process prints a line per epoch. Raises as `train`, and RunError where the run that it
    continues is not done.
    """
    planned, place = read_planned(run_dir)
    if place is None:
        free = claim(RunDirectory(run_dir))
        return _train(planned, None, stop, None) if free == "start" else free

    from rich.console import Console

    from ablations.watching import TrainingWatch
    from yolor_core.training.distributed import place as of_this_process

    needed = RunDirectory(run_dir.parent / planned.after).life() if planned.after else State.DONE
    if needed is not State.DONE:  # it shared its job with others, whose end this job waited for
        raise RunError(f"it continues {planned.after}, which is {needed}; launch again to train both")

    watch: TrainingWatch | None = None
    if of_this_process().rank == 0:
        watch = TrainingWatch(planned, Console(width=200, force_terminal=False))
        run, deadline = RunDirectory(run_dir), time.monotonic() + LET_GO_SECONDS
        while run.running() and time.monotonic() < deadline:
            time.sleep(0.5)
    return _train(planned, place, stop, watch)


def train(run_dir: Path, stop: Callable[[], bool], watch: TrainingWatch | None = None) -> str:
    """Train the run of a folder, resuming where it was left; returns and raises as training does."""
    return _train(*read_planned(run_dir), stop, watch)


def _train(
    planned: PlannedRun, place: Place | None, stop: Callable[[], bool], watch: TrainingWatch | None
) -> str:
    from yolor_core import training

    config = planned.config
    if place is not None and place.execution is not None:
        config = config.model_copy(update={"execution": place.execution})
    if place is not None and place.local_disk and isinstance(config.data, CocoConfig):
        from yolor_core.data.pack.reader import copy_packs

        config = config.model_copy(update={"data": copy_packs(config.data, place.local_disk)})
    state: str = training.train(config, planned.run_dir, stop, watch)
    return state


def leave(run_dir: Path, state: str, reason: str) -> None:
    """Write into state.json how the run ended, unless it has finished or its files are damaged."""
    run = RunDirectory(run_dir)
    # A full disk must not end a launch; a killed process lets go of its lock when it is quite dead.
    with suppress(RunError, OSError, ValueError), run.lock():
        if run.life() not in (State.UNREADABLE, State.DONE):  # a damaged file is the user's to look at
            run.write_state(state, reason=reason)


def claim(run: RunDirectory) -> str:
    """What a launcher should do with a run now: "start" it, nothing ("done"), or wait ("elsewhere").

    Raises RunError where its state.json is damaged.
    """
    if run.running():
        return "elsewhere"
    return "done" if run.complete() else "start"
