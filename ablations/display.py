"""What a person sees of runs: how far each is, numbers as words, the table of `ablate status`, live displays.

And what is said of the data that finished runs were trained on.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from yolor_core.errors import RunError, counted
from yolor_core.runs import GOING_ON, State
from yolor_core.runs.directory import RunDirectory, number

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from ablations.planned import PlannedRun
    from slurm.local import Job, Outcome
    from slurm.tokens import Token

INTERRUPTED = 130  # exit code, as of a command that Ctrl-C ended
REFRESH_SECONDS = 0.5
STYLES = {
    State.RUNNING: "cyan",
    State.DONE: "green",
    State.FAILED: "bold red",
    State.DIVERGED: "bold red",
    State.PREEMPTED: "yellow",
}
FIRST = (State.RUNNING, State.STARTING, State.DIVERGED, State.FAILED, State.PREEMPTED)  # in a table
HEAD = ("run", "state", "epoch", "step", "loss", "AP", "time", "left", "node", "GPU h", "reason")
NUMBERS = ("epoch", "step", "loss", "AP", "time", "left", "GPU h")
# Columns of a terminal below which some are left out.
NARROW, WIDE = {"step", "time", "reason"}, {"node", "GPU h"}
NARROW_BELOW, WIDE_FROM = 72, 110
NAME_WIDTH = 20  # a run's name has at least so many characters
HIDDEN = ("token", "run_dir", "submitted", "step", "steps", "loss")  # not in JSON, or not as they are


@dataclass(frozen=True)
class RunView:
    """One run: how far it is, where, and why it is not further."""

    run: str
    run_dir: Path
    state: State
    epoch: int = 0
    epochs: int | None = None
    ap: float | None = None  # fraction
    seconds: float = 0.0  # of training, over all attempts
    left: float | None = None  # seconds until it ends, while it runs
    node: str = ""
    gpu_hours: float | None = None  # of runs of a cluster; a GPU's hour is shared by the runs on it
    job: str | None = None
    reason: str | None = None
    heartbeat: str | None = None
    token: Token | None = None
    submitted: bool = False  # the cluster has it, or may have it
    step: int = 0  # of the present epoch
    steps: int | None = None
    loss: float | None = None  # sum of its terms, where somebody read it

    @property
    def going_on(self) -> bool:
        """Whether it will change without a new launch."""
        return self.state in GOING_ON or (self.submitted and self.state is State.PREEMPTED)

    def record(self) -> dict[str, Any]:
        """For JSON."""
        content = {name: value for name, value in asdict(self).items() if name not in HIDDEN}
        return content | {"run_dir": str(self.run_dir)}


def progress(state: Mapping[str, Any]) -> dict[str, Any]:
    """How far a run is, by its state.json: fields of `RunView`. What is no number is left out."""
    epoch, epochs, step, steps = (
        int(number(state.get(name)) or 0) for name in ("epoch", "epochs", "step", "steps")
    )
    seconds = number(state.get("seconds")) or 0.0
    done = min((epoch + min(step / steps if steps else 0.0, 1.0)) / epochs, 1.0) if epochs else 0.0
    return {
        "epoch": epoch,
        "epochs": epochs or None,
        "step": step,
        "steps": steps or None,
        "ap": number(state.get("ap")),
        "seconds": seconds,
        "left": seconds * (1 - done) / done if done > 0 else None,
    }


def clock(seconds: float | None) -> str:
    """75 -> '1:15', 3700 -> '1:01:40'; '' for None."""
    if seconds is None:
        return ""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def seen(run_dir: Path, name: str = "", state: State = State.RUNNING) -> RunView:
    """How far a run is by its own files alone, its last loss too. What is missing or damaged is left out."""
    try:
        found = progress(RunDirectory(run_dir).read_state() or {})
    except RunError:
        found = {}
    return RunView(name or run_dir.name, run_dir, state, **found, loss=_loss(run_dir / "metrics.jsonl"))


def _loss(path: Path) -> float | None:
    """Sum of the loss terms, means over the last epoch."""
    try:
        last = dict(json.loads(path.read_text().splitlines()[-1]))
    except (OSError, ValueError, IndexError, TypeError, RecursionError):
        return None
    terms = [
        value for key, term in last.items() if key.startswith("loss/") and (value := number(term)) is not None
    ]
    return sum(terms) if terms else None


def describe(view: RunView) -> str:
    """`epoch 3/24  loss 0.412  AP 12.3`, with what is known."""
    parts = [f"epoch {view.epoch}/{view.epochs}"] if view.epochs else []
    if view.loss is not None:
        parts.append(f"loss {view.loss:.3f}")
    if view.ap is not None:
        parts.append(f"AP {100 * view.ap:.1f}")
    return "  ".join(parts)


def cells(view: RunView) -> tuple[str, ...]:
    """A run as the columns of `HEAD`."""
    return (
        view.run,
        view.state,
        f"{view.epoch}/{view.epochs}" if view.epochs else "",
        f"{view.step}/{view.steps}" if view.steps and view.state is State.RUNNING else "",
        "" if view.loss is None else f"{view.loss:.3f}",
        "" if view.ap is None else f"{100 * view.ap:.1f}",
        clock(view.seconds) if view.seconds or view.epochs else "",
        clock(view.left),
        view.node,
        "" if view.gpu_hours is None else f"{view.gpu_hours:.2f}",
        view.reason or "",
    )


def text(views: Sequence[RunView]) -> str:
    """Aligned columns, without those in which nothing is; then how many runs are in which state."""
    lines = [HEAD, *(cells(view) for view in views)]
    used = [column for column in range(len(HEAD)) if any(line[column] for line in lines[1:])]
    widths = {column: max(len(line[column]) for line in lines) for column in used}
    rows = ["  ".join(line[c].ljust(widths[c]) for c in used).rstrip() for line in lines]
    return "\n".join([*rows, summary(views)])


def summary(views: Sequence[RunView]) -> str:
    """`19 runs: 3 done, 1 failed, 15 queued`."""
    states = sorted(view.state for view in views)
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{counted(len(views), 'run')}: {counts}"


def table(views: Sequence[RunView], console: Console, caption: str) -> RenderableType:
    """The same for a terminal, as far as there is room: those that run first, those that are done last."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    def rank(view: RunView) -> int:
        if view.state in FIRST:
            return FIRST.index(view.state)
        return len(FIRST) + (view.state is State.DONE)

    width = console.width
    out = (NARROW if width < NARROW_BELOW else set()) | (WIDE if width < WIDE_FROM else set())
    rows = [cells(view) for view in sorted(views, key=rank)[: max(console.height - 6, 3)]]
    columns = [c for c, name in enumerate(HEAD) if name not in out and any(row[c] for row in rows)]
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for c in columns:
        # rich narrows columns that may wrap before the others: only the name and the reason may give way.
        name = HEAD[c]
        shown.add_column(
            name,
            no_wrap=name not in ("run", "reason"),
            justify="right" if name in NUMBERS else "left",
            min_width=min(NAME_WIDTH, max(len(row[c]) for row in rows)) if name == "run" else None,
        )
    for row in rows:
        styles = [STYLES.get(State(row[c]), "") if HEAD[c] == "state" else "" for c in columns]
        shown.add_row(
            *(
                Text(row[c], style, no_wrap=True, overflow="ellipsis")
                for c, style in zip(columns, styles, strict=True)
            )
        )
    return Group(shown, Text(caption, "bold")) if caption else shown


def live(console: Console, transient: bool = False) -> Any:
    """A place at the end of a terminal for what is drawn anew; who draws says when.

    It has no thread of its own, which could hold a lock while other processes are forked.
    """
    from rich.live import Live

    return Live(console=console, auto_refresh=False, transient=transient)


def ended_as(job: Job, outcome: Outcome) -> State:
    """The state that an outcome means: a failure because of a loss that was not finite is DIVERGED."""
    own = State(outcome.state)
    diverged = own is State.FAILED and RunDirectory(job.run_dir).life() is State.DIVERGED
    return State.DIVERGED if diverged else own


class LaunchDisplay:
    """The runs of a launch: a live table on a terminal; elsewhere a plain line whenever something changes.

    `slurm.local.run_jobs` calls it.
    """

    def __init__(
        self, jobs: Sequence[Job], console: Console, on_end: Callable[[Job, Outcome], None] | None = None
    ) -> None:
        self.console, self.on_end = console, on_end
        self.views = {job.name: RunView(job.label or job.name, job.run_dir, State.QUEUED) for job in jobs}
        self.start = time.monotonic()
        self.refreshed = 0.0
        self.stopping = False
        self.live = live(console) if console.is_terminal else None

    def __enter__(self) -> LaunchDisplay:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live is not None:
            self._draw()
            self.live.stop()

    def started(self, job: Job) -> None:
        """A job's process was started."""
        view = self._look(job, State.RUNNING)
        resumes = f"  (resumes: {describe(view)})" if view.epoch or view.step else ""
        self._print(f"started    {job.name}{resumes}")

    def waiting(self, job: Job) -> None:
        """Another process is at this job."""
        if self.views[job.name].state is not State.RUNNING:
            self._look(job, State.RUNNING, "elsewhere")
            self._print(f"running    {job.name}  (elsewhere; waiting for it)")

    def ended(self, job: Job, outcome: Outcome) -> None:
        """A job ended or will not be started."""
        own = ended_as(job, outcome)
        view = self._look(job, own, outcome.reason)
        if self.on_end is not None:
            self.on_end(job, outcome)
        if own is State.SKIPPED and self.stopping:
            return
        took = clock(view.seconds) if view.seconds else ""
        parts = (f"{own:<9}  {job.name}", describe(view), took, outcome.reason or "")
        self._print("  ".join(part for part in parts if part) + f"  [{self.summary()}]")

    def tick(self, stopping: bool) -> None:
        """Read the files of running jobs now and then."""
        if stopping and not self.stopping:
            self.stopping = True
            running = [name for name, view in self.views.items() if view.state is State.RUNNING]
            for name in running:
                self.views[name] = replace(self.views[name], reason="saves its work")
            said = f"stopping: {len(running)} running save their work first; again to kill them"
            self._print(said, live=True)
        if time.monotonic() - self.refreshed > REFRESH_SECONDS:
            self._draw()

    def summary(self) -> str:
        """`7 of 19 done, 2 running, 10 queued`."""
        states = [view.state for view in self.views.values()]
        rest = [state for state in State if state is not State.DONE and state in states]
        counts = [f"{states.count(state)} {state}" for state in rest]
        return ", ".join([f"{states.count(State.DONE)} of {len(states)} done", *counts])

    def _look(self, job: Job, state: State, reason: str | None = None) -> RunView:
        """A run's files, and what is known here of how it goes."""
        before = self.views[job.name]
        view = replace(seen(job.run_dir, before.run, state), reason=reason)
        if state is not State.RUNNING:
            view = replace(view, left=None)
        self.views[job.name] = view
        return view

    def _draw(self) -> None:
        self.refreshed = time.monotonic()
        if self.live is None:
            return
        for name, view in self.views.items():
            if view.state is State.RUNNING:
                self.views[name] = replace(seen(view.run_dir, view.run), reason=view.reason)
        self.live.update(self.__rich__(), refresh=True)

    def _print(self, text: str, live: bool = False) -> None:
        if self.live is None or live:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def __rich__(self) -> RenderableType:
        caption = f"{self.summary()}; {clock(time.monotonic() - self.start)} elapsed"
        return table(list(self.views.values()), self.console, caption)


def record_of(run_dir: Path) -> dict[str, Any]:
    """Content of run.json; empty where that cannot be read."""
    try:
        return RunDirectory(run_dir).read_run() or {}
    except RunError:
        return {}


def tell_of_data(planned: Sequence[PlannedRun], states: Mapping[str, str]) -> None:
    """Say which finished runs were trained on equal data elsewhere, and which older ones do not count."""
    from yolor_core.data.fingerprint import annotation_fingerprint, written_shapes
    from yolor_core.identity import run_id

    data = planned[0].config.data
    here = _place(data.model_dump())
    done = [run.run_dir for run in planned if states[run.run_id] == State.DONE]
    trained = [(record_of(path).get("config") or {}).get("data") for path in done]
    for there, count in Counter(map(_place, trained)).items():
        if there not in (here, None):
            click.echo(
                f"note: {counted(count, 'finished run')} {'were' if count > 1 else 'was'} trained on "
                f"{there}, whose annotations and pictures are those of {here}; "
                f"{'they count' if count > 1 else 'it counts'}",
                err=True,
            )
    if data.kind == "shapes":
        return
    before = annotation_fingerprint(data)
    left = [run for run in planned if states[run.run_id] != State.DONE]
    earlier = [run.run_dir.parent / run_id(run.config, before) for run in left]
    found = [path for path in earlier if path.is_dir() and not RunDirectory(path).missing()]
    if found:
        why = (
            "they were trained on the shapes as drawn, and the pictures here are others"
            if written_shapes(data)
            else "version 0.1.0 did not write down their pictures, so nobody knows whether these are the same"
        )
        click.echo(
            f"note: {counted(len(found), 'earlier run')} on these annotations (e.g. "
            f"{found[0]}) do not count: {why}. `ablate tables --fingerprint {before[:8]}` shows them",
            err=True,
        )


def _place(data: Mapping[str, Any] | None) -> str | None:
    """Where the data of a configuration are; None where it does not say."""
    if not data:
        return None
    return os.path.realpath(str(data["root"])) if data.get("kind") == "coco" else "the shapes drawn on demand"
