"""Singular values of the matrices behind g(z): W of the network form, Z of the factorisation (Table 6).

How many directions does a learnt matrix use? A random matrix of the same shape is the reference: training has
moved a spectrum only as far as it leaves the reference's. Reads what runs have left of the trained tensors
(implicit_priors.safetensors), no weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from analysis.errors import NothingToShow
from analysis.legends import cut, spread
from analysis.records import KEYS
from analysis.series import banded, series_names
from analysis.style import GREY, figure, legend, look, styled
from yolor_core.runs.directory import RunDirectory
from yolor_core.runs.files import unreadable

SPECTRA = (
    "site", "level", "part", "tensor", "layer", "rows", "columns", "nonnegative", "index", "singular_value",
)  # fmt: skip
NAME = re.compile(
    r"(?:branches\.(?P<task>[\w-]+)\.)?implicit\.sites\.(?P<site>[\w-]+)\.(?P<level>\w+)"
    r"\.forms\.(?P<part>\d+)\.(?:layers\.(?P<layer>\d+)\.weight|z)"
)
PANELS = 6
GRID = 2001  # points of the angle in which the Marchenko-Pastur law is integrated


def load_spectra(runs: pd.DataFrame) -> pd.DataFrame:
    """Every singular value of every W and Z, the largest first: columns `KEYS` and `SPECTRA`.

    `tensor` is "W" (a layer of the network form; `layer` counts from 0) or "Z" (factorisation, as it enters
    the product, so behind softplus where the form is `nonnegative`), `part` the representation of the site:
    0, or the anchor at FA*. `index` counts singular values from 0. A task's branch stands in place of a site.
    Runs without such tensors add no rows. Raises RunError where a file is damaged.

    Args:
        runs: rows of `analysis.runs.load_runs`.
    """
    rows = [
        {**{key: getattr(run, key) for key in KEYS}, **found}
        for run in runs.itertuples()
        for found in _spectra(RunDirectory(str(run.path)))
    ]
    return pd.DataFrame(rows, columns=[*KEYS, *SPECTRA])


def _spectra(directory: RunDirectory) -> Iterator[dict[str, Any]]:
    if not directory.priors.exists():
        return
    for name, matrix in _matrices(directory.priors):
        nonnegative = name["layer"] is None and _nonnegative(directory, name["task"], name["site"])
        values = np.logaddexp(0, matrix) if nonnegative else matrix
        for index, value in enumerate(np.linalg.svd(values, compute_uv=False)):
            yield {
                "site": name["task"] or name["site"],
                "level": name["level"],
                "part": int(name["part"]),
                "tensor": "Z" if name["layer"] is None else "W",
                "layer": int(name["layer"] or 0),
                "rows": matrix.shape[0],
                "columns": matrix.shape[1],
                "nonnegative": nonnegative,
                "index": index,
                "singular_value": float(value),
            }


def _matrices(path: Path) -> Iterator[tuple[re.Match[str], NDArray[np.float64]]]:
    try:
        with safe_open(path, "numpy") as file:
            for key in file.keys():  # noqa: SIM118 - the file is no mapping
                name = NAME.fullmatch(key)
                if name and len(file.get_slice(key).get_shape()) == 2:
                    yield name, file.get_tensor(key).astype(np.float64)
    except (OSError, SafetensorError) as error:
        raise unreadable(path, str(error)) from None


def _nonnegative(directory: RunDirectory, task: str | None, site: str) -> bool:
    """Whether the form passes Z through softplus; as run.json says, else not."""
    science: Mapping[str, Any] = (directory.read_run() or {}).get("config", {}).get("science", {})
    model = science.get("model", {})
    configs = model.get("implicit", ())
    if task is not None:
        configs = [each.get("implicit") or {} for each in model.get("branches", ()) if each["task"] == task]
    return any(each.get("nonnegative", False) for each in configs if each.get("site") == site)


def effective_rank(values: NDArray[Any]) -> float:
    """exp of the entropy of the squared singular values' shares: n for n equal ones, 1 for a single one."""
    squares = np.asarray(values, np.float64) ** 2
    shares = squares[squares > 0] / max(squares.sum(), np.finfo(float).tiny)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def random_spectrum(rows: int, columns: int) -> NDArray[np.float64]:
    """Expected singular values of a random matrix, relative to the edge: quantiles of Marchenko and Pastur.

    Its entries are independent with mean 0 and one variance, which drops out: W, drawn uniformly, and Z,
    drawn from a normal distribution, begin so. The law is that of large matrices; the k-th of n values, the
    largest first, is its quantile at (k + 1/2) / n from above.

    Returns (min(rows, columns),).
    """
    count, ratio = min(rows, columns), min(rows, columns) / max(rows, columns)
    angle = np.linspace(0, np.pi, GRID)  # square = 1 + ratio + 2 sqrt(ratio) cos(angle): from the upper edge
    square = 1 + ratio + 2 * np.sqrt(ratio) * np.cos(angle)
    density = np.sin(angle) ** 2 / np.maximum(square, 1e-12)
    share = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    places = (np.arange(count) + 0.5) / count
    squares = np.interp(places, share / share[-1], square)
    return np.sqrt(squares) / (1 + np.sqrt(ratio))


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
    if first["nonnegative"]:
        return part.assign(count=len(part), expected=np.nan, expected_rank=np.nan)
    expected = random_spectrum(int(first["rows"]), int(first["columns"]))
    return part.assign(
        count=len(part), expected=expected[part["index"]], expected_rank=effective_rank(expected)
    )


@styled()
def spectra(data: pd.DataFrame) -> Figure:
    """Singular values, logarithmic, the largest first: a panel for each experiment, a line for each level."""
    by = ["series", "site", "tensor", "layer"]
    panels, rest = cut(data.groupby(by, sort=False), PANELS)
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    made, axes = figure("page", 2.6 * rows + 0.5, rows=rows, columns=columns, sharey=True)
    for spare in axes.flat[len(panels) :]:
        spare.remove()
    levels = sorted(set(data["level"]))
    layered = set(data.loc[data["layer"] > 0, "series"])
    for each, ((series, site, tensor, layer), part) in zip(axes.flat, panels, strict=False):
        _panel(each, part, levels)
        name = f"{tensor} of layer {int(str(layer)) + 1}" if series in layered else tensor
        each.set_title(f"{series}, site {site}: {name}")
        each.set_xlabel("place among the singular values (0 largest, 1 smallest)")
    for each in axes[:, 0]:
        each.set_ylabel("relative to the largest")
    legend(made, made.axes, columns=len(levels) + 1, title=spread(data) + rest)
    return made


def _panel(axes: Axes, data: pd.DataFrame, levels: list[str]) -> None:
    ranks = []
    keys: list[tuple[str, int]] = sorted(set(zip(data["level"], data["part"], strict=True)))
    for level, part in keys:
        rows = data[(data["level"] == level) & (data["part"] == part)]
        place = (rows["index"] + 0.5) / rows["count"]
        every = max(len(rows) // 8, 1)
        style: dict[str, Any] = look(levels.index(level)) | {"markevery": (part % every, every)}
        axes.plot(place, rows["expected"], color=GREY, lw=2.5, alpha=0.4, label="random matrix", zorder=1)
        axes.plot(place, rows["mean"], label=level, **style)
        axes.fill_between(place, rows["low"], rows["high"], color=style["color"], alpha=0.2, lw=0)
        first = rows.iloc[0]
        name = level if data["part"].nunique() == 1 else f"{level}, anchor {part + 1}"
        random = f", random {first['expected_rank']:.1f}" if pd.notna(first["expected_rank"]) else ""
        ranks.append(f"{name}: {first['effective_rank']:.1f} of {first['count']}{random}")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    text = "\n".join(["effective rank", *ranks])
    axes.text(0.03, 0.04, text, transform=axes.transAxes, fontsize=6, va="bottom")
