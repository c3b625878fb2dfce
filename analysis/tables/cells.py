"""The numbers of a table: the paper's cell, ours, and the difference to the row's baseline in both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ablations.costs import Cost
from ablations.table import CONFLICT, COUNTED, QUOTED, Table
from analysis.design import Design, by_seed
from analysis.statistics.blocks import equivalence_p, largest_possible, outcome, smallest_shown
from analysis.statistics.seeds import agreement, over_seeds, variance_left
from analysis.statistics.stopping import Look

PAPER_PROFILE = "paper"  # the only one whose differences can be compared in size
FAMILY = "AP"
OPEN = "inconclusive"
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
    delta: float | None = None  # row less baseline, over the arms and seeds of the study
    delta_low: float | None = None  # 95 % interval of `delta` on this validation set, by `method`
    delta_high: float | None = None  # the other end
    method: str | None = None  # pooled, own spreads or row (`statistics.blocks.compare`), or repeated
    freedom: float | None = None  # degrees of freedom of that interval
    row_low: float | None = None  # 95 % interval of the row's paired differences by themselves
    row_high: float | None = None  # the other end
    all_low: float | None = None  # Dunnett's interval: holds at once for all rows here with this baseline
    all_high: float | None = None  # the other end
    delta_std: float | None = None  # of the paired differences
    p: float | None = None  # two-sided, of no difference
    p_holm: float | None = None  # corrected for all comparisons of the tables asked for, on AP
    p_small: float | None = None  # of an effect of the margin or more, on AP
    p_small_holm: float | None = None  # corrected for all comparisons of the tables asked for
    verdict: str | None = None  # what the interval says by itself; see `statistics.blocks.outcome`
    marked: str | None = None  # what of it holds for all comparisons of the tables asked for at once, on AP
    margin: float | None = None  # AP: of "no effect" and "small"
    bound: float | None = None  # AP: what lost runs can have moved the mean by; taken off the margin
    shows: float | None = None  # the smallest effect that these runs would have shown with 80 % power
    leaves: float | None = None  # the largest effect that the interval leaves possible
    agrees: bool | None = None  # with the paper's difference, at the paper's scale
    images_low: float | None = None  # 95 % interval of `delta` on images like these
    images_high: float | None = None  # the other end
    images_p: float | None = None  # two-sided, of no difference on images like these
    variance_left: float | None = None  # by pairing, of the unpaired variance
    seeds: tuple[int, ...] = ()  # of the runs
    runs: tuple[str, ...] = ()  # ids of the runs behind `value`
    lacks: str | None = None  # the task whose absence is why there can be no number
    against: str | None = None  # label of the row that both differences are against; None where there is none


def half_width(cell: Cell) -> float | None:
    """Half of the length of the interval of a difference."""
    if cell.delta_low is None or cell.delta_high is None:
        return None
    return (cell.delta_high - cell.delta_low) / 2


def said(outcome: str | None, margin: float | None, marked: str | None = None) -> str:
    """A verdict in words: `higher`, `no effect beyond 0.5`, `lower*, by less than 0.5`; a dash for None.

    An asterisk stands behind what holds for all comparisons of the tables at once.
    """
    if outcome is None:
        return "–"
    sign, _, small = outcome.partition(", ")
    signs, smalls = (marked or "").split(", ")[0] == sign, (marked or "").endswith(("small", "effect"))
    if sign == "no effect":
        return f"no effect beyond {margin:g}{'*' * smalls}"
    return f"{sign}{'*' * signs}" + (f", by less than {margin:g}{'*' * smalls}" if small else "")


def table_cells(
    table: Table,
    profile: str,
    runs: Mapping[str, pd.DataFrame],
    costs: Mapping[str, Cost],
    design: Design,
    margin: float,
) -> list[Cell]:
    """Every cell of a table, row by row; what holds for all comparisons of a study is `at_once`'s.

    `runs` maps an experiment's slug to its finished runs, `costs` to its counted parameters and MFLOPs; what
    they lack stays None. Differences are those of the `design`.
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
                cell = _measured(cell, runs.get(row.slug))
                if base is not row and base.slug is not None:
                    cell = _compared(cell, base.slug, design, margin)
            cells.append(cell)
    return cells


def _counted(cell: Cell, slug: str, base: str | None, costs: Mapping[str, Cost]) -> Cell:
    def value(of: str | None) -> float | None:
        cost = costs.get(of or "")
        if cost is None:
            return None
        return {"parameters": cost.parameters, "MFLOPs": cost.mflops, "GFLOPs": cost.mflops / 1000}[
            cell.metric
        ]

    return replace(cell, value=value(slug), delta=_difference(value(slug), value(base)))


def _measured(cell: Cell, runs: pd.DataFrame | None) -> Cell:
    if runs is None or runs.empty or (used := runs[runs[cell.metric].notna()]).empty:
        return cell
    own = by_seed(used, cell.metric)
    # Seeds are what is random: runs of one seed on several data are one value.
    seeds = own.groupby(level="seed").mean()
    return replace(
        cell,
        value=float(own.mean()),
        std=float(seeds.std()) if len(seeds) > 1 else None,
        half_width=over_seeds(list(seeds)).half_width,
        seeds=tuple(sorted({int(seed) for seed in used["seed"]})),
        runs=tuple(used["run"]),
    )


def _compared(cell: Cell, base: str, design: Design, margin: float) -> Cell:
    found = design.compare(cell.experiment or "", base, cell.metric)
    if found is None:
        return cell
    main, row = found.interval, found.row
    cell = replace(cell, pairs=row.n, delta=main.mean)
    if main.error is None or row.error is None:
        return cell
    of_ap = cell.metric == FAMILY
    stop = design.stop(cell.experiment or "", base)
    look = stop.look if stop and stop.look else Look(row.n)
    margin = stop.margin if stop else margin
    within = margin - found.bound
    small = equivalence_p(main, within) if of_ap else None
    if stop and small is not None:  # twice a p of one side is one of two
        small = max(small, (stop.p(min(2 * small, 1.0)) or 0.0) / 2)
    arms = design.paired(cell.experiment or "", base, cell.metric)
    cell = replace(
        cell,
        delta_low=main.low,
        delta_high=main.high,
        method=found.method,
        freedom=main.freedom,
        row_low=row.low,
        row_high=row.high,
        delta_std=row.error * math.sqrt(row.n),
        p=main.p,
        p_small=small,
        verdict=outcome(main, within if of_ap else None, look.sign, look.small),
        margin=margin if of_ap else None,
        bound=found.bound if of_ap and found.lost else None,
        shows=smallest_shown(main, alpha=1 - look.sign),
        leaves=largest_possible(main),
        variance_left=variance_left(*arms),
    )
    if cell.paper_delta is None or cell.metric in CONFLICT or cell.profile != PAPER_PROFILE:
        return cell
    spreads = [float(np.std(arm, ddof=1)) for arm in arms]
    return replace(cell, agrees=agreement(row, cell.paper_delta, *spreads))


def _difference(a: float | None, b: float | None) -> float | None:
    """a - b without the binary dust of decimal cells: 47.9 - 47.8 is 0.1."""
    return None if a is None or b is None else round(a - b, 6)
