"""One run as a job: the picklable function that a launcher calls in the run's own process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from yolor_core.runs.directory import RunDirectory


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
        standing = claim(run)
        if standing != "start":
            return standing
        return train(RunConfig.from_json(self.config), run.path, stop)


def claim(run: RunDirectory) -> str:
    """What a launcher should do with a run now: "start" it, nothing ("done"), or wait ("elsewhere")."""
    if run.running():
        return "elsewhere"
    if (run.read_state() or {}).get("state") == "done":
        return "done"
    return "start"


def standing(run: RunDirectory) -> str:
    """State of a run: as written, "missing" where nothing is, "interrupted" where its process died."""
    state = str((run.read_state() or {}).get("state", "missing"))
    if state == "running" and not run.running():
        return "interrupted"
    return state
