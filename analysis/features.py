"""Real features of validation images, before and after implicit knowledge: what `ablate features` writes.

The figures are in `analysis.figures.features`.
"""

from __future__ import annotations

import pandas as pd

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
