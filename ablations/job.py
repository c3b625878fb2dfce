"""One run as a job: the picklable functions that a launcher calls in the run's own processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from yolor_core.errors import RunError
from yolor_core.runs.directory import RunDirectory
from yolor_core.runs.life import State

LET_GO_SECONDS = 60.0  # in which processes of an earlier attempt are dead, and have let go of their lock


@dataclass(frozen=True)
class TrainingJob:
    """Trains one configuration in its run directory, resuming where it was left."""

    config: str  # RunConfig as JSON: a pickle of it would tie the job to this version of pydantic
    run_dir: str

    def __call__(self, stop: Callable[[], bool]) -> str:
        """Returns "done", "preempted", or "elsewhere" when another process has the run; raises as `train`."""
        from yolor_core.config import RunConfig
        from yolor_core.training import train

        run = RunDirectory(self.run_dir)
        claimed = claim(run)
        if claimed != "start":
            return claimed
        return train(RunConfig.from_json(self.config), run.path, stop)

    def leave(self, state: str, reason: str) -> None:
        """Write into state.json how the run ended, unless it has finished or its files are damaged."""
        run = RunDirectory(self.run_dir)
        # A full disk must not end a launch; a killed process lets go of its lock when it is quite dead.
        with suppress(RunError, OSError, ValueError), run.lock():
            if run.life() not in (State.UNREADABLE, State.DONE):  # a damaged file is the user's to look at
                run.write_state(state, reason=reason)


@dataclass(frozen=True)
class ClusterTraining(TrainingJob):
    """The same in each process of a scheduler's job, whose submit token says that the run is its."""

    local_disk: str = ""  # folder on the node's own disk, with variables as $SLURM_TMPDIR

    def __call__(self, stop: Callable[[], bool]) -> str:
        """Returns "done" or "preempted"; raises as `train`. The first process prints a line per epoch."""
        from rich.console import Console

        from ablations.plan import PlannedRun
        from ablations.watching import TrainingWatch
        from yolor_core.config import CocoConfig, RunConfig
        from yolor_core.training import train
        from yolor_core.training.distributed import place

        run, config = RunDirectory(self.run_dir), RunConfig.from_json(self.config)
        watch: TrainingWatch | None = None
        if self.local_disk and isinstance(config.data, CocoConfig):
            from yolor_core.data.pack.local import copy_packs

            config = config.model_copy(update={"data": copy_packs(config.data, self.local_disk)})
        if place().rank == 0:
            watch = TrainingWatch(
                PlannedRun(run.path.name, config, run.path), Console(width=200, force_terminal=False)
            )
            deadline = time.monotonic() + LET_GO_SECONDS
            while run.running() and time.monotonic() < deadline:
                time.sleep(0.5)
        return train(config, run.path, stop, watch)


def claim(run: RunDirectory) -> str:
    """What a launcher should do with a run now: "start" it, nothing ("done"), or wait ("elsewhere").

    Raises RunError where its state.json is damaged.
    """
    if run.running():
        return "elsewhere"
    return "done" if run.complete() else "start"
