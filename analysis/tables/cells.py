"""The numbers of a table: the paper's cell, ours, and the difference to the row's baseline in both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd

from ablations.costs import Cost
from ablations.table import CONFLICT, COUNTED, QUOTED, Table
from analysis.statistics.seeds import holm, judge, judge_sign, over_seeds, variance_left

PAPER_PROFILE = "paper"  # the only one whose differences can be compared in size
FAMILY = "AP"
MEASURED, NOT_RUN, QUOTED_ROW = "measured", "not run", "quoted"


@dataclass(frozen=True)
class Cell:
    """One metric of one row. Scores in percent, cosines as they are; None where there is no number."""

    table: str  # its name
    row: str  # its label
    experiment: str | None  # None in a row that is quoted
    metric: str  # a score, or a count of the model
    profile: str  # of the runs
    paper: float | None = None  # the printed cell
    paper_delta: float | None = None  # against the baseline's printed cell
    value: float | None = None  # mean over seeds
    std: float | None = None  # sample standard deviation over seeds; None for one seed
    half_width: float | None = None  # of the 95 % interval of `value` over seeds
    pairs: int = 0  # seeds (and data) that row and baseline share
    delta: float | None = None  # mean over the seeds that row and baseline share
    delta_std: float | None = None  # of the paired differences
    delta_low: float | None = None  # 95 % interval of `delta`, paired by seed, on this validation set
    delta_high: float | None = None  # the other end
    p: float | None = None  # two-sided, of no difference
    p_holm: float | None = None  # corrected for the table's variants, on AP
    images_low: float | None = None  # 95 % interval of `delta` on images like these
    images_high: float | None = None  # the other end
    images_p: float | None = None  # two-sided, of no difference on images like these
    variance_left: float | None = None  # by pairing, of the unpaired variance
    verdict: str | None = None  # on the paper's difference; see `statistics.seeds.judge`
    why: str | None = None  # the verdict is so, or there is none
    seeds: tuple[int, ...] = ()  # of the runs
    runs: tuple[str, ...] = ()  # ids of the runs behind `value`
    lacks: str | None = None  # the task whose absence is why there can be no number
    against: str | None = None  # label of the row that both differences are against; None where there is none


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
            possible = row.lacks(metric) is None and base.lacks(metric) is None
            cell = Cell(
                table=table.name,
                row=row.label,
                experiment=row.slug,
                metric=metric,
                profile=profile,
                paper=printed,
                lacks=row.lacks(metric),
                paper_delta=_difference(printed, printed_base) if base is not row else None,
                against=base.label if base is not row and possible else None,
            )
            if row.slug is not None and metric in COUNTED:
                cell = _counted(cell, row.slug, base.slug if base is not row else None, costs)
            elif row.slug is not None and metric not in QUOTED:
                other = runs.get(base.slug or "") if base is not row else None
                cell = _measured(cell, runs.get(row.slug), other)
            cells.append(cell)
    # Holm's family is the variants of the table in AP, which is what a table claims. Those that have not run
    # yet belong to it: p-values must not grow as rows finish.
    family = [cell for cell in cells if cell.metric == FAMILY]
    planned = sum(cell.paper_delta is not None or cell.delta is not None for cell in family)
    corrected = iter(holm([cell.p for cell in family], planned))
    return [replace(cell, p_holm=next(corrected)) if cell.metric == FAMILY else cell for cell in cells]


def _counted(cell: Cell, slug: str, base: str | None, costs: Mapping[str, Cost]) -> Cell:
    def value(of: str | None) -> float | None:
        cost = costs.get(of or "")
        if cost is None:
            return None
        return {"parameters": cost.parameters, "MFLOPs": cost.mflops, "GFLOPs": cost.mflops / 1000}[
            cell.metric
        ]

    return replace(cell, value=value(slug), delta=_difference(value(slug), value(base)))


def _measured(cell: Cell, runs: pd.DataFrame | None, base: pd.DataFrame | None) -> Cell:
    own, other = _by_seed(runs, cell.metric), _by_seed(base, cell.metric)
    if runs is None or own.empty:
        return cell
    used = runs[runs[cell.metric].notna()]
    seeds = own.groupby(level="seed").mean()
    cell = replace(
        cell,
        value=float(own.mean()),
        std=float(seeds.std()) if len(seeds) > 1 else None,
        half_width=over_seeds(list(seeds)).half_width,
        seeds=tuple(sorted({int(seed) for seed in used["seed"]})),
        runs=tuple(used["run"]),
    )
    if other.empty:
        return cell
    shared = (own - other).dropna().index
    # Seeds are what is random: runs of one seed on several data are one value.
    a, b = (arm[shared].groupby(level="seed").mean() for arm in (own, other))
    paired = a - b
    if paired.empty:
        return cell
    interval = over_seeds(list(paired))
    cell = replace(
        cell,
        pairs=interval.n,
        delta=interval.mean,
        delta_std=float(paired.std()) if len(paired) > 1 else None,
        delta_low=interval.low,
        delta_high=interval.high,
        p=interval.p,
        variance_left=variance_left(list(a), list(b)),
    )
    if cell.paper_delta is None or cell.metric in CONFLICT or len(paired) < 2:
        return cell
    if cell.profile == PAPER_PROFILE:
        verdict = judge(interval, cell.paper_delta, float(a.std()), float(b.std()))
    else:
        verdict = judge_sign(interval, cell.paper_delta)
    return replace(cell, verdict=verdict.word, why=verdict.why)


def _by_seed(runs: pd.DataFrame | None, metric: str) -> pd.Series[float]:
    """The metric by (seed, data fingerprint): differences pair runs on the same data."""
    if runs is None or runs.empty:
        return pd.Series(dtype=float)
    return runs.dropna(subset=[metric]).groupby(["seed", "fingerprint"], dropna=False)[metric].mean()


def _difference(a: float | None, b: float | None) -> float | None:
    """a - b without the binary dust of decimal cells: 47.9 - 47.8 is 0.1."""
    return None if a is None or b is None else round(a - b, 6)
