"""`ablate logs`: what a run printed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations.options import read_results_option

if TYPE_CHECKING:
    from ablations.overview import RunView

LOOK_SECONDS = 0.5
STATE_SECONDS = 10.0  # between two questions to the scheduler while following
ENDED = ("done", "failed", "cancelled", "interrupted", "incomplete", "not sent", "preempted", "unreadable")


@click.command("logs")
@click.argument("run", metavar="RUN")
@read_results_option
@click.option("-f", "--follow", is_flag=True, help="Go on printing until the run ends or Ctrl-C.")
@click.option(
    "-n", "--lines", type=click.IntRange(min=0), default=40, show_default=True, help="From the end."
)
@click.option(
    "--rank", type=click.IntRange(min=0), default=0, show_default=True, help="Of several processes."
)
def command(run: str, results: Path, follow: bool, lines: int, rank: int) -> None:
    """Print the end of what RUN (a run's name or its beginning) has written, on a cluster or here."""
    from ablations.overview import one, overview
    from ablations.run_logs import log_files
    from yolor_core.errors import RunError

    view = one(overview(results), run)
    paths = log_files(view.run_dir, view.token, rank)
    if not paths and not (follow and view.state in ("queued", "starting")):
        raise RunError(
            f"{view.run} ({view.state}) has written nothing" + (f": {view.reason}" if view.reason else "")
        )
    try:
        _print(view, results, paths, follow, lines, rank)
    except KeyboardInterrupt:
        return


def _print(view: RunView, results: Path, paths: list[Path], follow: bool, lines: int, rank: int) -> None:
    from ablations.overview import one, overview
    from ablations.run_logs import log_files
    from slurm.logs import tail

    read: dict[Path, int] = {}
    for path in paths:
        if len(paths) > 1:
            click.echo(f"==> {path}", err=True)
        read[path] = path.stat().st_size
        for line in tail(path).splitlines()[-lines:] if lines else []:
            click.echo(line)
    asked = time.monotonic()
    while follow:
        for path in log_files(view.run_dir, view.token, rank):
            if path.stat().st_size > read.get(path, 0):
                with path.open("rb") as file:
                    file.seek(read.get(path, 0))
                    new = file.read()
                read[path] = read.get(path, 0) + len(new)
                click.echo(new.decode(errors="replace"), nl=False)
        if view.state in ENDED:
            return
        if time.monotonic() - asked > STATE_SECONDS or not read:
            asked = time.monotonic()
            view = one(overview(results), view.run)
        time.sleep(LOOK_SECONDS)
