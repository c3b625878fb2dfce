"""`ablate report`: tables, figures and runs as a folder of web pages."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

import click

from ablations.options import Folder, completing, examples, which_runs
from yolor_core.errors import counted

if TYPE_CHECKING:
    import pandas as pd

    from analysis.figures.catalogue import Drawing


@click.command(
    "report",
    epilog=examples("ablate report", "ablate report 1 4 --results results/published/mini --out report"),
)
@click.argument("names", nargs=-1, metavar="[TABLE|FILE.py]...", shell_complete=completing("tables"))
@which_runs
@click.option(
    "--out",
    type=Folder(path_type=Path),
    metavar="DIR",
    help="Folder to write; an older report in it is replaced.  [default: report in the folder of results]",
)
def command(
    names: tuple[str, ...],
    profile: str,
    results: Path,
    seeds: list[int] | None,
    out: Path | None,
    overrides: tuple[str, ...],
    fingerprint: str | None,
    source: str | None,
    mixed: bool,
    margin: float,
) -> None:
    """Write the tables (1-8 without names), the figures and a page for every run as a folder of web pages.

    Open its index.html in a browser: nothing else is needed, no server and no network.
    """
    from ablations.plan import is_published
    from ablations.profiles import profile_named
    from ablations.registry import as_overrides, select_tables

    select_tables(names)  # so that bad input is answered at once
    profile_named(profile)
    parsed = as_overrides(overrides)
    if out is None and is_published(results):
        raise click.UsageError(f"{results} is a published study, which stays as it is; name another --out")

    from ablations.costs import costs_of
    from analysis.report import write_report
    from analysis.runs import kept, load_runs
    from analysis.study import open_study

    runs = _as_status_says(load_runs(results), results)
    runs = kept(runs, fingerprint, source)
    further = {"everything": runs, "mixed": mixed, "costs": costs_of, "margin": margin}
    study = open_study(results, profile, names, parsed, seeds, **further)
    written = write_report(study, out or results / "report", _logs, watch=_progress)
    for text in written.warnings:
        click.echo(text, err=True)
    if written.nothing:
        empty = counted(len(written.nothing), "figure")
        click.echo(f"nothing to show in {empty}; the report says why", err=True)
    numbers = {"table": written.tables, "figure": written.figures, "run": written.runs}
    made = ", ".join(counted(number, thing) for thing, number in numbers.items())
    click.echo(f"{made}: {written.index}")


def _progress(figures: Sequence[Drawing]) -> Iterator[Drawing]:
    """The figures, with a line on the terminal that says how many are drawn and which one is."""
    if not sys.stderr.isatty():
        yield from figures
        return
    with click.progressbar(
        figures,
        label="figures",
        show_pos=True,
        item_show_func=lambda each: shorten(each.title, 32, placeholder=" ...") if each else "",
        width=20,
        file=sys.stderr,
    ) as bar:
        yield from bar


def _as_status_says(runs: pd.DataFrame, results: Path) -> pd.DataFrame:
    """A run that says it is running, and is not, counts as interrupted."""
    from ablations.overview import overview

    states = {str(view.run_dir): str(view.state) for view in overview(results)}
    unfinished = runs["state"].isin(["running", "queued", "preempted"])
    return runs.assign(
        state=[
            states.get(path, state) if open_ else state
            for path, state, open_ in zip(runs["path"], runs["state"], unfinished, strict=True)
        ]
    )


def _logs(run_dir: Path) -> Sequence[Path]:
    from ablations.overview import log_files
    from slurm.tokens import current

    return log_files(run_dir, current(run_dir))
