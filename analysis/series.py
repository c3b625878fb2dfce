"""Quantities over epochs as lines: a series for each experiment, a band over its runs.

The frame behind such a figure has the columns `COLUMNS`: one row for each `series`, `quantity` and epoch,
with `mean`, `low` and `high` over `runs` of the `of` runs there are in all; `band` says what low and high
are.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from analysis.errors import NothingToShow
from analysis.statistics.seeds import LEVEL
from analysis.style import WIDTHS, legend, look

FEW = 5  # runs; below it an interval by t says more about t than about the runs
BANDS = ("min–max", "95 % t-interval")
COLUMNS = ("series", "quantity", "epoch", "mean", "low", "high", "runs", "of", "band")
MARKS = 8  # markers along a line
LINE = 0.16  # inches, height of a line of the legend


def series_names(metrics: pd.DataFrame) -> pd.Series:
    """Name of the series that each row belongs to.

    Runs of one experiment and seed that differ in something else are not seeds of one series: the end of
    their ids tells them apart.
    """
    names = metrics["experiment"].astype(str)
    if metrics["profile"].nunique() > 1:
        names = names + " (" + metrics["profile"].astype(str) + ")"
    twins = metrics.groupby([names, "seed"])["run"].transform("nunique") > 1
    return names.where(~twins.groupby(names).transform("any"), metrics["run"].astype(str))


def over_runs(metrics: pd.DataFrame, quantities: Iterable[str], what: str) -> pd.DataFrame:
    """The frame behind a figure. Missing values are left out, and runs that have none at all."""
    present = [name for name in quantities if name in metrics]
    wide = metrics.assign(series=series_names(metrics))
    long = wide.melt(["series", "run", "epoch"], present, "quantity", "value")
    values = pd.to_numeric(long["value"]).replace([np.inf, -np.inf], np.nan)
    long = long.assign(value=values).dropna(subset=["value"])
    if long.empty:
        raise NothingToShow(f"No run has recorded {what} of a finished epoch yet.")
    of = long.groupby(["series", "quantity"])["run"].nunique().rename("of").reset_index()
    return banded(long, ["series", "quantity", "epoch"]).merge(of)[list(COLUMNS)]


def banded(long: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Columns `by`, and `mean`, `low`, `high`, `runs` and `band` of the column `value` in each group.

    A group has one row for each run. Low and high are the extremes, of `FEW` runs and more the 95 %
    t-interval of the mean.
    """
    groups = long.groupby(by, observed=True, sort=False)["value"]
    found = groups.agg(["mean", "min", "max", "std", "count"]).reset_index()
    many = found["count"] >= FEW
    reach = stats.t.ppf(0.5 + LEVEL / 2, found["count"] - 1) * found["std"] / np.sqrt(found["count"])
    return found.assign(
        low=np.where(many, found["mean"] - reach, found["min"]),
        high=np.where(many, found["mean"] + reach, found["max"]),
        runs=found["count"],
        band=np.select([many, found["count"] > 1], BANDS[::-1], ""),
    )[[*by, "mean", "low", "high", "runs", "band"]]


def looks(data: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """How each series is drawn, the same in all panels of a figure."""
    return {series: look(place) for place, series in enumerate(sorted(set(data["series"])))}


def lines(axes: Axes, data: pd.DataFrame, styles: dict[str, dict[str, Any]], x: str = "epoch") -> None:
    """A line for each series as far as all its runs have come, and a thin one where only some have.

    Where there is a single epoch, the series stand side by side.
    """
    single = x == "epoch" and data["epoch"].nunique() == 1
    beside = np.linspace(-0.3, 0.3, data["series"].nunique() + 2)[1:-1] if single else np.zeros(len(styles))
    for place, (series, rows) in enumerate(data.sort_values("epoch").groupby("series")):
        style = styles[str(series)]
        rows = rows.assign(**{x: rows[x] + beside[place]})
        every = max(len(rows) // MARKS, 1)
        shared = rows[rows["runs"] == rows["of"]]
        rest = rows[rows["epoch"] >= shared["epoch"].max()] if len(shared) else rows
        axes.plot(shared[x], shared["mean"], label=str(series), markevery=every, **style)
        if len(shared) == 1:
            axes.vlines(shared[x], shared["low"], shared["high"], color=style["color"])
        axes.fill_between(shared[x], shared["low"], shared["high"], color=style["color"], alpha=0.2, lw=0)
        axes.plot(rest[x], rest["mean"], linewidth=0.5, **{**style, "marker": ""})
    if single:
        axes.set_xlim(data["epoch"].min() - 0.5, data["epoch"].max() + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=x == "epoch", min_n_ticks=1))


def explained(made: Figure, data: pd.DataFrame) -> None:
    """A legend below, for which the figure grows, that says what lines and bands are."""
    width, height = made.get_size_inches()
    columns = 3 if width > WIDTHS["column"] else 1
    title = textwrap.fill(_explanation(data), 40 * columns)
    rows = math.ceil(data["series"].nunique() / columns) + title.count("\n") + 1
    made.set_size_inches(width, height + LINE * rows)
    legend(made, made.axes, columns, title)


def _explanation(data: pd.DataFrame) -> str:
    least, most = data["of"].min(), data["of"].max()
    if most == 1:
        return "One run each."
    number = f"{least}" if least == most else f"{least} to {most}"
    bands = [band for band in BANDS if (data["band"] == band).any()]
    band = f"; band: {f' or, of {FEW} and more, '.join(bands)}" if bands else ""
    text = f"Line: mean of {number} runs{band}."
    thin = " Thin: some runs have not come so far." if (data["runs"] < data["of"]).any() else ""
    return text + thin
