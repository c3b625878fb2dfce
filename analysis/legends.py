"""What legends say: over how many runs means are taken, what bands are, what a figure has no room for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import pandas as pd

from analysis.series import BANDS

Panel = TypeVar("Panel")


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


def cut(panels: Iterable[Panel], most: int) -> tuple[list[Panel], str]:
    """The panels that a figure has room for, and what its legend says of the others, "" without any."""
    found = list(panels)
    rest = len(found) - most
    return found[:most], f"\n{rest} more {'is' if rest == 1 else 'are'} in the data only" if rest > 0 else ""
