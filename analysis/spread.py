"""How a figure says over how many runs its means are taken, and what their bands are."""

from __future__ import annotations

import pandas as pd

from analysis.series import BANDS


def spread(data: pd.DataFrame, mark: str = "Line", band: str = "band") -> str:
    """A sentence for a legend: of a frame with the columns `runs` and `band` of `analysis.series.banded`.

    mark, band: what the figure draws for the mean, and for low and high.
    """
    least, most = data["runs"].min(), data["runs"].max()
    if most == 1:
        return "One run each"
    number = f"{most}" if least == most else f"{least} to {most}"
    named = " or ".join(name for name in BANDS if (data["band"] == name).any())
    return f"{mark}: mean of {number} runs; {band}: {named}"
