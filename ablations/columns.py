"""Aligned columns of plain text, and how many there are of something."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """One text per line of cells: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join([first.ljust(widths[0]), *(t.rjust(w) for t, w in zip(rest, widths[1:], strict=True))])
        for first, *rest in lines
    ]


def counted(count: int, thing: str) -> str:
    """`1 run`, `2 runs`, `3 boxes`, `2 identities`."""
    if count == 1:
        return f"1 {thing}"
    if thing.endswith("y"):
        return f"{count:,} {thing[:-1]}ies"
    return f"{count:,} {thing}{'es' if thing.endswith(('x', 's')) else 's'}"
