"""Printing filled tables: text, Markdown, CSV, LaTeX, HTML and JSON."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from html import escape

from analysis.cells import MEASURED, NOT_RUN, QUOTED_ROW
from analysis.printed import lines
from analysis.tables import FilledTable, cell_status, heading, tidy
from yolor_core.errors import UnknownNameError

NUMBER = re.compile(r"[+-]?\d{1,3}(?: \d{3})*(?:\.\d+)?(?: ± \d+(?:\.\d+)?)?")
SIUNITX = r"\sisetup{retain-explicit-plus, separate-uncertainty, group-digits=integer}"
LATEX = {
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
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "–": "--",
}


def render(filled: Sequence[FilledTable], format: str) -> str:
    """Tables as one string, ending in a newline. Raises UnknownNameError for an unknown format."""
    if format not in FORMATS:
        raise UnknownNameError("format", format, FORMATS)
    return FORMATS[format](filled)


def to_text(filled: Sequence[FilledTable]) -> str:
    """For a terminal; wide tables are not wrapped."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid

    stream = io.StringIO()
    console = Console(file=stream, width=200, color_system=None, highlight=False, markup=False)
    for each in filled:
        grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        grid.add_column("row")
        grid.add_column("")
        for metric in each.table.metrics:
            grid.add_column(metric, justify="right")
        for row in each.table.rows:
            for number, (source, texts) in enumerate(lines(each, row.label)):
                grid.add_row(row.label if number == 0 else "", source, *texts)
        console.print(each.caption, soft_wrap=True)
        console.print(grid)
        for note in each.notes:
            console.print(note, soft_wrap=True)
        console.print()
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines()) + "\n"


def to_markdown(filled: Sequence[FilledTable]) -> str:
    """Pipe tables (GitHub flavour), caption above, notes below."""
    blocks = []
    for each in filled:
        head = ["row", "", *each.table.metrics]
        rule = ["---", "---", *("---:" for _ in each.table.metrics)]
        body = [
            [row.label if number == 0 else "", source, *texts]
            for row in each.table.rows
            for number, (source, texts) in enumerate(lines(each, row.label))
        ]
        pipes = ["| " + " | ".join(map(_markdown, line)) + " |" for line in (head, *body)]
        pipes.insert(1, "| " + " | ".join(rule) + " |")
        blocks += [_markdown(each.caption), "\n".join(pipes), *map(_markdown, each.notes)]
    return "\n\n".join(blocks) + "\n"


def to_html(filled: Sequence[FilledTable]) -> str:
    """One `table` element each, for a page or a notebook; no styles."""
    blocks = []
    for each in filled:
        head = "".join(f"<th>{escape(text)}</th>" for text in ("row", "", *each.table.metrics))
        body = []
        for row in each.table.rows:
            for number, (source, texts) in enumerate(lines(each, row.label)):
                name = f"<th>{escape(row.label)}</th>" if number == 0 else "<th></th>"
                cells = "".join(f"<td>{escape(text)}</td>" for text in (source, *texts))
                body.append(f"<tr>{name}{cells}</tr>")
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
        body = []
        for row in each.table.rows:
            for number, (source, texts) in enumerate(lines(each, row.label)):
                words = [_latex(text) for text in (row.label if number == 0 else "", source)]
                body.append(" & ".join([*words, *map(_latex_cell, texts)]) + r" \\")
            body.append(r"\midrule")
        body[-1] = r"\bottomrule"
        notes = [rf"\par\smallskip {{\footnotesize {_latex(note)}}}" for note in each.notes]
        blocks.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    SIUNITX,
                    rf"\caption{{{_latex(each.caption.removeprefix(heading(each.table)))}}}",
                    rf"\label{{tab:ablation-{_anchor(each.table.name)}}}",
                    rf"\begin{{tabular}}{{ll{'r' * len(each.table.metrics)}}}",
                    r"\toprule",
                    " & ".join(["row", "", *map(_latex, each.table.metrics)]) + r" \\",
                    r"\midrule",
                    *body,
                    r"\end{tabular}",
                    *notes,
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(blocks) + "\n"


def to_csv(filled: Sequence[FilledTable]) -> str:
    """One line per cell (the columns of `analysis.tables.tidy`); several seeds or runs joined by spaces."""
    frame = tidy(filled)
    for column in ("seeds", "runs"):
        frame[column] = [" ".join(map(str, items)) for items in frame[column]]
    # Through text, so that a column of counts and percentages keeps parameters whole.
    for column in NUMBERS:
        frame[column] = [_plain(value) for value in frame[column].astype(object)]
    return frame.to_csv(index=False, lineterminator="\n")


NUMBERS = (
    "paper", "paper_delta", "value", "std", "half_width", "delta", "delta_std", "delta_low", "delta_high",
    "p", "p_holm", "images_low", "images_high", "images_p", "variance_left",
)  # fmt: skip


def to_json(filled: Sequence[FilledTable]) -> str:
    """One record per cell; scores are in percent, and null where nothing has run; `status` says why.

    Where there is nothing to say, as of a row that is not run or whose runs all finished, a record has no
    `status`.
    """
    records = [
        {
            "table": cell.table,
            "row": cell.row,
            "metric": cell.metric,
            "paper": cell.paper,
            "value": cell.value,
            "seeds": list(cell.seeds),
            "profile": cell.profile,
            "runs": list(cell.runs),
            "half_width": cell.half_width,
            "delta": cell.delta,
            "delta_low": cell.delta_low,
            "delta_high": cell.delta_high,
            "p": cell.p,
            "p_holm": cell.p_holm,
            "paper_delta": cell.paper_delta,
            "verdict": cell.verdict,
            "pairs": cell.pairs,
            "std": cell.std,
            "delta_std": cell.delta_std,
            "variance_left": cell.variance_left,
            "images_low": cell.images_low,
            "images_high": cell.images_high,
            "images_p": cell.images_p,
            "against": cell.against,
        }
        | ({"status": said} if (said := cell_status(each, cell)) not in UNTOLD and cell.lacks is None else {})
        for each in filled
        for cell in each.cells
    ]
    return json.dumps(records, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: float | None) -> str:
    if value is None or value != value:
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) > 1000 else repr(float(value))


def _markdown(text: str) -> str:
    for sign in "\\|*_<":
        text = text.replace(sign, "\\" + sign)
    return text


def _latex(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in text)


def _latex_cell(text: str) -> str:
    """A cell whose numbers are siunitx's: `47.9 (+0.1)` -> `\\num{47.9} (\\num{+0.1})`."""
    parts, end = [], 0
    for found in NUMBER.finditer(text):
        plain = found[0].replace(" ± ", " +- ")
        mantissa, sign, spread = plain.partition(" +- ")
        parts += [_latex(text[end : found.start()]), rf"\num{{{mantissa.replace(' ', '')}{sign}{spread}}}"]
        end = found.end()
    return "".join([*parts, _latex(text[end:])])


def _anchor(name: str) -> str:
    return "".join(sign if sign.isalnum() or sign == "-" else "-" for sign in name)


UNTOLD = (MEASURED, QUOTED_ROW, NOT_RUN, "counted")
FORMATS: dict[str, Callable[[Sequence[FilledTable]], str]] = {
    "text": to_text,
    "markdown": to_markdown,
    "csv": to_csv,
    "latex": to_latex,
    "html": to_html,
    "json": to_json,
}
