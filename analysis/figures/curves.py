"""What happened over the epochs: losses (Fig. 11), AP, learning rates, speed, conflict between tasks.

Each figure is a pair: `…_data` turns the frame of `analysis.runs.load_metrics` into the frame behind the
figure, and the function without `_data` draws that. Runs may be of any number and have come to any epoch.
The frames are those of `analysis.series`.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.errors import NothingToShow
from analysis.figures.style import GREY, WIDTHS, figure, legend, look, styled
from analysis.series import BANDS, FEW, over_runs, series_names

MARKS = 8  # markers along a line
LINE = 0.16  # inches, height of a line of the legend
LOSSES = {"loss/box": "box", "loss/obj": "objectness", "loss/cls": "classification"}
RATES = {"lr/weights": "weights", "lr/bias": "biases"}
CONFLICT = "conflict/"
UNITS = (("hours", 1), ("minutes", 60), ("seconds", 3600))


def losses_data(metrics: pd.DataFrame) -> pd.DataFrame:
    """Fig. 11: box, objectness and classification loss (gains applied, batch factor not) over epochs.

    Raises NothingToShow where no run detects and has finished an epoch.
    """
    return over_runs(metrics, LOSSES, "a loss of detection")


@styled()
def losses(data: pd.DataFrame) -> Figure:
    """Fig. 11: three panels over epochs, a line for each experiment, a band over its seeds."""
    made, axes = figure("page", 2.6, columns=3)
    styles = looks(data)
    for each, (column, name) in zip(axes.flat, LOSSES.items(), strict=True):
        lines(each, data[data["quantity"] == column], styles)
        each.set(title=name, xlabel="epoch")
    axes[0, 0].set_ylabel("loss")
    explained(made, data)
    return made


def ap_data(metrics: pd.DataFrame) -> pd.DataFrame:
    """AP on the validation images (percent) over the epochs that were evaluated, by the averaged weights.

    Raises NothingToShow where no epoch was evaluated.
    """
    return over_runs(_percent(metrics), {"AP": "AP"}, "AP")


@styled()
def ap(data: pd.DataFrame) -> Figure:
    """AP in percent over epochs."""
    return _single(data, "AP (%)")


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
    known = _percent(metrics).sort_values(["run", "epoch"])
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
    return _single(data.assign(spent=factor * data["hours"]), "AP (%)", "spent", f"device {unit} of training")


def learning_rate_data(metrics: pd.DataFrame) -> pd.DataFrame:
    """Learning rates of weights and biases at the end of each epoch; equal series become one.

    Raises NothingToShow without epochs.
    """
    data = over_runs(metrics, RATES, "a learning rate")
    curves = data.assign(mean=data["mean"].round(12)).groupby("series")["mean"].agg(tuple)
    alike = [list(group.index) for _, group in curves.groupby(curves)]
    names = {each[0]: _with_others(each) for each in alike}
    kept = data[data["series"].isin(names)]
    return kept.assign(series=kept["series"].map(names))


def _with_others(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} alike"


@styled()
def learning_rate(data: pd.DataFrame) -> Figure:
    """Learning rates over epochs, logarithmic: weights (with the implicit vectors) and biases."""
    made, axes = figure("page", 2.4, columns=2)
    styles = looks(data)
    for each, (column, name) in zip(axes.flat, RATES.items(), strict=True):
        lines(each, data[data["quantity"] == column], styles)
        each.set(title=name, xlabel="epoch")
        if (data["mean"] > 0).any():
            each.set_yscale("log")
    axes[0, 0].set_ylabel("learning rate")
    explained(made, data)
    return made


def speed_data(metrics: pd.DataFrame) -> pd.DataFrame:
    """Images a second in training, of all ranks together. Raises NothingToShow without epochs."""
    return over_runs(metrics, {"images_per_second": "speed"}, "images per second")


@styled()
def speed(data: pd.DataFrame) -> Figure:
    """Images a second over epochs."""
    made = _single(data, "images / s")
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
    pairs = list(dict.fromkeys(data["quantity"]))
    made, axes = figure("page", 2.4, columns=len(pairs), sharey=True)
    styles = looks(data)
    for each, pair in zip(axes.flat, pairs, strict=True):
        each.axhline(0, color=GREY, linewidth=0.8)
        lines(each, data[data["quantity"] == pair], styles)
        each.set(title=pair.removeprefix(CONFLICT).replace("-", " and "), xlabel="epoch")
    axes[0, 0].set_ylabel("cosine of task gradients")
    explained(made, data)
    return made


def _percent(metrics: pd.DataFrame) -> pd.DataFrame:
    return metrics.assign(AP=100 * metrics["AP"].astype(float)) if "AP" in metrics else metrics


def _single(data: pd.DataFrame, label: str, x: str = "epoch", xlabel: str = "epoch") -> Figure:
    made, axes = figure("column", 2.2)
    lines(axes[0, 0], data, looks(data), x)
    axes[0, 0].set(xlabel=xlabel, ylabel=label)
    explained(made, data)
    return made


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
