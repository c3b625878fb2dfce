"""Jobs that need no model: they note what happens to them in their folders, and can be told to misbehave."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slurm.job import Job, Outcome


@dataclass(frozen=True)
class Work:
    """Counts steps in `folder/steps`, going on where it was left; `kind` says what happens at the end."""

    folder: Path
    steps: int = 3
    seconds: float = 0.05  # per step
    kind: str = "done"

    def __call__(self, stop: Callable[[], bool]) -> str:
        note(self.folder, "start")
        path = self.folder / "steps"
        step = int(path.read_text()) if path.exists() else 0
        while step < self.steps:
            if stop() and self.kind != "deaf":
                note(self.folder, "saved")
                return "preempted"
            time.sleep(self.seconds)
            step += 1
            path.write_text(str(step))
        if self.kind == "raise":
            raise ValueError("the width is negative")
        if self.kind == "die":
            print("about to allocate", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        note(self.folder, "end")
        return self.kind if self.kind == "elsewhere" else "done"


def note(folder: Path, event: str) -> None:
    """Append `event time device` to the folder's notes."""
    with (folder / "notes").open("a") as file:
        file.write(f"{event} {time.monotonic()} {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")


def notes(folder: Path) -> list[str]:
    """The events in order."""
    path = folder / "notes"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def moments(folder: Path) -> tuple[float, float]:
    """First and last moment noted, on the machine's monotonic clock."""
    times = [float(line.split()[1]) for line in (folder / "notes").read_text().splitlines()]
    return times[0], times[-1]


def job(root: Path, name: str, after: str | None = None, cost: float = 0.0, **work: object) -> Job:
    """A job with a folder of its own."""
    folder = root / name
    folder.mkdir(exist_ok=True)
    return Job(name, folder, Work(folder, **work), after, cost)  # type: ignore[arg-type]


class Recorder:
    """A watcher that remembers; `on_tick` is called with it."""

    def __init__(self, on_tick: Callable[[Recorder], None] | None = None) -> None:
        self.events: list[tuple[str, str]] = []
        self.on_tick = on_tick

    def started(self, job: Job) -> None:
        self.events.append(("started", job.name))

    def waiting(self, job: Job) -> None:
        self.events.append(("waiting", job.name))

    def ended(self, job: Job, outcome: Outcome) -> None:
        self.events.append((outcome.state, job.name))

    def tick(self, stopping: bool) -> None:
        if self.on_tick is not None:
            self.on_tick(self)

    def names(self, event: str) -> list[str]:
        """Names of the jobs that saw `event`, in order."""
        return [name for kind, name in self.events if kind == event]


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition; fail the test when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
