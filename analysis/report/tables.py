"""Filled tables as a page shows them: printed lines whose cells link to the runs behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ablations.table import QUOTED, Row, Table
from analysis.figures.catalogue import table_anchor
from analysis.report.names import anchor
from analysis.tables.cells import Cell
from analysis.tables.fill import FilledTable, heading
from analysis.tables.formats import MISSING, lines


@dataclass(frozen=True)
class Entry:
    """A cell of a printed line: its text, and the page that says where it comes from."""

    text: str
    href: str | None = None
    sort: float | None = None  # what the row is sorted by in this column; on one line of a row only


@dataclass(frozen=True)
class Line:
    """A printed line of a row: what it is ("paper", "ours", "Δ, 5 pairs") and a cell for each metric."""

    what: str
    entries: tuple[Entry, ...]
    sorts: bool = False


@dataclass(frozen=True)
class TableView:
    """A table of the report. One that is not filled has `refused` instead of rows."""

    table: Table
    title: str  # without number
    caption: str
    rows: tuple[tuple[str, tuple[Line, ...]], ...] = ()
    notes: tuple[str, ...] = ()
    csv: str = ""
    refused: str | None = None
    metrics: tuple[str, ...] = field(default=())

    @property
    def anchor(self) -> str:
        """Its id on the page."""
        return table_anchor(self.table)


@dataclass(frozen=True)
class Links:
    """Where pages are, relative to the one that links."""

    runs: Mapping[str, str]  # run -> file stem
    experiments: Mapping[str, str]  # slug -> file stem
    up: str = ""  # "../" on pages below the report's folder

    def run(self, name: str) -> str | None:
        """The page of a run."""
        stem = self.runs.get(name)
        return None if stem is None else f"{self.up}runs/{stem}.html"

    def experiment(self, slug: str | None, part: str) -> str | None:
        """A part of the page of an experiment."""
        stem = self.experiments.get(slug or "")
        return None if stem is None else f"{self.up}experiments/{stem}.html#{part}"


def against(slug: str) -> str:
    """The id of the part of an experiment's page that pairs it with another one."""
    return f"against-{anchor(slug)}"


def table_view(filled: FilledTable, links: Links, csv: str) -> TableView:
    """A filled table with its links, for the index."""
    table = filled.table
    rows = tuple((row.label, tuple(_lines(filled, row, links))) for row in table.rows)
    caption = filled.caption.removeprefix(heading(table))
    return TableView(table, table.title, caption, rows, filled.notes, csv, metrics=table.metrics)


def refused_view(table: Table, reason: str) -> TableView:
    """A table that has no cells because its runs must not be mixed."""
    return TableView(table, table.title, "", refused=reason)


def _lines(filled: FilledTable, row: Row, links: Links) -> list[Line]:
    cells = [filled.cell(row.label, metric) for metric in filled.table.metrics]
    printed = lines(filled, row.label)
    sorting = next((place for place, (what, _) in enumerate(printed) if what.startswith("ours")), 0)
    found = []
    for place, (what, texts) in enumerate(printed):
        entries = [
            Entry(
                text,
                None
                if text == MISSING
                else _href(what, cell, filled.table.baseline(row, cell.metric), links),
                _sort(filled, cell) if place == sorting else None,
            )
            for text, cell in zip(texts, cells, strict=True)
        ]
        found.append(Line(what, tuple(entries), place == sorting))
    return found


def _href(what: str, cell: Cell, base: Row, links: Links) -> str | None:
    if not cell.runs or what.startswith("paper"):
        return None
    if not what.startswith("ours"):
        return links.experiment(cell.experiment, against(base.slug)) if cell.pairs and base.slug else None
    return links.run(cell.runs[0]) if len(cell.runs) == 1 else links.experiment(cell.experiment, "runs")


def _sort(filled: FilledTable, cell: Cell) -> float | None:
    """Ours; the paper's in a column that nobody has measured."""
    measured = any(each.value is not None for each in filled.cells if each.metric == cell.metric)
    return cell.value if measured and cell.metric not in QUOTED else cell.paper
