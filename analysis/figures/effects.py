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
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from analysis.errors import NothingToShow
from analysis.figures.implicit import CLASSES, block, by_dimension
from analysis.figures.style import GREY, cut, figure, legend, look, signed, spread, styled
from analysis.implicit import sigmoid
from analysis.runs import BOX, Outputs
from analysis.series import banded, series_names

NONE = "No run with implicit knowledge has recorded its effects yet: launch a table, as `ablate launch 1`."
GROUPS = ("x, y", "w, h", "obj", CLASSES)
NAMED = 12  # classes
DECADE = 10
NUMBERED = 14  # runs whose similarities can be written into the cells


def dimensions_data(effects: pd.DataFrame) -> pd.DataFrame:
    """The effect on every output (logits) of every site, for `implicit.learned`: Fig. 9 of all sites.

    Raises NothingToShow.
    """
    if effects.empty:
        raise NothingToShow(NONE)
    quantity = "effect of " + effects["site"].astype(str) + " (logits)"
    named = effects.assign(series=series_names(effects), quantity=quantity, value=effects["effect"])
    return by_dimension(named)


def anchors_data(effects: pd.DataFrame) -> pd.DataFrame:
    """Mean effect (logits) on each block of an anchor's outputs.

    Columns series, site, level, anchor, block, mean, low, high, runs, band. Raises NothingToShow.
    """
    if effects.empty:
        raise NothingToShow(NONE)
    frame = effects.assign(series=series_names(effects), block=effects["output"].map(block))
    by = ["series", "site", "level", "anchor", "block"]
    of_run = frame.groupby([*by, "run"], observed=True)["effect"].mean().rename("value").reset_index()
    return banded(of_run, by)


@styled()
def anchors(data: pd.DataFrame) -> Figure:
    """Effect on boxes, objectness and classes by anchor: a row for each experiment and site."""
    rows = list(dict.fromkeys(zip(data["series"], data["site"], strict=True)))
    levels = sorted(set(data["level"]))
    made, axes = figure(
        "page", 1.6 * len(rows) + 0.5, rows=len(rows), columns=len(levels), sharex=True, sharey="row"
    )
    for line, (series, site) in zip(axes, rows, strict=True):
        for each, level in zip(line, levels, strict=True):
            chosen = (data["series"] == series) & (data["site"] == site) & (data["level"] == level)
            here = data[chosen]
            for place, (anchor, part) in enumerate(here.groupby("anchor")):
                ordered = part.set_index("block").reindex(GROUPS)
                x = np.arange(len(GROUPS)) + 0.16 * (place - (here["anchor"].nunique() - 1) / 2)
                low, high = ordered["mean"] - ordered["low"], ordered["high"] - ordered["mean"]
                style = look(place) | {"linestyle": ""}
                each.errorbar(
                    x,
                    ordered["mean"],
                    np.clip([low, high], 0, None),
                    label=f"anchor {anchor + 1}",
                    lw=0.8,
                    **style,
                )
            each.axhline(0, color=GREY, lw=0.6)
            each.set_xticks(range(len(GROUPS)), GROUPS)
            each.set_title(f"{level}")
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
    frame = effects[effects["output"].isin(list(frequency))]
    if effects.empty:
        raise NothingToShow(NONE)
    if frame.empty:
        raise NothingToShow("No run says how often the classes occur: dataset.json is missing or damaged.")
    frame = frame.assign(series=series_names(frame))
    acts = frame.groupby(["series", "site"], observed=True)["effect"].transform(lambda v: v.abs().max()) > 0
    frame = frame[acts]
    if frame.empty:
        raise NothingToShow("No site acts on the classes: × iPR* changes widths and heights only.")
    by = ["series", "site", "output"]
    of_run = frame.groupby([*by, "run"], observed=True)["effect"].mean().rename("value").reset_index()
    found = banded(of_run, by)
    found["boxes"] = found["output"].map(frequency).astype(float)
    if scores is None or scores.empty:
        return found.assign(AP=np.nan)
    ap = scores[scores["run"].isin(of_run["run"])].groupby("output")["AP"].mean()
    return found.assign(AP=found["output"].map(ap).astype(float))


@styled()
def classes(data: pd.DataFrame) -> Figure:
    """Effect on a class against its boxes in the training data and, where it is known, against its AP."""
    panels = [("boxes", "boxes in the training data"), ("AP", "AP of the class, mean of the runs (%)")]
    panels = [(column, label) for column, label in panels if data[column].notna().any()]
    made, axes = figure("page", 2.9, columns=len(panels), sharey=True)
    for each, (column, label) in zip(axes.flat, panels, strict=True):
        for place, ((series, site), rows) in enumerate(data.groupby(["series", "site"], sort=False)):
            style = look(place) | {"linestyle": ""}
            spread = np.clip([rows["mean"] - rows["low"], rows["high"] - rows["mean"]], 0, None)
            each.errorbar(rows[column], rows["mean"], spread, label=f"{series}, {site}", lw=0.6, **style)
        _name_classes(each, data, column)
        each.axhline(0, color=GREY, lw=0.6)
        each.set_xlabel(label)
    if data["boxes"].max() > DECADE * data["boxes"].min() > 0:
        axes[0, 0].set_xscale("log")
    axes[0, 0].set_ylabel("mean effect on its logit")
    legend(made, made.axes, columns=3)
    return made


def _name_classes(axes: Axes, data: pd.DataFrame, column: str) -> None:
    """Write the class above its highest mark; of many classes those with the largest effects."""
    tops = data.loc[data.groupby("output")["mean"].idxmax()].dropna(subset=[column])
    for row in tops.loc[tops["mean"].abs().nlargest(NAMED).index].itertuples():
        place = (getattr(row, column), row.mean)
        axes.annotate(str(row.output), place, fontsize=6, xytext=(3, 3), textcoords="offset points")


def vectors(effects: pd.DataFrame) -> pd.DataFrame:
    """One row for each run and site, indexed by (series, seed, run, site): its effect on every output.

    Outputs that a run does not have, as of a model with other levels, are NaN. Raises NothingToShow without
    effects.
    """
    if effects.empty:
        raise NothingToShow(NONE)
    frame = effects.assign(series=series_names(effects))
    return frame.pivot(
        index=["series", "seed", "run", "site"], columns=["level", "index"], values="effect"
    ).sort_index(axis=1)


def similarity_data(effects: pd.DataFrame) -> pd.DataFrame:
    """Cosines between the effects of all runs and sites. Columns a, site_a, b, site_b, cosine.

    a and b are `series seed N`; models whose outputs are not the same have no cosine (NaN). Raises
    NothingToShow where there are fewer than two.
    """
    wide = vectors(effects).sort_index(level=["series", "site", "seed"])
    if len(wide) < 2:
        raise NothingToShow("One run with implicit knowledge only: similarity needs two, as of two seeds.")
    known = wide.notna().to_numpy()
    values = wide.fillna(0.0).to_numpy()
    values = values.astype(np.float64)  # sums of float32 differ between processors
    unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    alike = (known[:, None] == known[None]).all(2)
    cosine = np.where(alike, unit @ unit.T, np.nan)
    names = [f"{series} seed {seed}" for series, seed, _, _ in wide.index]
    sites = list(wide.index.get_level_values("site"))
    count = len(names)
    left, right = np.divmod(np.arange(count * count), count)
    return pd.DataFrame(
        {
            "a": np.array(names)[left],
            "site_a": np.array(sites)[left],
            "b": np.array(names)[right],
            "site_b": np.array(sites)[right],
            "cosine": cosine.ravel(),
        }
    )


@styled()
def similarity(data: pd.DataFrame) -> Figure:
    """Heat map of the cosines, seeds side by side; numbers where they have room, white: other outputs."""
    rows = list(dict.fromkeys(zip(data["a"], data["site_a"], strict=True)))
    table = data["cosine"].to_numpy().reshape(len(rows), len(rows))
    groups = [f"{name.rsplit(' seed ', 1)[0]}, {site}" for name, site in rows]
    edges = [0, *(k for k in range(1, len(rows)) if groups[k] != groups[k - 1]), len(rows)]
    middles = [(left + right - 1) / 2 for left, right in itertools.pairwise(edges)]
    spans = enumerate(itertools.pairwise(edges), 1)
    names = [f"{place}  {groups[left]} ({right - left})" for place, (left, right) in spans]
    made, axes = figure("page", 4.6)
    each = axes[0, 0]
    mesh = each.imshow(table, vmin=-1, vmax=1, cmap="PuOr", interpolation="nearest")
    each.grid(False)
    each.set_xticks(middles, [str(place) for place in range(1, len(names) + 1)], fontsize=6)
    each.set_yticks(middles, names, fontsize=6)
    for edge in edges[1:-1]:
        each.axhline(edge - 0.5, color=GREY, lw=0.4)
        each.axvline(edge - 0.5, color=GREY, lw=0.4)
    if len(rows) <= NUMBERED:
        for i, j in zip(*np.nonzero(~np.isnan(table)), strict=True):
            colour = "w" if abs(table[i, j]) > 0.6 else "k"
            each.text(j, i, signed(float(table[i, j]), 1), ha="center", va="center", fontsize=5, color=colour)
    made.colorbar(mesh, ax=each, label="cosine of the effects (runs in brackets)", shrink=0.8)
    return made


def components_data(effects: pd.DataFrame) -> pd.DataFrame:
    """Principal components of the effects of all runs and sites, after centring.

    Columns series, seed, run, site, first, second (logits), their shares of the variance, and left_out: how
    many runs have other outputs than most, as a model with other levels, and are not shown. Raises
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
    found = wide.index.to_frame(index=False)
    places = u[:, :2] * s[:2]
    # The sign of a component is arbitrary; its largest score is made positive.
    places *= np.where(places[np.abs(places).argmax(0), np.arange(places.shape[1])] < 0, -1.0, 1.0)
    return found.assign(
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
    for place, ((series, site), rows) in enumerate(data.groupby(["series", "site"], sort=False)):
        style: dict[str, Any] = look(place) | {"linestyle": ""}
        each.plot(rows["first"], rows["second"], label=f"{series}, {site}", **style)
        for row in rows.itertuples():
            each.annotate(
                str(row.seed), (row.first, row.second), fontsize=5, xytext=(3, 2), textcoords="offset points"
            )
    first, second = data["share_first"].iloc[0], data["share_second"].iloc[0]
    each.set(
        xlabel=f"first component ({first:.0%} of the variance), logits",
        ylabel=f"second ({second:.0%}), logits",
    )
    others = data["left_out"].iloc[0]
    note = f"; {others} not shown, of models with other levels or classes" if others else ""
    legend(made, made.axes, columns=3, title=f"Numbers beside the marks are seeds{note}")
    return made


ROWS = 6  # experiments and sites in one figure
SITES = ("pr-wh", "pr", "fa-cluster", "fa")  # those that act on sizes most directly come first
BOXES = LinearSegmentedColormap.from_list("boxes", ["#FFFFFF", "#9A9A9A"])  # marks stand out on its darkest
CHANGES = {"width": ("w", "full"), "height": ("h", "none")}  # quantity -> letter, how its mark is filled
OFFSETS = {"x": ("x, to the right", "full"), "y": ("y, down", "none")}


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
    found = effects[effects["run"].isin(list(outputs)) & effects["output"].isin(BOX[:4])]
    if found.empty:
        raise NothingToShow(NONE)
    found = found.assign(series=series_names(found))
    names = {run: {level.name: level for level in each.levels} for run, each in outputs.items()}
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
        boxes: a split of `analysis.runs.dataset`, for `size_edges` and `sizes`; None draws no boxes.
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
    shown, rest = cut(names, ROWS)
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
