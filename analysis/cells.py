"""The numbers of a table: the paper's cell, ours, and the difference to the row's baseline in both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd

from ablations.costs import Cost
from ablations.table import CONFLICT, COUNTED, QUOTED, Row, Table

MEASURED, NOT_RUN, QUOTED_ROW = "measured", "not run", "quoted"


@dataclass(frozen=True)
class Cell:
    """One metric of one row. Scores in percent, cosines as they are; None where there is no number."""

    table: str
    row: str
    experiment: str | None  # None in a row that is quoted
    metric: str
    profile: str
    paper: float | None = None
    paper_delta: float | None = None  # against the baseline's printed cell
    value: float | None = None  # mean over seeds
    std: float | None = None  # sample standard deviation over seeds; None for one seed
    delta: float | None = None  # mean over the seeds that row and baseline share
    delta_std: float | None = None  # of the paired differences
    seeds: tuple[int, ...] = ()
    runs: tuple[str, ...] = ()
    lacks: str | None = None  # the task whose absence is why there can be no number


def table_cells(
    table: Table, profile: str, runs: Mapping[str, pd.DataFrame], costs: Mapping[str, Cost]
) -> list[Cell]:
    """Every cell of a table, row by row.

    `runs` maps an experiment's slug to its finished runs, `costs` to its counted parameters and MFLOPs; what
    they lack stays None.
    """
    paper = table.paper()
    cells = []
    for row in table.rows:
        for metric in table.metrics:
            base = table.baseline(row, metric)
            printed, printed_base = (paper.get(r.label, {}).get(metric) for r in (row, base))
            known = Cell(
                table=table.name,
                row=row.label,
                experiment=row.slug,
                metric=metric,
                profile=profile,
                paper=printed,
                lacks=row.lacks(metric),
                paper_delta=_difference(printed, printed_base) if base is not row else None,
            )
            if metric in QUOTED or row.experiment is None:
                cells.append(known)
            elif metric in COUNTED:
                cells.append(_counted(known, row, base, costs))
            else:
                cells.append(_measured(known, row, base, runs))
    return cells


def _counted(cell: Cell, row: Row, base: Row, costs: Mapping[str, Cost]) -> Cell:
    def value(of: Row) -> float | None:
        cost = costs.get(of.slug or "")
        if cost is None:
            return None
        counted = {"parameters": cost.parameters, "MFLOPs": cost.mflops, "GFLOPs": cost.mflops / 1000}
        return counted[cell.metric]

    delta = _difference(value(row), value(base)) if base is not row else None
    return replace(cell, value=value(row), delta=delta)


def _measured(cell: Cell, row: Row, base: Row, runs: Mapping[str, pd.DataFrame]) -> Cell:
    frame = runs.get(row.slug or "")
    own = _by_seed(frame, cell.metric)
    if frame is None or own.empty:
        return cell
    used = frame[frame[cell.metric].notna()]
    cell = replace(
        cell,
        value=float(own.mean()),
        std=float(own.std()) if len(own) > 1 else None,
        seeds=tuple(sorted({int(seed) for seed in used["seed"]})),
        runs=tuple(used["run"]),
    )
    other = _by_seed(runs.get(base.slug or ""), cell.metric)
    if base is row or other.empty:
        return cell
    paired = (own - other).dropna()
    if paired.empty:
        return cell
    return replace(
        cell,
        delta=float(paired.mean()),
        delta_std=float(paired.std()) if len(paired) > 1 else None,
    )


def _by_seed(runs: pd.DataFrame | None, metric: str) -> pd.Series[float]:
    """Percent (cosines as they are) by (seed, data fingerprint): differences pair runs on the same data."""
    if runs is None or runs.empty:
        return pd.Series(dtype=float)
    values = runs.dropna(subset=[metric]).groupby(["seed", "fingerprint"], dropna=False)[metric]
    return values.mean() * (1 if metric in CONFLICT else 100)


def _difference(a: float | None, b: float | None) -> float | None:
    """a - b without the binary dust of decimal cells: 47.9 - 47.8 is 0.1."""
    return None if a is None or b is None else round(a - b, 6)
