"""Printing filled tables: their lines, and text, Markdown, CSV, LaTeX, HTML and JSON.

pandas' Styler does not serve: it puts neither notes below a table nor numbers within a cell into siunitx.
"""

from __future__ import annotations

import io
import json
import re
import textwrap
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

from ablations.table import COUNTED, LOSSES, QUOTED
from analysis.tables.cells import FAMILY, MEASURED, NOT_RUN, QUOTED_ROW, Cell, half_width, said
from analysis.tables.fill import QUOTED_ALONE, FilledTable, cell_status, heading, ours, tidy
from yolor_core.errors import UnknownNameError

if TYPE_CHECKING:
    from rich.table import Table as Grid

MISSING = "–"
MARKS = {"own spreads": "ˢ", "row": "ʳ", "repeated": "ᵛ"}  # of one that is not pooled, in a narrow table
METHODS = (
    "Intervals are pooled over the study, but for ˢ: of the spreads of the two arms, since one is unlike "
    "the rest; ʳ: of the row by itself, since there is too little beside it."
)
REPEATED = "ᵛ: repeated, since the row stops at its verdict."
AGREES = {True: "consistent", False: "not consistent", None: MISSING}  # with the paper's difference
READABLE, UNLIMITED = 100, 10_000  # columns: of a sentence at most, and of a table in a file
LABEL, GAP = 16, 2  # columns that a row's label keeps in a narrow table, and between two columns
DIGITS = {
    "parameters": 0,
    "MFLOPs": 4,
    "task cosine": 3,
    **dict.fromkeys(LOSSES, 3),
}  # others, percent and GFLOPs: one
DIGIT_GROUPS = r"\d{1,3}(?: \d{3})*(?:\.\d+)?"
NUMBER = re.compile(rf"([+-]?{DIGIT_GROUPS}(?: ± {DIGIT_GROUPS})?)")
SIUNITX = r"\sisetup{retain-explicit-plus, separate-uncertainty, group-digits=integer}"
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
        "×": r"$\times$",
        "⊕": r"$\oplus$",
        "±": r"$\pm$",
        "Δ": r"$\Delta$",
        "²": r"$^2$",
        "†": r"$\dagger$",
        "‡": r"$\ddagger$",
    }
)
MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\|*_<"})
BULLET = re.compile(r"^(?=[+-] )")  # what a label as + iFA would be at the beginning of a paragraph
UNTOLD = (MEASURED, QUOTED_ROW, NOT_RUN, "counted")  # what JSON need not say
FLOATS = (
    "paper", "paper_delta", "value", "std", "half_width", "delta", "delta_low", "delta_high", "freedom",
    "row_low", "row_high", "all_low", "all_high", "delta_std", "p", "p_holm", "p_small", "p_small_holm",
    "margin", "bound", "shows", "leaves", "images_low", "images_high", "images_p", "variance_left",
)  # fmt: skip
RECORD = (
    "table", "row", "metric", "paper", "value", "seeds", "profile", "runs", "half_width", "delta",
    "delta_low", "delta_high", "method", "freedom", "row_low", "row_high", "all_low", "all_high",
    "verdict", "marked", "margin", "bound", "p", "p_holm", "p_small", "p_small_holm", "shows", "leaves",
    "paper_delta", "agrees", "pairs", "std", "delta_std", "variance_left", "images_low", "images_high",
    "images_p", "against",
)  # fmt: skip


def render(filled: Sequence[FilledTable], format: str, width: int | None = None, every: bool = False) -> str:
    """Tables as one string, ending in a newline. Raises UnknownNameError for an unknown format.

    width, every: of `to_text`; the other formats are no wider or narrower for a terminal.
    """
    if format not in FORMATS:
        raise UnknownNameError("format", format, FORMATS)
    return to_text(filled, width, every) if format == "text" else FORMATS[format](filled)


def lines(filled: FilledTable, row: str) -> list[tuple[str, list[str]]]:
    """The printed lines of a row: (what the line is, one text per metric)."""
    cells = [filled.cell(row, metric) for metric in filled.table.metrics]

    def known(name: str) -> bool:
        return any(getattr(cell, name) is not None for cell in cells)

    paper = [_with_delta(c.metric, c.paper, c.paper_delta) for c in cells]
    status = filled.status[row]
    if status == QUOTED_ROW:
        return [("paper, quoted", paper)]
    several = known("std")
    ours = [
        _uncertain(c.metric, c.value, c.half_width) if several else _with_delta(c.metric, c.value, c.delta)
        for c in cells
    ]
    marks = [filled.marks.get((row, cell.metric), "") for cell in cells]
    found = [("paper", paper)] if known("paper") else []
    found.append(
        (
            "ours" if status == MEASURED else f"ours: {status}",
            [text + mark for text, mark in zip(ours, marks, strict=True)],
        )
    )
    if not several:
        return found
    if known("delta"):
        pairs = max(cell.pairs for cell in cells)
        deltas = [
            _uncertain(c.metric, c.delta, half_width(c), "+")
            + (f" ({c.pairs} pair{'s' if c.pairs != 1 else ''})" if 0 < c.pairs < pairs else "")
            for c in cells
        ]
        found.append((f"Δ, {pairs} pair{'s' if pairs != 1 else ''}" if pairs else "Δ", deltas))  # of counts
    if not known("delta_low"):
        return found
    found += [
        ("interval by", [c.method or MISSING for c in cells]),
        ("row by itself", [span(c.metric, c.row_low, c.row_high) for c in cells]),
    ]
    if known("all_low"):
        found.append(("rows at once", [span(c.metric, c.all_low, c.all_high) for c in cells]))
    if known("images_low"):
        found.append(("Δ, other images", [span(c.metric, c.images_low, c.images_high) for c in cells]))
    found.append(("verdict", [said(c.verdict, c.margin, c.marked) for c in cells]))
    found.append(("p", [_corrected(c.p, c.p_holm) for c in cells]))
    if known("p_small"):
        margin = next(c.margin for c in cells if c.margin is not None)
        found.append((f"p, beyond {margin:g}", [_corrected(c.p_small, c.p_small_holm) for c in cells]))
    found += [
        ("could show", [number(c.metric, c.shows, more=1) for c in cells]),
        ("leaves up to", [number(c.metric, c.leaves, more=1) for c in cells]),
    ]
    if known("agrees"):
        found.append(("as the paper", [AGREES[c.agrees] for c in cells]))
    return found


def number(metric: str, value: float | None, sign: str = "", more: int = 0) -> str:
    """`47.9`, `1 234 567`, `1 234.5678`; a dash for None. `more` digits than the paper prints."""
    if value is None:
        return MISSING
    if metric in QUOTED:
        return f"{value:{sign},g}".replace(",", " ")  # 30 and 6.5, as printed
    digits = DIGITS.get(metric, 1) + more
    return f"{round(value, digits) + 0.0:{sign},.{digits}f}".replace(",", " ")  # + 0.0 turns -0.0 into 0.0


def _with_delta(metric: str, value: float | None, delta: float | None) -> str:
    """`47.9 (+0.1)`."""
    return number(metric, value) + ("" if delta is None else f" ({number(metric, delta, '+')})")


def _uncertain(metric: str, value: float | None, half: float | None, sign: str = "") -> str:
    """`47.93 ± 0.12`, with one digit more than the paper prints: its effects are as small as that digit."""
    if value is None or half is None:
        return number(metric, value, sign)
    return f"{number(metric, value, sign, 1)} ± {number(metric, half, more=1)}"


def span(metric: str, low: float | None, high: float | None) -> str:
    """An interval, as `-0.30 to +1.20`; a dash for None."""
    if low is None or high is None:
        return MISSING
    return f"{number(metric, low, '+', 1)} to {number(metric, high, '+', 1)}"


def _chance(p: float | None) -> str:
    """`0.034`, `<0.001`; a dash for None."""
    return MISSING if p is None else "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _corrected(p: float | None, corrected: float | None) -> str:
    return _chance(p) + ("" if corrected is None else f", Holm {_chance(corrected)}")


def _head(filled: FilledTable) -> list[str]:
    return ["row", "", *filled.table.metrics]


def _rows(filled: FilledTable) -> list[list[list[str]]]:
    """The lines of each row, as texts below `_head`; the label is on the first one."""
    return [
        [[row.label if place == 0 else "", *line] for place, line in enumerate(printed)]
        for row in filled.table.rows
        if (printed := [(what, *texts) for what, texts in lines(filled, row.label)])
    ]


def to_text(filled: Sequence[FilledTable], width: int | None = None, every: bool = False) -> str:
    """For a terminal, title above and caption below; what all tables say of "ours" is said once, at the end.

    Where a table is wider than the terminal its scores are listed one below another, a line for each row
    with Δ, interval and verdict first (a verdict without room is a sentence), and columns without room are
    named. Of the scores these are AP alone,
    unless `every` one was asked for.

    Args:
        filled: the tables.
        width: columns of the terminal; None, for a file, leaves tables as wide as they are.
        every: whether all scores are shown where they do not fit side by side.
    """
    first = filled[0].facts if len(filled) > 1 else ()
    shared = [fact for fact in first if all(fact in each.facts for each in filled)]
    blocks = []
    for each in filled:
        own = [fact for fact in each.facts if fact not in shared]
        grids = [_wide(each)]
        about: list[str] = []
        if width is not None and _columns(grids[0]) > width:
            grids, about = _narrow(each, width, every)
        below = [*about, ours(own) or ("" if each.facts else QUOTED_ALONE), *each.notes]
        blocks.append([each.title, "", *(_drawn(grid, width) for grid in grids), *filter(None, below)])
    if shared:
        blocks.append([ours(shared).replace("Ours", "In all of these tables", 1)])
    texts = ["\n".join(_wrapped(line, width) for line in block) for block in blocks]
    return "\n\n".join(texts) + "\n"


def _wrapped(text: str, width: int | None) -> str:
    """A sentence in lines that are pleasant to read; what has lines already stays."""
    return text if width is None or "\n" in text else textwrap.fill(text, min(width, READABLE))


def _wide(filled: FilledTable) -> Grid:
    """All scores side by side, as in the paper; several lines a row."""
    grid = _grid()
    for place, name in enumerate(_head(filled)):
        grid.add_column(name, justify="left" if place < 2 else "right")
    for row in _rows(filled):
        for line in row:
            grid.add_row(*line)
    return grid


def _narrow(filled: FilledTable, width: int, every: bool) -> tuple[list[Grid], list[str]]:
    """A grid for each score that is shown, one line a row, and sentences on methods and what has no room."""
    metrics = filled.table.metrics
    shown = [name for name in metrics if every or name in (FAMILY, *COUNTED, *QUOTED)] or list(metrics[:1])
    labels = [row.label for row in filled.table.rows]
    grids, verdicts, dropped = [], list[str](), dict.fromkeys(name for name in metrics if name not in shown)
    for metric in shown:
        room = width - min(max(map(len, labels)), LABEL)
        kept: dict[str, list[str]] = {}
        for name, texts in _by_row(filled, metric).items():
            needed = max(len(name), *map(len, texts)) + GAP
            if not kept:  # where states of runs are broken into lines, and numbers are shorter
                needed = min(needed, LABEL + GAP)
            if needed <= room or not kept:
                kept[name], room = texts, room - needed
                continue
            room = 0  # what matters less does not stand in its place
            if name == "verdict":
                told = (
                    f"{label} {text}" for label, text in zip(labels, texts, strict=True) if text != MISSING
                )
                verdicts.append(f"Verdict in {metric}: {'; '.join(told)}.")
            else:
                dropped[name] = None
        grid = _grid("row", *kept)
        for label, *texts in zip(labels, *kept.values(), strict=True):
            grid.add_row(label, *texts)
        grids.append(grid)
    whole = _columns(_wide(filled))
    room_for = (
        f"Not shown for want of room: {', '.join(dropped)}. --metrics chooses scores; a terminal of {whole} "
        f"columns, or COLUMNS={whole}, shows all."
    )
    methods = {cell.method for cell in filled.cells if cell.metric in shown}
    signs = [METHODS] * bool(methods & {"own spreads", "row"}) + [REPEATED] * ("repeated" in methods)
    return grids, [*verdicts, *signs, *[room_for] * bool(dropped)]


def _by_row(filled: FilledTable, metric: str) -> dict[str, list[str]]:
    """The columns of one score, what matters most first, with a text for each row; none that are empty."""
    cells = [filled.cell(row.label, metric) for row in filled.table.rows]
    several = any(cell.std is not None for cell in cells)
    found = {
        metric: [_ours(filled, cell) for cell in cells],
        "Δ": [number(metric, cell.delta, "+", several) for cell in cells],
        "95 % interval": [
            span(metric, cell.delta_low, cell.delta_high) + MARKS.get(cell.method or "", "") for cell in cells
        ],
        "verdict": [said(cell.verdict, cell.margin, cell.marked) for cell in cells],
        "on other images": [span(metric, cell.images_low, cell.images_high) for cell in cells],
        "paper": [_with_delta(metric, cell.paper, cell.paper_delta) for cell in cells],
        "p": [_chance(cell.p) for cell in cells],
        "could show": [number(metric, cell.shows, more=1) for cell in cells],
        "leaves up to": [number(metric, cell.leaves, more=1) for cell in cells],
    }
    return {name: texts for name, texts in found.items() if set(texts) != {MISSING}} or {
        metric: found[metric]
    }


def _ours(filled: FilledTable, cell: Cell) -> str:
    """`26.01 ± 1.83`, or why there is no number."""
    mark = filled.marks.get((cell.row, cell.metric), "")
    status = filled.status[cell.row]
    if cell.value is None and status not in (MEASURED, QUOTED_ROW):
        return status
    return _uncertain(cell.metric, cell.value, cell.half_width) + mark


def _grid(*names: str) -> Grid:
    from rich import box
    from rich.table import Table as Grid

    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for place, name in enumerate(names):
        grid.add_column(name, justify="right" if place else "left", no_wrap=place > 1)
    return grid


def _columns(grid: Grid) -> int:
    """How wide a grid is when nothing in it is broken."""
    return max(map(len, _drawn(grid, None).splitlines()))


def _drawn(grid: Grid, width: int | None) -> str:
    from rich.console import Console

    stream = io.StringIO()
    Console(file=stream, width=width or UNLIMITED, color_system=None, highlight=False, markup=False).print(
        grid
    )
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def to_markdown(filled: Sequence[FilledTable]) -> str:
    """Pipe tables (GitHub flavour), caption above, notes below."""
    blocks = []
    for each in filled:
        rule = ["---", "---", *("---:" for _ in each.table.metrics)]
        body = [[text.translate(MARKDOWN) for text in line] for row in _rows(each) for line in row]
        pipes = "\n".join(f"| {' | '.join(line)} |" for line in (_head(each), rule, *body))
        blocks += [markdown(each.caption), pipes, *map(markdown, each.notes)]
    return "\n\n".join(blocks) + "\n"


def markdown(text: str) -> str:
    """A sentence as a paragraph of Markdown, or as an item of a list."""
    return BULLET.sub(r"\\", text.translate(MARKDOWN))


def to_html(filled: Sequence[FilledTable]) -> str:
    """One `table` element each, for a page or a notebook; no styles."""
    blocks = []
    for each in filled:
        head = "".join(f"<th>{escape(text)}</th>" for text in _head(each))
        body = [
            f"<tr><th>{escape(label)}</th>{''.join(f'<td>{escape(text)}</td>' for text in texts)}</tr>"
            for row in _rows(each)
            for label, *texts in row
        ]
        notes = [f"<p>{escape(note)}</p>" for note in each.notes]
        parts = ["<table>", f"<caption>{escape(each.caption)}</caption>", f"<thead><tr>{head}</tr></thead>"]
        blocks.append("\n".join([*parts, "<tbody>", *body, "</tbody>", "</table>", *notes]))
    return "\n\n".join(blocks) + "\n"


def to_latex(filled: Sequence[FilledTable]) -> str:
    """One `table` environment each; the document loads the packages booktabs and siunitx.

    LaTeX numbers tables itself, so the caption starts with the title; the label holds the paper's number.
    Numbers are siunitx's, so that its settings (a decimal comma, say) reach them.
    """
    blocks = []
    for each in filled:
        anchor = re.sub(r"[^\w-]|_", "-", each.table.name)
        rows = [
            "\n".join(
                " & ".join([_latex(label), _latex(what), *map(_latex_cell, texts)]) + r" \\"
                for label, what, *texts in row
            )
            for row in _rows(each)
        ]
        parts = [
            r"\begin{table}",
            r"\centering",
            SIUNITX,
            rf"\caption{{{_latex(each.caption.removeprefix(heading(each.table)))}}}",
            rf"\label{{tab:ablation-{anchor}}}",
            rf"\begin{{tabular}}{{ll{'r' * len(each.table.metrics)}}}",
            r"\toprule",
            " & ".join(_latex(name) for name in _head(each)) + r" \\",
            r"\midrule",
            "\n\\midrule\n".join(rows),
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\smallskip {{\footnotesize {_latex(note)}}}" for note in each.notes),
            r"\end{table}",
        ]
        blocks.append("\n".join(parts))
    return "\n\n".join(blocks) + "\n"


def _latex(text: str) -> str:
    """Text for LaTeX, which would set `--` as a dash."""
    return text.translate(LATEX).replace("--", "-{}-").replace("–", "--")


def _latex_cell(text: str) -> str:
    """A cell whose numbers are siunitx's: `47.9 (+0.1)` -> `\\num{47.9} (\\num{+0.1})`."""
    parts = NUMBER.split(text)  # every second one is a number
    for place in range(0, len(parts), 2):
        parts[place] = _latex(parts[place])
    for place in range(1, len(parts), 2):
        mantissa, sign, spread = parts[place].replace(" ± ", "±").replace(" ", "").partition("±")
        parts[place] = rf"\num{{{mantissa}{' +- ' if sign else ''}{spread}}}"
    return "".join(parts)


def to_csv(filled: Sequence[FilledTable]) -> str:
    """One line per cell (the columns of `analysis.tables.fill.tidy`); several seeds or runs with spaces."""
    frame = tidy(filled)
    for column in ("seeds", "runs"):
        frame[column] = [" ".join(map(str, items)) for items in frame[column]]
    # Through text, so that a column of counts and percentages keeps parameters whole.
    for column in FLOATS:
        frame[column] = [_plain(value) for value in frame[column].astype(object)]
    return frame.to_csv(index=False, lineterminator="\n")


def _plain(value: float | None) -> str:
    if value is None or value != value:
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) > 1000 else repr(float(value))


def to_json(filled: Sequence[FilledTable]) -> str:
    """One record per cell; scores are in percent, and null where nothing has run; `status` says why.

    Where there is nothing to say, e.g. of a row that is not run or whose runs all finished, a record has no
    `status`.
    """
    records = []
    for each in filled:
        for cell in each.cells:
            records.append({name: getattr(cell, name) for name in RECORD})
            status = cell_status(each, cell)
            if status not in UNTOLD and cell.lacks is None:
                records[-1]["status"] = status
    return json.dumps(records, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Sequence[FilledTable]], str]] = {
    "text": to_text,
    "markdown": to_markdown,
    "csv": to_csv,
    "latex": to_latex,
    "html": to_html,
    "json": to_json,
}
