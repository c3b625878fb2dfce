"""One run as a job: the picklable function that a launcher calls in the run's own process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from yolor_core.errors import RunError
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
    """What a launcher should do with a run now: "start" it, nothing ("done"), or wait ("elsewhere").

    Raises RunError where its state.json is damaged.
    """
    if run.running():
        return "elsewhere"
    return "done" if run.complete() else "start"


def standing(run: RunDirectory) -> str:
    """State of a run: as written; "missing" where nothing is; "unreadable" where state.json is damaged.

    "interrupted" is a run whose process died, "incomplete" a finished one that lost files it is good for.
    """
    try:
        state = run.read_state()
        if state is None:
            return "missing"
        if state["state"] == "running" and not run.running():
            return "interrupted"
        if state["state"] == "done" and not run.complete():
            return "incomplete"
        return str(state["state"])
    except RunError:
        return "unreadable"
