"""Final scores as figures: every run's AP, and the difference of every row to its baseline."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from analysis.errors import NothingToShow
from analysis.figures.style import GREY, PALETTE, figure, styled
from analysis.statistics.seeds import over_seeds
from analysis.tables.fill import FilledTable, tidy

LINE = 0.2  # inches for a row
EFFECT = (
    "table", "row", "experiment", "delta", "delta_low", "delta_high", "pairs", "paper_delta", "p_holm",
    "verdict",
)  # fmt: skip


def ap_by_run_data(runs: pd.DataFrame) -> pd.DataFrame:
    """Final AP in percent, one row per run, with mean and 95 % interval over the seeds of its experiment.

    Args:
        runs: of `analysis.runs.load_runs`, of one profile.

    Raises:
        NothingToShow: no run has an AP.
    """
    scored = runs[(runs["state"] == "done") & runs["AP"].notna()]
    if scored.empty:
        raise NothingToShow("No finished run has an AP yet; `ablate launch` makes runs.")
    frame = scored[["experiment", "run", "seed"]].assign(AP=100 * scored["AP"])
    seeds = frame.groupby(["experiment", "seed"])["AP"].mean()
    found = {name: over_seeds(list(values)) for name, values in seeds.groupby(level="experiment")}
    frame["mean"] = [found[name].mean for name in frame["experiment"]]
    frame["low"] = [found[name].low for name in frame["experiment"]]
    frame["high"] = [found[name].high for name in frame["experiment"]]
    frame[["low", "high"]] = frame[["low", "high"]].astype(float)
    return frame.sort_values(["mean", "experiment", "seed"], ascending=[False, True, True], ignore_index=True)


@styled()
def ap_by_run(data: pd.DataFrame) -> Figure:
    """Every run a ring, the mean a bar across, its 95 % interval a line; the best experiment on top."""
    names = list(dict.fromkeys(data["experiment"]))
    made, axes = figure("page", 0.7 + LINE * len(names))
    axis = axes[0, 0]
    for place, name in enumerate(names):
        own = data[data["experiment"] == name]
        first = own.iloc[0]
        if pd.notna(first["low"]):
            axis.plot([first["low"], first["high"]], [place, place], color=PALETTE[0], linewidth=1.5)
        axis.plot([first["mean"]], [place], marker="|", markersize=9, markeredgewidth=1.5, color=PALETTE[0])
        axis.plot(own["AP"], [place] * len(own), "o", markerfacecolor="none", color=PALETTE[1])
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel("AP (%)")
    return made


def effects_by_row_data(filled: Sequence[FilledTable]) -> pd.DataFrame:
    """Difference in AP (percent) of every row to its baseline, with its 95 % interval and the paper's.

    Raises NothingToShow where no row and its baseline have finished with a seed in common.
    """
    cells = tidy(filled) if filled else pd.DataFrame(columns=[*EFFECT, "metric"])
    frame = cells[(cells["metric"] == "AP") & cells["delta"].notna()][list(EFFECT)]
    if frame.empty:
        raise NothingToShow("No row and its baseline have both finished with the same seed yet.")
    numbers = ["delta", "delta_low", "delta_high", "paper_delta", "p_holm"]
    frame[numbers] = frame[numbers].astype(float)
    return frame.reset_index(drop=True)


@styled()
def effects_by_row(data: pd.DataFrame) -> Figure:
    """Tables 1-8: ours a dot with its interval, the paper's a diamond; a row of each table's variants."""
    made, axes = figure("page", 0.9 + LINE * len(data))
    axis = axes[0, 0]
    axis.axvline(0, color=GREY, linewidth=0.8)
    places = range(len(data))
    for place, low, high in zip(places, data["delta_low"], data["delta_high"], strict=True):
        if pd.notna(low) and pd.notna(high):
            axis.plot([low, high], [place, place], color=PALETTE[0], linewidth=1.5)
    axis.plot(data["delta"], places, "o", color=PALETTE[0], label="here, with 95 % interval over seeds")
    axis.plot(data["paper_delta"], places, "D", markerfacecolor="none", color=PALETTE[1], label="the paper")
    axis.set_yticks(places, [f"{t}: {r}" for t, r in zip(data["table"], data["row"], strict=True)])
    axis.set_ylim(len(data) - 0.5, -0.5)
    axis.set_xlabel("Δ AP against the row's baseline (percentage points)")
    made.legend(loc="outside lower center", ncols=2)
    return made
