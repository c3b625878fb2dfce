"""What a table prints: the lines of a row, and numbers with their digits, signs and uncertainties.

`analysis.formats` puts them into tables of every format; pages and summaries use them too.
"""

from __future__ import annotations

from ablations.table import QUOTED
from analysis.cells import MEASURED, QUOTED_ROW, Cell
from analysis.tables import FilledTable

MISSING = "–"
DIGITS = {"parameters": 0, "MFLOPs": 4, "task cosine": 3}  # others, percent and GFLOPs: one


def lines(filled: FilledTable, row: str) -> list[tuple[str, list[str]]]:
    """The printed lines of a row: (what the line is, one text per metric)."""
    cells = [filled.cell(row, metric) for metric in filled.table.metrics]
    status = filled.status[row]
    if status == QUOTED_ROW:
        return [("paper, quoted", [with_delta(c.metric, c.paper, c.paper_delta) for c in cells])]
    ours = "ours" if status == MEASURED else f"ours: {status}"
    result = []
    if any(cell.paper is not None for cell in cells):
        result.append(("paper", [with_delta(c.metric, c.paper, c.paper_delta) for c in cells]))
    marks = [filled.marks.get((row, cell.metric), "") for cell in cells]
    if any(cell.std is not None for cell in cells):
        values = [_uncertain(c.metric, c.value, c.half_width) for c in cells]
        result.append((ours, [v + mark for v, mark in zip(values, marks, strict=True)]))
        if any(cell.delta is not None for cell in cells):
            pairs = max(cell.pairs for cell in cells)
            deltas = [_uncertain(c.metric, c.delta, half_of(c), sign="+") for c in cells]
            result.append((f"Δ, {pairs} pair{'s' if pairs != 1 else ''}", deltas))
        if any(cell.images_low is not None for cell in cells):
            result.append(("Δ, other images", [_span(c.metric, c.images_low, c.images_high) for c in cells]))
        if any(cell.p is not None for cell in cells):
            result.append(
                (
                    "p",
                    [
                        _chance(c.p) + (f", Holm {_chance(c.p_holm)}" if c.p_holm is not None else "")
                        for c in cells
                    ],
                )
            )
        if any(cell.verdict is not None for cell in cells):
            result.append(("verdict", [cell.verdict or MISSING for cell in cells]))
    else:
        texts = [with_delta(c.metric, c.value, c.delta) for c in cells]
        result.append((ours, [text + mark for text, mark in zip(texts, marks, strict=True)]))
    return result


def half_of(cell: Cell) -> float | None:
    """Half of the length of the interval of a difference."""
    return (
        None if cell.delta_low is None or cell.delta_high is None else (cell.delta_high - cell.delta_low) / 2
    )


def _span(metric: str, low: float | None, high: float | None) -> str:
    """`-0.3 to +1.2`; a dash for None."""
    if low is None or high is None:
        return MISSING
    return f"{number(metric, low, '+', 1)} to {number(metric, high, '+', 1)}"


def _chance(p: float | None) -> str:
    """`0.034`, `<0.001`; a dash for None."""
    return MISSING if p is None else "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def with_delta(metric: str, value: float | None, delta: float | None) -> str:
    """`47.9 (+0.1)`."""
    text = number(metric, value)
    return text if delta is None else f"{text} ({number(metric, delta, sign='+')})"


def number(metric: str, value: float | None, sign: str = "", more: int = 0) -> str:
    """`47.9`, `1 234 567`, `1 234.5678`; a dash for None."""
    if value is None:
        return MISSING
    if metric in QUOTED:
        return f"{value:{sign},g}".replace(",", " ")  # 30 and 6.5, as printed
    digits = DIGITS.get(metric, 1) + more
    return f"{round(value, digits) + 0.0:{sign},.{digits}f}".replace(",", " ")  # + 0.0 turns -0.0 into 0.0


def _uncertain(metric: str, value: float | None, half: float | None, sign: str = "") -> str:
    """With one digit more than the paper prints: its effects are as small as that digit."""
    if value is None or half is None:
        return number(metric, value, sign)
    return f"{number(metric, value, sign, 1)} ± {number(metric, half, more=1)}"
