"""The summary of a study: every variant's difference in AP, and what it says about the paper's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.figures.catalogue import table_anchor
from analysis.report.tables import against
from analysis.study import Study
from analysis.tables.cells import FAMILY, NOT_RUN, Cell
from analysis.tables.formats import MISSING, half_of, number

OPEN = "no verdict"


@dataclass(frozen=True)
class VerdictLine:
    """One variant of one table."""

    cell: Cell
    table: str
    anchor: str  # the table's id on the first page
    against: str
    pairs: str | None  # the part of the experiment's page with the pairs behind the difference
    delta: str
    p: str
    paper: str
    verdict: str
    why: str


def verdict_lines(study: Study) -> list[VerdictLine]:
    """The variants of the filled tables in order, measured or not."""
    found = []
    for name, filled in study.filled.items():
        for cell, base in filled.variants:
            half = half_of(cell)
            delta = number(FAMILY, cell.delta, "+", 1) + ("" if half is None else f" ± {half:.2f}")
            arms = (cell.row, base.label)
            missing = [
                label if filled.status[label] == NOT_RUN else f"{label} ({filled.status[label]})"
                for label in arms
                if filled.cell(label, FAMILY).value is None
            ]
            given = "; ".join(
                f"{label} {filled.survived[label]}" for label in arms if label in filled.survived
            )
            found.append(
                VerdictLine(
                    cell,
                    name,
                    table_anchor(filled.table),
                    base.label,
                    against(base.slug) if cell.pairs and base.slug else None,
                    delta,
                    MISSING if cell.p_holm is None else f"{cell.p_holm:.2g}",
                    number(FAMILY, cell.paper_delta, "+"),
                    cell.verdict or OPEN,
                    (cell.why or _why(cell, missing))
                    + (f" (of the runs that finished: {given})" if given else ""),
                )
            )
    return found


def _why(cell: Cell, missing: Sequence[str]) -> str:
    if missing:
        return f"without a finished run: {'; '.join(missing)}"
    if cell.pairs == 0:
        return "no seed in common with its baseline"
    if cell.paper_delta is None:
        return "the paper has no such difference"
    return "one seed in common: run more"


def sentence(lines: Sequence[VerdictLine]) -> str:
    """How many variants have which verdict."""
    if not lines:
        return "These tables have no variants in AP."
    counts = Counter(line.verdict for line in lines)
    parts = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    return f"{len(lines)} rows are compared with a baseline in AP: {parts}."
