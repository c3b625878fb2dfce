"""Where two runs differ: COCO's scores and the AP of each class, with intervals over the images."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory
from numpy.typing import NDArray

from ablations.table import DETECTION
from analysis.comparison import Comparison, Difference
from analysis.errors import NothingToShow
from analysis.figures.style import GREY, PALETTE, figure, legend, signed, styled

COLUMNS = ("kind", "name", "run_a", "run_b", "a", "b", "delta", "low", "high")
CLASSES = 20  # that the figure shows
RING = {"markerfacecolor": "none", "markersize": 6.0, "zorder": 3}
ROW, REST = 0.17, 1.1  # inches: a row of the figure, and all that is no row


def scores_data(comparison: Comparison, a: str, b: str) -> pd.DataFrame:
    """Scores of runs `a` and `b`, one row each, in percent: `kind` "score" (`DETECTION`), then "class" (AP).

    `low` and `high` bound b - a with 95 % over resamples of the images (BCa for scores, percentile for
    classes); they are missing where too few resamples have such boxes. Classes come by falling difference.
    Scores and classes that no image has are left out.

    Raises:
        NothingToShow: no score is defined for both.
    """
    of_kind = {m.name: m for m in comparison.metrics}
    scores = [_row("score", of_kind[name], a, b) for name in DETECTION if name in of_kind]
    classes = [_row("class", each, a, b) for each in comparison.classes]
    data = pd.DataFrame([*scores, *classes], columns=list(COLUMNS)).dropna(subset=["delta"])
    if data.empty:
        raise NothingToShow(f"No image has true boxes, so {a} and {b} have no AP that could differ.")
    return data.reset_index(drop=True)


@styled()
def scores(data: pd.DataFrame) -> Figure:
    """A forest plot: both runs' scores on the left, their difference with its interval on the right.

    Of the classes the `CLASSES` that differ most are drawn.
    """
    classes = data[data["kind"] == "class"]
    shown = pd.concat([data[data["kind"] == "score"], classes.head(CLASSES)], ignore_index=True)
    made, axes = figure("page", REST + ROW * (len(shown) + 1), columns=2, sharey=True, width_ratios=(2, 3))
    places = np.arange(len(shown)) + (shown["kind"] == "class").to_numpy(int)  # a gap between the kinds
    left, right = axes[0]
    names = shown["run_a"].iloc[0], shown["run_b"].iloc[0]
    top = max(shown[["a", "b"]].to_numpy(float).max(), 1.0)
    left.hlines(places, shown["a"], shown["b"], color=GREY, linewidth=0.6)
    left.plot(shown["a"], places, "o", color=PALETTE[0], label=f"A: {names[0]}", **RING)
    left.plot(shown["b"], places, "s", color=PALETTE[1], markersize=3, label=f"B: {names[1]}")
    left.set(xlabel="AP (%)", xlim=(-0.03 * top, 1.05 * top))
    left.set_yticks(places, shown["name"])
    left.set_ylim(places.max() + 0.7, -0.7)
    _forest(right, shown, places)
    hidden = f"; the {CLASSES} of {len(classes)} classes that differ most" if len(classes) > CLASSES else ""
    legend(made, [left], 2, f"Bars: 95 % over the images, not over trainings{hidden}.")
    return made


def _forest(axes: Axes, shown: pd.DataFrame, places: NDArray[np.int64]) -> None:
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.hlines(places, shown["low"], shown["high"], color="black", linewidth=1.2)
    axes.plot(shown["delta"], places, "D", color="black")
    axes.set_xlabel("B − A (percentage points)")
    axes.tick_params(labelleft=False)
    margin = blended_transform_factory(axes.transAxes, axes.transData)
    for place, value in zip(places, shown["delta"], strict=True):
        axes.text(1.01, place, signed(value, 1), transform=margin, va="center", fontsize=7)


def _row(kind: str, each: Difference, a: str, b: str) -> tuple[object, ...]:
    interval = each.bca or each.percentile or (None, None)
    values = (each.a, each.b, each.delta, *interval)
    return (kind, each.name, a, b, *(np.nan if value is None else value for value in values))
