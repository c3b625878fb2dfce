"""Quantities over epochs as lines: a series for each experiment, a band over its runs.

The frame behind such a figure has the columns `COLUMNS`: one row for each `series`, `quantity` and epoch,
with `mean`, `low` and `high` over `runs` of the `of` runs there are in all; `band` says what low and high
are.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats

from analysis.errors import NothingToShow
from analysis.statistics.seeds import LEVEL

FEW = 5  # runs; below it an interval by t says more about t than about the runs
BANDS = ("min–max", "95 % t-interval")
COLUMNS = ("series", "quantity", "epoch", "mean", "low", "high", "runs", "of", "band")


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
