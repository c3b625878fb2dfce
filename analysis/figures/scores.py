"""Final scores: every run's AP, the difference of every row to its baseline, and where two runs differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from ablations.table import DETECTION
from analysis.comparison import Comparison, Difference
from analysis.errors import NothingToShow
from analysis.figures.style import (
    GREY,
    KNOWN,
    LINE,
    PALETTE,
    REST,
    RING,
    Width,
    drawn,
    figure,
    legend,
    signed,
    spans,
)
from analysis.statistics.seeds import over_seeds
from analysis.tables.fill import FilledTable, tidy

THIN = {"linewidth": 1.3}  # intervals
CLASSES = 20  # of which a comparison shows the difference
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


@drawn
def ap_by_run(data: pd.DataFrame, width: Width = "column") -> Figure:
    """Every run a ring, the mean a bar across, its 95 % interval a line; the best experiment on top."""
    made, axes = figure(width, REST + LINE * data["experiment"].nunique())
    mark = {"marker": "|", "markersize": 8, "markeredgewidth": 1.5, "linestyle": "none", "err_kws": THIN}
    sns.pointplot(spans(data), x="value", y="experiment", color=PALETTE[0], ax=axes[0, 0], **mark, **KNOWN)
    sns.stripplot(data, x="AP", y="experiment", edgecolor=PALETTE[1], size=4, ax=axes[0, 0], **RING)
    axes[0, 0].set(xlabel="AP (%)", ylabel="")
    return made


def effects_by_row_data(filled: Sequence[FilledTable]) -> pd.DataFrame:
    """Difference in AP (percent) of every row to its baseline, with its 95 % interval and the paper's.

    Raises NothingToShow where no row and its baseline have finished with a seed in common.
    """
    cells = tidy(filled) if filled else pd.DataFrame(columns=[*EFFECT, "metric"])
    frame = cells[(cells["metric"] == "AP") & cells["delta"].notna()][list(EFFECT)]
    if frame.empty and filled and not any(each.variants for each in filled):
        raise NothingToShow("No row of these tables is compared in AP, or they do not show it.")
    if frame.empty:
        raise NothingToShow("No row and its baseline have both finished with the same seed yet.")
    numbers = ["delta", "delta_low", "delta_high", "paper_delta", "p_holm"]
    frame[numbers] = frame[numbers].astype(float)
    return frame.reset_index(drop=True)


@drawn
def effects_by_row(data: pd.DataFrame, width: Width = "column") -> Figure:
    """Ours a dot with its interval, the paper's a diamond; a comparison that several tables have, once."""
    data = data.drop_duplicates(["experiment", "delta", "delta_low", "delta_high"])
    data = data.assign(name=data["table"] + ": " + data["row"])
    ours = data.rename(columns={"delta": "mean", "delta_low": "low", "delta_high": "high"})
    made, axes = figure(width, REST + LINE * len(data))
    axis = axes[0, 0]
    axis.axvline(0, color=GREY, linewidth=0.8)
    here = {"color": PALETTE[0], "linestyle": "none", "markersize": 3.5, "err_kws": THIN}
    here["label"] = "here, with the 95 % interval of the tables"
    sns.pointplot(spans(ours), x="value", y="name", ax=axis, **here, **KNOWN)
    paper = {"edgecolor": PALETTE[1], "marker": "D", "size": 4, "label": "the paper"}
    sns.stripplot(data, x="paper_delta", y="name", ax=axis, **paper, **RING)
    axis.set(xlabel="Δ AP to its baseline (points)", ylabel="")
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


@drawn
def differences(data: pd.DataFrame, width: Width = "column") -> Figure:
    """A forest plot: both runs' scores on the left, their difference with its interval on the right.

    Of the classes the `CLASSES` that differ most are drawn.
    """
    classes = data[data["kind"] == "class"]
    shown = pd.concat([data[data["kind"] == "score"], classes.head(CLASSES)], ignore_index=True)
    made, axes = figure(width, REST + LINE * (len(shown) + 1), columns=2, sharey=True, width_ratios=(2, 3))
    left, right = axes[0]
    runs = {"a": f"A: {shown['run_a'].iloc[0]}", "b": f"B: {shown['run_b'].iloc[0]}"}
    scores = shown.melt("name", list(runs), var_name="run", value_name="AP")
    scores["run"] = scores["run"].map(runs)
    marks = {"hue": "run", "style": "run", "markers": ("o", "s"), "palette": PALETTE[:2], "s": 22}
    sns.scatterplot(scores, x="AP", y="name", ax=left, **marks)
    left.hlines(shown["name"], shown["a"], shown["b"], color=GREY, linewidth=0.6)
    top = max(shown[["a", "b"]].to_numpy(float).max(), 1.0)
    left.set(xlabel="AP (%)", ylabel="", xlim=(-0.05 * top, 1.08 * top), ylim=(len(shown) - 0.4, -0.6))
    for each in (left, right):
        each.axhline((shown["kind"] == "score").sum() - 0.5, color=GREY, lw=0.6, ls=":")
    right.axvline(0, color=GREY, linewidth=0.8)
    known = spans(shown.rename(columns={"delta": "mean"}))
    mark = {"color": "black", "marker": "D", "markersize": 3, "linestyle": "none", "err_kws": THIN}
    sns.pointplot(known, x="value", y="name", ax=right, **mark, **KNOWN)
    right.set(xlabel="B − A (points)", ylabel="")
    margin = blended_transform_factory(right.transAxes, right.transData)
    for name, value in zip(shown["name"], shown["delta"], strict=True):
        right.text(1.01, name, signed(value, 1), transform=margin, va="center", fontsize=7)
    hidden = f"; the {CLASSES} of {len(classes)} classes that differ most" if len(classes) > CLASSES else ""
    legend(made, [left], 1, f"Bars: 95 % over the images, not over trainings{hidden}.")
    return made


def _row(kind: str, each: Difference, a: str, b: str) -> tuple[object, ...]:
    interval = each.bca or each.percentile or (None, None)
    values = (each.a, each.b, each.delta, *interval)
    return (kind, each.name, a, b, *(np.nan if value is None else value for value in values))
