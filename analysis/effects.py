"""What implicit knowledge does to the raw predictions: where runs, seeds, operators and forms are compared.

The effect of a site is the raw prediction (logits) for the mean feature of 16 validation images with g(z),
less that with the value that changes nothing: W a for + FA. Each figure is a pair, as in `analysis.implicit`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.errors import NothingToShow
from analysis.implicit import CLASSES, block, by_dimension
from analysis.series import banded, series_names
from analysis.style import GREY, figure, legend, look, signed, styled

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
