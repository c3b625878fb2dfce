"""Filled tables and experiments as pages show them: cells that link to the runs and pairs behind them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from ablations.experiments import Experiment
from ablations.table import CONFLICT, QUOTED, SCORES, Row, Table
from analysis.comparison import paired
from analysis.figures.catalogue import table_anchor
from analysis.study import Study
from analysis.tables.cells import Cell
from analysis.tables.fill import FilledTable, heading
from analysis.tables.formats import MISSING, lines, number

UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
LONGEST = 120
CODE = re.compile(r"`([^`]*)`")


def page_names(names: Iterable[str]) -> dict[str, str]:
    """A file's stem for every name; a name that is safe already is its own."""
    stems: dict[str, str] = {}
    taken = {"index"}  # the page that lists them
    for name in dict.fromkeys(names):
        stem = UNSAFE.sub("_", name)[:LONGEST].lstrip(".") or "_"
        # Some file systems take letters of both cases for one.
        if stem != name or stem.lower() in taken:
            stem = f"{stem}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
        taken.add(stem.lower())
        stems[name] = stem
    return stems


def prose(text: str) -> Markup:
    """A sentence as HTML: escaped, with what stands between backticks as code."""
    return Markup(CODE.sub(r"<code>\1</code>", str(escape(text))))


def anchor(text: str) -> str:
    """An id for a part of a page."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"


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
    """A table of the report, which has a page of its own; one that is not filled has `refused` for rows."""

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
        return table_anchor(self.table)

    @property
    def label(self) -> str:
        """In the contents: `4 Operators`; a name that the title begins with is not repeated."""
        name = self.table.name
        return self.title if self.title.lower().startswith(name.lower()) else f"{name} {self.title}"


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
    """A filled table with its links, for its page."""
    table = filled.table
    rows = tuple((row.label, tuple(_lines(filled, row, links))) for row in table.rows)
    caption = filled.caption.removeprefix(heading(table))
    return TableView(table, table.title, caption, rows, filled.notes, csv, metrics=table.metrics)


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


@dataclass
class Pairs:
    """The runs of an experiment beside those of a baseline; differences in percent (cosines as they are)."""

    slug: str
    metrics: list[str] = field(default_factory=list)
    rows: list[list[Entry]] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        return against(self.slug)


@dataclass(frozen=True)
class Place:
    """A row of a table that an experiment fills."""

    table: str
    anchor: str
    row: str
    change: str


@dataclass(frozen=True)
class ExperimentPage:
    """All that the page of an experiment shows."""

    experiment: Experiment
    places: tuple[Place, ...]
    metrics: tuple[str, ...]
    runs: tuple[tuple[Entry, ...], ...]  # run, seed, state, then the metrics
    pairs: tuple[Pairs, ...]


def experiment_page(experiment: Experiment, study: Study, links: Links) -> ExperimentPage:
    """Gather the page of an experiment from the frames of a study."""
    slug = experiment.slug
    own = study.runs[study.runs["experiment"] == slug]
    metrics = tuple(name for name in (*SCORES, *CONFLICT) if own[name].notna().any())
    runs = tuple(
        (
            Entry(str(row["run"]), links.run(str(row["run"]))),
            Entry(_seed(row["seed"]), sort=row["seed"]),
            Entry(str(row["state"])),
            *(Entry(number(name, _score(row[name]), more=1), sort=_score(row[name])) for name in metrics),
        )
        for _, row in own.sort_values("seed").iterrows()
    )
    places = tuple(
        Place(table.name, table_anchor(table), row.label, row.change)
        for table in study.tables
        for row in table.rows
        if row.slug == slug
    )
    return ExperimentPage(experiment, places, metrics, runs, tuple(_pairs(slug, study, links)))


def _pairs(slug: str, study: Study, links: Links) -> list[Pairs]:
    found: dict[str, Pairs] = {}
    frames: dict[str, pd.DataFrame] = {}
    for filled in study.filled.values():
        for row in filled.table.rows:
            if row.slug != slug:
                continue
            for metric in filled.table.metrics:
                base = filled.table.baseline(row, metric)
                if base is row or base.slug is None or not filled.cell(row.label, metric).pairs:
                    continue
                pairs = found.setdefault(base.slug, Pairs(base.slug))
                if metric not in pairs.metrics:
                    pairs.metrics.append(metric)
                frames[base.slug] = paired(filled.runs[slug], filled.runs[base.slug])
    for base_slug, pairs in found.items():
        pairs.rows = [_pair(row, pairs.metrics, links) for _, row in frames[base_slug].iterrows()]
    return list(found.values())


def _pair(row: pd.Series, metrics: Sequence[str], links: Links) -> list[Entry]:
    entries = [
        Entry(_seed(row["seed"]), sort=row["seed"]),
        Entry(str(row["run"]), links.run(str(row["run"]))),
        Entry(str(row["run other"]), links.run(str(row["run other"]))),
    ]
    for metric in metrics:
        a, b = (_score(row[name]) for name in (metric, f"{metric} other"))
        delta = None if a is None or b is None else a - b
        entries.append(Entry(MISSING if delta is None else number(metric, delta, "+", 1), sort=delta))
    return entries


def _score(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _seed(value: Any) -> str:
    return MISSING if pd.isna(value) else str(int(value))
