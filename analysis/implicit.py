"""The mathematics of implicit vectors: singular values of their matrices, dimensions, distances, AUC.

What `analysis.figures` draws is computed with these; they take arrays and return numbers.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from scipy import stats
from scipy.stats import rankdata

from analysis.errors import NothingToShow
from analysis.runs import KEYS, Outputs
from analysis.series import series_names
from analysis.statistics.seeds import over_seeds
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
KINDS = {"x": "x, y", "y": "x, y", "w": "w, h", "h": "w, h", "obj": "obj"}  # all other outputs are classes
LEARNT = ("factor", "predicted")  # of `anchor_factors`
KMEANS = ".kmeans-anchors-"  # in the id of a run on anchors of the data
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
        0     P3      W      0            0.94
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

    The vector of a run holds all its levels. `cosine` is the mean over pairs of runs; `low` and `high` are
    its 95 % interval over seeds, from three on (`over_pairs`). Its null keeps each run's values and shuffles
    which index of a level they belong to, so that a cosine which the mean of a vector alone makes (every
    × g(z) is about 1) is no agreement: `null` is the mean of `draws` such cosines, `null_high` their 95th
    percentile, and `p` the share of draws, the observed one among them, that are as high. The draws are
    always the same.

    Args:
        values: of `analysis.runs.load_implicit` ("value") or `load_effects` ("effect"), of one epoch.
        column: what the vectors consist of.

    Columns series, site, runs, cosine, low, high, null, null_high, p; a series with one run only is left out.
    Raises NothingToShow where no other is left.

    Example:
        >>> from analysis import load_effects, load_implicit, load_runs
        >>> runs = load_runs("results/published/mini").query("experiment == 'csp-fast.add-fa'")
        >>> columns = ["runs", "cosine", "low", "high", "null", "null_high", "p"]
        >>> agreement(load_implicit(runs), "value")[columns].round(3)  # the vectors: as if shuffled
           runs  cosine    low   high   null  null_high      p
        0     3   0.308 -0.399  0.789  0.385      0.459  0.965
        >>> agreement(load_effects(runs), "effect")[columns].round(3)  # what they do: much alike
           runs  cosine    low   high   null  null_high      p
        0     3   0.937  0.397  0.996  0.015      0.172  0.001
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
        ends = over_pairs(_cosines(np.hstack(parts)))
        rows.append((series, site, len(wide), found, *ends, null.mean(), np.quantile(null, 0.95), p))
    if not rows:
        raise NothingToShow("Seeds can be compared where an experiment has two or more, e.g. `--seeds 3`.")
    columns = ["series", "site", "runs", "cosine", "low", "high", "null", "null_high", "p"]
    return pd.DataFrame(rows, columns=columns)


def over_pairs(cosines: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean cosine over pairs of runs, from their matrix (n, n); NaN below three runs.

    Pairs share runs, so runs are left out one by one (the jackknife), on Fisher's scale atanh, on which a
    correlation scatters alike wherever it lies; t with n - 1 degrees of freedom.
    """
    n = len(cosines)
    if n < 3:
        return float("nan"), float("nan")
    scaled = np.arctanh(np.clip(cosines, -1 + 1e-12, 1 - 1e-12))
    np.fill_diagonal(scaled, 0)
    whole = scaled.sum() / (n * (n - 1))
    left = (scaled.sum() - 2 * scaled.sum(axis=1)) / ((n - 1) * (n - 2))
    error = np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum())
    reach = stats.t.ppf((1 + level) / 2, n - 1) * error
    return float(np.tanh(whole - reach)), float(np.tanh(whole + reach))


def reproducibility(implicit: pd.DataFrame, effects: pd.DataFrame, draws: int = 499) -> pd.DataFrame:
    """`agreement` of the learnt values and of their effects, and of the effects on each kind of output.

    Column `of` says which: "g(z)", "effect", "effect on x, y", "on w, h", "on obj", "on classes". `others` is
    the mean cosine with the effects of other experiments' runs at the same raw outputs: what is no higher is
    learned whatever the form and the site. Raises NothingToShow where no experiment has two runs.

    Args:
        implicit: of `load_implicit`.
        effects: of `load_effects`.
        draws: of each null.
    """
    parts = [agreement(implicit, "value", draws).assign(of="g(z)")]
    with suppress(NothingToShow):
        for of, chosen in _blocks(effects).items():
            found = agreement(chosen, "effect", draws)
            parts.append(found.merge(_others(chosen), how="left").assign(of=of))
    data = pd.concat(parts, ignore_index=True)
    return data[["of", *(name for name in data if name != "of")]]


def _blocks(effects: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The effects, and those on outputs of a kind that some site changes."""
    kinds = effects["output"].map(KINDS).fillna("classes")
    parts = {
        f"effect on {kind}": effects[kinds == kind] for kind in (*dict.fromkeys(KINDS.values()), "classes")
    }
    moved = {name: _moved(part) for name, part in parts.items()}
    return {"effect": effects} | {name: part for name, part in moved.items() if len(part)}


def _moved(effects: pd.DataFrame) -> pd.DataFrame:
    """Without the sites that leave these outputs alone."""
    size = effects.groupby(["run", "site"], observed=True)["effect"].transform(lambda each: each.abs().max())
    return effects[size > 0]


def _others(effects: pd.DataFrame) -> pd.DataFrame:
    """Columns series, site and others, see `reproducibility`."""
    named = effects.assign(series=series_names(effects))
    wide = named.pivot(index=["series", "site", "run"], columns=["level", "index"], values="effect")
    rows = []
    for (series, site), own in wide.groupby(level=["series", "site"], sort=False, observed=True):
        own = own.dropna(axis="columns")
        rest = wide[wide.index.get_level_values("series") != series]
        rest = rest.dropna(axis="columns", how="all")
        if set(rest.columns) >= set(own.columns):
            rest = rest[own.columns].dropna()
            unit, other = (_unit(each.to_numpy(float)) for each in (own, rest))
            rows.append((series, site, float((unit @ other.T).mean()) if len(rest) else np.nan))
    return pd.DataFrame(rows, columns=["series", "site", "others"])


def anchor_factors(
    effects: pd.DataFrame,
    outputs: Mapping[str, Outputs],
    boxes: Mapping[str, Mapping[str, Any]],
    threshold: float = 4.0,
) -> pd.DataFrame:
    """What runs have learned of each anchor's sides, beside what the data ask for.

    A row for each series, site, run, level, anchor (from 0) and side ("w", "h"); all factors are on the
    anchor: `matched`, the geometric mean of the boxes that training assigns to it (none of their sides
    `threshold` times longer or shorter); `kmeans`, the anchor of the same place in a run on anchors of the
    data, NaN without one; `factor`, what the site does to the side that is predicted for the mean feature of
    the level; `predicted`, that side itself, with the site.

    Args:
        effects: of `load_effects`.
        outputs: by run, of `outputs_of`, those of a run on anchors of the data among them.
        boxes: by run, the training split of `analysis.runs.dataset`, whose sizes in half octaves stand for
            the boxes.
        threshold: of the assignment.

    Raises NothingToShow where no site changes a size.
    """
    described = list(outputs.keys() & boxes.keys())
    known = _moved(effects[effects["run"].isin(described) & effects["output"].isin(["w", "h"])])
    if known.empty:
        raise NothingToShow("No site changes the size of a box: launch Table 5.")
    others = [each.levels for run, each in outputs.items() if KMEANS in run]
    rows = []
    for run in known["run"].unique():
        levels = outputs[str(run)].levels
        found = next((each for each in others if len(each) == len(levels)), None)
        for place, level in enumerate(levels):
            for anchor, sides in enumerate(level.anchors):
                matched = _matched(boxes[str(run)], sides, threshold)
                asked = np.divide(found[place].anchors[anchor], sides) if found else np.full(2, np.nan)
                for axis, side in enumerate("wh"):
                    rows.append((run, level.name, anchor, side, matched[axis], asked[axis]))
    data = pd.DataFrame(rows, columns=["run", "level", "anchor", "output", "matched", "kmeans"])
    before, after = sigmoid(known["before"].to_numpy()), sigmoid(known["after"].to_numpy())
    learnt = known.assign(
        series=series_names(known), factor=(after / before) ** 2, predicted=(2 * after) ** 2
    ).merge(data, on=["run", "level", "anchor", "output"])
    columns = [
        "series",
        "site",
        "run",
        "level",
        "anchor",
        "output",
        "matched",
        "kmeans",
        "factor",
        "predicted",
    ]
    return learnt[columns].rename(columns={"output": "side"})


def _matched(boxes: Mapping[str, Any], sides: Sequence[float], threshold: float) -> NDArray[np.float64]:
    """(2,) geometric mean of the boxes that match an anchor, over the anchor; NaN where none does."""
    edges, counts = np.log(np.asarray(boxes["size_edges"], float)), np.asarray(boxes["sizes"], float)
    middle = (edges[1:] + edges[:-1]) / 2
    ratio = np.stack(np.meshgrid(*(middle - np.log(side) for side in sides), indexing="ij"))
    weights = counts * (np.abs(ratio).max(0) < np.log(threshold))
    if not weights.sum():
        return np.full(2, np.nan)
    return np.asarray(np.exp((ratio * weights).sum((1, 2)) / weights.sum()))


def anchor_agreement(factors: pd.DataFrame, draws: int = 9999) -> pd.DataFrame:
    """Whether what was learned of the anchors' sides equals what the data ask for, on logarithms.

    For `learnt` ("factor", "predicted") against `wanted` ("matched", "kmeans") over all anchors and sides:
    `slope` of the least-squares line, 1 where both are equal up to one common factor and 0 where they have
    nothing in common, with its 95 % t-interval over seeds; `correlation` (mean over seeds); `p`, the share of
    `draws` in which anchors are shuffled, their two sides together, whose mean slope is as high.

    Args:
        factors: of `anchor_factors`.

    Columns series, site, learnt, wanted, anchors, runs, slope, low, high, correlation, p.
    """
    rows = []
    keys = ["level", "anchor", "side"]  # h and w of an anchor come one after the other
    for (series, site), own in factors.groupby(["series", "site"], sort=False, observed=True):
        for wanted, learnt in itertools.product(("matched", "kmeans"), LEARNT):
            there = own.dropna(subset=[wanted])
            if there.empty:
                continue
            x = np.log(there.groupby(keys)[wanted].first().to_numpy(float)).reshape(-1, 2)
            y = np.log(there.pivot(index=keys, columns="run", values=learnt).to_numpy(float))
            slopes = _slopes(x, y)
            generator = np.random.default_rng(0)
            null = np.array([_slopes(generator.permutation(x), y).mean() for _ in range(draws)])
            p = (1 + (null >= slopes.mean()).sum()) / (1 + draws)
            found = over_seeds(slopes.tolist())
            alike = float(np.mean([np.corrcoef(x.ravel(), each)[0, 1] for each in y.T]))
            ends = (found.mean, found.low, found.high)
            rows.append((series, site, learnt, wanted, len(x), len(slopes), *ends, alike, p))
    columns = ["series", "site", "learnt", "wanted", "anchors", "runs", "slope", "low", "high"]
    data = pd.DataFrame(rows, columns=[*columns, "correlation", "p"])
    return data.astype({"low": float, "high": float})


def _slopes(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least-squares slopes (runs,) of y (n, runs) on x (n values in any shape)."""
    centred = x.ravel() - x.mean()
    return np.asarray(centred @ y / (centred @ centred))


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny)


def _cosines(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    unit = _unit(rows)
    return np.asarray(unit @ unit.T)


def _cosine(parts: list[NDArray[np.float64]]) -> float:
    """Mean over pairs of rows; `parts` are side by side."""
    unit = _unit(np.hstack(parts))
    n = len(unit)
    return float((np.square(unit.sum(axis=0)).sum() - np.square(unit).sum()) / (n * (n - 1)))
