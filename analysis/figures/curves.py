"""What happened over the epochs: losses (Fig. 11), AP, learning rates, speed, conflict between tasks.

Each figure is a pair: `…_data` turns the frame of `analysis.runs.load_metrics` into the frame behind the
figure, and the function without `_data` draws that. Runs may be of any number and have come to any epoch.
The frames are those of `analysis.series`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.errors import NothingToShow
from analysis.figures.style import GREY, Look, Width, band, figure, legend, looks, plain, styled, whole
from analysis.series import BANDS, FEW, over_runs, series_names

LOSSES = {"loss/box": "box", "loss/obj": "objectness", "loss/cls": "classification"}
RATES = {"lr/weights": "weights", "lr/bias": "biases"}
CONFLICT = "conflict/"
UNITS = (("hours", 1), ("minutes", 60), ("seconds", 3600))
MARKS = 8  # markers along a line
MANY = 6  # series; with more of them a single panel is as wide as the page, for its legend


def losses_data(metrics: pd.DataFrame) -> pd.DataFrame:
    """Fig. 11: box, objectness and classification loss (gains applied, batch factor not) over epochs.

    Raises NothingToShow where no run detects and has finished an epoch.
    """
    return over_runs(metrics, LOSSES, "a loss of detection")


@styled()
def losses(data: pd.DataFrame) -> Figure:
    """Fig. 11: three panels over epochs, a line for each experiment, a band over its seeds."""
    return _panels(data, LOSSES, "loss")


def ap_data(metrics: pd.DataFrame) -> pd.DataFrame:
    """AP on the validation images (percent) over the epochs that were evaluated, by the averaged weights.

    Raises NothingToShow where no epoch was evaluated.
    """
    return over_runs(metrics, {"AP": "AP"}, "AP")


@styled()
def ap(data: pd.DataFrame) -> Figure:
    """AP in percent over epochs."""
    return _panels(data, {"AP": ""}, "AP (%)")


def ap_hours_data(metrics: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """AP (percent) after so many device hours of training; `hours` are the mean over the runs at that epoch.

    A device is a GPU, or a process where there is none. Hours are the seconds of all epochs so far,
    evaluation not counted, times the ranks of the run.

    Args:
        metrics: of `load_metrics`.
        runs: of `load_runs`, for their `ranks`.

    Raises:
        NothingToShow: no epoch was evaluated.
    """
    ranks = runs.set_index("run")["ranks"].astype(float)
    known = metrics.sort_values(["run", "epoch"])
    if "seconds" not in known:
        raise NothingToShow("No run has recorded its seconds, so AP cannot be shown over device hours.")
    spent = known.groupby("run")["seconds"].cumsum() * known["run"].map(ranks).fillna(1.0) / 3600
    data = over_runs(known, {"AP": "AP"}, "AP")
    hours = known.assign(series=series_names(known), hours=spent).dropna(subset=["AP"])
    mean = hours.groupby(["series", "epoch"], as_index=False)["hours"].mean()
    return data.merge(mean, on=["series", "epoch"])


@styled()
def ap_hours(data: pd.DataFrame) -> Figure:
    """AP in percent over device hours, or minutes or seconds where no run took an hour."""
    unit, factor = next(each for each in UNITS if data["hours"].max() * each[1] >= 1 or each is UNITS[-1])
    spent = data.assign(spent=factor * data["hours"])
    return _panels(spent, {"AP": ""}, "AP (%)", "spent", f"device {unit} of training")


def learning_rate_data(metrics: pd.DataFrame) -> pd.DataFrame:
    """Learning rates of weights and biases at the end of each epoch; equal series become one.

    Raises NothingToShow without epochs.
    """
    data = over_runs(metrics, RATES, "a learning rate")
    curves = data.assign(mean=data["mean"].round(12)).groupby("series")["mean"].agg(tuple)
    alike = [list(group.index) for _, group in curves.groupby(curves)]
    names = {first: f"{first} and {len(others)} alike" if others else first for first, *others in alike}
    kept = data[data["series"].isin(names)]
    return kept.assign(series=kept["series"].map(names))


@styled()
def learning_rate(data: pd.DataFrame) -> Figure:
    """Learning rates over epochs, logarithmic: weights (with the implicit vectors) and biases."""
    made = _panels(data, RATES, "learning rate")
    for each in made.axes if (data["mean"] > 0).any() else ():
        each.set_yscale("log")
        plain(each.yaxis, (1, 2, 5))
    return made


def speed_data(metrics: pd.DataFrame) -> pd.DataFrame:
    """Images a second in training, of all ranks together. Raises NothingToShow without epochs."""
    return over_runs(metrics, {"images_per_second": "speed"}, "images per second")


@styled()
def speed(data: pd.DataFrame) -> Figure:
    """Images a second over epochs."""
    made = _panels(data, {"images_per_second": ""}, "images / s")
    made.axes[0].set_ylim(bottom=0)
    return made


def conflict_data(metrics: pd.DataFrame) -> pd.DataFrame:
    """Cosines between the gradients of two tasks in the shared layers, means over the steps of an epoch.

    Raises NothingToShow where no run trains several tasks.
    """
    pairs = {str(name): "" for name in metrics.columns if str(name).startswith(CONFLICT)}
    if not pairs:
        raise NothingToShow(
            "No run has recorded how its tasks' gradients agree; only runs of several tasks do (Table 3)."
        )
    return over_runs(metrics, pairs, "a cosine of task gradients")


@styled()
def conflict(data: pd.DataFrame) -> Figure:
    """Cosines over epochs, a panel for each pair of tasks; below the line at 0 the tasks pull apart."""
    names = {pair: pair.removeprefix(CONFLICT).replace("-", " and ") for pair in data["quantity"].unique()}
    made = _panels(data, names, "cosine of task gradients", sharey=True)
    for each in made.axes:
        each.axhline(0, color=GREY, linewidth=0.8)
    return made


def _panels(
    data: pd.DataFrame,
    titles: Mapping[str, str],
    label: str,
    x: str = "epoch",
    xlabel: str = "epoch",
    **subplots: Any,
) -> Figure:
    """A panel for each quantity of `titles` in one row; a legend says what lines and bands are."""
    styles = looks(data["series"])
    width: Width = "page" if len(titles) > 1 or len(styles) > MANY else "column"
    made, axes = figure(width, 2.2, columns=len(titles), **subplots)
    for each, (quantity, title) in zip(axes.flat, titles.items(), strict=True):
        _lines(each, data[data["quantity"] == quantity], styles, x)
        each.set(title=title, xlabel=xlabel)
    axes[0, 0].set_ylabel(label)
    legend(made, made.axes, 3, _explanation(data))
    return made


def _lines(axes: Axes, data: pd.DataFrame, styles: Mapping[str, Look], x: str) -> None:
    """A line for each series as far as all its runs have come, and a thin one where only some have.

    Where there is a single epoch, the series stand side by side.
    """
    single = x == "epoch" and data["epoch"].nunique() == 1
    present = dict(list(data.sort_values("epoch").groupby("series")))
    beside = np.linspace(-0.3, 0.3, len(present) + 2)[1:-1] if single else np.zeros(len(present))
    for place, series in enumerate(each for each in styles if each in present):
        rows, style = present[series], styles[series]
        rows = rows.assign(**{x: rows[x] + beside[place]})
        every = max(len(rows) // MARKS, 1)
        shared = rows[rows["runs"] == rows["of"]]
        rest = rows[rows["epoch"] >= shared["epoch"].max()] if len(shared) else rows
        band(axes, shared[x], shared, series, **style, markevery=every)
        if len(shared) == 1:
            axes.vlines(shared[x], shared["low"], shared["high"], color=style["color"])
        axes.plot(rest[x], rest["mean"], linewidth=0.5, **{**style, "marker": ""})
    if single:
        axes.set_xlim(data["epoch"].min() - 0.5, data["epoch"].max() + 0.5)
    if x == "epoch":
        whole(axes.xaxis)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))


def _explanation(data: pd.DataFrame) -> str:
    least, most = data["of"].min(), data["of"].max()
    if most == 1:
        return "One run each."
    number = f"{least}" if least == most else f"{least} to {most}"
    bands = [name for name in BANDS if (data["band"] == name).any()]
    named = f"; band: {f' or, of {FEW} and more, '.join(bands)}" if bands else ""
    text = f"Line: mean of {number} runs{named}."
    thin = " Thin: some runs have not come so far." if (data["runs"] < data["of"]).any() else ""
    return text + thin
