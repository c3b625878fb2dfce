"""What implicit knowledge does to boxes, in pixels: where they are centred and how large anchors become.

Decoding: with p = sigmoid(raw), a centre lies (2 p - 0.5) strides from the corner of its cell and a side is
(2 p)^2 times the anchor's. The raw values are those of `analysis.records.load_effects`: for the mean feature
of a level, most of which is background. So a size "before" is what this model would predict there without
the site, and is the anchor itself only where the raw value is 0.

The paper (section 3) calls addition a refinement of offsets and multiplication a search for anchor sizes, the
latter most plainly in × iPR* (Table 5). But × acts inside the sigmoid: it moves a box away from the anchor's
size or back to it, and where the raw value is 0 it does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from analysis.errors import NothingToShow
from analysis.legends import cut, spread
from analysis.records import BOX, Layout
from analysis.series import banded, series_names
from analysis.style import GREY, figure, legend, look, styled

NONE = "No run with implicit knowledge has recorded its effects yet: launch a table, as `ablate launch 5`."
PANELS = 6  # experiments and sites in one figure
SITES = ("pr-wh", "pr", "fa-cluster", "fa")  # those that act on sizes most directly come first
BOXES = LinearSegmentedColormap.from_list("boxes", ["#FFFFFF", "#9A9A9A"])  # marks stand out on its darkest
CHANGES = {"width": ("w", "full"), "height": ("h", "none")}  # quantity -> letter, how its mark is filled
OFFSETS = {"x": ("x, to the right", "full"), "y": ("y, down", "none")}


def sigmoid(values: NDArray[Any]) -> NDArray[np.float64]:
    """Of raw predictions."""
    return 1 / (1 + np.exp(-np.asarray(values, np.float64)))


def geometry_data(effects: pd.DataFrame, layouts: Mapping[str, Layout]) -> pd.DataFrame:
    """Shift of centres and size of anchors that a site causes, over the runs of an experiment.

    Columns series, site, level, anchor (from 0), quantity, unit, mean, low, high, runs, band. Quantities are
    "x" and "y", the shift of the centre (px, to the right and down); "width before", "width after" and the
    same of "height", of that anchor's box (px); "width" and "height", their change in percent. Pixels are
    those of the image in training.

    Args:
        effects: of `load_effects`.
        layouts: by run, of `layout`; runs without one are left out.

    Raises:
        NothingToShow: no effects of a run whose layout is known.
    """
    found = effects[effects["run"].isin(list(layouts)) & effects["output"].isin(BOX[:4])]
    if found.empty:
        raise NothingToShow(NONE)
    found = found.assign(series=series_names(found))
    names = {run: {level.name: level for level in each.levels} for run, each in layouts.items()}
    keys = list(zip(found["run"], found["level"], found["anchor"], strict=True))
    strides = np.array([names[run][level].stride for run, level, _ in keys], np.float64)
    anchors = np.array([names[run][level].anchors[anchor] for run, level, anchor in keys], np.float64)
    before, after = sigmoid(found["before"].to_numpy()), sigmoid(found["after"].to_numpy())
    side = np.where(found["output"] == "w", anchors[:, 0], anchors[:, 1])
    name = found["output"].map({"x": "x", "y": "y", "w": "width", "h": "height"})
    centre = found["output"].isin(["x", "y"]).to_numpy()
    parts = [
        found.assign(quantity=name, unit="px", value=2 * (after - before) * strides)[centre],
        found.assign(quantity=name + " before", unit="px", value=(2 * before) ** 2 * side)[~centre],
        found.assign(quantity=name + " after", unit="px", value=(2 * after) ** 2 * side)[~centre],
        found.assign(quantity=name, unit="%", value=100 * ((after / before) ** 2 - 1))[~centre],
    ]
    by = ["series", "site", "level", "anchor", "quantity", "unit"]
    data = banded(pd.concat(parts), by)
    return data.sort_values(by[:4], kind="stable", ignore_index=True)


@styled()
def anchor_sizes(data: pd.DataFrame, boxes: Mapping[str, Any] | None = None) -> Figure:
    """Anchors before and after, over the sizes of the dataset's boxes; and the change of each in percent.

    A row for each experiment and site. Raises NothingToShow where no site changes a size.

    Args:
        data: of `geometry_data`.
        boxes: a split of `analysis.records.dataset`, for `size_edges` and `sizes`; None draws no boxes.
    """
    rows, rest = _acting(data, list(CHANGES), "%", "No site changes the size of a box: launch Table 5.")
    made, axes = figure("page", 2.4 * len(rows) + 0.6, rows=len(rows), columns=2, width_ratios=(1, 1.25))
    levels = sorted(set(data["level"]))
    for (sizes, changes), (name, part) in zip(axes, rows.items(), strict=True):
        if boxes is not None:
            _boxes(sizes, boxes)
        _anchors(sizes, part, levels)
        sizes.set(xlabel="width (px)", ylabel="height (px)", title=name)
        _by_anchor(changes, part, levels, CHANGES, "%")
        changes.set(ylabel="change of size (%)", title="full: width, open: height")
    grey = "; the darker, the more boxes of the dataset" if boxes is not None else ""
    title = f"{spread(data, 'Mark', 'bar')}\nLeft, from open to full: without and with the site{grey}{rest}"
    legend(made, axes[:, 0], len(levels) + 1, title)
    return made


@styled()
def centre_offsets(data: pd.DataFrame) -> Figure:
    """Shift of the centre in pixels by anchor and level: a panel for each experiment and site.

    Raises NothingToShow where no site moves a centre.
    """
    rows, rest = _acting(
        data, list(OFFSETS), "px", "No site moves the centre of a box; × iPR* cannot: launch Table 2."
    )
    levels = sorted(set(data["level"]))
    columns = min(len(rows), 2)
    lines = -(-len(rows) // columns)
    made, axes = figure("page", 2.2 * lines + 0.5, rows=lines, columns=columns)
    for spare in axes.flat[len(rows) :]:
        spare.remove()
    for each, (name, part) in zip(axes.flat, rows.items(), strict=False):
        _by_anchor(each, part, levels, OFFSETS, "px")
        each.set(ylabel="shift of the centre (px)", title=name)
    title = f"{spread(data, 'Mark', 'bar')}; full: x, to the right; open: y, down{rest}"
    legend(made, made.axes, len(levels), title)
    return made


def _acting(
    data: pd.DataFrame, quantities: list[str], unit: str, otherwise: str
) -> tuple[dict[str, pd.DataFrame], str]:
    """The experiments and sites that do something to these quantities, by name, and what is left out."""
    given = data[data["quantity"].isin(quantities) & (data["unit"] == unit)]
    moved = given[given[["low", "high"]].abs().max(axis=1) > 0]
    names = sorted(set(zip(moved["series"], moved["site"], strict=True)), key=_place)
    if not names:
        raise NothingToShow(otherwise)
    shown, rest = cut(names, PANELS)
    rows = {
        f"{series}, site {site}": data[(data["series"] == series) & (data["site"] == site)]
        for series, site in shown
    }
    return rows, rest


def _place(name: tuple[str, str]) -> tuple[int, str]:
    series, site = name
    return (SITES.index(site) if site in SITES else len(SITES)), series


def _boxes(axes: Axes, boxes: Mapping[str, Any]) -> None:
    """The dataset's boxes by width and height, the darkest where most are; the empty rim is cut off."""
    edges, counts = np.array(boxes["size_edges"]), np.array(boxes["sizes"])
    axes.pcolormesh(edges, edges, np.sqrt(counts.T), cmap=BOXES, vmin=0, rasterized=True)
    held = np.flatnonzero(counts.sum(0) + counts.sum(1))
    axes.grid(False)
    if len(held):
        limits = edges[held[0]], edges[held[-1] + 1]
        axes.set(xlim=limits, ylim=limits)


def _anchors(axes: Axes, data: pd.DataFrame, levels: list[str]) -> None:
    """An arrow for each anchor, from its size before to that after."""
    wide = data.pivot(index=["level", "anchor"], columns="quantity", values=["mean", "low", "high"])
    limits = [axes.get_xlim(), axes.get_ylim()] if axes.collections else [(np.inf, 0.0)] * 2
    for level, rows in wide.groupby("level"):
        style = look(levels.index(str(level))) | {"linestyle": ""}
        before, after = ([rows["mean", f"{side} {when}"] for side in CHANGES] for when in ("before", "after"))
        axes.plot(*before, markerfacecolor="white", **style)
        axes.plot(*after, label=str(level), **style)
        for start, end in zip(zip(*before, strict=True), zip(*after, strict=True), strict=True):
            axes.annotate("", end, start, arrowprops={"arrowstyle": "-", "color": style["color"], "lw": 0.8})
    for scale, (low, high), side in zip(("x", "y"), limits, CHANGES, strict=True):
        sizes = wide["mean"][[f"{side} before", f"{side} after"]].to_numpy()
        axes.set(**{f"{scale}scale": "log"})
        axes.set(**{f"{scale}lim": (min(low, sizes.min() / 1.3), max(high, sizes.max() * 1.3))})
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def _by_anchor(
    axes: Axes, data: pd.DataFrame, levels: list[str], quantities: Mapping[str, tuple[str, str]], unit: str
) -> None:
    """Marks of two quantities side by side for each anchor, levels one after another."""
    anchors = int(data["anchor"].max()) + 1
    here = data[data["unit"] == unit]
    own = [level for level in levels if (here["level"] == level).any()]
    axes.axhline(0, color=GREY, lw=0.8)
    for side, (quantity, (_, fill)) in zip((-0.15, 0.15), quantities.items(), strict=True):
        for place, level in enumerate(own):
            rows = here[(here["quantity"] == quantity) & (here["level"] == level)]
            style = look(levels.index(level)) | {"linestyle": "", "fillstyle": fill}
            error = np.clip([rows["mean"] - rows["low"], rows["high"] - rows["mean"]], 0, None)
            x = place * anchors + rows["anchor"] + side
            axes.errorbar(x, rows["mean"], error, label=level if fill == "full" else None, lw=0.8, **style)
    names = [f"{level}\n1" if not anchor else f"{anchor + 1}" for level in own for anchor in range(anchors)]
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel("level and anchor")
