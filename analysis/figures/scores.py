"""Final scores: every run's AP, the difference of every row to its baseline, and where two runs differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from ablations.table import DETECTION
from analysis.comparison import Comparison, Difference
from analysis.errors import NothingToShow
from analysis.figures.style import GREY, PALETTE, figure, legend, signed, styled
from analysis.statistics.seeds import over_seeds
from analysis.tables.fill import FilledTable, tidy

LINE, REST = 0.2, 0.8  # inches: a row of a figure, and all that is no row
CLASSES = 20  # of which a comparison shows the difference
RING = {"markerfacecolor": "none", "markersize": 6.0, "zorder": 3}
COMPARED = ("kind", "name", "run_a", "run_b", "a", "b", "delta", "low", "high")
EFFECT = (
    "table", "row", "experiment", "delta", "delta_low", "delta_high", "pairs", "paper_delta", "p_holm",
    "verdict",
)  # fmt: skip


def ap_by_run_data(runs: pd.DataFrame) -> pd.DataFrame:
    """Final AP in percent, one row per run, with mean and 95 % interval over the seeds of its experiment.

    Args:
        runs: of `analysis.runs.load_runs`, of one profile.

    Raises:
        NothingToShow: no run has an AP.
    """
    scored = runs[(runs["state"] == "done") & runs["AP"].notna()]
    if scored.empty:
        raise NothingToShow("No finished run has an AP yet; `ablate launch` makes runs.")
    frame = scored[["experiment", "run", "seed", "AP"]].copy()
    seeds = frame.groupby(["experiment", "seed"])["AP"].mean()
    found = {name: over_seeds(list(values)) for name, values in seeds.groupby(level="experiment")}
    frame["mean"] = [found[name].mean for name in frame["experiment"]]
    frame["low"] = [found[name].low for name in frame["experiment"]]
    frame["high"] = [found[name].high for name in frame["experiment"]]
    frame[["low", "high"]] = frame[["low", "high"]].astype(float)
    return frame.sort_values(["mean", "experiment", "seed"], ascending=[False, True, True], ignore_index=True)


@styled()
def ap_by_run(data: pd.DataFrame) -> Figure:
    """Every run a ring, the mean a bar across, its 95 % interval a line; the best experiment on top."""
    places, names = pd.factorize(data["experiment"])
    made, axes = figure("page", REST + LINE * len(names))
    axis = axes[0, 0]
    axis.hlines(places, data["low"], data["high"], color=PALETTE[0], linewidth=1.5)
    axis.plot(data["mean"], places, "|", markersize=9, markeredgewidth=1.5, color=PALETTE[0])
    axis.plot(data["AP"], places, "o", markerfacecolor="none", color=PALETTE[1])
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel("AP (%)")
    return made


def effects_by_row_data(filled: Sequence[FilledTable]) -> pd.DataFrame:
    """Difference in AP (percent) of every row to its baseline, with its 95 % interval and the paper's.

    Raises NothingToShow where no row and its baseline have finished with a seed in common.
    """
    cells = tidy(filled) if filled else pd.DataFrame(columns=[*EFFECT, "metric"])
    frame = cells[(cells["metric"] == "AP") & cells["delta"].notna()][list(EFFECT)]
    if frame.empty:
        raise NothingToShow("No row and its baseline have both finished with the same seed yet.")
    numbers = ["delta", "delta_low", "delta_high", "paper_delta", "p_holm"]
    frame[numbers] = frame[numbers].astype(float)
    return frame.reset_index(drop=True)


@styled()
def effects_by_row(data: pd.DataFrame) -> Figure:
    """Ours a dot with its interval, the paper's a diamond; a comparison that several tables have, once."""
    data = data.drop_duplicates(["experiment", "delta", "delta_low", "delta_high"])
    made, axes = figure("page", REST + LINE * len(data))
    axis = axes[0, 0]
    axis.axvline(0, color=GREY, linewidth=0.8)
    places = range(len(data))
    axis.hlines(places, data["delta_low"], data["delta_high"], color=PALETTE[0], linewidth=1.5)
    axis.plot(data["delta"], places, "o", color=PALETTE[0], label="here, with 95 % interval over seeds")
    axis.plot(data["paper_delta"], places, "D", markerfacecolor="none", color=PALETTE[1], label="the paper")
    axis.set_yticks(places, [f"{t}: {r}" for t, r in zip(data["table"], data["row"], strict=True)])
    axis.set_ylim(len(data) - 0.5, -0.5)
    axis.set_xlabel("Δ AP against the row's baseline (percentage points)")
    legend(made, made.axes)
    return made


def differences_data(comparison: Comparison, a: str, b: str) -> pd.DataFrame:
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
    data = pd.DataFrame([*scores, *classes], columns=list(COMPARED)).dropna(subset=["delta"])
    if data.empty:
        raise NothingToShow(f"No image has true boxes, so {a} and {b} have no AP that could differ.")
    return data.reset_index(drop=True)


@styled()
def differences(data: pd.DataFrame) -> Figure:
    """A forest plot: both runs' scores on the left, their difference with its interval on the right.

    Of the classes the `CLASSES` that differ most are drawn.
    """
    classes = data[data["kind"] == "class"]
    shown = pd.concat([data[data["kind"] == "score"], classes.head(CLASSES)], ignore_index=True)
    made, axes = figure("page", REST + LINE * (len(shown) + 1), columns=2, sharey=True, width_ratios=(2, 3))
    places = np.arange(len(shown)) + (shown["kind"] == "class").to_numpy(int)  # a gap between the kinds
    left, right = axes[0]
    top = max(shown[["a", "b"]].to_numpy(float).max(), 1.0)
    left.hlines(places, shown["a"], shown["b"], color=GREY, linewidth=0.6)
    left.plot(shown["a"], places, "o", color=PALETTE[0], label=f"A: {shown['run_a'].iloc[0]}", **RING)
    left.plot(shown["b"], places, "s", color=PALETTE[1], markersize=3, label=f"B: {shown['run_b'].iloc[0]}")
    left.set(xlabel="AP (%)", xlim=(-0.03 * top, 1.05 * top))
    left.set_yticks(places, shown["name"])
    left.set_ylim(places.max() + 0.7, -0.7)
    right.axvline(0, color=GREY, linewidth=0.8)
    right.hlines(places, shown["low"], shown["high"], color="black", linewidth=1.2)
    right.plot(shown["delta"], places, "D", color="black")
    right.set_xlabel("B − A (percentage points)")
    right.tick_params(labelleft=False)
    margin = blended_transform_factory(right.transAxes, right.transData)
    for place, value in zip(places, shown["delta"], strict=True):
        right.text(1.01, place, signed(value, 1), transform=margin, va="center", fontsize=7)
    hidden = f"; the {CLASSES} of {len(classes)} classes that differ most" if len(classes) > CLASSES else ""
    legend(made, [left], 2, f"Bars: 95 % over the images, not over trainings{hidden}.")
    return made


def _row(kind: str, each: Difference, a: str, b: str) -> tuple[object, ...]:
    interval = each.bca or each.percentile or (None, None)
    values = (each.a, each.b, each.delta, *interval)
    return (kind, each.name, a, b, *(np.nan if value is None else value for value in values))
