"""Live progress of jobs, read from the state.json and metrics.jsonl that they write themselves."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from slurm.job import Job, Outcome

REFRESH_SECONDS = 0.5
# Columns of a terminal below which steps and the time spent, or reasons, are left out. The launcher's last
# words give the reasons too.
WIDE, VERY_WIDE = 72, 100
STYLES = {
    "running": "cyan",
    "done": "green",
    "failed": "bold red",
    "preempted": "yellow",
    "elsewhere": "magenta",
}
ORDER = ("running", "stopping", "elsewhere", "failed", "preempted", "skipped", "waiting", "done")


@dataclass(frozen=True)
class Snapshot:
    """How far a run is, as its files say; None where they do not."""

    epoch: int = 0  # finished
    epochs: int | None = None
    step: int = 0
    steps: int | None = None
    loss: float | None = None  # sum of the loss terms, mean over the last epoch
    ap: float | None = None  # fraction
    seconds: float = 0.0  # spent training, over all resumes

    @property
    def fraction(self) -> float:
        """Part of the training that is done, 0 to 1."""
        if not self.epochs:
            return 0.0
        within = self.step / self.steps if self.steps else 0.0
        return min((self.epoch + min(within, 1.0)) / self.epochs, 1.0)


def progressed(state: dict[str, Any]) -> float:
    """Part of the training that is done, 0 to 1, by the content of a state.json."""
    return _snapshot(_finite(state), None).fraction


def snapshot(run_dir: Path) -> Snapshot:
    """Read a run's files. Missing or half-known ones leave fields empty, never raise."""
    return _snapshot(_numbers(run_dir / "state.json"), _loss(run_dir / "metrics.jsonl"))


def _snapshot(state: dict[str, int | float], loss: float | None) -> Snapshot:
    return Snapshot(
        epoch=int(state.get("epoch", 0)),
        epochs=int(state.get("epochs", 0)) or None,
        step=int(state.get("step", 0)),
        steps=int(state.get("steps", 0)) or None,
        loss=loss,
        ap=state.get("ap"),
        seconds=state.get("seconds", 0.0),
    )


def _numbers(path: Path) -> dict[str, int | float]:
    """The fields of a JSON object that are finite numbers; a damaged file has none."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return _finite(value) if isinstance(value, dict) else {}


def _finite(record: dict[str, Any]) -> dict[str, int | float]:
    return {
        name: value
        for name, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _loss(path: Path) -> float | None:
    try:
        last = _finite(dict(json.loads(path.read_text().splitlines()[-1])))
    except (OSError, ValueError, IndexError, TypeError, RecursionError):
        return None
    terms = [value for key, value in last.items() if key.startswith("loss/")]
    return sum(terms) if terms else None


def clock(seconds: float | None) -> str:
    """75 -> '1:15', 3700 -> '1:01:40'; '' for None."""
    if seconds is None:
        return ""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def describe(seen: Snapshot) -> str:
    """`epoch 3/24  loss 0.412  AP 12.3`, with what is known."""
    parts = [f"epoch {seen.epoch}/{seen.epochs}"] if seen.epochs else []
    if seen.loss is not None:
        parts.append(f"loss {seen.loss:.3f}")
    if seen.ap is not None:
        parts.append(f"AP {100 * seen.ap:.1f}")
    return "  ".join(parts)


@dataclass
class _Line:
    job: Job
    state: str = "waiting"
    reason: str | None = None
    began: float = 0.0
    began_at: float = 0.0  # fraction done when this process started
    took: float | None = None
    seen: Snapshot = Snapshot()

    @property
    def elapsed(self) -> float | None:
        return time.monotonic() - self.began if self.state in ("running", "stopping") else self.took

    @property
    def remaining(self) -> float | None:
        gained = self.seen.fraction - self.began_at
        if self.state != "running" or gained <= 0:
            return None
        return (self.elapsed or 0.0) * (1 - self.seen.fraction) / gained


class Progress:
    """Watches jobs: one live line each on a terminal; elsewhere a plain line whenever something changes."""

    def __init__(
        self,
        jobs: Sequence[Job],
        console: Console | None = None,
        on_end: Callable[[Job, Outcome], None] | None = None,
    ) -> None:
        self.console = console or Console()
        self.lines = {job.name: _Line(job) for job in jobs}
        self.on_end = on_end
        self.start = time.monotonic()
        self.refreshed = 0.0
        self.stopping = False
        self.live: Live | None = None

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self.live = Live(self, console=self.console, refresh_per_second=2, transient=False)
            self.live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.live is not None:
            self._read()
            self.live.__exit__(*error)

    def started(self, job: Job) -> None:
        """A job's process was started."""
        line = self.lines[job.name]
        line.state, line.began, line.seen = "running", time.monotonic(), snapshot(job.run_dir)
        line.began_at = line.seen.fraction
        self._print(
            f"started    {job.name}" + (f"  (resumes: {describe(line.seen)})" if line.began_at else "")
        )

    def waiting(self, job: Job) -> None:
        """Another process is at this job."""
        line = self.lines[job.name]
        if line.state != "elsewhere":
            line.state = "elsewhere"
            self._print(f"elsewhere  {job.name}  (running elsewhere; waiting for it)")

    def ended(self, job: Job, outcome: Outcome) -> None:
        """A job ended or will not be started."""
        line = self.lines[job.name]
        if line.state in ("running", "stopping"):
            line.took = time.monotonic() - line.began
        line.state, line.reason, line.seen = outcome.state, outcome.reason, snapshot(job.run_dir)
        if self.on_end is not None:
            self.on_end(job, outcome)
        if outcome.state == "skipped" and self.stopping:
            return
        parts = [
            f"{outcome.state:<9}  {job.name}",
            describe(line.seen),
            clock(line.took),
            outcome.reason or "",
        ]
        self._print("  ".join(part for part in parts if part) + f"  [{self.summary()}]")

    def tick(self, stopping: bool) -> None:
        """Read the files of running jobs now and then."""
        if stopping and not self.stopping:
            self.stopping = True
            running = [line for line in self.lines.values() if line.state == "running"]
            for line in running:
                line.state = "stopping"
            self._print(
                f"stopping: {len(running)} running save their work first; again to kill them", live=True
            )
        if time.monotonic() - self.refreshed > REFRESH_SECONDS:
            self.refreshed = time.monotonic()
            self._read()

    def summary(self) -> str:
        """`7 of 19 done, 2 running, 10 waiting`."""
        states = [line.state for line in self.lines.values()]
        counts = {state: states.count(state) for state in ORDER if state != "done" and state in states}
        done = f"{states.count('done')} of {len(states)} done"
        return ", ".join([done, *(f"{count} {state}" for state, count in counts.items())])

    def _read(self) -> None:
        for line in self.lines.values():
            if line.state in ("running", "stopping", "elsewhere"):
                line.seen = snapshot(line.job.run_dir)

    def _print(self, text: str, live: bool = False) -> None:
        if self.live is None or live:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def __rich__(self) -> Group:
        wide = self.console.width >= WIDE
        table = Table(box=None, pad_edge=False, header_style="bold")
        # rich narrows columns that may wrap before the others: only the name and the reason may give way.
        table.add_column("run")
        table.add_column("state", no_wrap=True)
        for name in (
            "epoch",
            *(("step",) if wide else ()),
            "loss",
            "AP",
            *(("elapsed",) if wide else ()),
            "left",
        ):
            table.add_column(name, no_wrap=True, justify="right")
        table.add_column("")
        reasons = self.console.width >= VERY_WIDE
        lines = sorted(self.lines.values(), key=lambda line: ORDER.index(line.state))
        for line in lines[: max(self.console.height - 4, 3)]:
            seen = line.seen
            step = f"{seen.step}/{seen.steps}" if seen.steps and line.state == "running" else ""
            table.add_row(
                _one_line(line.job.label or line.job.name),
                Text(line.state, style=STYLES.get(line.state, "")),
                f"{seen.epoch}/{seen.epochs}" if seen.epochs else "",
                *((step,) if wide else ()),
                "" if seen.loss is None else f"{seen.loss:.3f}",
                "" if seen.ap is None else f"{100 * seen.ap:.1f}",
                *((clock(line.elapsed),) if wide else ()),
                clock(line.remaining),
                _one_line((line.reason or "") if reasons else ""),
            )
        return Group(
            table, Text(f"{self.summary()}; {clock(time.monotonic() - self.start)} elapsed", style="bold")
        )


def _one_line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")
