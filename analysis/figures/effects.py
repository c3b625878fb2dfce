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

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from analysis.errors import NothingToShow
from analysis.figures.implicit import CLASSES, block, by_dimension, named
from analysis.figures.style import (
    DIVERGING,
    GREY,
    LINE,
    PALETTE,
    REST,
    SMALL,
    Look,
    Width,
    cut,
    drawn,
    facets,
    figure,
    legend,
    looks,
    plain,
    signed,
)
from analysis.implicit import sigmoid
from analysis.runs import BOX, Outputs
from analysis.series import banded, series_names

GROUPS = ("x, y", "w, h", "obj", CLASSES)
NAMED = 12  # columns of classes
ABSENT = "#D5D5D5"  # a cell that has no value; a value of 0 is nearly white
NUMBERED = 9  # runs whose cosines are drawn one by one, with their numbers
PANELS, SMALL_PANELS = 4, 18  # experiments and sites in a figure
ORDER = ("pr-wh", "pr", "fa-cluster", "fa")  # those that act on sizes most directly come first
SHADES = LinearSegmentedColormap.from_list("boxes", ["#FFFFFF", "#9A9A9A"])  # marks stand out on its darkest
SIDES = {"w": "width", "h": "height"}
MOMENTS = ("before", "after")


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


def blocks_data(effects: pd.DataFrame) -> pd.DataFrame:
    """Mean effect (logits) on each block of outputs, over all anchors.

    Columns series, site, level, block, mean, low, high, runs, band. Raises NothingToShow.
    """
    frame = _series(effects)
    return _over_runs(frame.assign(block=frame["output"].map(block)), ["series", "site", "level", "block"])


@drawn
def blocks(data: pd.DataFrame, width: Width = "column") -> Figure:
    """Heat map of the mean effect: a row for each experiment and site, a column for each level and block."""
    named_ = data.assign(row=named(data), column=data["level"].astype(str) + " " + data["block"])
    columns = [f"{level} {group}" for group in GROUPS for level in sorted(set(data["level"]))]
    table = named_.pivot(index="row", columns="column", values="mean")
    table = table.loc[named_["row"].unique(), [name for name in columns if name in table]]
    made, axes = _heat_map(table, "mean effect (logits)", width)
    for edge in range(data["level"].nunique(), table.shape[1], data["level"].nunique()):
        axes.axvline(edge, color=GREY, lw=0.6)
    return made


def _heat_map(
    table: pd.DataFrame, label: str, width: Width, largest: float | None = None
) -> tuple[Figure, Axes]:
    """seaborn's heat map around 0, a line of text high for each row, its scale below."""
    longest = max(len(str(name)) for name in table.columns)
    made, axes = figure(width, 0.15 * len(table) + 0.06 * longest + 0.75)
    largest = largest or float(np.nanmax(np.abs(table.to_numpy(float)))) or 1.0
    bar = {"label": label, "location": "bottom", "aspect": 40, "pad": 0.02}
    scale = {"vmin": -largest, "vmax": largest, "cmap": DIVERGING, "cbar_kws": bar}
    ticks = {"xticklabels": True, "yticklabels": True, "rasterized": True}
    sns.heatmap(table, ax=axes[0, 0], **scale, **ticks)
    each = axes[0, 0]
    each.grid(False)
    each.set_facecolor(ABSENT)
    each.set(xlabel="", ylabel="")
    each.tick_params(labelsize=SMALL, labelbottom=False, labeltop=True, bottom=False, left=False)
    each.tick_params("x", rotation=90)
    each.tick_params("y", rotation=0)
    return made, each


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


@drawn
def classes(data: pd.DataFrame, width: Width = "column") -> Figure:
    """Heat map of the mean effect: a row for each experiment and site, a column for each class.

    The rarest class comes first, with its boxes in the training data and its AP. Of many classes a column
    is the mean of those that occur about as often.
    """
    of = data.groupby("output")[["boxes", "AP"]].first().sort_values("boxes", kind="stable")
    if len(of) <= NAMED:
        named_ = {
            name: f"{name}, {boxes:.0f} boxes" + ("" if pd.isna(ap) else f", AP {ap:.0f}")
            for name, boxes, ap in of.itertuples()
        }
    else:
        groups = [of.iloc[places] for places in np.array_split(np.arange(len(of)), NAMED)]
        named_ = {
            name: f"{each['boxes'].iloc[0]:.0f} to {each['boxes'].iloc[-1]:.0f} boxes"
            for each in groups
            for name in each.index
        }
    shown = data.assign(row=named(data), column=data["output"].astype(str).map(named_))
    table = shown.pivot_table(index="row", columns="column", values="mean", sort=False)
    table = table.loc[shown["row"].unique(), list(dict.fromkeys(named_.values()))]
    return _heat_map(table, "mean effect on a class's logit", width)[0]


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


@drawn
def similarity(data: pd.DataFrame, width: Width = "column") -> Figure:
    """Heat map of the cosines between few runs; of many the means between experiments.

    On the diagonal of the means are the seeds of one experiment. Grey: models with other outputs, which have
    no cosine, and a single seed.
    """
    few = len(data) <= NUMBERED**2
    known = data if few else data[(data["a"] != data["b"]) | (data["site_a"] != data["site_b"])]
    sides = {}
    for side in "ab":
        series = (
            data[side].str.replace(" seed ", ", seed ")
            if few
            else data[side].str.rsplit(" seed ", n=1).str[0]
        )
        sides[side] = named(pd.DataFrame({"series": series, "site": data[f"site_{side}"]}))
    order = list(dict.fromkeys(sides["a"]))
    table = known.assign(**sides).pivot_table(index="a", columns="b", values="cosine", sort=False)
    label = "cosine" if few else "mean cosine"
    made, axes = _heat_map(table.reindex(index=order, columns=order), label, width, 1.0)
    for (row, column), cosine in np.ndenumerate(table.reindex(index=order, columns=order)) if few else ():
        shade = "white" if abs(cosine) > 0.6 else "black"
        text = "" if np.isnan(cosine) else signed(cosine, 1)
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=SMALL, color=shade)
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


@drawn
def components(data: pd.DataFrame, width: Width = "column") -> Figure:
    """The plane of the first two components, a panel for each experiment and site, its runs among all."""
    shown = data.assign(panel=named(data))
    names, rest = cut(shown["panel"].unique(), SMALL_PANELS)
    own = shown[shown["panel"].isin(names)]
    made, axes = facets(own, "panel", width, 3 if width == "column" else 6, 0.95, sharex=True, sharey=True)
    for panel, each in axes.items():
        sns.scatterplot(data, x="first", y="second", color="#D0D0D0", s=8, linewidth=0, ax=each)
        here = own[own["panel"] == panel]
        sns.scatterplot(here, x="first", y="second", color=PALETTE[0], s=14, ax=each)
        each.set(xlabel="", ylabel="")
        each.set_title(textwrap.fill(str(panel), 16), fontsize=7)
    first, second = data["share_first"].iloc[0], data["share_second"].iloc[0]
    others = data["left_out"].iloc[0]
    note = f"; {others} not shown, of models with other levels or classes" if others else ""
    title = f"Right: first component ({first:.0%} of the variance); up: second ({second:.0%}); logits."
    legend(made, [], title=f"{title}\nBlue: the runs of this row; grey: all others{note}{rest}")
    return made


def geometry_data(effects: pd.DataFrame, outputs: Mapping[str, Outputs]) -> pd.DataFrame:
    """Shift of centres and size of anchors that a site causes, over the runs of an experiment.

    Columns series, site, level, anchor (from 0), quantity, unit, mean, low, high, runs, band, and one_run,
    which is one of the runs. Quantities are "x" and "y", the shift of the centre (px, to the right and down);
    "width before", "width after" and the same of "height", of that anchor's box (px); "width" and "height",
    their change in percent. Pixels are those of the image in training.

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
    data = data.assign(one_run=data["series"].map(found.groupby("series")["run"].first()))
    return data.sort_values(by[:4], kind="stable", ignore_index=True)


@drawn
def anchor_sizes(
    data: pd.DataFrame, boxes: Mapping[str, Any] | None = None, width: Width = "column"
) -> Figure:
    """Anchors without and with a site, over the boxes trained on: a panel for each site that moves them.

    Raises NothingToShow where no site changes a size.

    Args:
        data: of `geometry_data`.
        boxes: a split of `analysis.runs.dataset`, for `size_edges` and `sizes`, or such splits by run, each
            row over its own; None draws no boxes.
    """
    rows, rest = _acting(
        data, list(SIDES.values()), "%", "No site changes the size of a box: launch Table 5."
    )
    shown = pd.concat([part.assign(panel=name) for name, part in rows.items()])
    made, axes = facets(shown, "panel", width, 2 if width == "column" else 4, 1.6, sharex=True, sharey=True)
    styles = looks(sorted(set(shown["level"])))
    trained_on = [_trained_on(part, boxes) for part in rows.values()]
    for (name, each), part, own in zip(axes.items(), rows.values(), trained_on, strict=True):
        if own is not None:
            _boxes(each, own)
        changes = part[part["quantity"].isin(SIDES.values()) & (part["unit"] == "%")]["mean"]
        _anchors(each, part, styles)
        each.set(xlabel="width (px)", ylabel="height (px)")
        each.set_title(
            f"{textwrap.fill(name, 24)}\n{signed(changes.min(), 0)} to {signed(changes.max(), 0)} %"
        )
    sides = shown[shown["quantity"].isin([f"{side} {when}" for side in SIDES.values() for when in MOMENTS])]
    low, high = sides["mean"].min() / 1.3, sides["mean"].max() * 1.3
    held = [_held(own) for own in trained_on if own is not None]
    lows, highs = zip((low, high), *held, strict=True)
    each.set(xscale="log", yscale="log", xlim=(min(lows), max(highs)))
    each.set_ylim(each.get_xlim())
    for panel in axes.values():
        for axis in (panel.xaxis, panel.yaxis):
            plain(axis, (1, 2, 5))
    grey = "; the darker, the more boxes of the dataset" if held else ""
    title = f"Mark: mean of {data['runs'].max()} runs. Open: without the site, full: with it{grey}{rest}"
    legend(made, axes.values(), len(styles["hue_order"]) + 1, title)
    return made


@drawn
def centre_offsets(data: pd.DataFrame, width: Width = "column") -> Figure:
    """Shift of the centre in pixels: a row for each experiment and site, a mark for each level and anchor.

    Raises NothingToShow where no site moves a centre.
    """
    moved = data[data["quantity"].isin(["x", "y"]) & (data["unit"] == "px")]
    moved = moved.assign(row=named(moved))
    if not moved[["low", "high"]].abs().to_numpy().max(initial=0) > 0:
        raise NothingToShow("No site moves the centre of a box; × iPR* cannot: launch Table 2.")
    made, axes = figure(width, REST + LINE * moved["row"].nunique())
    each = axes[0, 0]
    each.axvline(0, color=GREY, lw=0.8)
    side = {"x": "to the right", "y": "down"}
    marks = {"hue": moved["quantity"].map(side).to_numpy(), "palette": PALETTE[:2], "dodge": True}
    sns.stripplot(moved, x="mean", y="row", size=3, alpha=0.8, jitter=False, ax=each, **marks)
    reach = max(moved["mean"].abs().max() * 1.1, 1.0)
    each.set(xlabel="mean shift of a box's centre (px)", ylabel="", xlim=(-reach, reach))
    around = ((moved["low"] <= 0) & (moved["high"] >= 0)).mean()
    largest = moved["mean"].abs().max()
    title = (
        f"A mark for each level and anchor. The largest mean shift is {largest:.2g} px; for {around:.0%} of "
        "them the runs lie on both sides of 0."
    )
    legend(made, made.axes, 2, title)
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
    order = {site: place for place, site in enumerate(ORDER)}
    shown, rest = cut(sorted(names, key=lambda name: (order.get(name[1], len(order)), name[0])), PANELS)
    parts = dict(list(data.assign(name=named(data)).groupby(["series", "site"])))
    return {str(parts[key]["name"].iloc[0]): parts[key] for key in shown}, rest


def _trained_on(part: pd.DataFrame, boxes: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The split of a row's boxes, where `boxes` are those of several runs."""
    return boxes if boxes is None or "sizes" in boxes else boxes.get(part["one_run"].iloc[0])


def _held(boxes: Mapping[str, Any]) -> tuple[float, float]:
    """The smallest and the largest side that a box of the dataset has (px)."""
    counts = np.array(boxes["sizes"])
    held = np.flatnonzero(counts.sum(0) + counts.sum(1))
    edges = boxes["size_edges"]
    return (edges[held[0]], edges[held[-1] + 1]) if len(held) else (edges[0], edges[-1])


def _boxes(axes: Axes, boxes: Mapping[str, Any]) -> None:
    """The dataset's boxes by width and height, the darkest where most are."""
    edges, counts = np.array(boxes["size_edges"]), np.array(boxes["sizes"])
    axes.pcolormesh(edges, edges, np.sqrt(counts.T), cmap=SHADES, vmin=0, rasterized=True)
    axes.grid(False)


def _anchors(axes: Axes, data: pd.DataFrame, styles: Look) -> None:
    """A line for each anchor, from its size without the site (open) to that with it."""
    wide = data.pivot(index=["level", "anchor"], columns="quantity", values="mean").reset_index()
    marks = {"hue": "level", "style": "level", "s": 16, "ax": axes, **styles}
    for level, rows in wide.groupby("level"):
        sides = [[rows[f"{side} {when}"] for when in MOMENTS] for side in SIDES.values()]
        axes.plot(*sides, color=styles["palette"][level], lw=0.8)
        axes.plot(sides[0][0], sides[1][0], "o", color=styles["palette"][level], mfc="white", ms=3)
    sns.scatterplot(wide, x="width after", y="height after", **marks)
