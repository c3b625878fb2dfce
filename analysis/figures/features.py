"""Real features before and after implicit knowledge: our readings of the paper's Fig. 3 and Fig. 4.

The paper's figures are drawings without data.

Fig. 3 (manifold space reduction): a representation is projected on a vector, which keeps what a task needs.
Here the vector is what FA has learnt (a where it adds, g - 1 where it multiplies), the representation the
features before it. Does the inner product tell cells with an object from others better than chance vectors
do? Where FA adds a, the model itself never computes this product.

Fig. 4 (kernel space alignment): the output spaces of several heads are translated and scaled until they
agree. Here the heads are the levels of the pyramid, the space is that of an anchor's raw outputs (x, y, w, h,
obj, classes; logits), the points are anchors that answer for an object. Levels see objects of different sizes
and classes, so full agreement is neither reached nor wanted; the figure shows a tendency.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.errors import NothingToShow
from analysis.figures.style import PALETTE, SMALL, Width, cut, drawn, figure, legend, looks
from analysis.implicit import auc, effective_dimension, misalignment
from analysis.runs import BACKGROUND, KEYS, NO_FEATURES
from analysis.series import series_names

NEUTRAL = {"add": 0.0, "multiply": 1.0}  # of the operators that leave every feature at its place
SITES = ("fa", "fa-cluster")
CHANCE = 200  # directions
RANGE = (2.5, 97.5)  # percent of them
BINS = 30
ROWS = 5  # experiments, or experiments and sites, in one figure
BY = ["series", "site", "operator", "level"]
CELLS = ("object", "background")
MEANS = ["chance_low", "chance_high", "dimension_before", "dimension_after"]
MOMENTS = ("before", "after")


def projection_data(features: pd.DataFrame, implicit: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Fig. 3: how the inner products of features and the learnt unit vector are distributed.

    Columns series, site, operator, level, cells ("object" or "background"), left and right (edges of a bin),
    share (percent of these cells, of all runs together) and runs; auc (of the learnt vector, mean over runs),
    auc_low and auc_high (over runs); means over runs of chance_low and chance_high (95 % of `CHANCE` random
    directions and their opposites), dimension_before and dimension_after (`effective_dimension` of the
    features; adding a constant cannot change it). At FA*, which has a vector for each anchor, anchors take
    the place of cells.

    Args:
        features: of `load_features`.
        implicit: of `load_implicit`, after the last epoch.
        seed: of the random directions.

    Raises:
        NothingToShow: no run with features adds or multiplies before the predictor.
    """
    if features.empty:
        raise NothingToShow(NO_FEATURES)
    found = pd.DataFrame(_projected(features, implicit, seed))
    if found.empty:
        raise NothingToShow("No run with features adds or multiplies before the predictor: take Table 4's.")
    groups = found.groupby(BY, sort=False)
    scores = groups["auc"].agg(auc="mean", auc_low="min", auc_high="max").join(groups[MEANS].mean())
    bins = [_histogram(group) for _, group in groups]
    return pd.concat(bins, ignore_index=True).merge(scores.reset_index(), on=BY)


def _projected(features: pd.DataFrame, implicit: pd.DataFrame, seed: int) -> Iterator[dict[str, Any]]:
    """Of each level of each run: numbers, and the inner products of its cells by `CELLS`."""
    acting = implicit[implicit["site"].isin(SITES) & implicit["operator"].isin(list(NEUTRAL))]
    cells = dict(list(features.assign(series=series_names(features)).groupby(["run", "level"])))
    for key, values in acting.groupby(["run", "site", "operator", "level"], sort=False):
        run, site, operator, level = (str(part) for part in key)
        if (run, level) not in cells:
            continue
        own = _by_cell(cells[run, level], site)
        x, aligned = (np.stack(own[name].to_list()) for name in ("feature", "aligned"))
        vectors = values.sort_values("index")["value"].to_numpy(np.float64) - NEUTRAL[operator]
        vectors = vectors.reshape(1, -1, x.shape[1])
        if not vectors.any():
            continue
        chance = np.random.default_rng(seed).normal(size=(CHANCE, *vectors.shape[1:]))
        which = own["anchor"].to_numpy() if vectors.shape[1] > 1 else np.zeros(len(own), int)
        there = (own["class"] != BACKGROUND).to_numpy()
        products, random = _products(x, vectors, which), _products(x, chance, which)
        aucs = auc(random[there], random[~there])
        low, high = np.percentile([aucs, 1 - aucs], RANGE)
        yield {
            "series": own["series"].iloc[0],
            "site": site,
            "operator": operator,
            "level": level,
            "auc": float(auc(products[there], products[~there])[0]),
            "chance_low": float(low),
            "chance_high": float(high),
            "dimension_before": effective_dimension(x),
            "dimension_after": effective_dimension(aligned),
            "object": products[there, 0],
            "background": products[~there, 0],
        }


def _by_cell(rows: pd.DataFrame, site: str) -> pd.DataFrame:
    """One row for each cell, an object's if one of its anchors answers for one; at FA* for each anchor."""
    place = ["image", "row", "column"] + (["anchor"] if site == "fa-cluster" else [])
    objects_first = rows.sort_values("class", ascending=False, kind="stable")
    return objects_first.drop_duplicates(place).sort_index()


def _products(
    x: NDArray[np.float32], directions: NDArray[np.float64], which: NDArray[Any]
) -> NDArray[np.float64]:
    """Inner products with unit vectors, (n, channels) and (d, anchors, channels) -> (n, d).

    which: (n,) the anchor of each.
    """
    unit = directions / np.maximum(np.linalg.norm(directions, axis=2, keepdims=True), 1e-12)
    found = np.empty((len(x), len(unit)))
    for anchor in np.unique(which):
        found[which == anchor] = x[which == anchor].astype(np.float64) @ unit[:, anchor].T
    return found


def _histogram(runs: pd.DataFrame) -> pd.DataFrame:
    values = {cells: np.concatenate(runs[cells].to_list()) for cells in CELLS}
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), BINS)
    parts = [
        pd.DataFrame({"left": edges[:-1], "right": edges[1:]}).assign(
            **runs.iloc[0][BY],
            cells=cells,
            share=100 * np.histogram(own, edges)[0] / max(len(own), 1),
            runs=len(runs),
        )
        for cells, own in values.items()
    ]
    return pd.concat(parts)[[*BY, "cells", "left", "right", "share", "runs"]]


@drawn
def projection(data: pd.DataFrame, width: Width = "column") -> Figure:
    """Fig. 3: a row for each experiment and site, a panel for each level; numbers above."""
    rows, rest = cut(data.groupby(["series", "site", "operator"], sort=False), ROWS)
    levels = sorted(set(data["level"]))
    made, axes = figure(width, 1.5 * len(rows), rows=len(rows), columns=len(levels))
    for line, ((series, site, operator), part) in zip(axes, rows, strict=True):
        for each, level in zip(line, levels, strict=True):
            here = part[part["level"] == level]
            if here.empty:
                each.set_axis_off()
                continue
            edges = [*here["left"].unique(), here["right"].max()]
            for cells, colour, dashes in zip(CELLS, PALETTE, ("-", "--"), strict=False):
                bins = {"x": "left", "weights": "share", "bins": edges, "element": "step"}
                kind = {"fill": cells == CELLS[0], "alpha": 0.35 if cells == CELLS[0] else 1}
                own = here[here["cells"] == cells]
                sns.histplot(own, **bins, **kind, color=colour, linestyle=dashes, label=cells, ax=each)
            each.set_title(_scores(here.iloc[0]), fontsize=SMALL)
            each.set(xlabel="inner product" if line is axes[-1] else "", ylabel="")
            each.locator_params("x", nbins=3)
        line[0].set_ylabel(f"{series}\n{site}, {operator}\ncells (%)", fontsize=SMALL)
    title = (
        f"AUC 0.5: tells nothing, 0 or 1: all; in brackets 95 % of {CHANCE} random vectors.\n"
        f"dim.: effective dimension of the features before → after{rest}"
    )
    legend(made, made.axes, 2, title)
    return made


def _scores(first: pd.Series) -> str:
    several = f"\n({first['auc_low']:.2f} to {first['auc_high']:.2f})" if first["runs"] > 1 else ""
    score = f"AUC {first['auc']:.2f}{several}\n[{first['chance_low']:.2f}, {first['chance_high']:.2f}]"
    text = score if pd.notna(first["auc"]) else "no objects"
    return f"{first['level']}: {text}\ndim. {first['dimension_before']:.1f} → {first['dimension_after']:.1f}"


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
        rows.append({**own.iloc[0][[*KEYS, "series"]], "objects": len(own), **numbers})
    return pd.DataFrame(rows)


def alignment_data(features: pd.DataFrame) -> pd.DataFrame:
    """Fig. 4: anchors with an object in the plane of two principal components, before and after.

    Of each of the first `ROWS` experiments the run with the lowest seed is shown; the plane is fitted to
    its points before and after together. Columns series, run, seed, moment ("before" or "after"), level,
    class, first and second (logits), share_first and share_second (of the variance), misalignment of this
    run at that moment, its mean, low and high over the `runs` of the experiment, and left_out: how many
    experiments there are besides. Arguments and errors as for `misalignment_data`.
    """
    scores = misalignment_data(features)
    objects = _objects(features)
    parts = []
    shown_series, _ = cut(scores.groupby("series", sort=False), ROWS)
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
        raise NothingToShow(NO_FEATURES)
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


@drawn
def alignment(data: pd.DataFrame, width: Width = "column") -> Figure:
    """Fig. 4: a row for each experiment, before and after side by side, centroids as large marks."""
    rows = list(data.groupby("series", sort=False))
    styles = looks(sorted(set(data["level"])))
    made, axes = figure(width, 1.75 * len(rows), len(rows), 2, sharex="row", sharey="row")
    for line, (name, part) in zip(axes, rows, strict=True):
        for each, (moment, here) in zip(line, part.groupby("moment", sort=False), strict=True):
            marks = {"x": "first", "y": "second", "hue": "level", "style": "level", "ax": each, **styles}
            sns.scatterplot(here, **marks, s=7, alpha=0.4, linewidth=0, legend=False)
            centroids = here.groupby("level", as_index=False)[["first", "second"]].mean()
            sns.scatterplot(centroids, **marks, s=40, edgecolor="white", zorder=4)
            first = here.iloc[0]
            over = f"\n({first['low']:.2f} to {first['high']:.2f}, {first['runs']} runs)"
            number = f"{first['misalignment']:.2f}{over if first['runs'] > 1 else ''}"
            each.set_title(f"{moment}: {number}", fontsize=7)
            each.set_xlabel(f"first ({first['share_first']:.0%} of variance)", fontsize=7)
        line[0].set_ylabel(f"{name}, seed {first['seed']}\nsecond ({first['share_second']:.0%})", fontsize=7)
    title = (
        "Raw outputs (logits) of anchors with an object. Large: the levels' centroids; the number is their "
        "mean distance in spreads inside a level"
    )
    others = data["left_out"].iloc[0]
    title += f"\n{others} more experiments are not shown" if others else ""
    legend(made, made.axes, 4, title)
    return made
