"""`ablate logs`: what a run printed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations.options import results_option

if TYPE_CHECKING:
    from ablations.overview import RunView

LOOK_SECONDS = 0.5
STATE_SECONDS = 10.0  # between two questions to the scheduler while following
ENDED = ("done", "failed", "cancelled", "interrupted", "incomplete", "not sent", "preempted", "unreadable")


@click.command("logs")
@click.argument("run", metavar="RUN")
@results_option
@click.option("-f", "--follow", is_flag=True, help="Go on printing until the run ends or Ctrl-C.")
@click.option(
    "-n", "--lines", type=click.IntRange(min=0), default=40, show_default=True, help="From the end."
)
@click.option(
    "--rank", type=click.IntRange(min=0), default=0, show_default=True, help="Of several processes."
)
def command(run: str, results: Path, follow: bool, lines: int, rank: int) -> None:
    """Print the end of what RUN (a run's name or its beginning) has written, on a cluster or here."""
    from ablations.overview import chosen, overview
    from yolor_core.errors import RunError

    views = chosen(overview(results), [run])
    if len(views) > 1:
        raise RunError(
            f"{run!r} means {len(views)} runs: {', '.join(view.run for view in views[:6])}; name one"
        )
    (view,) = views
    paths = log_files(view, rank)
    if not paths and not (follow and view.state in ("queued", "starting")):
        raise RunError(
            f"{view.run} ({view.state}) has written nothing" + (f": {view.reason}" if view.reason else "")
        )
    try:
        _print(view, results, paths, follow, lines, rank)
    except KeyboardInterrupt:
        return


def _print(view: RunView, results: Path, paths: list[Path], follow: bool, lines: int, rank: int) -> None:
    from ablations.overview import chosen, overview
    from slurm.ending import tail

    read: dict[Path, int] = {}
    for path in paths:
        if len(paths) > 1:
            click.echo(f"==> {path}", err=True)
        read[path] = path.stat().st_size
        for line in tail(path).splitlines()[-lines:] if lines else []:
            click.echo(line)
    asked = time.monotonic()
    while follow:
        for path in log_files(view, rank):
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
            (view,) = chosen(overview(results), [view.run])
        time.sleep(LOOK_SECONDS)


def log_files(view: RunView, rank: int = 0) -> list[Path]:
    """The log of a run's last job, or those of its last start on this machine."""
    log = view.token.log if view.token else None
    if log is not None:
        mine = log.with_name(log.name.replace("_0_log", f"_{rank}_log"))
        # Before its processes start, the job's script writes into the first one's file.
        return [mine] if mine.exists() else []
    starts = sorted(path for path in (view.run_dir / "logs").glob("*") if path.is_dir())
    return sorted(p for p in starts[-1].glob("*_log.*") if p.stat().st_size) if starts else []
