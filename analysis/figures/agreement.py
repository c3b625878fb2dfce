"""Whether seeds learn the same, in which outputs, and whether it is what the data ask for.

Each figure is a pair: `…_data` makes the frame behind it, and the function without `_data` draws that.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.errors import NothingToShow
from analysis.figures.implicit import named
from analysis.figures.style import (
    GREY,
    LINE,
    PALETTE,
    REST,
    SMALL,
    Width,
    cut,
    drawn,
    figure,
    legend,
    plain,
)
from analysis.implicit import anchor_agreement, anchor_factors, reproducibility
from analysis.runs import Outputs

PANELS = 4  # of anchors
BEHIND = ("pr", "pr-wh")  # sites that act on the sides themselves
LEARNT = {"factor": "site", "predicted": "prediction"}


def reproducibility_data(implicit: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """`analysis.implicit.reproducibility`: cosines between seeds, with intervals and two nulls."""
    return reproducibility(implicit, effects)


@drawn
def agreement(data: pd.DataFrame, width: Width = "column") -> Figure:
    """A row for each experiment and site, a panel for the values, the effects, and the effects by output."""
    data = data.assign(row=named(data))
    rows = list(dict.fromkeys(data["row"]))
    panels = list(dict.fromkeys(data["of"]))
    across = 2 if width == "column" else len(panels)
    down = -(-len(panels) // across)
    size = (REST + LINE * len(rows)) * down
    made, axes = figure(width, size, rows=down, columns=across, sharex=True, sharey=True)
    for each, of in zip(axes.flat, panels, strict=False):
        _cosines(each, data[data["of"] == of].set_index("row"), rows)
        each.set_title(of.replace("effect on ", "on "))
    for each in list(axes.flat)[len(panels) :]:
        each.set_axis_off()
    for each in axes[-1]:
        each.set_xlabel("cosine")
    runs = (
        f"{data['runs'].min()} to {data['runs'].max()}" if data["runs"].nunique() > 1 else data["runs"].max()
    )
    few = " Three seeds leave wide intervals." if data["runs"].min() == 3 else ""
    title = (
        f"Ring: mean over pairs of {runs} seeds; line: 95 % interval (jackknife over seeds).{few} Grey: mean "
        "and 95 % point of shuffled dimensions. Cross: mean with other experiments."
    )
    legend(made, [], 1, title)
    return made


def _cosines(axes: Axes, data: pd.DataFrame, rows: list[str]) -> None:
    places = np.array([rows.index(row) for row in data.index])
    axes.axvline(0, color=GREY, lw=0.6)
    axes.hlines(places, data["null"], data["null_high"], color=GREY, lw=4, alpha=0.5)
    axes.hlines(places, data["low"], data["high"], color=PALETTE[0], lw=0.9)
    axes.plot(data["cosine"], places, "o", color=PALETTE[0], mfc="white", ms=3.5, mew=0.9, clip_on=False)
    if data["others"].notna().any():
        axes.plot(data["others"], places, "x", color=PALETTE[1], ms=3)
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlim=(-1.05, 1.05), ylim=(len(rows) - 0.5, -0.5))


def anchor_factors_data(
    effects: pd.DataFrame, outputs: Mapping[str, Outputs], boxes: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """`analysis.implicit.anchor_factors` of the sites behind the predictor. Raises NothingToShow without."""
    found = anchor_factors(effects, outputs, boxes)
    found = found[found["site"].isin(BEHIND)]
    if found.empty:
        raise NothingToShow("No site behind the predictor changes the size of a box: launch Table 4 or 5.")
    return found.reset_index(drop=True)


@drawn
def anchors(data: pd.DataFrame, width: Width = "column") -> Figure:
    """A panel for each experiment: wanted factors of the anchors' sides across, learnt ones upwards.

    Above a panel are the slopes of both on logarithms with their 95 % intervals over seeds.
    """
    names, rest = cut(data["series"].unique(), PANELS)
    slopes = anchor_agreement(data, draws=0).query("wanted == 'matched'").set_index(["series", "learnt"])
    across = 2 if width == "column" else 4
    down = -(-len(names) // across)
    made, axes = figure(width, 2.2 * down, rows=down, columns=across, sharex=True, sharey=True)
    shown = data.dropna(subset=["matched"])
    ends = np.array(
        [shown[["matched", *LEARNT]].min().min() / 1.2, shown[["matched", *LEARNT]].max().max() * 1.2]
    )
    for each, name in zip(axes.flat, names, strict=False):
        own = shown[shown["series"] == name]
        mean = own.groupby(["level", "anchor", "side"])[["matched", *LEARNT]].mean()
        each.plot(ends, ends, color=GREY, lw=0.8)
        each.axhline(1, color=GREY, lw=0.6, ls=":")
        for (learnt, said), colour, mark in zip(LEARNT.items(), PALETTE, "os", strict=False):
            face = "white" if learnt == "factor" else colour
            each.plot(mean["matched"], mean[learnt], mark, color=colour, mfc=face, ms=3, label=said)
        each.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
        told = "\n".join(f"{said}: {_slope(slopes.loc[(name, learnt)])}" for learnt, said in LEARNT.items())
        each.set_title(f"{textwrap.fill(str(name), 24)}\n{told}", fontsize=SMALL + 1)
        for axis in (each.xaxis, each.yaxis):
            plain(axis, (1, 2, 5))
    for each in list(axes.flat)[len(names) :]:
        each.set_axis_off()
    for each in axes[-1]:
        each.set_xlabel("matched boxes / anchor")
    for each in axes[:, 0]:
        each.set_ylabel("learnt factor")
    title = (
        "A mark for each anchor and side, mean over seeds. Above: slopes on logarithms, 95 % intervals over "
        f"seeds. 1 is what the boxes ask for, up to one factor for all anchors; 0 has nothing of it.{rest}"
    )
    legend(made, axes.flat, 2, title)
    return made


def _slope(row: pd.Series) -> str:
    """`0.08 [0.07, 0.09]`."""
    ends = f" [{row['low']:.2f}, {row['high']:.2f}]" if pd.notna(row["low"]) else ""
    return f"{row['slope']:.2f}{ends}"
