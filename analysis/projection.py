"""Inner products of real features with the learnt vector: our reading of Fig. 3 (manifold space reduction).

The paper's figure is a drawing without data: a representation is projected on a vector, which keeps what a
task needs. Here the vector is what FA has learnt (a where it adds, g - 1 where it multiplies), the
representation the features in front of it. Does the inner product tell cells with an object from others
better than chance vectors do? Where FA adds a, the model itself never computes this product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import rankdata

from analysis.errors import NothingToShow
from analysis.features import BACKGROUND, NONE
from analysis.legends import cut
from analysis.series import series_names
from analysis.style import PALETTE, figure, legend, styled

NEUTRAL = {"add": 0.0, "multiply": 1.0}  # of the operators that leave every feature at its place
SITES = ("fa", "fa-cluster")
CHANCE = 200  # directions
RANGE = (2.5, 97.5)  # percent of them
BINS = 30
PANELS = 5  # experiments and sites in one figure
BY = ["series", "site", "operator", "level"]
CELLS = {"object": (PALETTE[0], "-", 0.35), "background": (PALETTE[1], "--", 0.0)}  # colour, line, filling


@dataclass(frozen=True)
class _Projected:
    """One level of one run: numbers about it, and inner products of cells with an object and of others."""

    numbers: dict[str, Any]
    objects: NDArray[np.float64]
    others: NDArray[np.float64]


def auc(objects: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float64]:
    """Probability that an object's value exceeds another's, ties half: the area under the ROC curve.

    (n, directions) and (m, directions) -> (directions,); NaN where n or m is 0.
    """
    n, m = len(objects), len(others)
    if not n or not m:
        return np.full(objects.shape[1], np.nan)
    ranks = rankdata(np.concatenate([objects, others]), axis=0)[:n]
    return np.asarray((ranks.sum(0) - n * (n + 1) / 2) / (n * m))


def effective_dimension(points: NDArray[Any]) -> float:
    """Participation ratio of the covariance, trace² / trace of the square: (n, channels) -> 1 ... channels.

    1 where all points are on a line, channels where they spread alike in all directions; NaN where there is
    no spread.
    """
    centred = points.astype(np.float64) - points.mean(0, dtype=np.float64)
    gram = centred @ centred.T if len(points) < points.shape[1] else centred.T @ centred
    squares = float((gram**2).sum())
    return float(np.trace(gram)) ** 2 / squares if squares else float("nan")


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
        NothingToShow: no run with features adds or multiplies in front of the predictor.
    """
    found = _found(features, implicit, seed)
    groups = pd.DataFrame([each.numbers for each in found]).groupby(BY, sort=False)
    means = groups[["chance_low", "chance_high", "dimension_before", "dimension_after"]].mean()
    scores = groups["auc"].agg(auc="mean", auc_low="min", auc_high="max").join(means).reset_index()
    bins = [_histogram([found[place] for place in places]) for places in groups.indices.values()]
    return pd.concat(bins, ignore_index=True).merge(scores, on=BY)


def _found(features: pd.DataFrame, implicit: pd.DataFrame, seed: int) -> list[_Projected]:
    if features.empty:
        raise NothingToShow(NONE)
    found = list(_projected(features, implicit, seed))
    if not found:
        raise NothingToShow(
            "No run with features adds or multiplies in front of the predictor: take Table 4's."
        )
    return found


def _projected(features: pd.DataFrame, implicit: pd.DataFrame, seed: int) -> Iterator[_Projected]:
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
        generator = np.random.default_rng(seed)
        chance = generator.normal(size=(CHANCE, *vectors.shape[1:]))
        which = own["anchor"].to_numpy() if vectors.shape[1] > 1 else np.zeros(len(own), int)
        there = (own["class"] != BACKGROUND).to_numpy()
        products, random = _products(x, vectors, which), _products(x, chance, which)
        aucs = auc(random[there], random[~there])
        low, high = np.percentile([aucs, 1 - aucs], RANGE)
        yield _Projected(
            {
                "series": own["series"].iloc[0],
                "site": site,
                "operator": operator,
                "level": level,
                "auc": float(auc(products[there], products[~there])[0]),
                "chance_low": float(low),
                "chance_high": float(high),
                "dimension_before": effective_dimension(x),
                "dimension_after": effective_dimension(aligned),
            },
            products[there, 0],
            products[~there, 0],
        )


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


def _histogram(runs: list[_Projected]) -> pd.DataFrame:
    values = {
        "object": np.concatenate([each.objects for each in runs]),
        "background": np.concatenate([each.others for each in runs]),
    }
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), BINS)
    key = {name: runs[0].numbers[name] for name in BY}
    parts = [
        pd.DataFrame(
            {
                **key,
                "cells": cells,
                "left": edges[:-1],
                "right": edges[1:],
                "share": 100 * np.histogram(own, edges)[0] / max(len(own), 1),
                "runs": len(runs),
            }
        )
        for cells, own in values.items()
    ]
    return pd.concat(parts)


@styled()
def projection(data: pd.DataFrame) -> Figure:
    """Fig. 3: a row for each experiment and site, a panel for each level; numbers in the corner."""
    rows, rest = cut(data.groupby(["series", "site", "operator"], sort=False), PANELS)
    levels = sorted(set(data["level"]))
    made, axes = figure("page", 1.75 * len(rows) + 0.6, rows=len(rows), columns=len(levels))
    for line, ((series, site, operator), part) in zip(axes, rows, strict=True):
        for each, level in zip(line, levels, strict=True):
            here = part[part["level"] == level]
            if here.empty:
                each.set_axis_off()
                continue
            _panel(each, here)
            each.set_title(level)
        line[0].set_ylabel(f"{series}\nsite {site}, {operator}\ncells (%)", fontsize=6)
    for each in axes[-1]:
        each.set_xlabel("inner product")
    title = (
        f"AUC 0.5: tells nothing, 0 or 1: all; in brackets 95 % of {CHANCE} random vectors.\n"
        f"dim.: effective dimension of the features before → after{rest}"
    )
    legend(made, made.axes, 2, title)
    return made


def _panel(axes: Axes, data: pd.DataFrame) -> None:
    for cells, (colour, line, filling) in CELLS.items():
        bins = data[data["cells"] == cells]
        edges = [*bins["left"], bins["right"].iloc[-1]]
        axes.stairs(bins["share"], edges, color=colour, ls=line, lw=1.1, label=cells)
        axes.stairs(bins["share"], edges, color=colour, fill=True, alpha=filling, lw=0)
    first = data.iloc[0]
    several = f" ({first['auc_low']:.2f} to {first['auc_high']:.2f})" if first["runs"] > 1 else ""
    score = f"AUC {first['auc']:.2f}{several}\n[{first['chance_low']:.2f}, {first['chance_high']:.2f}]"
    text = score if pd.notna(first["auc"]) else "no objects"
    text += f"\ndim. {first['dimension_before']:.1f} → {first['dimension_after']:.1f}"
    axes.set_ylim(top=1.55 * max(data["share"].max(), 1))
    axes.text(0.97, 0.97, text, transform=axes.transAxes, fontsize=6, va="top", ha="right")
