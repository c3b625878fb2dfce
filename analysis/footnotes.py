"""What has to be said below a table: what rows are compared with, how counts were made, peculiar figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ablations.costs import Cost
from ablations.table import CONFLICT, COUNTED, QUOTED, SCORES, Table
from analysis.cells import Cell

Marks = dict[tuple[str, str], str]  # (row, metric) -> footnote sign


def footnotes(
    table: Table, cells: Sequence[Cell], costs: Mapping[str, Cost]
) -> tuple[tuple[str, ...], Marks]:
    """The notes of a filled table, in order, and the signs that tie some of them to cells."""
    notes: list[str] = []
    marks: Marks = {}
    for cell in cells:
        cost = costs.get(cell.experiment or "")
        if cost is None:
            continue
        if cell.metric == "MFLOPs" and cost.mflops != cost.mflops_all_levels:
            marks[cell.row, cell.metric] = "†"
            notes.append(
                f"† {cell.row}: as the paper counts, × iPR on P3 to P5 only. With all levels it is "
                f"{cost.mflops_all_levels:.4f}; the printed figure is likely an erratum."
            )
        if cell.metric == "GFLOPs" and (why := printed_gflops(cell, cost)):
            marks[cell.row, cell.metric] = "‡"
            notes.append(f"‡ {cell.row}: {why}.")
    if counted := [metric for metric in COUNTED if metric in table.metrics]:
        what = _listed(counted)
        notes.append(
            f"{what[0].upper()}{what[1:]} are those of the full-size models at the paper's test size, "
            f"{_fusion(table, costs)}."
        )
    if quoted := [metric for metric in QUOTED if metric in table.metrics]:
        notes.append(
            f"{_listed(quoted)} are quoted from the paper, on its device; nothing here measures them."
        )
    if CONFLICT[0] in table.metrics:
        notes.append(
            f"{CONFLICT[0].capitalize()}: between the gradients of two tasks on the parameters that both "
            "train, mean over the measured steps of all epochs; below 0, what helps one hurts the other."
        )
    said = (*baselines(table, cells), *dashes(cells), *absent_seeds(cells), *pairing(cells))
    return (*notes, *said, *table.notes), marks


def baselines(table: Table, cells: Sequence[Cell]) -> list[str]:
    """Which rows are compared with another row than the first, as one sentence; nothing where none is.

    A row that is so in some of its scores only, because its tasks have a control each, names their tasks.
    """
    first = table.rows[0].label
    others = []
    for row in table.rows:
        own = [cell for cell in cells if cell.row == row.label and cell.against is not None]
        for label in dict.fromkeys(cell.against for cell in own if cell.against != first):
            metrics = [cell.metric for cell in own if cell.against == label]
            tasks = dict.fromkeys(SCORES[metric].task for metric in metrics if metric in SCORES)
            some = f" in {_listed(list(tasks))}" if tasks and len(metrics) < len(own) else ""
            others.append(f"{row.label} against {label}{some}")
    if not others:
        return []
    return [f"Differences (Δ) are against the first row, {first}, but: {'; '.join(others)}."]


def pairing(cells: Sequence[Cell]) -> list[str]:
    """How much of the variance of a difference in AP pairing by seed has left, over the table's variants."""
    left = [cell.variance_left for cell in cells if cell.metric == "AP" and cell.variance_left is not None]
    if not left:
        return []
    low, high = min(left), max(left)
    above = "; above 100 %, it has not helped" if high > 1 else ""
    span = f"{100 * low:.0f} %" if len(left) == 1 else f"{100 * low:.0f} to {100 * high:.0f} %"
    return [
        f"Pairing by seed has left {span} of the unpaired variance of Δ in AP (estimated from these "
        f"runs{above})."
    ]


def absent_seeds(cells: Sequence[Cell]) -> list[str]:
    """Which measured rows lack seeds that another row has; nothing where all have the same."""
    seeds: dict[str, set[int]] = {}
    for cell in cells:
        if cell.seeds:
            seeds.setdefault(cell.row, set()).update(cell.seeds)
    every = set().union(*seeds.values())
    lacking: dict[tuple[int, ...], list[str]] = {}
    for row, own in seeds.items():
        if own != every:
            lacking.setdefault(tuple(sorted(every - own)), []).append(row)
    if not lacking:
        return []
    parts = [f"{'; '.join(rows)} without {', '.join(map(str, lost))}" for lost, rows in lacking.items()]
    return [f"Not every row has every seed: {'. '.join(parts)}. Δ is over the seeds that two rows share."]


def dashes(cells: Sequence[Cell]) -> list[str]:
    """Why rows have no number in some columns whatever is run: one sentence for each missing task."""
    rows: dict[str, list[str]] = {}
    for cell in cells:
        if cell.lacks is not None and cell.row not in rows.setdefault(cell.lacks, []):
            rows[cell.lacks].append(cell.row)
    return [f"– because the model has no {task}: {'; '.join(labels)}." for task, labels in rows.items()]


def printed_gflops(cell: Cell, cost: Cost) -> str | None:
    """Why the printed GFLOPs are not ours rounded to one decimal; None where they are, or it is not known."""
    if cell.paper is None or cell.value is None or round(cell.value, 1) == cell.paper:
        return None
    if cost.gflops_quadrupled == cell.paper:
        return f"the printed {cell.paper} is 4 x {cell.paper / 4:.1f}, the rounded figure at 640 px"
    if math.floor(cell.value * 10) / 10 == cell.paper:
        return f"the printed {cell.paper} is {cell.value:.4f} cut after one decimal"
    return None


def _fusion(table: Table, costs: Mapping[str, Cost]) -> str:
    counted = [row for row in table.rows if row.slug in costs]
    fused = [row.label for row in counted if row.fused]
    if not fused:
        return "not fused"
    if len(fused) == len(counted):
        return "fused (BatchNorm merged into the convolutions)"
    return f"not fused, except {_listed(fused)} (BatchNorm merged into the convolutions)"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(words)
