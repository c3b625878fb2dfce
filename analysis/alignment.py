"""Where objects lie among the raw predictions: our reading of Fig. 4 (kernel space alignment).

The paper's figure is a drawing without data: the output spaces of several heads are translated and scaled
until they agree. Here the heads are the levels of the pyramid, the space is that of an anchor's raw outputs
(x, y, w, h, obj, classes; logits), the points are anchors that answer for an object. Levels see objects of
different sizes and classes, so full agreement is neither reached nor wanted; the figure shows a tendency.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.errors import NothingToShow
from analysis.features import BACKGROUND, NONE
from analysis.legends import cut
from analysis.records import KEYS
from analysis.series import series_names
from analysis.style import figure, legend, look, styled

MOMENTS = ("before", "after")
PANELS = 5  # experiments in one figure


def misalignment(points: NDArray[np.float64], levels: NDArray[np.object_]) -> float:
    """Mean distance between the levels' centroids over the mean spread inside levels; smaller: more alike.

    Spread is the root of the mean squared distance to the level's centroid. NaN where fewer than two levels
    have a point, or none has any spread.

    Args:
        points: (n, outputs).
        levels: (n,) the level of each point.
    """
    groups = [points[levels == level] for level in np.unique(levels.astype(str))]
    centroids = np.array([group.mean(0) for group in groups])
    spreads = [np.sqrt(((group - group.mean(0)) ** 2).sum(1).mean()) for group in groups if len(group) > 1]
    if len(groups) < 2 or not spreads or not np.mean(spreads):
        return float("nan")
    first, second = np.triu_indices(len(groups), 1)
    between = np.linalg.norm(centroids[first] - centroids[second], axis=1).mean()
    return float(between / np.mean(spreads))


def misalignment_data(features: pd.DataFrame) -> pd.DataFrame:
    """Fig. 4 in numbers: a row for each run that has implicit knowledge.

    Columns `KEYS`, series, objects (anchors), before and after: `misalignment` in the space of all outputs.

    Args:
        features: of `load_features`.

    Raises:
        NothingToShow: no run with features has implicit knowledge, or none found an object.
    """
    rows = []
    for _, own in _objects(features).groupby("run", sort=False):
        levels = own["level"].to_numpy()
        numbers = {moment: misalignment(_points(own, moment), levels) for moment in MOMENTS}
        first = own.iloc[0]
        rows.append({key: first[key] for key in (*KEYS, "series")} | {"objects": len(own)} | numbers)
    return pd.DataFrame(rows)


def alignment_data(features: pd.DataFrame) -> pd.DataFrame:
    """Fig. 4: anchors with an object in the plane of two principal components, before and after.

    Of each of the first `PANELS` experiments the run with the lowest seed is shown; the plane is fitted to
    its points before and after together. Columns series, run, seed, moment ("before" or "after"), level,
    class, first and second (logits), share_first and share_second (of the variance), misalignment of this
    run at that moment, its mean, low and high over the `runs` of the experiment, and left_out: how many
    experiments there are besides. Arguments and errors as
    for `misalignment_data`.
    """
    scores = misalignment_data(features)
    objects = _objects(features)
    parts = []
    shown_series, _ = cut(scores.groupby("series", sort=False), PANELS)
    for series, group in shown_series:
        shown = group.sort_values("seed").iloc[0]
        own = objects[objects["run"] == shown["run"]]
        both = np.concatenate([_points(own, moment) for moment in MOMENTS])
        u, s, axes = np.linalg.svd(both - both.mean(0), full_matrices=False)
        # The sign of a component is arbitrary; its largest weight is made positive.
        signs = np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(1)])
        places = np.split(u[:, :2] * s[:2] * signs, 2)
        share = s**2 / max(float((s**2).sum()), 1e-30)
        parts += [
            pd.DataFrame(
                {
                    "series": series,
                    "run": shown["run"],
                    "seed": shown["seed"],
                    "moment": moment,
                    "level": own["level"].to_numpy(),
                    "class": own["class"].to_numpy(),
                    "first": place[:, 0].round(4),
                    "second": place[:, 1].round(4),
                    "share_first": share[0],
                    "share_second": share[1],
                    "misalignment": shown[moment],
                    "mean": group[moment].mean(),
                    "low": group[moment].min(),
                    "high": group[moment].max(),
                    "runs": len(group),
                    "left_out": scores["series"].nunique() - len(shown_series),
                }
            )
            for moment, place in zip(MOMENTS, places, strict=True)
        ]
    return pd.concat(parts, ignore_index=True)


def _objects(features: pd.DataFrame) -> pd.DataFrame:
    """Anchors with an object, of runs whose implicit knowledge changes a prediction."""
    if features.empty:
        raise NothingToShow(NONE)
    changed = [
        run
        for run, rows in features.groupby("run", sort=False)
        if any((a != b).any() for a, b in zip(rows["before"], rows["after"], strict=True))
    ]
    if not changed:
        raise NothingToShow("No run with features has implicit knowledge: take those of Table 1 or 2.")
    frame = features.assign(series=series_names(features))
    objects = frame[frame["run"].isin(changed) & (frame["class"] != BACKGROUND)]
    if objects.empty:
        raise NothingToShow("The features are all of background: write them with more `--images`.")
    return objects


def _points(rows: pd.DataFrame, moment: str) -> NDArray[np.float64]:
    return np.stack(rows[moment].to_list()).astype(np.float64)


@styled()
def alignment(data: pd.DataFrame) -> Figure:
    """Fig. 4: a row for each experiment, before and after side by side, centroids as large marks."""
    series = list(dict.fromkeys(data["series"]))
    levels = sorted(set(data["level"]))
    made, axes = figure(
        "page", 2.5 * len(series) + 0.6, rows=len(series), columns=2, sharex="row", sharey="row"
    )
    for line, name in zip(axes, series, strict=True):
        for each, moment in zip(line, MOMENTS, strict=True):
            here = data[(data["series"] == name) & (data["moment"] == moment)]
            _panel(each, here, levels)
            first = here.iloc[0]
            over = f", {first['low']:.2f} to {first['high']:.2f} over {first['runs']} runs"
            number = f"{first['misalignment']:.2f}{over if first['runs'] > 1 else ''}"
            each.set_title(f"{moment}: centroids apart by {number}")
            each.set_xlabel(f"first component ({first['share_first']:.0%} of the variance), logits")
        line[0].set_ylabel(f"{name}, seed {first['seed']}\nsecond ({first['share_second']:.0%}), logits")
    title = "Anchors with an object; large: their centroids, whose distance is in spreads inside a level"
    others = data["left_out"].iloc[0]
    title += f"\n{others} more experiments are not shown" if others else ""
    legend(made, made.axes, len(levels), title)
    return made


def _panel(axes: Axes, data: pd.DataFrame, levels: list[str]) -> None:
    for place, level in enumerate(levels):
        rows = data[data["level"] == level]
        style = look(place) | {"linestyle": ""}
        axes.plot(rows["first"], rows["second"], **style | {"markersize": 2.5, "alpha": 0.4, "mew": 0})
        if len(rows):
            centroid = [rows["first"].mean()], [rows["second"].mean()]
            edge = {"markersize": 7, "markeredgecolor": "white", "markeredgewidth": 1.2, "zorder": 4}
            axes.plot(*centroid, label=level, **style | edge)
