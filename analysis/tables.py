"""Filling a table from the run store: which runs count, what a row without one says, and the caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import pandas as pd

from ablations.costs import Cost
from ablations.overrides import Override
from ablations.profiles import profile_named
from ablations.registry import as_overrides, resolve
from ablations.table import COUNTED, QUOTED, SCORES, Table
from analysis.cells import MEASURED, NOT_RUN, PAPER_PROFILE, QUOTED_ROW, Cell, table_cells
from analysis.footnotes import footnotes
from analysis.runs import UNSCORED
from yolor_core.errors import YolorError
from yolor_core.identity import signature
from yolor_core.runs.life import LOST

UNASKED = "the effect on images like these is not shown (--images)"
PREFIX = 8  # characters of a hash that people read


class MixedRunsError(YolorError):
    """A table would compare runs of different code or of different data."""


@dataclass(frozen=True)
class FilledTable:
    """A table with its cells, ready to be rendered."""

    table: Table
    caption: str
    cells: tuple[Cell, ...]
    status: Mapping[str, str]  # row label -> measured, not run, running ...
    notes: tuple[str, ...] = ()
    marks: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (row, metric) -> footnote sign
    runs: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # the runs that count, by experiment
    survived: Mapping[str, str] = field(default_factory=dict)  # row label -> "3 of 5; diverged (2 of 5)"

    def cell(self, row: str, metric: str) -> Cell:
        """The cell of a row label and a metric."""
        return next(c for c in self.cells if (c.row, c.metric) == (row, metric))


def fill_table(
    table: Table,
    profile: str,
    runs: pd.DataFrame,
    overrides: Sequence[str | Override] = (),
    costs: Mapping[str, Cost] | None = None,
    seeds: Sequence[int] | None = None,
    mixed: bool = False,
) -> FilledTable:
    """Fill a table from the runs of `analysis.runs.load_runs`.

    A run counts if it is done, has a score of any task, has the signature that its row has at this profile
    (with these overrides), and, where `seeds` is given, one of these seeds. `costs` holds parameters and
    MFLOPs by slug.
    Raises MixedRunsError where these runs are of different sources or different data and `mixed` is false,
    UnknownNameError for an unknown profile or field.
    """
    parsed = as_overrides(overrides)
    chosen: dict[str, pd.DataFrame] = {}
    status: dict[str, str] = {}
    survived: dict[str, str] = {}
    for row in table.rows:
        if row.experiment is None:
            status[row.label] = QUOTED_ROW
            continue
        science = resolve(row.experiment, profile, parsed)
        same = runs[runs["signature"] == signature(science)]
        if seeds is not None:
            same = same[same["seed"].isin(list(seeds))]
        finished = same[(same["state"] == "done") & same[list(SCORES)].notna().any(axis=1)]
        chosen[row.experiment.slug] = finished
        status[row.label] = _status(same, finished)
        if not finished.empty and (gone := lost(same)):
            survived[row.label] = f"{len(finished)} of {len(same)}; {gone}"
    frames = [frame for frame in chosen.values() if not frame.empty]
    used = pd.concat(frames) if frames else runs.iloc[:0]
    if not mixed:
        _refuse_mixture(table, used)
    cells = tuple(table_cells(table, profile, chosen, costs or {}))
    notes, marks = footnotes(table, cells, costs or {})
    notes = (*conditional(survived), *notes)
    caption = _caption(table, profile, used, parsed)
    return FilledTable(table, caption, cells, status, notes, marks, chosen, survived)


def tidy(filled: Sequence[FilledTable]) -> pd.DataFrame:
    """One line per cell of several tables, with uncertainties, differences and the row's status."""
    records = [asdict(cell) | {"status": cell_status(each, cell)} for each in filled for cell in each.cells]
    names = [*Cell.__dataclass_fields__, "status"]
    return pd.DataFrame(records, columns=names)


def cell_status(filled: FilledTable, cell: Cell) -> str:
    if cell.metric in QUOTED:
        return QUOTED_ROW
    if cell.lacks is not None:
        return f"no {cell.lacks}"
    if cell.metric in COUNTED and cell.experiment is not None:
        return "counted"
    survived = filled.survived.get(cell.row)
    return filled.status[cell.row] + (f", of the runs that finished: {survived}" if survived else "")


def _status(same: pd.DataFrame, finished: pd.DataFrame) -> str:
    if not finished.empty:
        return MEASURED
    states = set(same["state"].dropna())
    for state in ("running", "preempted"):
        if state in states:
            return state
    if gone := lost(same):
        return gone
    if "queued" in states:
        return "queued"
    if "done" not in states:
        return NOT_RUN
    unscored = same.loc[same["state"] == "done", "reason"].eq(UNSCORED).any()
    return UNSCORED if unscored else "done, but not evaluated"


def lost(runs: pd.DataFrame) -> str:
    """What became of runs without results: `diverged (2 of 5), failed (1 of 5)`; empty where all are well."""
    counts = [(state, int((runs["state"] == state).sum())) for state in LOST]
    return ", ".join(f"{state} ({count} of {len(runs)})" for state, count in counts if count)


def conditional(survived: Mapping[str, str]) -> list[str]:
    """What numbers mean where runs were lost, as one sentence; nothing where none was."""
    if not survived:
        return []
    rows = ". ".join(f"{row}: of the runs that finished, {said}" for row, said in survived.items())
    return [f"{rows}. These numbers, and differences from them, are conditional on a run's finishing."]


def _refuse_mixture(table: Table, used: pd.DataFrame) -> None:
    for column, what, flag in (
        ("source_hash", "different yolor_core sources", "--source"),
        ("fingerprint", "different data", "--fingerprint"),
    ):
        groups = used.groupby(column, dropna=False)["run"]
        if groups.ngroups > 1:
            parts = [f"{_short(key)} ({_few(list(names))})" for key, names in groups]
            raise MixedRunsError(
                f"table {table.name} would mix runs of {what}: {'; '.join(parts)}. "
                f"Run them again, choose one with {flag} PREFIX, or allow it with --mixed"
            )


def _few(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _short(value: object) -> str:
    return str(value)[:PREFIX] if isinstance(value, str) else "unknown"


def heading(table: Table) -> str:
    """How a caption starts: `Table 4: `. LaTeX numbers tables itself and leaves it out."""
    return f"Table {table.name}: "


def _caption(table: Table, profile: str, used: pd.DataFrame, overrides: Sequence[Override]) -> str:
    section = f" (section {table.section})" if table.section else ""
    sizes = {e: resolve(e, profile, overrides).evaluation.size for e in table.experiments}
    models = dict.fromkeys(f"{e.title.split(',')[0]} at {size} px" for e, size in sizes.items())
    if not models:
        return f"{heading(table)}{table.title}{section}. All rows are quoted."
    parts = [f"{heading(table)}{table.title}{section}", f"Ours: {', '.join(models)}"]
    parts.append(f"profile {profile}, {profile_named(profile).caveat}")
    if overrides:
        parts.append("with " + ", ".join(f"{o.path}={o.value}" for o in overrides))
    if used.empty:
        parts.append("no finished runs")
    else:
        data = ", ".join(
            f"{kind} ({_short(fingerprint)})"
            for kind, fingerprint in used[["data", "fingerprint"]].drop_duplicates().itertuples(index=False)
        )
        seeds = sorted({int(seed) for seed in used["seed"]})
        sources = ", ".join(_short(source) for source in used["source_hash"].unique())
        parts.append(f"data: {data}")
        parts.append(f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}")
        parts.append(f"yolor_core {sources}")
        if len(seeds) > 1:
            parts.append(
                "± is half of a 95 % interval over seeds (Student's t); Δ against the row's baseline is "
                "paired by seed: the effect on this validation set, training alone being random; p is "
                "two-sided, Holm corrects AP's for the table's variants; verdicts use the uncorrected "
                "interval"
            )
            parts.append(UNASKED)
            if profile != PAPER_PROFILE:
                parts.append("verdicts compare signs only")
        else:
            parts.append("single runs, so a Δ includes the noise from run to run")
    return ". ".join(parts[:2]) + "; " + "; ".join(parts[2:]) + "."
