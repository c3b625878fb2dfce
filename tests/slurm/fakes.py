"""Jobs that need no model: they note what happens to them in their folders, and can be told to misbehave."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from slurm.local import Job, Outcome


def work(folder: Path, stop: Callable[[], bool]) -> str:
    """Counts steps in `steps`, resuming where it was left; planned.json says how many and what then."""
    planned = {"steps": 3, "kind": "done"} | json.loads((folder / "planned.json").read_text())
    note(folder, "start")
    path = folder / "steps"
    step = int(path.read_text()) if path.exists() else 0
    while step < planned["steps"]:
        if stop() and planned["kind"] != "deaf":
            note(folder, "saved")
            return "preempted"
        time.sleep(0.05)
        step += 1
        path.write_text(str(step))
    if planned["kind"] == "raise":
        raise ValueError("the width is negative")
    if planned["kind"] == "die":
        print("about to allocate", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    note(folder, "end")
    return planned["kind"] if planned["kind"] in ("elsewhere", "nonsense") else "done"


def leave(run_dir: Path, state: str, reason: str) -> None:
    """Notes how the run was left."""
    (run_dir / "left.json").write_text(json.dumps([state, reason]))


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


def job(root: Path, name: str, after: str | None = None, cost: float = 0.0, **planned: object) -> Job:
    """A job with a folder of its own."""
    folder = root / name
    folder.mkdir(exist_ok=True)
    (folder / "planned.json").write_text(json.dumps(planned))
    return Job(name, folder, __name__, after, cost)


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
