"""From pilot runs to a study: how many seeds a table needs to show an effect, or what a budget can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ablations.table import Row
from analysis.statistics.seeds import ALPHA, POWER, effect_seen, seeds_needed, upper_sigma
from analysis.tables.cells import Cell
from analysis.tables.fill import FilledTable

NO_SPREAD = 1e-9  # percent


@dataclass(frozen=True)
class RowNeeds:
    """What one variant of a table needs. AP in percent, hours of one GPU (or process)."""

    row: str
    experiment: str
    pairs: int  # of pilot runs
    spread: float | None = None  # standard deviation of their paired differences in AP
    sigma: float | None = None  # the upper limit of it that is assumed
    seeds: int | None = None  # per arm, in all
    effect: float | None = None  # the smallest that so many seeds show
    hours: float | None = None  # of one pair of runs
    problem: str | None = None  # why nobody can say


def for_effect(
    filled: FilledTable, effect: float, wanted: float = POWER, alpha: float = ALPHA
) -> list[RowNeeds]:
    """The seeds that every variant of a table needs to show an effect of `effect` AP (percent).

    The family is the table's variants: each is tested at alpha / variants, the worst case of Holm's
    correction. Rows with fewer than two pilot pairs have no seeds, and say so.
    """
    found = []
    for needs in _pilots(filled):
        if needs.sigma is not None:
            try:
                seeds = seeds_needed(effect, needs.sigma, wanted, alpha, len(filled.variants))
                needs = replace(needs, seeds=seeds, effect=effect)
            except ValueError as error:
                needs = replace(needs, problem=str(error))
        found.append(needs)
    return found


def for_budget(
    filled: FilledTable, hours: float, wanted: float = POWER, alpha: float = ALPHA
) -> list[RowNeeds]:
    """The smallest effects (AP, percent) that every variant shows when `hours` GPU hours more are spent.

    All variants and their baselines get the same number of seeds, those of the pilot included.
    """
    pilots = _pilots(filled)
    each = seed_hours(filled)
    if each is None:
        return [replace(one, problem=one.problem or "nobody knows what a run takes") for one in pilots]
    seeds = min((one.pairs for one in pilots), default=0) + int(hours / each)
    return [
        one
        if one.sigma is None
        else replace(one, seeds=seeds, effect=effect_seen(seeds, one.sigma, wanted, alpha, len(pilots)))
        for one in pilots
    ]


def seed_hours(filled: FilledTable) -> float | None:
    """GPU hours of one more seed of a whole table: each experiment once; None where one is unknown."""
    slugs = {row.slug for row in filled.table.rows if row.slug}
    known = [hours for slug in slugs if (hours := _hours(filled, slug)) is not None]
    return sum(known) if known and len(known) == len(slugs) else None


def hours_to_come(filled: FilledTable, needs: Sequence[RowNeeds]) -> float | None:
    """GPU hours still to spend: every experiment up to the seeds it needs, shared baselines once."""
    bases = {cell.row: base.slug or "" for cell, base in filled.variants}
    seeds: dict[str, int] = {}
    for one in needs:
        for slug in (one.experiment, bases[one.row]):
            if one.seeds is not None:
                seeds[slug] = max(seeds.get(slug, 0), one.seeds)
    total = 0.0
    for slug, needed in seeds.items():
        each = _hours(filled, slug)
        if each is None:
            return None
        total += each * max(0, needed - filled.runs[slug]["seed"].nunique())
    return total if seeds else None


def _hours(filled: FilledTable, experiment: str | None) -> float | None:
    """Mean GPU hours of the runs of an experiment that count in a table; None where there are none."""
    runs = filled.runs.get(experiment or "")
    if runs is None or runs.empty:
        return None
    spent = (runs["seconds"].astype(float) * runs["ranks"].fillna(1).astype(float)).dropna()
    return None if spent.empty or spent.mean() <= 0 else float(spent.mean()) / 3600


def _pilots(filled: FilledTable) -> list[RowNeeds]:
    return [_pilot(filled, cell, base) for cell, base in filled.variants]


def _pilot(filled: FilledTable, cell: Cell, base: Row) -> RowNeeds:
    own, other = (_hours(filled, slug) for slug in (cell.experiment, base.slug))
    hours = None if own is None or other is None else own + other
    known = RowNeeds(cell.row, cell.experiment or "", cell.pairs, hours=hours)
    if cell.pairs < 2 or cell.delta_std is None:
        pairs = "1 pilot pair" if cell.pairs == 1 else f"{cell.pairs} pilot pairs"
        return replace(known, problem=f"{pairs}; at least 2 are needed to know how differences scatter")
    known = replace(known, spread=cell.delta_std)
    if cell.delta_std < NO_SPREAD:
        why = "the pilot's differences are all equal, so they do not say how far seeds scatter"
        return replace(known, problem=why)
    return replace(known, sigma=upper_sigma(cell.delta_std, cell.pairs))
