"""Real features of validation images, before and after implicit knowledge: what `ablate features` writes.

And two numbers about sets of points. The figures are in `analysis.projection` (the paper's Fig. 3) and
`analysis.alignment` (Fig. 4).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from analysis.records import joined, read_parquet

FEATURES = (
    "image", "level", "row", "column", "anchor", "class", "width", "height",
    "feature", "aligned", "before", "after",
)  # fmt: skip
NEEDED = ("image", "level", "anchor", "class", "feature", "aligned", "before", "after")
BACKGROUND = -1  # in the column class
NONE = "No features of real images yet: `ablate features RUN` writes them beside a finished run."


def load_features(runs: pd.DataFrame) -> pd.DataFrame:
    """Anchors of some cells of validation images, columns `KEYS` and `FEATURES`.

    `feature` (channels,), `aligned` (channels + added,), `before` and `after` (5 + classes,) hold float32
    arrays: in front of FA and behind it, raw predictions without and with implicit knowledge. `class` is -1
    for background; `width` and `height` (px) of the object are then missing. Runs without features.parquet
    add no rows. Raises RunError where a file is damaged.

    Args:
        runs: rows of `analysis.runs.load_runs`.
    """
    return joined(runs, lambda directory: read_parquet(directory.features, NEEDED), FEATURES)


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
