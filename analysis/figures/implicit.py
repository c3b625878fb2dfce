"""The learnt representations themselves: Fig. 9, how they came about, what they hold for anchors and classes.

Each figure is a pair: `…_data` makes the frame behind it from the frames of `analysis.runs`, and the
function without `_data` draws that. Raw channels before a predictor have no common order across seeds,
so several runs are compared in what they do to the predictions (`analysis.figures.effects`); only what acts
on the predictions themselves (PR) is averaged here.

Spectra: how many directions does a learnt matrix (W of the network form, Z of the factorisation, Table 6)
use? A random matrix of the same shape is the reference: training has moved a spectrum only as far as it
leaves the reference's.
"""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from analysis.errors import NothingToShow
from analysis.figures.style import (
    DIVERGING,
    GREY,
    SMALL,
    Look,
    Width,
    curves,
    cut,
    drawn,
    facets,
    figure,
    legend,
    looks,
    plain,
    spread,
    whole,
)
from analysis.implicit import effective_rank, random_spectrum
from analysis.runs import BOX
from analysis.series import banded, series_names

BLOCKS = {"x": "x, y", "y": "x, y", "w": "w, h", "h": "w, h", "obj": "obj"}  # all else are classes
CLASSES = "classes"
BOXES = {"x, y": "box", "w, h": "box"}  # of which a narrow figure cannot name the parts
EFFECT = r"^effect of ([\w-]+) \(logits\)$"  # quantities in one unit
SITES = {"fa": "FA", "pr": "PR", "pr-wh": "PR*", "fa-cluster": "FA*"}
VECTORS, MAPS, PANELS, MATRICES = 8, 4, 18, 6  # panels, or rows of them, in one figure


def block(output: str) -> str:
    """The block of Fig. 9 that an output belongs to."""
    return BLOCKS.get(output, CLASSES)


def learned_data(implicit: pd.DataFrame) -> pd.DataFrame:
    """Fig. 9: the representation after the predictor, value by dimension.

    Columns series, quantity ("g(z), add"), level, index, anchor, output, block, mean, low, high, runs, band;
    the value that changes nothing is 0 for addition and 1 for multiplication. Raises NothingToShow without
    such runs.
    """
    frame = implicit[(implicit["site"] == "pr") & (implicit["output"] != "")]
    if frame.empty:
        raise NothingToShow("No run with prediction refinement (iPR) has begun: launch Table 2 or 4.")
    return by_dimension(
        frame.assign(series=series_names(frame), quantity="g(z), " + frame["operator"].astype(str))
    )


def by_dimension(frame: pd.DataFrame) -> pd.DataFrame:
    """What `learned` draws: of a frame with series, quantity, level, index, anchor, output, run and value."""
    by = ["series", "quantity", "level", "index", "anchor", "output"]
    found = banded(frame, by).sort_values(["series", "quantity", "level", "index"], ignore_index=True)
    return found.assign(block=found["output"].map(block))


@drawn
def learned(data: pd.DataFrame, width: Width = "column") -> Figure:
    """Fig. 9: a panel for each experiment and quantity, a line for each level, the outputs' blocks marked.

    Panels of one unit have one scale.
    """
    several = data.groupby("series")["quantity"].transform("nunique") > 1
    site = data["quantity"].str.extract(EFFECT)[0].replace(SITES).fillna(data["quantity"])
    shown = data.assign(panel=data["series"].where(~several, data["series"] + ", " + site))
    panels, rest = cut(shown["panel"].unique(), VECTORS)
    shown = shown[shown["panel"].isin(panels)].sort_values("index", kind="stable")
    shown = shown.assign(unit=shown["quantity"].str.replace(EFFECT, "effect (logits)", regex=True))
    across, height = 1 if width == "column" else min(len(panels), 3), 1.35 if len(panels) > 1 else 2.0
    made, axes = facets(shown, "panel", width, across, height, sharey=False)
    styles = looks(sorted(set(data["level"])))
    for panel, each in axes.items():
        rows = shown[shown["panel"] == panel]
        curves(each, rows, "index", "level", styles, markers=False)
        _blocks(each, rows[rows["level"] == rows["level"].iloc[0]], narrow=across > 1)
        each.set_title(panel, pad=10)
        each.set_ylabel(unit := rows["unit"].iloc[0])
        same = shown[shown["unit"] == unit]
        margin = 0.05 * (same["high"].max() - same["low"].min())
        each.set_ylim(same["low"].min() - margin, same["high"].max() + margin)
    for each in list(axes.values())[-across:]:
        each.set_xlabel("dimension")
    order = "Dimensions: anchor by anchor x, y, w, h, obj, classes."
    legend(made, axes.values(), columns=4, title=f"{order} {spread(data)}{rest}")
    return made


def _blocks(axes: Axes, rows: pd.DataFrame, narrow: bool) -> None:
    """Shade every other block of outputs and name it above; of many, or in little room, only the anchors."""
    ordered = rows.sort_values("index", kind="stable")
    coarse = narrow or len(ordered) > 60
    name = "anchor " + (ordered["anchor"] + 1).astype(str) if coarse else ordered["block"].replace(BOXES)
    starts = name.ne(name.shift()) | ordered["anchor"].ne(ordered["anchor"].shift())
    edges = [*ordered.loc[starts, "index"], ordered["index"].max() + 1]
    above = blended_transform_factory(axes.transData, axes.transAxes)
    for place, (text, left, right) in enumerate(zip(name[starts], edges, edges[1:], strict=False)):
        if place % 2:
            axes.axvspan(left - 0.5, right - 0.5, color="#000000", alpha=0.05, lw=0)
        middle = (left + right - 1) / 2
        axes.text(middle, 1.02, text, transform=above, ha="center", fontsize=SMALL, color=GREY)
    for edge in ordered.loc[ordered["output"] == BOX[0], "index"]:
        axes.axvline(edge - 0.5, color=GREY, lw=0.6, ls=":")
    axes.set_xlim(edges[0] - 0.5, edges[-1] - 0.5)


def evolution_data(history: pd.DataFrame) -> pd.DataFrame:
    """How values came about over the epochs, of one or several runs.

    Columns run, site, level, epoch, index, output, value and change (since the first epoch recorded).

    Args:
        history: with a `value` at every epoch, as of `load_implicit(runs, "all")`.

    Raises:
        NothingToShow: a run without implicit knowledge.
    """
    if history.empty:
        raise NothingToShow("This run has no implicit knowledge, or has not begun.")
    keys = ["run", "site", "level", "index"]
    history = history.reset_index(drop=True)
    first = history.loc[history.groupby(keys, observed=True)["epoch"].idxmin(), [*keys, "value"]]
    joined = history.merge(first.rename(columns={"value": "start"}), on=keys)
    joined["change"] = joined["value"] - joined["start"]
    columns = ["run", "site", "level", "epoch", "index", "output", "value", "change"]
    return joined[columns].sort_values(["run", "site", "level", "epoch", "index"], ignore_index=True)


@drawn
def heat_map(
    data: pd.DataFrame, label: str = "change of g(z) since the start", width: Width = "column"
) -> Figure:
    """Change of every value over the recorded epochs: a row for each run and site, a panel for each level.

    label: what changes.
    """
    rows, rest = cut(data.groupby(["run", "site"], sort=False), MAPS)
    levels = sorted(set(data["level"]))
    made, axes = figure(
        width, 1.5 * len(rows) + 0.5, rows=len(rows), columns=len(levels), sharex=True, sharey="row"
    )
    largest = float(data["change"].abs().max()) or 1.0
    for line, ((run, site), own) in zip(axes, rows, strict=True):
        for each, level in zip(line, levels, strict=True):
            table = own[own["level"] == level].pivot(index="index", columns="epoch", values="change")
            if table.empty:
                each.set_axis_off()
                continue
            scale = {"vmin": -largest, "vmax": largest, "cmap": DIVERGING, "rasterized": True}
            sns.heatmap(table, cbar=False, ax=each, **scale)
            every = max(-(-len(table) // 6), 1)
            each.set_yticks(np.arange(0, len(table), every) + 0.5, table.index[::every], rotation=0)
            step = max(-(-len(table.columns) // 4), 1)
            each.set_xticks(np.arange(0, table.shape[1], step) + 0.5, table.columns[::step], rotation=0)
            each.set(xlabel="", ylabel="", title=level)
            each.invert_yaxis()
            each.grid(False)
        of = f"{SITES.get(str(site), site)}, " if data["site"].nunique() > 1 else ""
        line[0].set_ylabel(f"{run}\n{of}dimension" if len(rows) > 1 else f"{of}dimension")
    for each in axes[-1]:
        each.set_xlabel("epoch")
    bar = made.colorbar(axes[0, 0].collections[0], ax=axes, location="bottom", aspect=40, pad=0.02)
    bar.set_label(label + rest)
    return made


def settling_data(history: pd.DataFrame) -> pd.DataFrame:
    """How far representations still are from their last value: 1 at the start, 0 at the end.

    The norm of what is left to go over that of the whole change, of each run, over the runs of an experiment.
    Columns series, site, level, epoch, mean, low, high, runs, band and change (the norm of the whole change,
    mean over runs). Raises NothingToShow without such runs and where nothing has changed yet.

    Args:
        history: of `load_implicit(runs, "all")`.
    """
    if history.empty:
        raise NothingToShow("No run with implicit knowledge has begun; Table 1 has some.")
    keys = ["run", "site", "level"]
    named = history.assign(series=series_names(history))
    rows = []
    for key, part in named.groupby(keys, observed=True, sort=False):
        table = part.pivot(index="epoch", columns="index", values="value").sort_index()
        values = table.to_numpy(np.float64)  # sums of float32 differ between processors
        left = np.linalg.norm(values - values[-1], axis=1)
        if left[0] > 0:
            columns = {"epoch": table.index, "value": left / left[0], "change": left[0]}
            rows.append(
                pd.DataFrame(columns).assign(
                    series=part["series"].iloc[0], **dict(zip(keys, map(str, key), strict=True))
                )
            )
    if not rows:
        raise NothingToShow("The implicit knowledge of no run has changed since its start.")
    by = ["series", "site", "level", "epoch"]
    long = pd.concat(rows)
    return banded(long, by).merge(long.groupby(by)["change"].mean().reset_index())


@drawn
def settling(data: pd.DataFrame, width: Width = "column") -> Figure:
    """A panel for each experiment and site, a line for each level: 1 at the start, 0 once nothing moves."""
    names, rest = cut(named(data).unique(), PANELS)
    shown = data.assign(panel=named(data))
    shown = shown[shown["panel"].isin(names)]
    made, axes = facets(shown, "panel", width, 3 if width == "column" else 6, 1.05, sharex=True, sharey=True)
    styles = looks(sorted(set(data["level"])))
    for panel, each in axes.items():
        curves(each, shown[shown["panel"] == panel], "epoch", "level", styles)
        each.set(xlabel="epoch", yticks=(0, 0.5, 1))
        each.set_title(textwrap.fill(str(panel), 16), fontsize=7)
        whole(each.xaxis, 3)
    made.supylabel("distance left to go (of all)", fontsize=8)
    legend(made, axes.values(), columns=4, title=f"{spread(data)}{rest}")
    return made


def named(data: pd.DataFrame) -> pd.Series:
    """What panels and rows are called: the experiment, with the site where it has several."""
    several = data.groupby("series")["site"].transform("nunique") > 1
    return data["series"].where(~several, data["series"] + ", " + data["site"].astype(str).replace(SITES))


def spectra_data(frame: pd.DataFrame) -> pd.DataFrame:
    """Singular values relative to the largest of their matrix, over the seeds of an experiment.

    Columns series, site, tensor, layer, level, part, count (of singular values), index, mean, low, high,
    runs, band; expected (of a random matrix as `random_spectrum`, relative to its edge); effective_rank (mean
    over runs) and expected_rank (of `expected`). A non-negative Z has no expected values: its mean is not 0.

    Args:
        frame: of `load_spectra`.

    Raises:
        NothingToShow: no run has the network or the factorisation form.
    """
    if frame.empty:
        raise NothingToShow(
            "No run has the network or the factorisation form, so there are no matrices: launch Table 6."
        )
    frame = frame.assign(series=series_names(frame))
    matrix = ["series", "site", "tensor", "layer", "level", "part", "nonnegative", "rows", "columns"]
    one = frame.groupby([*matrix, "run"], sort=False)["singular_value"]
    frame["value"] = frame["singular_value"] / one.transform("max").clip(lower=np.finfo(float).tiny)
    ranks = one.agg(effective_rank).groupby(matrix, sort=False).mean().rename("effective_rank").reset_index()
    found = banded(frame, [*matrix, "index"]).merge(ranks, on=matrix)
    parts = [_expected(part) for _, part in found.groupby(matrix, sort=False)]
    kept = ["series", "site", "tensor", "layer", "level", "part", "count", "index", "mean", "low", "high"]
    kept += ["runs", "band", "expected", "effective_rank", "expected_rank"]
    return pd.concat(parts, ignore_index=True)[kept]


def _expected(part: pd.DataFrame) -> pd.DataFrame:
    """Of one matrix: add count, expected and expected_rank."""
    first = part.iloc[0]
    part = part.assign(count=len(part), expected=np.nan, expected_rank=np.nan)
    if first["nonnegative"]:
        return part
    expected = random_spectrum(int(first["rows"]), int(first["columns"]))
    return part.assign(expected=expected[part["index"]], expected_rank=effective_rank(expected))


@drawn
def spectra(data: pd.DataFrame, width: Width = "column") -> Figure:
    """Singular values, logarithmic, the largest first: a panel for each experiment, a line for each level."""
    tensor = data["tensor"].where(
        data.groupby("series")["layer"].transform("max") == 0,
        data["tensor"] + " of layer " + (data["layer"] + 1).astype(str),
    )
    data = data.assign(panel=named(data) + ": " + tensor, place=(data["index"] + 0.5) / data["count"])
    names, rest = cut(data["panel"].unique(), MATRICES)
    made, axes = facets(data[data["panel"].isin(names)], "panel", width, 1 if width == "column" else 2, 2.2)
    styles = looks(sorted(set(data["level"])))
    for panel, each in axes.items():
        _spectrum(each, data[data["panel"] == panel], styles)
        each.set_ylabel("relative to the largest")
    each.set_xlabel("place of the singular value (0 largest, 1 smallest)")
    legend(made, axes.values(), columns=2, title=spread(data) + rest)
    return made


def _spectrum(axes: Axes, data: pd.DataFrame, styles: Look) -> None:
    ranks = ["effective rank"]
    for (level, part), rows in data.groupby(["level", "part"]):
        axes.plot(
            rows["place"], rows["expected"], color=GREY, lw=2.5, alpha=0.4, label="random matrix", zorder=1
        )
        first = rows.iloc[0]
        name = level if data["part"].nunique() == 1 else f"{level}, anchor {int(str(part)) + 1}"
        random = f", random {first['expected_rank']:.1f}" if pd.notna(first["expected_rank"]) else ""
        ranks.append(f"{name}: {first['effective_rank']:.1f} of {first['count']}{random}")
    for _, rows in data.groupby("part"):
        curves(axes, rows, "place", "level", styles)
    axes.set_yscale("log")
    plain(axes.yaxis, (1, 2, 5))
    axes.text(0.03, 0.04, "\n".join(ranks), transform=axes.transAxes, fontsize=SMALL, va="bottom")
