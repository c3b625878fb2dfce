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

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from analysis.errors import NothingToShow
from analysis.figures.style import (
    GREY,
    Look,
    band,
    cut,
    grid,
    legend,
    look,
    looks,
    plain,
    spread,
    styled,
    whole,
)
from analysis.implicit import effective_rank, random_spectrum
from analysis.runs import BOX
from analysis.series import banded, series_names

BLOCKS = {"x": "x, y", "y": "x, y", "w": "w, h", "h": "w, h", "obj": "obj"}  # all else are classes
CLASSES = "classes"
TRACES = 12  # values followed over the epochs
NAMED = 2  # of them, whose names have room
MATRICES = 6  # panels of spectra


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


@styled()
def learned(data: pd.DataFrame) -> Figure:
    """Fig. 9: a panel for each experiment and quantity, a line for each level, the outputs' blocks marked."""
    panels = list(data.groupby(["series", "quantity"], sort=False))
    made, axes = grid(len(panels), 1, 2.1)
    styles = looks(sorted(set(data["level"])))
    for each, ((name, quantity), rows) in zip(axes, panels, strict=True):
        for level, style in styles.items():
            here = rows[rows["level"] == level].sort_values("index")
            marked = {"markevery": max(len(here) // 30, 1), "markersize": 2.5}
            band(each, here["index"], here, level, **style | marked)
        _blocks(each, rows[rows["level"] == next(iter(styles))])
        runs = rows["runs"].max()
        over = f"mean of {runs} runs, band: {rows['band'].iloc[0]}" if runs > 1 else "one run"
        each.set_title(f"{name} ({over})", pad=12)
        each.set_ylabel(str(quantity))
    axes[-1].set_xlabel("dimension: anchors × (x, y, w, h, obj, classes)")
    legend(made, axes, columns=len(styles), title="Pyramid level")
    return made


def _blocks(axes: Axes, rows: pd.DataFrame) -> None:
    """Shade every other block of outputs and name it above the panel."""
    ordered = rows.sort_values("index")
    starts = ordered[["anchor", "block"]].ne(ordered[["anchor", "block"]].shift()).any(axis=1)
    edges = [*ordered.loc[starts, "index"], ordered["index"].max() + 1]
    wide = len(ordered) > 60
    above = blended_transform_factory(axes.transData, axes.transAxes)
    spans = zip(ordered.loc[starts, "block"], edges, edges[1:], strict=False)
    for place, (name, left, right) in enumerate(spans):
        if place % 2:
            axes.axvspan(left - 0.5, right - 0.5, color="#000000", alpha=0.05, lw=0)
        if not wide or name == CLASSES:
            middle = (left + right - 1) / 2
            axes.text(middle, 1.02, name, transform=above, ha="center", fontsize=6, color=GREY)
    for edge in ordered.loc[ordered["output"] == BOX[0], "index"]:
        axes.axvline(edge - 0.5, color=GREY, lw=0.6, ls=":")
    axes.set_xlim(edges[0] - 0.5, edges[-1] - 0.5)


def evolution_data(history: pd.DataFrame) -> pd.DataFrame:
    """How one run's representations came about: `history` is `load_implicit(runs, "all")` of one run.

    Columns run, site, level, epoch, index, output, value and change (since the initial value). Raises
    NothingToShow for a run without implicit knowledge, ValueError for several runs.
    """
    if history.empty:
        raise NothingToShow("This run has no implicit knowledge, or has not begun.")
    if history["run"].nunique() > 1:
        raise ValueError("evolution_data takes the history of one run")
    keys = ["site", "level", "index"]
    first = history.loc[history.groupby(keys, observed=True)["epoch"].idxmin(), [*keys, "value"]]
    joined = history.merge(first.rename(columns={"value": "start"}), on=keys)
    joined["change"] = joined["value"] - joined["start"]
    columns = ["run", "site", "level", "epoch", "index", "output", "value", "change"]
    return joined[columns].sort_values(["site", "level", "epoch", "index"], ignore_index=True)


@styled()
def heat_map(data: pd.DataFrame) -> Figure:
    """Change of every value over the epochs, a panel for each site and level; dimensions upwards.

    Not seaborn's, whose columns are all of one width: epochs may be recorded at uneven distances.
    """
    made, panels = _by_level(data, 2.0)
    largest = float(data["change"].abs().max()) or 1.0
    for each, here in panels:
        table = here.pivot(index="index", columns="epoch", values="change")
        dimensions = np.arange(len(table) + 1) - 0.5
        mesh = each.pcolormesh(
            _edges(table.columns.to_numpy()),
            dimensions,
            table.to_numpy(),
            vmin=-largest,
            vmax=largest,
            cmap="PuOr",
            rasterized=True,
        )
        each.grid(False)
        each.set(xlabel="epoch", ylabel="dimension")
    made.colorbar(mesh, ax=made.axes, label="change of g(z) since the start")
    return made


def settling_data(history: pd.DataFrame) -> pd.DataFrame:
    """When one run's representations settled: the cosine of every epoch's change with the last one's.

    Raw representations can be compared within one run only. Columns run, site, level, epoch, cosine and size
    (the norm of the change over the last one's). Raises as `evolution_data`, and NothingToShow for a run in
    which nothing has changed yet.
    """
    data = evolution_data(history)
    keys = ["run", "site", "level", "epoch"]
    rows = []
    for (run, site, level), part in data.groupby(keys[:3], observed=True, sort=False):
        table = part.pivot(index="epoch", columns="index", values="change").sort_index()
        values = table.to_numpy(np.float64)  # sums of float32 differ between processors
        norms = np.linalg.norm(values, axis=1)
        if norms[-1] == 0:
            continue
        cosine = values @ values[-1] / np.maximum(norms * norms[-1], 1e-30)
        moved = norms > 0
        columns = {"epoch": table.index[moved], "cosine": cosine[moved], "size": norms[moved] / norms[-1]}
        rows.append(pd.DataFrame(columns).assign(run=str(run), site=str(site), level=str(level)))
    if not rows:
        raise NothingToShow("The implicit knowledge of this run has not changed since its start.")
    return pd.concat(rows, ignore_index=True)[[*keys, "cosine", "size"]]


@styled()
def settling(data: pd.DataFrame) -> Figure:
    """Direction and length of the change since the start over the epochs, a line for each site and level."""
    made, axes = grid(2, 2, 2.4, sharex=True)
    panels = {"cosine": "cosine with the last change", "size": "length over the last one's"}
    names = data["level"] + ", site " + data["site"]
    styles = looks(names)
    for each, (column, label) in zip(axes, panels.items(), strict=True):
        for name, rows in data.groupby(names, sort=False):
            style = styles[name] | {"markevery": max(len(rows) // 8, 1)}
            each.plot(rows["epoch"], rows[column], label=name, **style)
        each.set(xlabel="epoch", ylabel=label)
        whole(each.xaxis)
    legend(made, axes, columns=4, title=str(data["run"].iloc[0]))
    return made


@styled()
def trajectories(data: pd.DataFrame) -> Figure:
    """The values that moved most, over the epochs; named where they act on one output."""
    made, panels = _by_level(data, 2.2)
    for each, here in panels:
        last = here[here["epoch"] == here["epoch"].max()].set_index("index")
        most = last["change"].abs().nlargest(TRACES).index
        for place, index in enumerate(most):
            trace = here[here["index"] == index].sort_values("epoch")
            style = look(place) | {"markevery": [-1]}
            each.plot(trace["epoch"], trace["change"], **style)
            if place < NAMED:
                name = last.loc[index, "output"] or index
                end = trace["epoch"].iloc[-1], trace["change"].iloc[-1]
                each.text(*end, f"  {name}", fontsize=6, va="center", color=style["color"])
        each.margins(x=0.14)
        each.set(xlabel="epoch", ylabel="change of g(z)")
    return made


def _by_level(data: pd.DataFrame, height: float) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A figure named after the run, a panel for each site and level with its rows; levels side by side."""
    parts = list(data.groupby(["site", "level"], observed=True, sort=False))
    made, axes = grid(len(parts), data["level"].nunique(), height, sharex=True)
    made.suptitle(str(data["run"].iloc[0]))
    for each, ((site, level), _) in zip(axes, parts, strict=True):
        each.set_title(f"{level}, site {site}")
        whole(each.xaxis, 4)
    return made, [(each, here) for each, (_, here) in zip(axes, parts, strict=True)]


def _edges(epochs: np.ndarray) -> np.ndarray:
    """Borders of cells around epochs, halfway between neighbours."""
    if len(epochs) == 1:
        return np.array([epochs[0] - 0.5, epochs[0] + 0.5])
    middle = (epochs[1:] + epochs[:-1]) / 2
    return np.concatenate([[2 * epochs[0] - middle[0]], middle, [2 * epochs[-1] - middle[-1]]])


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


@styled()
def spectra(data: pd.DataFrame) -> Figure:
    """Singular values, logarithmic, the largest first: a panel for each experiment, a line for each level."""
    panels, rest = cut(data.groupby(["series", "site", "tensor", "layer"], sort=False), MATRICES)
    made, axes = grid(len(panels), 2, 2.9, sharey=True)
    styles = looks(sorted(set(data["level"])))
    layered = set(data.loc[data["layer"] > 0, "series"])
    for each, ((series, site, tensor, layer), part) in zip(axes, panels, strict=True):
        _spectrum(each, part, styles)
        name = f"{tensor} of layer {int(str(layer)) + 1}" if series in layered else tensor
        each.set_title(f"{series}, site {site}: {name}")
        each.set_xlabel("place among the singular values (0 largest, 1 smallest)")
    for each in axes[::2]:
        each.set_ylabel("relative to the largest")
    legend(made, axes, columns=len(styles) + 1, title=spread(data) + rest)
    return made


def _spectrum(axes: Axes, data: pd.DataFrame, styles: Mapping[str, Look]) -> None:
    ranks = ["effective rank"]
    for level, part in sorted(set(zip(data["level"], data["part"], strict=True))):
        rows = data[(data["level"] == level) & (data["part"] == part)]
        place = (rows["index"] + 0.5) / rows["count"]
        every = max(len(rows) // 8, 1)
        axes.plot(place, rows["expected"], color=GREY, lw=2.5, alpha=0.4, label="random matrix", zorder=1)
        band(axes, place, rows, level, **styles[level] | {"markevery": (part % every, every)})
        first = rows.iloc[0]
        name = level if data["part"].nunique() == 1 else f"{level}, anchor {part + 1}"
        random = f", random {first['expected_rank']:.1f}" if pd.notna(first["expected_rank"]) else ""
        ranks.append(f"{name}: {first['effective_rank']:.1f} of {first['count']}{random}")
    axes.set_yscale("log")
    plain(axes.yaxis, (1, 2, 5))
    axes.text(0.03, 0.04, "\n".join(ranks), transform=axes.transAxes, fontsize=6, va="bottom")
