"""A page per experiment: its runs side by side, and paired with those of its baselines, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ablations.experiments import Experiment
from ablations.table import CONFLICT, SCORES
from analysis.comparison import paired
from analysis.figures.catalogue import table_anchor
from analysis.report.tables import Entry, Links, against
from analysis.study import Study
from analysis.tables.formats import MISSING, number


@dataclass
class Pairs:
    """The runs of an experiment beside those of a baseline; differences in percent (cosines as they are)."""

    slug: str
    metrics: list[str] = field(default_factory=list)
    rows: list[list[Entry]] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """Its id on the page."""
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
            *(Entry(_text(name, _score(name, row[name])), sort=_score(name, row[name])) for name in metrics),
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
        a, b = (_score(metric, row[name]) for name in (metric, f"{metric} other"))
        delta = None if a is None or b is None else a - b
        entries.append(Entry(MISSING if delta is None else number(metric, delta, "+", 1), sort=delta))
    return entries


def _score(metric: str, value: Any) -> float | None:
    if pd.isna(value):
        return None
    return float(value) * (1 if metric in CONFLICT else 100)


def _text(metric: str, value: float | None) -> str:
    return number(metric, value, more=1)


def _seed(value: Any) -> str:
    return MISSING if pd.isna(value) else str(int(value))
