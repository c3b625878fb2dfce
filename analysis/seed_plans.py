"""From pilot runs to a study: how many seeds a table needs to show an effect, or what a budget can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from analysis.cells import FAMILY, Cell
from analysis.statistics.planning import ALPHA, POWER, effect_seen, seeds_needed, upper_sigma
from analysis.tables import FilledTable

NO_SPREAD = 1e-9  # percent


@dataclass(frozen=True)
class RowPlan:
    """What one variant of a table needs. AP in percent, hours of one GPU (or process)."""

    row: str
    experiment: str
    pairs: int  # of pilot runs
    spread: float | None = None  # standard deviation of their paired differences in AP
    sigma: float | None = None  # the upper limit of it that is planned for
    seeds: int | None = None  # per arm, in all
    effect: float | None = None  # the smallest that so many seeds show
    hours: float | None = None  # of one pair of runs
    problem: str | None = None  # why there is no plan


def hours_of(filled: FilledTable, experiment: str) -> float | None:
    """Mean GPU hours of the runs of an experiment that count in a table; None where there are none."""
    runs = filled.runs.get(experiment)
    if runs is None or runs.empty:
        return None
    spent = (runs["seconds"].astype(float) * runs["ranks"].fillna(1).astype(float)).dropna()
    return None if spent.empty or spent.mean() <= 0 else float(spent.mean()) / 3600


def plan_seeds(
    filled: FilledTable, effect: float, wanted: float = POWER, alpha: float = ALPHA
) -> list[RowPlan]:
    """The seeds that every variant of a table needs to show an effect of `effect` AP (percent).

    The family is the table's variants: each is planned at alpha / variants, the worst case of Holm's
    correction. Rows with fewer than two pilot pairs have no plan, and say so.
    """
    cells = variants(filled)
    plans = []
    for cell in cells:
        plan = _pilot(filled, cell)
        if plan.sigma is not None:
            try:
                found = seeds_needed(effect, plan.sigma, wanted, alpha, len(cells))
            except ValueError as error:
                plan = replace(plan, problem=str(error))
            else:
                plan = replace(plan, seeds=found.seeds, effect=effect)
        plans.append(plan)
    return plans


def plan_budget(
    filled: FilledTable, hours: float, wanted: float = POWER, alpha: float = ALPHA
) -> list[RowPlan]:
    """The smallest effects (AP, percent) that every variant shows when `hours` GPU hours more are spent.

    All variants and their baselines get the same number of seeds, those of the pilot included.
    """
    cells = variants(filled)
    plans = [_pilot(filled, cell) for cell in cells]
    each = seed_hours(filled)
    if each is None:
        return [replace(plan, problem=plan.problem or "nobody knows what a run takes") for plan in plans]
    there = min((plan.pairs for plan in plans), default=0)
    seeds = there + int(hours / each)
    return [
        plan
        if plan.sigma is None
        else replace(plan, seeds=seeds, effect=effect_seen(seeds, plan.sigma, wanted, alpha, len(cells)))
        for plan in plans
    ]


def seed_hours(filled: FilledTable) -> float | None:
    """GPU hours of one more seed of a whole table: each experiment once; None where one is unknown."""
    slugs = dict.fromkeys(row.slug for row in filled.table.rows if row.slug)
    found = [hours_of(filled, slug) for slug in slugs]
    known = [hours for hours in found if hours is not None]
    return sum(known) if len(known) == len(found) and known else None


def variants(filled: FilledTable) -> list[Cell]:
    """The cells in AP of the rows that are compared with another one."""
    table = filled.table
    return [
        cell
        for row in table.rows
        if row.slug and FAMILY in table.metrics and row.lacks(FAMILY) is None
        if (cell := filled.cell(row.label, FAMILY)) and table.baseline(row, FAMILY) is not row
    ]


def _pilot(filled: FilledTable, cell: Cell) -> RowPlan:
    slug = cell.experiment or ""
    row = next(row for row in filled.table.rows if row.label == cell.row)
    other = filled.table.baseline(row, FAMILY).slug or ""
    own = [hours_of(filled, name) for name in (slug, other)]
    hours = sum(h for h in own if h is not None) if None not in own else None
    if cell.pairs < 2 or cell.delta_std is None:
        pairs = "1 pilot pair" if cell.pairs == 1 else f"{cell.pairs} pilot pairs"
        why = f"{pairs}; at least 2 are needed to know how differences scatter"
        return RowPlan(cell.row, slug, cell.pairs, hours=hours, problem=why)
    if cell.delta_std < NO_SPREAD:
        why = "the pilot's differences are all equal, so they do not say how far seeds scatter"
        return RowPlan(cell.row, slug, cell.pairs, cell.delta_std, hours=hours, problem=why)
    sigma = upper_sigma(cell.delta_std, cell.pairs)
    return RowPlan(cell.row, slug, cell.pairs, cell.delta_std, sigma, hours=hours)


def total_hours(filled: FilledTable, plans: Sequence[RowPlan]) -> float | None:
    """GPU hours that a plan still costs: every experiment up to the seeds it needs, shared baselines once."""
    needed: dict[str, int] = {}
    for plan in plans:
        if plan.seeds is None:
            continue
        row = next(row for row in filled.table.rows if row.label == plan.row)
        for slug in (plan.experiment, filled.table.baseline(row, FAMILY).slug or ""):
            needed[slug] = max(needed.get(slug, 0), plan.seeds)
    total = 0.0
    for slug, seeds in needed.items():
        each = hours_of(filled, slug)
        if each is None:
            return None
        total += each * max(0, seeds - filled.runs[slug]["seed"].nunique())
    return total if needed else None
