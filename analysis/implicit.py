"""The mathematics of implicit vectors: singular values of their matrices, dimensions, distances, AUC.

What `analysis.figures` draws is computed with these; they take arrays and return numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from scipy.stats import rankdata

from analysis.errors import NothingToShow
from analysis.runs import KEYS
from analysis.series import series_names
from yolor_core.runs.directory import RunDirectory, unreadable

SPECTRA = {
    "site": "where it acts, or the task of a branch",
    "level": "of the pyramid",
    "part": "which representation of the site: 0, or the anchor at FA*",
    "tensor": "W of the network form, Z of the factorisation",
    "layer": "of the network form, from 0",
    "rows": "of the matrix",
    "columns": "of the matrix",
    "nonnegative": "whether Z enters through softplus",
    "index": "of the singular value, from 0",
    "singular_value": "the largest first",
}
NAME = re.compile(
    r"(?:branches\.(?P<task>[\w-]+)\.)?implicit\.sites\.(?P<site>[\w-]+)\.(?P<level>\w+)"
    r"\.forms\.(?P<part>\d+)\.(?:layers\.(?P<layer>\d+)\.weight|z)"
)
GRID = 2001  # points of the angle in which the Marchenko-Pastur law is integrated


def load_spectra(runs: pd.DataFrame) -> pd.DataFrame:
    """Every singular value of every W and Z, the largest first: columns `KEYS` and `SPECTRA`.

    `tensor` is "W" (a layer of the network form; `layer` counts from 0) or "Z" (factorisation, as it enters
    the product, so after softplus where the form is `nonnegative`), `part` the representation of the site:
    0, or the anchor at FA*. `index` counts singular values from 0. A task's branch stands in place of a site.
    Runs without such tensors add no rows. Raises RunError where a file is damaged.

    Args:
        runs: rows of `analysis.runs.load_runs`.

    Example:
        >>> from analysis import load_runs
        >>> runs = load_runs("results/published/mini").query("experiment == 'csp-fast.add-fa-network'")
        >>> largest = load_spectra(runs).query("seed == 0 and index == 0")
        >>> largest[["level", "tensor", "layer", "singular_value"]].round(2)
           level tensor  layer  singular_value
        0     P3      W      0            0.91
        32    P4      W      0            0.97
        96    P5      W      0            0.96
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


def misalignment(points: NDArray[np.float64], levels: NDArray[np.object_]) -> float:
    """Mean distance between the levels' centroids over the mean spread inside levels; smaller: more alike.

    Spread is the root of the mean squared distance to the level's centroid. NaN where fewer than two levels
    have a point, or none has any spread.

    Args:
        points: (n, outputs).
        levels: (n,) the level of each point.
    """
    groups = [points[levels == level] for level in np.unique(levels.astype(str))]
    centroids = np.array([group.mean(0) for group in groups])
    spreads = [np.sqrt(((group - group.mean(0)) ** 2).sum(1).mean()) for group in groups if len(group) > 1]
    if len(groups) < 2 or not spreads or not np.mean(spreads):
        return float("nan")
    first, second = np.triu_indices(len(groups), 1)
    between = np.linalg.norm(centroids[first] - centroids[second], axis=1).mean()
    return float(between / np.mean(spreads))


def sigmoid(values: NDArray[Any]) -> NDArray[np.float64]:
    """Of raw predictions."""
    return 1 / (1 + np.exp(-np.asarray(values, np.float64)))


def agreement(values: pd.DataFrame, column: str, draws: int = 999) -> pd.DataFrame:
    """Whether the runs of an experiment have learned the same vector, site by site.

    The vector of a run holds all its levels. `cosine` is the mean over pairs of runs. Its null keeps each
    run's values and shuffles which index of a level they belong to, so that a cosine which the mean of a
    vector alone makes (every × g(z) is about 1) is no agreement: `null` is the mean of `draws` such cosines,
    `null_high` their 95th percentile, and `p` the share of draws, the observed one among them, that are as
    high. The draws are always the same.

    Args:
        values: of `analysis.runs.load_implicit` ("value") or `load_effects` ("effect"), of one epoch.
        column: what the vectors consist of.

    Columns series, site, runs, cosine, null, null_high, p; a series with one run only is left out. Raises
    NothingToShow where no other is left.

    Example:
        >>> from analysis import load_effects, load_implicit, load_runs
        >>> runs = load_runs("results/published/mini").query("experiment == 'csp-fast.add-fa'")
        >>> agreement(load_implicit(runs), "value").round(3)  # the vectors themselves: as if shuffled
                    series site  runs  cosine   null  null_high      p
        0  csp-fast.add-fa   fa     3   0.431  0.467      0.515  0.892
        >>> agreement(load_effects(runs), "effect").round(3)  # what they do: much alike
                    series site  runs  cosine   null  null_high      p
        0  csp-fast.add-fa   fa     3   0.819  0.009      0.129  0.001
    """
    rows = []
    named = values.assign(series=series_names(values)) if len(values) else values.assign(series="")
    for (series, site), own in named.groupby(["series", "site"], sort=False, observed=True):
        wide = own.pivot(index="run", columns=["level", "index"], values=column).sort_index(axis=1)
        wide = wide.dropna(axis="columns")
        if len(wide) < 2 or wide.empty:
            continue
        levels = wide.columns.get_level_values("level")
        parts = [wide.loc[:, levels == level].to_numpy(float) for level in dict.fromkeys(levels)]
        generator = np.random.default_rng(0)
        null = np.array([_cosine([generator.permuted(p, axis=1) for p in parts]) for _ in range(draws)])
        found = _cosine(parts)
        p = (1 + (null >= found).sum()) / (1 + draws)
        rows.append((series, site, len(wide), found, null.mean(), np.quantile(null, 0.95), p))
    if not rows:
        raise NothingToShow("Seeds can be compared where an experiment has two or more, e.g. `--seeds 3`.")
    return pd.DataFrame(rows, columns=["series", "site", "runs", "cosine", "null", "null_high", "p"])


def _cosine(parts: list[NDArray[np.float64]]) -> float:
    """Mean over pairs of rows; `parts` are side by side."""
    rows = np.hstack(parts)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny)
    n = len(unit)
    return float((np.square(unit.sum(axis=0)).sum() - np.square(unit).sum()) / (n * (n - 1)))
