"""`ablate tables`: the paper's cells beside ours. `ablate report`: they, figures and runs as web pages."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

import click

from ablations.options import FORMATS, Folder, Number, completing, examples, which_runs
from yolor_core.errors import counted, some_of

if TYPE_CHECKING:
    import pandas as pd

    from ablations.table import Table
    from analysis.figures.catalogue import Drawing
    from analysis.tables.fill import FilledTable

FEW = 3  # things named in one line


@click.command(
    "tables",
    epilog=examples(
        "ablate tables 1 controls", "ablate tables 8 --results results/published/mini --format markdown"
    ),
)
@click.argument("names", nargs=-1, metavar="[TABLE|FILE.py]...", shell_complete=completing("tables"))
@which_runs
@click.option(
    "--format",
    "form",
    default="text",
    show_default=True,
    metavar="FORMAT",
    shell_complete=completing("formats"),
    help="text, markdown, csv, latex, html or json.",
)
@click.option(
    "--metrics",
    metavar="NAMES",
    multiple=True,
    help="Columns to show, as in AP,'val loss'; by default the paper's.",
)
@click.option(
    "--images",
    type=Number(int, lambda value: value >= 200, "at least 200 resamples are needed"),
    metavar="RESAMPLES",
    help="Also the effect on images like these, by so many resamples of the validation images, e.g. 1000.",
)
def tables_command(
    names: tuple[str, ...],
    form: str,
    metrics: tuple[str, ...],
    profile: str,
    results: Path,
    seeds: list[int] | None,
    overrides: tuple[str, ...],
    fingerprint: str | None,
    source: str | None,
    mixed: bool,
    margin: float,
    images: int | None,
) -> None:
    """Print tables: the paper's cell, ours, and the difference to the row's baseline in both.

    Tables 1-8 without names; 9, A1, A2, the extended 3x and 6x, and controls have to be named. Images per
    second, and rows of other people's models, are quoted from the paper.

    A table that is wider than the terminal shows AP alone, with Δ, interval and verdict first. In a pipe or
    a file, tables are as wide as they are, unless COLUMNS is set.
    """
    from ablations.profiles import profile_named
    from ablations.registry import as_overrides, select_tables
    from yolor_core.errors import UnknownNameError

    if form not in FORMATS:
        raise UnknownNameError("format", form, FORMATS)
    tables = _of_metrics(select_tables(names), metrics)
    profile_named(profile)
    parsed = as_overrides(overrides)

    from ablations.costs import costs_of
    from analysis.runs import kept, load_runs
    from analysis.study import open_study
    from analysis.tables.fill import MixedRunsError
    from analysis.tables.formats import render

    everything = load_runs(results)
    if everything.empty:
        click.echo(f"note: no runs in {results / 'runs'}; another folder is named by --results", err=True)
    name_unreadable(everything)
    runs = kept(everything, fingerprint, source)
    further = {"everything": runs, "mixed": mixed, "costs": costs_of, "margin": margin}
    study = replace(open_study(results, profile, names, parsed, seeds, **further), tables=tuple(tables))
    for refusal in study.refused.values():
        raise MixedRunsError(refusal)
    filled = list(study.filled.values())
    if images is not None:
        from ablations.plan import cores
        from analysis.tables.other_images import with_other_images

        filled = [with_other_images(each, images, threads=cores()) for each in filled]
    width = shutil.get_terminal_size((0, 0)).columns or None  # 0 where there is neither terminal nor COLUMNS
    click.echo(render(filled, form, width, every=bool(metrics)), nl=False)
    _hint_at_settings(filled, profile, runs, overrides)


def _of_metrics(tables: Sequence[Table], metrics: Sequence[str]) -> Sequence[Table]:
    """The tables with these columns alone; one that has none of them is left out, with a line on stderr.

    Every table has the validation losses. Raises UnknownNameError for a column that no table
    has, ConfigError for an empty name.
    """
    if not metrics:
        return tables
    from ablations.table import LOSSES
    from yolor_core.errors import ConfigError, UnknownNameError

    known = dict.fromkeys([*(metric for table in tables for metric in table.metrics), *LOSSES])
    wanted = dict.fromkeys(name.strip() for name in ",".join(metrics).split(","))
    for name in wanted:
        if not name:
            raise ConfigError(f"--metrics has an empty name; allowed: {', '.join(known)}")
        if name not in known:
            raise UnknownNameError("metric", name, known)
    found = []
    for table in tables:
        if kept := tuple(name for name in wanted if name in table.metrics or name in LOSSES):
            found.append(replace(table, metrics=kept))
        else:
            said = f"note: table {table.name} has none of these; it has {', '.join(table.metrics)}"
            click.echo(said, err=True)
    return found


def name_unreadable(runs: pd.DataFrame) -> None:
    """One line on stderr for run folders whose numbers are not in the tables because they are damaged."""
    from yolor_core.runs import State

    damaged = runs[runs["state"] == State.UNREADABLE]
    if damaged.empty:
        return
    named = [
        reason if path in reason else f"{path}: {reason}"
        for path, reason in zip(damaged["path"], damaged["reason"].astype(str), strict=True)
    ]
    cut = some_of(named, FEW, "; ")
    click.echo(f"{counted(len(named), 'run folder')} cannot be read: {cut}", err=True)


def _hint_at_settings(
    filled: Sequence[FilledTable], profile: str, runs: pd.DataFrame, overrides: Sequence[str]
) -> None:
    """One line on stderr where rows say that they were not run, and were, with other settings."""
    from ablations.registry import resolve
    from analysis.tables.cells import NOT_RUN
    from yolor_core.identity import signature

    rows = [(each, row) for each in filled for row in each.table.rows]
    missing = [r.experiment for each, r in rows if r.experiment and each.status[r.label] == NOT_RUN]
    same = {signature(resolve(experiment, profile, overrides)) for experiment in missing}
    others = runs[
        runs["experiment"].isin([experiment.slug for experiment in missing])
        & (runs["profile"] == profile)
        & (runs["state"] == "done")
        & ~runs["signature"].isin(same)
    ]
    if not others.empty:
        slugs = list(dict.fromkeys(others["experiment"]))
        click.echo(
            f"note: runs with other settings exist of {some_of(slugs, FEW)}: repeat the --set "
            "options of their launch to see them",
            err=True,
        )


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
def report_command(
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
