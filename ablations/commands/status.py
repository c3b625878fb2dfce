"""`ablate status`: how far the runs are, from their own files and one look at the scheduler."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ablations.options import json_option, read_results_option
from yolor_core.runs.life import GOING_ON, State

if TYPE_CHECKING:
    from rich.table import Table

    from ablations.overview import RunView

WATCH_SECONDS, PATIENCE = 5.0, 4.0
WIDE = 110  # columns of a terminal that show everything


@click.command("status")
@click.argument("names", nargs=-1, metavar="[RUN|EXPERIMENT]...")
@read_results_option
@click.option("--watch", is_flag=True, help="Look again every few seconds, until all are done or Ctrl-C.")
@json_option
def command(names: tuple[str, ...], results: Path, watch: bool, as_json: bool) -> None:
    """Show every run: its state, epochs, AP so far, time spent and left, node, GPU hours, and why it stopped.

    A run without detection has no AP; `ablate evaluate --run DIR` and the tables have its other scores.
    Runs on a cluster are looked up with one squeue and one sacct for all of them. A run that says running
    although no process holds it any more is shown as interrupted; a finished one that has lost its record,
    evaluation or weights as incomplete, but not in a published folder, which has no weights; one with a
    damaged state.json as unreadable.
    """
    from ablations.overview import chosen, overview
    from ablations.published import is_published

    def look(seconds: float | None = None) -> list[RunView]:
        views = overview(results) if seconds is None else overview(results, seconds)
        if is_published(results):
            views = [_as_published(view) for view in views]
        return chosen(views, names) if names else views

    views = look()
    if as_json:
        click.echo(json.dumps([view.record() for view in views], indent=1, ensure_ascii=False))
    elif not views:
        click.echo(
            f"no runs in {results / 'runs'}; `ablate launch --all` makes some, --results names another folder"
        )
    elif watch:
        _watch(views, lambda: look(PATIENCE))
    else:
        click.echo(text(views))


def _as_published(view: RunView) -> RunView:
    """Where weights are not published, a run that lacks nothing else has finished."""
    if view.state is not State.INCOMPLETE or view.reason != LACKS_WEIGHTS:
        return view
    return replace(view, state=State.DONE, reason="published without weights")


def _watch(views: list[RunView], look: Any) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(table(views, console.height, console.width), console=console, auto_refresh=False) as live:
        live.refresh()
        while any(view.state in GOING_ON for view in views):
            try:
                time.sleep(WATCH_SECONDS)
            except KeyboardInterrupt:
                return
            views = look()
            live.update(table(views, console.height, console.width), refresh=True)


LACKS_WEIGHTS = "weights.safetensors is missing"  # as RunDirectory.missing says it
HEAD = ("run", "state", "epoch", "AP", "time", "left", "node", "GPU h", "reason")


def cells(view: RunView) -> tuple[str, ...]:
    """A run as the columns of `HEAD`."""
    from slurm.progress import clock

    return (
        view.run,
        view.state,
        f"{view.epoch}/{view.epochs}" if view.epochs else "",
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


def table(views: Sequence[RunView], most: int, width: int) -> Table:
    """The same for a terminal of so many lines and columns: those that run come first."""
    from rich.table import Table
    from rich.text import Text

    order = ("running", "starting", "queued", "failed")
    ranked = sorted(views, key=lambda v: order.index(v.state) if v.state in order else len(order))
    shown = Table(box=None, pad_edge=False, caption=summary(views), caption_justify="left")
    columns = [c for c, name in enumerate(HEAD) if width >= WIDE or name not in ("node", "GPU h", "time")]
    for column in columns:
        # rich narrows columns that may wrap before the others: only the name and the reason may give way.
        shown.add_column(HEAD[column], no_wrap=HEAD[column] not in ("run", "reason"))
    for view in ranked[: max(most - 6, 3)]:
        texts = cells(view)
        shown.add_row(*(Text(texts[c], no_wrap=True, overflow="ellipsis") for c in columns))
    return shown


def summary(views: Sequence[RunView]) -> str:
    """`19 runs: 3 done, 1 failed, 15 queued`."""
    states = [view.state for view in views]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
    return f"{len(views)} runs: {counts}"
