"""Watching a training: a live display on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from ablations.forecast import Forecast
from ablations.narration import (
    BRIEF,
    epoch_line,
    evaluated_epochs,
    introduction,
    last_scores,
    scores,
    step_line,
)
from slurm.progress import clock

if TYPE_CHECKING:
    from ablations.plan import PlannedRun
    from yolor_core.training.progress import Moment

HEARTBEAT = 30.0  # seconds without a line, after which one says that the run is alive
BAR = 20  # columns


class PlainWatch:
    """Says what is trained, then a line for every finished epoch, and one now and then within long ones."""

    def __init__(
        self, run: PlannedRun, console: Console, time_now: Callable[[], float] = time.monotonic
    ) -> None:
        self.run, self.console, self.time_now = run, console, time_now
        self.spoke = time_now()
        self.forecast: Forecast | None = None
        self.epoch, self.epochs = 0, run.config.science.train.epochs

    def started(self, record: Mapping[str, Any], now: Moment, metrics: list[dict[str, Any]]) -> None:
        """Print what is trained."""
        train = self.run.config.science.train
        images = int(record["data_report"]["val"]["images"])
        self.forecast = Forecast(
            now.epochs, now.steps, evaluated_epochs(self.run.config), images / train.batch, self.time_now
        )
        self.forecast.start(now.epoch, now.step)
        self.epoch = now.epoch
        self.say(introduction(self.run, record, now))

    def stepped(self, now: Moment) -> None:
        """A line where the last one is long ago."""
        if self.forecast is not None:
            self.forecast.step(now.epoch, now.step)
        if self.quiet():
            place = f"epoch {now.epoch + 1}/{now.epochs}  step {now.step}/{now.steps}"
            self.say("  ".join(part for part in (place, step_line(now), self.left()) if part))

    def evaluating(self, done: int, total: int) -> None:
        """A line where the last one is long ago."""
        if self.forecast is not None:
            self.forecast.evaluate(self.epoch + 1)
        if self.quiet():
            place = f"epoch {self.epoch + 1}/{self.epochs}  evaluating, batch {done}/{total}"
            self.say("  ".join(part for part in (place, self.left()) if part))

    def epoch_finished(self, record: Mapping[str, Any]) -> None:
        """A line for the epoch."""
        self.epoch = int(record["epoch"])
        if self.forecast is not None:
            self.forecast.finish_epoch(self.epoch)
        left = self.left() if self.epoch < self.epochs else ""
        self.say("  ".join(part for part in (epoch_line(record, self.epochs), left) if part))

    def left(self) -> str:
        """`12:31 left`, where that can be said."""
        remaining = None if self.forecast is None else self.forecast.remaining
        return "" if remaining is None else f"{clock(remaining)} left"

    def quiet(self) -> bool:
        """Whether the last line is long ago."""
        return self.time_now() - self.spoke > HEARTBEAT

    def say(self, text: str) -> None:
        """Print lines as they are."""
        self.spoke = self.time_now()
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def stopping(self) -> None:
        """Somebody asked the run to stop."""
        self.say("stopping: the run saves its work first")

    def __enter__(self) -> PlainWatch:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is left to do."""


class LiveWatch(PlainWatch):
    """The same, with two live lines below: the epochs of the run, and the steps of the present epoch."""

    def __init__(
        self, run: PlannedRun, console: Console, time_now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(run, console, time_now)
        # Redrawn from the training process's own thread: a thread of rich's could hold its lock while loader
        # processes are forked.
        self.display = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(BAR),
            TextColumn("{task.fields[count]}", table_column=Column(no_wrap=True, justify="right")),
            TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, ratio=1), markup=False),
            console=console,
            auto_refresh=False,
            transient=True,
            expand=True,
        )
        self.scores = ""
        self.run_line: TaskID | None = None
        self.epoch_line: TaskID | None = None

    def started(self, record: Mapping[str, Any], now: Moment, metrics: list[dict[str, Any]]) -> None:
        """Print what is trained and begin to draw."""
        super().started(record, now, metrics)
        self.scores = scores(last_scores(metrics), BRIEF)
        self.run_line = self.display.add_task("run", count="", note="")
        self.epoch_line = self.display.add_task("epoch", count="", note="")
        self.display.start()
        self._draw(now)

    def stepped(self, now: Moment) -> None:
        """Redraw."""
        super().stepped(now)
        self._draw(now)

    def evaluating(self, done: int, total: int) -> None:
        """Redraw."""
        super().evaluating(done, total)
        self._draw_run(self.epoch + 1.0)
        self._set(self.epoch_line, f"evaluating {self.epoch + 1}", done, total, "")

    def epoch_finished(self, record: Mapping[str, Any]) -> None:
        """Let a line for the epoch scroll by, and redraw."""
        self.scores = scores(record, BRIEF) or self.scores
        super().epoch_finished(record)
        self._draw_run(self.epoch)

    def quiet(self) -> bool:
        """The live lines show that the run is alive."""
        return False

    def __exit__(self, *error: object) -> None:
        """Take the live lines away: all they say stands above, or will be said."""
        self.display.stop()

    def _draw(self, now: Moment) -> None:
        self._draw_run(now.epoch + now.step / max(now.steps, 1))
        self._set(
            self.epoch_line, f"epoch {min(now.epoch + 1, now.epochs)}", now.step, now.steps, step_line(now)
        )

    def _draw_run(self, epochs: float) -> None:
        note = "  ".join(part for part in (self.left(), self.scores) if part)
        self._set(self.run_line, "run", epochs, self.epochs, note, f"{int(epochs)}/{self.epochs}")

    def _set(
        self, line: TaskID | None, name: str, done: float, total: int, note: str, count: str | None = None
    ) -> None:
        if line is None:
            return
        count = f"{done}/{total}" if count is None else count
        self.display.update(line, description=name, completed=done, total=total, count=count, note=note)
        if line == self.epoch_line:
            self.display.refresh()


def watch_on(console: Console, run: PlannedRun) -> PlainWatch:
    """Live lines on a terminal, plain ones in a file or a pipe."""
    return LiveWatch(run, console) if console.is_terminal else PlainWatch(run, console)
