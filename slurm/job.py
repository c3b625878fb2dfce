"""A job: a picklable function with a folder, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

Stop = Callable[[], bool]


@dataclass(frozen=True)
class Job:
    """One piece of work.

    `function` is called in a process of its own with a callable that turns true once the job is asked to
    stop; it saves its work at the next good moment and returns "preempted", or returns "done" at the end.
    It may also return "elsewhere": another process is at this very work. What it raises is a failure.
    `after` names a job that must be done first; `cost` is relative, for starting the longest first; `label`
    is a shorter name for places where there is little room.
    """

    name: str
    run_dir: Path
    function: Callable[[Stop], str]
    after: str | None = None
    cost: float = 0.0
    label: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a job ended: "done", "preempted", "failed", "skipped" (never started) or "elsewhere"."""

    state: str
    reason: str | None = None
    log: tuple[str, ...] = ()  # the last lines it wrote


def longest_first(jobs: Iterable[Job]) -> list[Job]:
    """Order by the cost of the longest chain that starts with a job; equal ones keep their order.

    Raises ValueError when jobs share a name or wait for each other in a circle.
    """
    jobs = list(jobs)
    by_name = {job.name: job for job in jobs}
    if len(by_name) != len(jobs):
        twice = sorted({job.name for job in jobs if sum(other.name == job.name for other in jobs) > 1})
        raise ValueError(f"jobs share a name: {', '.join(twice)}")
    chain = {name: job.cost for name, job in by_name.items()}
    for job in jobs:
        total, seen, current = job.cost, {job.name}, job
        while current.after in by_name:
            current = by_name[current.after]
            if current.name in seen:
                raise ValueError(f"jobs wait for each other in a circle: {', '.join(sorted(seen))}")
            seen.add(current.name)
            total += current.cost
            chain[current.name] = max(chain[current.name], total)
    return sorted(jobs, key=lambda job: -chain[job.name])
