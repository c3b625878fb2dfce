"""Filling a table from the run store: which runs count, what a row without one says, caption and notes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import pandas as pd
from scipy.special import stdtrit

from ablations.costs import Cost
from ablations.overrides import Override
from ablations.profiles import profile_named
from ablations.registry import as_overrides, resolve
from ablations.table import CONFLICT, COUNTED, LOSSES, QUOTED, SCORES, Row, Table
from analysis.design import Design, Pair, compared, design_of
from analysis.runs import UNSCORED
from analysis.statistics.blocks import MARGIN, dunnett_critical, word
from analysis.statistics.seeds import ALPHA, LEVEL, holm
from analysis.tables.cells import (
    FAMILY,
    MEASURED,
    NOT_RUN,
    OPEN,
    QUOTED_ROW,
    Cell,
    half_width,
    table_cells,
)
from yolor_core.errors import ConfigError, YolorError, some_of
from yolor_core.identity import signature
from yolor_core.runs import LOST

QUOTED_ALONE = "All rows are quoted."
UNASKED = "the effect on images like these is not shown (--images)"
HOLDS = "* holds for {} at once (Holm), words without it for their row"
ALL = "all comparisons of the study"
PREFIX = 8  # characters of a hash that people read
NAMED = 3  # runs in an error
Marks = dict[tuple[str, str], str]  # (row, metric) -> footnote sign


class MixedRunsError(YolorError):
    """A table would compare runs of different code or of different data."""


@dataclass(frozen=True)
class FilledTable:
    """A table with its cells, ready to be rendered."""

    table: Table
    facts: tuple[str, ...]  # what "ours" is: model, profile, data, seeds, what ± says; none if all is quoted
    cells: tuple[Cell, ...]
    status: Mapping[str, str]  # row label -> measured, not run, running ...
    notes: tuple[str, ...] = ()
    marks: Mapping[tuple[str, str], str] = field(default_factory=dict)  # of the notes, by (row, metric)
    runs: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # the runs that count, by experiment
    survived: Mapping[str, str] = field(default_factory=dict)  # row label -> "3 of 5; diverged (2 of 5)"
    stopped: Mapping[str, str] = field(default_factory=dict)  # row label -> "stopped at the look at 5 seeds"

    @property
    def title(self) -> str:
        """`Table 4: Operators (section 5.5)`."""
        section = f" (section {self.table.section})" if self.table.section else ""
        return f"{heading(self.table)}{self.table.title}{section}"

    @property
    def caption(self) -> str:
        """The title, and all that a reader of the numbers has to know."""
        return f"{self.title}. {ours(self.facts) or QUOTED_ALONE}"

    def cell(self, row: str, metric: str) -> Cell:
        """The cell of a row label and a metric."""
        return next(c for c in self.cells if (c.row, c.metric) == (row, metric))

    @property
    def variants(self) -> list[tuple[Cell, Row]]:
        """The cells in AP of the rows that are compared with another one, and that one."""
        if FAMILY not in self.table.metrics:
            return []
        return [
            (self.cell(row.label, FAMILY), base)
            for row in self.table.rows
            if (base := self.table.control(row, FAMILY)) is not None
        ]


def fill_table(
    table: Table,
    profile: str,
    runs: pd.DataFrame,
    overrides: Sequence[str | Override] = (),
    costs: Mapping[str, Cost] | None = None,
    seeds: Sequence[int] | None = None,
    mixed: bool = False,
    margin: float = MARGIN,
    design: Design | None = None,
) -> FilledTable:
    """Fill a table from the runs of `analysis.runs.load_runs`.

    A run counts if it is done, has a score of any task, has the signature that its row has at this profile
    (with these overrides), and, where `seeds` is given, one of these seeds. `costs` holds parameters and
    MFLOPs by slug. Without a `design`, that of a study of several tables, the table is the whole study.
    Raises MixedRunsError where these runs are of different sources or different data and `mixed` is false,
    UnknownNameError for an unknown profile or field, ConfigError for a margin that is none.
    """
    if not 0 < margin <= 100:
        raise ConfigError(f"a margin of {margin} AP; a number above 0 and at most 100 is needed")
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
        status[row.label] = MEASURED if len(finished) else _status(same)
        if len(finished) and (gone := _lost(same)):
            survived[row.label] = f"{len(finished)} of {len(same)}; {gone}"
    frames = [frame for frame in chosen.values() if not frame.empty]
    used = pd.concat(frames) if frames else runs.iloc[:0]
    if not mixed:
        _refuse_mixture(table, used)
    of = design or design_of(runs, table.experiments, profile, parsed, seeds)
    cells = tuple(table_cells(table, profile, chosen, costs or {}, of, margin))
    notes, marks = footnotes(table, cells, costs or {}, seeds or ())
    notes = (*notes, *_unrecorded(table, used))
    if survived:
        rows = ". ".join(f"{row}: of the runs that finished, {said}" for row, said in survived.items())
        finishing = "These numbers, and differences from them, are conditional on a run's finishing."
        notes = (f"{rows}. {finishing}", *notes)
    stopped = {
        row.label: stop.said
        for row in table.rows
        for metric in table.metrics
        if (stop := of.stop(row.slug or "", table.baseline(row, metric).slug or "")) is not None
    }
    if stopped:
        notes = (f"{'; '.join(f'{row} {said}' for row, said in stopped.items())}.", *notes)
    facts = (*_facts(table, profile, used, parsed, margin), *of.rules_of(compared(table)))
    filled = FilledTable(table, facts, cells, status, notes, marks, chosen, survived, stopped)
    return filled if design is not None else at_once([filled], compared(table), of)[0]


def family(comparisons: Sequence[Pair], design: Design) -> str:
    """What is corrected for together: all comparisons of the study, or those of the tables printed alone."""
    if design.covers(comparisons):
        return ALL
    count = len(comparisons)
    return (
        f"the {f'{count} comparisons' if count != 1 else 'one comparison'} of the tables printed here, "
        "not of the whole study,"
    )


def at_once(filled: Sequence[FilledTable], comparisons: Sequence[Pair], design: Design) -> list[FilledTable]:
    """The tables with what holds for all their comparisons together; their facts say what these are.

    Holm's correction is over all comparisons in AP, those to come included since p must not grow as rows
    finish: once over the differences, once over the tests of equivalence. Dunnett's intervals are over all
    comparisons with one control, of rows that are pooled. `comparisons`: of these tables, each once;
    `design`: of the study, which may have more.
    """
    metrics = {FAMILY, *(cell.metric for each in filled for cell in each.cells)}
    # A row that trains several tasks has another control in each task's scores.
    controls = [
        {
            (row.label, metric): each.table.baseline(row, metric).slug
            for row in each.table.rows
            for metric in metrics
        }
        for each in filled
    ]
    found = {
        (cell.experiment, control[cell.row, FAMILY]): cell
        for each, control in zip(filled, controls, strict=True)
        for cell, _ in each.variants
    }
    tests = len(comparisons)
    differ, small = (
        dict(zip(found, holm([getattr(cell, name) for cell in found.values()], tests), strict=True))
        for name in ("p", "p_small")
    )
    rows = Counter(
        (metric, control)
        for metric in metrics
        for _, control in {pair for each in filled for pair in compared(each.table, metric)}
    )

    def whole(cell: Cell, control: str | None) -> Cell:
        if cell.method == "pooled" and cell.delta is not None and cell.freedom is not None:
            critical = dunnett_critical(rows[cell.metric, control or ""] or 1, cell.freedom)
            reach = critical / float(stdtrit(cell.freedom, 0.5 + LEVEL / 2)) * (half_width(cell) or 0.0)
            cell = replace(cell, all_low=cell.delta - reach, all_high=cell.delta + reach)
        if cell.metric != FAMILY or cell.p is None or cell.p_small is None:
            return cell
        p, p_small = (each[cell.experiment, control] for each in (differ, small))
        sign = 0 if p is None or p >= ALPHA else 1 if (cell.delta or 0) > 0 else -1
        marked = word(sign, p_small is not None and p_small < ALPHA)
        return replace(cell, p_holm=p, p_small_holm=p_small, marked=None if marked == OPEN else marked)

    whose = family(comparisons, design)
    return [
        replace(
            each,
            facts=tuple(HOLDS.format(whose) if fact == HOLDS else fact for fact in each.facts),
            cells=tuple(whole(cell, control[cell.row, cell.metric]) for cell in each.cells),
        )
        for each, control in zip(filled, controls, strict=True)
    ]


def tidy(filled: Sequence[FilledTable]) -> pd.DataFrame:
    """One line per cell of several tables, with uncertainties, differences and the row's status."""
    records = [asdict(cell) | {"status": cell_status(each, cell)} for each in filled for cell in each.cells]
    names = [*Cell.__dataclass_fields__, "status"]
    return pd.DataFrame(records, columns=names)


def cell_status(filled: FilledTable, cell: Cell) -> str:
    """Whether a cell is measured, counted or quoted, and if not, why."""
    if cell.metric in QUOTED:
        return QUOTED_ROW
    if cell.lacks is not None:
        return f"no {cell.lacks}"
    if cell.metric in COUNTED and cell.experiment is not None:
        return "counted" if cell.value is not None else "not counted"
    if cell.metric in LOSSES and cell.value is None and filled.status[cell.row] == MEASURED:
        return "not recorded"
    survived = filled.survived.get(cell.row)
    return filled.status[cell.row] + (f", of the runs that finished: {survived}" if survived else "")


def _status(runs: pd.DataFrame) -> str:
    """Why a row has no numbers, whose runs these are."""
    states = set(runs["state"])
    for state in ("running", "preempted"):
        if state in states:
            return state
    if gone := _lost(runs):
        return gone
    if "queued" in states:
        return "queued"
    if "done" not in states:
        return NOT_RUN
    unscored = runs.loc[runs["state"] == "done", "reason"].eq(UNSCORED).any()
    return UNSCORED if unscored else "done, but not evaluated"


def _lost(runs: pd.DataFrame) -> str:
    """What became of runs without results: `diverged (2 of 5), failed (1 of 5)`; empty where all are well."""
    counts = [(state, int((runs["state"] == state).sum())) for state in LOST]
    return ", ".join(f"{state} ({count} of {len(runs)})" for state, count in counts if count)


def _refuse_mixture(table: Table, used: pd.DataFrame) -> None:
    for column, what, flag in (
        ("source_hash", "different yolor_core sources", "--source"),
        ("fingerprint", "different data", "--fingerprint"),
    ):
        groups = used.groupby(column, dropna=False)["run"]
        if groups.ngroups < 2:
            continue
        parts = []
        for key, names in groups:
            parts.append(f"{_short(key)} ({some_of(list(names), NAMED)})")
        raise MixedRunsError(
            f"table {table.name} would mix runs of {what}: {'; '.join(parts)}. "
            f"Run them again, choose one with {flag} PREFIX, or allow it with --mixed"
        )


def _short(value: object) -> str:
    return str(value)[:PREFIX] if isinstance(value, str) else "unknown"


def heading(table: Table) -> str:
    """How a caption starts: `Table 4: `. LaTeX numbers tables itself and leaves it out."""
    return f"Table {table.name}: "


def ours(facts: Sequence[str]) -> str:
    """Facts as the sentence that says what "ours" is; empty without any."""
    return f"Ours: {'; '.join(facts)}." if facts else ""


def _facts(
    table: Table,
    profile: str,
    used: pd.DataFrame,
    overrides: Sequence[Override],
    margin: float,
) -> tuple[str, ...]:
    sizes = {e: resolve(e, profile, overrides).evaluation.size for e in table.experiments}
    models = dict.fromkeys(f"{e.title.split(',')[0]} at {size} px" for e, size in sizes.items())
    if not models:
        return ()
    parts = [", ".join(models), f"profile {profile}, {profile_named(profile).caveat}"]
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
        seed = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
        parts += [f"data: {data}", seed, f"yolor_core {sources}"]
        if len(seeds) > 1:
            parts.append(
                "± is half of a 95 % interval; that of ours is Student's t over seeds, that of Δ, the effect "
                "on this validation set, comes from the scatter of all arms and seeds of the study"
            )
            parts.append(f"no effect beyond {margin:g}: the 90 % interval lies within ± that")
            parts.append(HOLDS)
            parts.append(UNASKED)
        else:
            parts.append("single runs, so a Δ includes the noise from run to run")
    return tuple(parts)


def footnotes(
    table: Table, cells: Sequence[Cell], costs: Mapping[str, Cost], wanted: Sequence[int] = ()
) -> tuple[tuple[str, ...], Marks]:
    """The notes below a filled table, in order, and the signs that tie some of them to cells.

    `wanted`: the seeds that were asked for.
    """
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
        if cell.metric == "GFLOPs" and (why := _printed_gflops(cell, cost)):
            marks[cell.row, cell.metric] = "‡"
            notes.append(f"‡ {cell.row}: {why}.")
    if what := " and ".join(metric for metric in COUNTED if metric in table.metrics):
        notes.append(
            f"{what[0].upper()}{what[1:]} are those of the full-size models at the paper's test size, "
            f"{_fusion(table, costs)}."
        )
    if what := " and ".join(metric for metric in QUOTED if metric in table.metrics):
        notes.append(f"{what} are quoted from the paper, on its device; nothing here measures them.")
    if CONFLICT[0] in table.metrics:
        notes.append(
            f"{CONFLICT[0].capitalize()}: between the gradients of two tasks on the parameters that both "
            "train, mean over the measured steps of all epochs; below 0, what helps one hurts the other."
        )
    notes += [*_baselines(table, cells), *_dashes(cells), *_absent_seeds(cells, wanted), *_pairing(cells)]
    return (*notes, *table.notes), marks


def _unrecorded(table: Table, used: pd.DataFrame) -> list[str]:
    """Why finished runs that detect have no validation loss, which costs the table their seeds."""
    shown = [metric for metric in table.metrics if metric in LOSSES]
    lacking = used[used[shown].isna().any(axis=1) & used[FAMILY].notna()] if shown else used[:0]
    damaged = lacking["reason"].notna()
    what = " and ".join(shown)
    notes = [f"No {what} of {run}: {why}." for run, why in lacking.loc[damaged, ["run", "reason"]].values]
    if names := list(lacking.loc[~damaged, "run"]):
        notes.append(
            f"No {what} of {some_of(names, NAMED)}: their metrics.jsonl does not have it, since "
            "older code did not record it."
        )
    return notes


def _printed_gflops(cell: Cell, cost: Cost) -> str | None:
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
    merged = "(BatchNorm merged into the convolutions)"
    return (
        f"fused {merged}"
        if len(fused) == len(counted)
        else f"not fused, except {' and '.join(fused)} {merged}"
    )


def _baselines(table: Table, cells: Sequence[Cell]) -> list[str]:
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
            some = f" in {' and '.join(tasks)}" if tasks and len(metrics) < len(own) else ""
            others.append(f"{row.label} against {label}{some}")
    return (
        [f"Differences (Δ) are against the first row, {first}, but: {'; '.join(others)}."] if others else []
    )


def _dashes(cells: Sequence[Cell]) -> list[str]:
    """Why rows have no number in some columns whatever is run: one sentence for each missing task."""
    rows: dict[str, dict[str, None]] = {}
    for cell in cells:
        if cell.lacks is not None:
            rows.setdefault(cell.lacks, {})[cell.row] = None
    return [f"– because the model has no {task}: {'; '.join(labels)}." for task, labels in rows.items()]


def _absent_seeds(cells: Sequence[Cell], wanted: Sequence[int]) -> list[str]:
    """Which seeds that were asked for no row has, and which measured rows lack some that another row has."""
    seeds: dict[str, set[int]] = {}
    for cell in cells:
        if cell.seeds:
            seeds.setdefault(cell.row, set()).update(cell.seeds)
    every = set().union(*seeds.values())
    lacking: dict[tuple[int, ...], list[str]] = {}
    for row, own in seeds.items():
        if own != every:
            lacking.setdefault(tuple(sorted(every - own)), []).append(row)
    nowhere = sorted(set(wanted) - every) if every else []
    found = [f"Asked for, but in no row: seeds {', '.join(map(str, nowhere))}."] if nowhere else []
    if not lacking:
        return found
    parts = [f"{'; '.join(rows)} without {', '.join(map(str, lost))}" for lost, rows in lacking.items()]
    return [
        *found,
        f"Not every row has every seed: {'. '.join(parts)}. Pairs are the seeds that two rows share; a Δ "
        "that is not of the row by itself is fitted to all runs (arm + seed).",
    ]


def _pairing(cells: Sequence[Cell]) -> list[str]:
    """How much of the variance of a difference in AP pairing by seed has left, over the table's variants."""
    left = [cell.variance_left for cell in cells if cell.metric == FAMILY and cell.variance_left is not None]
    if not left:
        return []
    low, high = min(left), max(left)
    span = f"{100 * low:.0f} %" if len(left) == 1 else f"{100 * low:.0f} to {100 * high:.0f} %"
    above = "; above 100 %, it has not helped" if high > 1 else ""
    return [
        f"Pairing by seed has left {span} of the unpaired variance of Δ in AP (estimated from these "
        f"runs{above})."
    ]
