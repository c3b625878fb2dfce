"""`ablate tables`: the paper's cells beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations.options import which_runs

if TYPE_CHECKING:
    import pandas as pd

    from ablations.costs import Cost
    from ablations.table import Table
    from analysis.tables import FilledTable

FEW = 3  # things named in one line
FORMATS = ("text", "markdown", "csv", "latex", "html", "json")  # of analysis.formats, which is slow to import


@click.command("tables")
@click.argument("names", nargs=-1, metavar="[TABLE|FILE.py]...")
@which_runs
@click.option(
    "--format",
    "form",
    default="text",
    show_default=True,
    metavar="FORMAT",
    help="text, markdown, csv, latex, html or json.",
)
@click.option(
    "--images",
    type=click.IntRange(min=200),
    metavar="RESAMPLES",
    help="Also the effect on images like these: bootstrap the validation images so often, as 1000.",
)
def command(
    names: tuple[str, ...],
    form: str,
    profile: str,
    results: Path,
    seeds: list[int] | None,
    overrides: tuple[str, ...],
    fingerprint: str | None,
    source: str | None,
    mixed: bool,
    images: int | None,
) -> None:
    """Print tables: the paper's cell, ours, and the difference to the row's baseline in both.

    Tables 1-8 without names; 9, A1, A2, the extended 3x and 6x, and controls have to be named. Images per
    second, and rows of other people's models, are quoted from the paper.
    """
    from ablations.profiles import profile_named
    from ablations.registry import as_overrides, select_tables
    from yolor_core.errors import UnknownNameError

    if form not in FORMATS:
        raise UnknownNameError("format", form, FORMATS)
    tables = select_tables(names)
    profile_named(profile)
    parsed = as_overrides(overrides)

    from analysis.formats import render
    from analysis.runs import load_runs
    from analysis.tables import fill_table

    everything = load_runs(results)
    if everything.empty:
        click.echo(f"note: no runs in {results / 'runs'}; another folder is named by --results", err=True)
    _name_unreadable(everything)
    runs = kept(everything, fingerprint, source)
    filled = [fill_table(t, profile, runs, parsed, costs_of(t), seeds, mixed) for t in tables]
    if images is not None:
        from ablations.machine import cores
        from analysis.other_images import with_other_images

        filled = [with_other_images(each, runs, parsed, images, threads=cores()) for each in filled]
    click.echo(render(filled, form), nl=False)
    _hint_at_settings(filled, profile, runs, overrides)


def _name_unreadable(runs: pd.DataFrame) -> None:
    """One line on stderr for run folders whose numbers are not in the tables because they are damaged."""
    from analysis.runs import UNREADABLE

    damaged = runs[runs["state"] == UNREADABLE]
    if damaged.empty:
        return
    named = [
        reason if path in reason else f"{path}: {reason}"
        for path, reason in zip(damaged["path"], damaged["reason"].astype(str), strict=True)
    ]
    more = f"; and {len(named) - FEW} more" if len(named) > FEW else ""
    count = "1 run folder" if len(named) == 1 else f"{len(named)} run folders"
    click.echo(f"{count} cannot be read: {'; '.join(named[:FEW])}{more}", err=True)


def _hint_at_settings(
    filled: Sequence[FilledTable], profile: str, runs: pd.DataFrame, overrides: Sequence[str]
) -> None:
    """One line on stderr where rows say that they were not run, and were, with other settings."""
    from ablations.registry import resolve
    from analysis.cells import NOT_RUN
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
        more = f" and {len(slugs) - FEW} more" if len(slugs) > FEW else ""
        click.echo(
            f"note: runs with other settings exist of {', '.join(slugs[:FEW])}{more}: repeat the --set "
            "options of their launch to see them",
            err=True,
        )


def costs_of(table: Table) -> dict[str, Cost]:
    """Counted on full-size models; torch is imported only for a table that shows counts."""
    from ablations.table import COUNTED

    if not set(table.metrics) & set(COUNTED):
        return {}
    from ablations.costs import model_cost

    return {
        row.experiment.slug: model_cost(row.experiment, row.fused)
        for row in table.rows
        if row.experiment is not None
    }


def kept(runs: pd.DataFrame, fingerprint: str | None, source: str | None) -> pd.DataFrame:
    """Those whose data and sources begin so. Raises UnknownNameError where none do, listing what there is."""
    return _beginning(_beginning(runs, "fingerprint", fingerprint), "source_hash", source)


def _beginning(runs: pd.DataFrame, column: str, prefix: str | None) -> pd.DataFrame:
    if prefix is None:
        return runs
    from yolor_core.errors import UnknownNameError

    known = sorted(set(runs[column].dropna()))
    kept = runs[runs[column].fillna("").str.startswith(prefix)]
    if kept.empty:
        raise UnknownNameError(column.replace("_", " "), prefix, known)
    return kept
