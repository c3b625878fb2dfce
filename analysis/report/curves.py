"""A run's own curves: panels of a few hundred bytes each, so that a page per run costs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

PANELS: Mapping[str, str] = {
    "loss/box": "box loss",
    "loss/obj": "objectness loss",
    "loss/cls": "classification loss",
    "AP": "AP (%)",
}
LOSS = "loss/"  # so all terms begin
WIDTH, HEIGHT = 240.0, 90.0  # of the plotting area, in the units of the view box


@dataclass(frozen=True)
class Panel:
    """One quantity over the epochs of a run; `points` in the units of the view box."""

    name: str
    points: tuple[tuple[float, float], ...]
    first: str  # epoch
    last: str
    low: str
    high: str
    final: str

    @property
    def line(self) -> str:
        """For a polyline."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)

    @property
    def sentence(self) -> str:
        """What is to be seen, for those who do not see it."""
        if self.first == self.last:
            return f"{self.final} after epoch {self.last}"
        return f"{self.final} after epoch {self.last}; {self.low} to {self.high} since epoch {self.first}"


def panels(metrics: pd.DataFrame) -> list[Panel]:
    """The panels of one run, from its epochs; a quantity that it has not recorded has none."""
    data = panel_data(metrics)
    found = []
    for column in data.columns[1:]:
        known = data[["epoch", column]].dropna()
        values = [float(value) * (100 if column == "AP" else 1) for value in known[column]]
        name = PANELS.get(column) or f"{column.removeprefix(LOSS)} loss"
        found.append(_panel(name, [int(epoch) for epoch in known["epoch"]], values))
    return found


def panel_data(metrics: pd.DataFrame) -> pd.DataFrame:
    """The epochs and the columns behind the panels: losses, and AP as a fraction."""
    losses = [str(column) for column in metrics.columns if str(column).startswith(LOSS)]
    wanted = dict.fromkeys(["epoch", *(c for c in PANELS if c in metrics and c != "AP"), *losses, "AP"])
    frame = metrics[[column for column in wanted if column in metrics]]
    frame = frame.apply(pd.to_numeric, errors="coerce").replace([np.inf, -np.inf], np.nan)
    return frame.dropna(subset=["epoch"]).dropna(axis="columns", how="all").reset_index(drop=True)


def _panel(name: str, epochs: Sequence[int], values: Sequence[float]) -> Panel:
    low, high = min(values), max(values)
    span, length = (high - low) or 1.0, (epochs[-1] - epochs[0]) or 1
    points = tuple(
        (WIDTH * (epoch - epochs[0]) / length, HEIGHT * (high - value) / span if high > low else HEIGHT / 2)
        for epoch, value in zip(epochs, values, strict=True)
    )
    texts = (f"{value:.3g}" for value in (low, high, values[-1]))
    return Panel(name, points, str(epochs[0]), str(epochs[-1]), *texts)
