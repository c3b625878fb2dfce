"""What implicit knowledge does to the raw predictions, and in pixels to boxes.

The effect of a site is the raw prediction (logits) for the mean feature of 16 validation images with g(z),
less that with the value that changes nothing: W a for + FA. Here runs, seeds, operators and forms can be
compared. Each figure is a pair, as in `analysis.figures.implicit`.

Boxes: with p = sigmoid(raw), a centre lies (2 p - 0.5) strides from the corner of its cell and a side is
(2 p)^2 times the anchor's. Most of a mean feature is background, so a size "before" is what this model would
predict there without the site, and is the anchor itself only where the raw value is 0. The paper (section 3)
calls addition a refinement of offsets and multiplication a search for anchor sizes, the latter most plainly
in × iPR* (Table 5). But × acts inside the sigmoid: it moves a box away from the anchor's size or back to it,
and where the raw value is 0 it does nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from analysis.errors import NothingToShow
from analysis.figures.implicit import CLASSES, block, by_dimension
from analysis.figures.style import (
    GREY,
    Look,
    bars,
    cut,
    figure,
    grid,
    legend,
    looks,
    plain,
    scatter,
    signed,
    spread,
    styled,
)
from analysis.implicit import sigmoid
from analysis.runs import BOX, Outputs
from analysis.series import banded, series_names

GROUPS = ("x, y", "w, h", "obj", CLASSES)
NAMED = 12  # classes
DECADE = 10
NUMBERED = 14  # runs whose similarities can be written into the cells
PANELS = 6  # experiments and sites in a figure of boxes
SITES = ("pr-wh", "pr", "fa-cluster", "fa")  # those that act on sizes most directly come first
BOXES = LinearSegmentedColormap.from_list("boxes", ["#FFFFFF", "#9A9A9A"])  # marks stand out on its darkest
SIDES = {"w": "width", "h": "height"}
FILLS = ("full", "none")  # of the marks of two quantities side by side


def _series(effects: pd.DataFrame) -> pd.DataFrame:
    if effects.empty:
        raise NothingToShow(
            "No run with implicit knowledge has recorded its effects yet: "
            "launch a table, e.g. `ablate launch 1`."
        )
    return effects.assign(series=series_names(effects))


def _over_runs(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The mean effect of each run, banded over the runs."""
    of_run = frame.groupby([*by, "run"], observed=True)["effect"].mean().rename("value").reset_index()
    return banded(of_run, by)


def dimensions_data(effects: pd.DataFrame) -> pd.DataFrame:
    """The effect on every output (logits) of every site, for `implicit.learned`: Fig. 9 of all sites.

    Raises NothingToShow.
    """
    frame = _series(effects)
    quantity = "effect of " + frame["site"].astype(str) + " (logits)"
    return by_dimension(frame.assign(quantity=quantity, value=frame["effect"]))


def anchors_data(effects: pd.DataFrame) -> pd.DataFrame:
    """Mean effect (logits) on each block of an anchor's outputs.

    Columns series, site, level, anchor, block, mean, low, high, runs, band. Raises NothingToShow.
    """
    frame = _series(effects)
    by = ["series", "site", "level", "anchor", "block"]
    return _over_runs(frame.assign(block=frame["output"].map(block)), by)


@styled()
def anchors(data: pd.DataFrame) -> Figure:
    """Effect on boxes, objectness and classes by anchor: a row for each experiment and site."""
    rows = list(data.groupby(["series", "site"], sort=False))
    levels = sorted(set(data["level"]))
    styles = looks(sorted(set(data["anchor"])))
    height = 1.6 * len(rows)
    made, axes = figure("page", height, rows=len(rows), columns=len(levels), sharex=True, sharey="row")
    for line, ((series, site), part) in zip(axes, rows, strict=True):
        for each, level in zip(line, levels, strict=True):
            here = part[part["level"] == level]
            for place, (anchor, own) in enumerate(here.groupby("anchor")):
                beside = 0.16 * (place - (here["anchor"].nunique() - 1) / 2)
                x = own["block"].map(GROUPS.index) + beside
                bars(each, x, own, f"anchor {anchor + 1}", **styles[anchor])
            each.axhline(0, color=GREY, lw=0.6)
            each.set_xticks(range(len(GROUPS)), GROUPS)
            each.set_title(level)
        line[0].set_ylabel(f"{series}\n{site}: effect (logits)", fontsize=6)
    legend(made, made.axes, columns=4)
    return made


def classes_data(
    effects: pd.DataFrame, frequency: Mapping[str, int], scores: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Mean effect on each class's logit, beside how often the class occurs and its AP.

    Args:
        effects: of `load_effects`.
        frequency: training boxes of each class, by name.
        scores: columns run, output (the class) and AP (percent), where there are any.

    Columns series, site, output, mean, low, high, runs, band, boxes and AP: of the class, the mean over all
    these runs. Sites that act on no class are left out.
    """
    frame = _series(effects)
    frame = frame[frame["output"].isin(list(frequency))]
    if frame.empty:
        raise NothingToShow("No run says how often the classes occur: dataset.json is missing or damaged.")
    acts = frame.groupby(["series", "site"], observed=True)["effect"].transform(lambda v: v.abs().max()) > 0
    frame = frame[acts]
    if frame.empty:
        raise NothingToShow("No site acts on the classes: × iPR* changes widths and heights only.")
    found = _over_runs(frame, ["series", "site", "output"])
    found["boxes"] = found["output"].map(frequency).astype(float)
    if scores is None or scores.empty:
        return found.assign(AP=np.nan)
    ap = scores[scores["run"].isin(frame["run"])].groupby("output")["AP"].mean()
    return found.assign(AP=found["output"].map(ap).astype(float))


@styled()
def classes(data: pd.DataFrame) -> Figure:
    """Effect on a class against its boxes in the training data and, where it is known, against its AP."""
    panels = {"boxes": "boxes in the training data", "AP": "AP of the class, mean of the runs (%)"}
    known = [column for column in panels if data[column].notna().any()]
    named = data["series"] + ", " + data["site"]
    styles = looks(named)
    made, axes = grid(len(known), 2, 2.9, sharey=True)
    tops = data.loc[data.groupby("output")["mean"].idxmax()]
    largest = tops.loc[tops["mean"].abs().nlargest(NAMED).index]
    for each, column in zip(axes, known, strict=True):
        for name, rows in data.groupby(named, sort=False):
            bars(each, rows[column], rows, str(name), **styles[name])
        for row in largest.dropna(subset=[column]).to_dict("records"):
            _beside(each, row["output"], (row[column], row["mean"]), 6)
        each.axhline(0, color=GREY, lw=0.6)
        each.set_xlabel(panels[column])
        each.margins(x=0.1)
    if data["boxes"].max() > DECADE * data["boxes"].min() > 0:
        axes[0].set_xscale("log")
        plain(axes[0].xaxis)
    axes[0].set_ylabel("mean effect on its logit")
    legend(made, axes, columns=3)
    return made


def _beside(axes: Axes, text: object, place: tuple[float, float], size: int) -> None:
    axes.annotate(str(text), place, fontsize=size, xytext=(3, 2), textcoords="offset points")


def vectors(effects: pd.DataFrame) -> pd.DataFrame:
    """One row for each run and site, indexed by (series, seed, run, site): its effect on every output.

    Outputs that a run does not have, e.g. of a model with other levels, are NaN. Raises NothingToShow without
    effects.
    """
    return (
        _series(effects)
        .pivot(index=["series", "seed", "run", "site"], columns=["level", "index"], values="effect")
        .sort_index(axis=1)
    )


def similarity_data(effects: pd.DataFrame) -> pd.DataFrame:
    """Cosines between the effects of all runs and sites. Columns a, site_a, b, site_b, cosine.

    a and b are `series seed N`; models whose outputs are not the same have no cosine (NaN). Raises
    NothingToShow where there are fewer than two.
    """
    wide = vectors(effects).sort_index(level=["series", "site", "seed"])
    if len(wide) < 2:
        raise NothingToShow("One run with implicit knowledge only: similarity needs two, e.g. of two seeds.")
    known = wide.notna().to_numpy()
    values = wide.fillna(0.0).to_numpy(np.float64)  # sums of float32 differ between processors
    unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    alike = (known[:, None] == known[None]).all(2)
    cosine = np.where(alike, unit @ unit.T, np.nan)
    names = np.array([f"{series} seed {seed}" for series, seed, _, _ in wide.index])
    sites = np.array(wide.index.get_level_values("site"))
    left, right = (places.ravel() for places in np.indices(cosine.shape))
    columns = {"a": names[left], "site_a": sites[left], "b": names[right], "site_b": sites[right]}
    return pd.DataFrame({**columns, "cosine": cosine.ravel()})


@styled()
def similarity(data: pd.DataFrame) -> Figure:
    """Heat map of the cosines, seeds side by side; numbers where they have room, white: other outputs."""
    rows = list(dict.fromkeys(zip(data["a"], data["site_a"], strict=True)))
    table = data["cosine"].to_numpy().reshape(len(rows), len(rows))
    groups = [f"{name.rsplit(' seed ', 1)[0]}, {site}" for name, site in rows]
    edges = [0, *(k for k in range(1, len(rows)) if groups[k] != groups[k - 1]), len(rows)]
    spans = list(itertools.pairwise(edges))
    names = [f"{groups[left]} ({right - left})" for left, right in spans]
    made, axes = figure("page", 5.6)
    each = axes[0, 0]
    few = len(rows) <= NUMBERED
    sns.heatmap(
        table,
        vmin=-1,
        vmax=1,
        cmap="PuOr",
        annot=np.vectorize(lambda cosine: signed(cosine, 1))(table) if few else None,
        fmt="",
        annot_kws={"fontsize": 5},
        cbar_kws={"label": "cosine of the effects (runs in brackets)", "shrink": 0.8},
        rasterized=True,
        ax=each,
    )
    each.grid(False)
    middles = [(left + right) / 2 for left, right in spans]
    each.set_xticks(middles, names, fontsize=6, rotation=90)
    each.set_yticks(middles, names, fontsize=6, rotation=0)
    for line in (each.hlines, each.vlines):
        line(edges[1:-1], 0, len(rows), color=GREY, lw=0.4)
    return made


def components_data(effects: pd.DataFrame) -> pd.DataFrame:
    """Principal components of the effects of all runs and sites, after centring.

    Columns series, seed, run, site, first, second (logits), their shares of the variance, and left_out: how
    many runs have other outputs than most, e.g. of a model with other levels, and are not shown. Raises
    NothingToShow where there are fewer than three.
    """
    everything = vectors(effects)
    outputs = pd.Series([tuple(row) for row in everything.notna().to_numpy()])
    usual = (outputs == outputs.mode().iloc[0]).to_numpy()
    wide = everything[usual].dropna(axis=1)
    if len(wide) < 3:
        raise NothingToShow(f"{len(wide)} effects of runs; principal components need three.")
    values = wide.to_numpy(np.float64)  # sums of float32 differ between processors
    u, s, _ = np.linalg.svd(values - values.mean(0), full_matrices=False)
    share = s**2 / max(float((s**2).sum()), 1e-30)
    places = u[:, :2] * s[:2]
    # The sign of a component is arbitrary; its largest score is made positive.
    places *= np.where(places[np.abs(places).argmax(0), np.arange(places.shape[1])] < 0, -1.0, 1.0)
    return wide.index.to_frame(index=False).assign(
        first=places[:, 0],
        second=places[:, 1],
        share_first=share[0],
        share_second=share[1],
        left_out=int((~usual).sum()),
    )


@styled()
def components(data: pd.DataFrame) -> Figure:
    """Every run as a point in the plane of the first two components, seeds written beside."""
    made, axes = figure("page", 3.4)
    each = axes[0, 0]
    named = data.assign(name=data["series"] + ", " + data["site"])
    scatter(each, named, "first", "second", "name", looks(named["name"]), s=16)
    for row in data.to_dict("records"):
        _beside(each, row["seed"], (row["first"], row["second"]), 5)
    first, second = data["share_first"].iloc[0], data["share_second"].iloc[0]
    each.set(
        xlabel=f"first component ({first:.0%} of the variance), logits",
        ylabel=f"second ({second:.0%}), logits",
    )
    others = data["left_out"].iloc[0]
    note = f"; {others} not shown, of models with other levels or classes" if others else ""
    legend(made, made.axes, columns=3, title=f"Numbers beside the marks are seeds{note}")
    return made


def geometry_data(effects: pd.DataFrame, outputs: Mapping[str, Outputs]) -> pd.DataFrame:
    """Shift of centres and size of anchors that a site causes, over the runs of an experiment.

    Columns series, site, level, anchor (from 0), quantity, unit, mean, low, high, runs, band. Quantities are
    "x" and "y", the shift of the centre (px, to the right and down); "width before", "width after" and the
    same of "height", of that anchor's box (px); "width" and "height", their change in percent. Pixels are
    those of the image in training.

    Args:
        effects: of `load_effects`.
        outputs: by run, of `outputs_of`; runs without one are left out.

    Raises:
        NothingToShow: no effects of a run whose outputs are known.
    """
    known = effects["run"].isin(list(outputs)) & effects["output"].isin(BOX[:4])
    found = _series(effects[known])
    names = {run: {level.name: level for level in each.levels} for run, each in outputs.items()}
    keys = list(zip(found["run"], found["level"], found["anchor"], strict=True))
    strides = np.array([names[run][level].stride for run, level, _ in keys], np.float64)
    anchors = np.array([names[run][level].anchors[anchor] for run, level, anchor in keys], np.float64)
    before, after = sigmoid(found["before"].to_numpy()), sigmoid(found["after"].to_numpy())
    side = np.where(found["output"] == "w", anchors[:, 0], anchors[:, 1])
    name = found["output"].replace(SIDES)
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
        boxes: a split of `analysis.runs.dataset`, for `size_edges` and `sizes`; None draws no boxes.
    """
    sides = list(SIDES.values())
    rows, rest = _acting(data, sides, "%", "No site changes the size of a box: launch Table 5.")
    made, axes = figure("page", 2.4 * len(rows), rows=len(rows), columns=2, width_ratios=(1, 1.25))
    styles = looks(sorted(set(data["level"])))
    for (sizes, changes), (name, part) in zip(axes, rows.items(), strict=True):
        if boxes is not None:
            _boxes(sizes, boxes)
        _anchors(sizes, part, styles)
        sizes.set(xlabel="width (px)", ylabel="height (px)", title=name)
        _by_anchor(changes, part, styles, sides, "%")
        changes.set(ylabel="change of size (%)", title="full: width, open: height")
    grey = "; the darker, the more boxes of the dataset" if boxes is not None else ""
    title = f"{spread(data, 'Mark', 'bar')}\nLeft, from open to full: without and with the site{grey}{rest}"
    legend(made, axes[:, 0], len(styles) + 1, title)
    return made


@styled()
def centre_offsets(data: pd.DataFrame) -> Figure:
    """Shift of the centre in pixels by anchor and level: a panel for each experiment and site.

    Raises NothingToShow where no site moves a centre.
    """
    rows, rest = _acting(
        data, ["x", "y"], "px", "No site moves the centre of a box; × iPR* cannot: launch Table 2."
    )
    styles = looks(sorted(set(data["level"])))
    made, axes = grid(len(rows), 2, 2.35)
    for each, (name, part) in zip(axes, rows.items(), strict=True):
        _by_anchor(each, part, styles, ["x", "y"], "px")
        each.set(ylabel="shift of the centre (px)", title=name)
    title = f"{spread(data, 'Mark', 'bar')}; full: x, to the right; open: y, down{rest}"
    legend(made, axes, len(styles), title)
    return made


def _acting(
    data: pd.DataFrame, quantities: list[str], unit: str, otherwise: str
) -> tuple[dict[str, pd.DataFrame], str]:
    """The experiments and sites that do something to these quantities, by name, and what is left out."""
    given = data[data["quantity"].isin(quantities) & (data["unit"] == unit)]
    moved = given[given[["low", "high"]].abs().max(axis=1) > 0]
    names = set(zip(moved["series"], moved["site"], strict=True))
    if not names:
        raise NothingToShow(otherwise)
    order = {site: place for place, site in enumerate(SITES)}
    shown, rest = cut(sorted(names, key=lambda name: (order.get(name[1], len(order)), name[0])), PANELS)
    by_name = dict(list(data.groupby(["series", "site"])))
    return {f"{series}, site {site}": by_name[series, site] for series, site in shown}, rest


def _boxes(axes: Axes, boxes: Mapping[str, Any]) -> None:
    """The dataset's boxes by width and height, the darkest where most are; the empty rim is cut off."""
    edges, counts = np.array(boxes["size_edges"]), np.array(boxes["sizes"])
    axes.pcolormesh(edges, edges, np.sqrt(counts.T), cmap=BOXES, vmin=0, rasterized=True)
    held = np.flatnonzero(counts.sum(0) + counts.sum(1))
    axes.grid(False)
    if len(held):
        limits = edges[held[0]], edges[held[-1] + 1]
        axes.set(xlim=limits, ylim=limits)


def _anchors(axes: Axes, data: pd.DataFrame, styles: Mapping[str, Look]) -> None:
    """A line for each anchor, from its size before (open) to that after."""
    wide = data.pivot(index=["level", "anchor"], columns="quantity", values="mean")
    limits = [axes.get_xlim(), axes.get_ylim()] if axes.collections else [(np.inf, 0.0)] * 2
    for level, rows in wide.groupby("level"):
        style = styles[str(level)] | {"linestyle": ""}
        before, after = ([rows[f"{side} {when}"] for side in SIDES.values()] for when in ("before", "after"))
        axes.plot(*before, markerfacecolor="white", **style)
        axes.plot(*after, label=str(level), **style)
        for x, y in zip(*(zip(b, a, strict=True) for b, a in zip(before, after, strict=True)), strict=True):
            axes.plot(x, y, color=style["color"], lw=0.8)
    for scale, (low, high), side in zip(("x", "y"), limits, SIDES.values(), strict=True):
        sizes = wide[[f"{side} before", f"{side} after"]].to_numpy()
        axes.set(**{f"{scale}scale": "log"})
        axes.set(**{f"{scale}lim": (min(low, sizes.min() / 1.3), max(high, sizes.max() * 1.3))})
    for axis in (axes.xaxis, axes.yaxis):
        plain(axis)


def _by_anchor(
    axes: Axes, data: pd.DataFrame, styles: Mapping[str, Look], quantities: Sequence[str], unit: str
) -> None:
    """Marks of two quantities side by side for each anchor, levels one after another."""
    anchors = int(data["anchor"].max()) + 1
    here = data[data["unit"] == unit]
    own = [level for level in styles if (here["level"] == level).any()]
    axes.axhline(0, color=GREY, lw=0.8)
    for side, quantity, fill in zip((-0.15, 0.15), quantities, FILLS, strict=True):
        for place, level in enumerate(own):
            rows = here[(here["quantity"] == quantity) & (here["level"] == level)]
            label = level if fill == "full" else None
            bars(axes, place * anchors + rows["anchor"] + side, rows, label, **styles[level], fillstyle=fill)
    names = [f"{level}\n1" if not anchor else f"{anchor + 1}" for level in own for anchor in range(anchors)]
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel("level and anchor")
