"""What a reader of a study is told first: its verdicts, and what is missing, mixed or damaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ablations.profiles import profile_named
from analysis.design import compared
from analysis.figures.catalogue import table_anchor
from analysis.report.tables import against
from analysis.study import Study
from analysis.tables.cells import FAMILY, NOT_RUN, OPEN, Cell, half_width, said
from analysis.tables.formats import number
from yolor_core.errors import some_of
from yolor_core.runs import GOING_ON, LOST, State


@dataclass(frozen=True)
class VerdictLine:
    """One variant of one table."""

    cell: Cell
    table: str
    anchor: str  # of the table: its page is `tables/<anchor>.html`
    against: str
    pairs: str | None  # the part of the experiment's page with the pairs behind the difference
    delta: str
    verdict: str
    paper: str
    note: str  # why there is no verdict, or what it is conditional on


def verdict_lines(study: Study) -> list[VerdictLine]:
    """The variants of the filled tables in order, measured or not."""
    found = []
    for name, filled in study.filled.items():
        for cell, base in filled.variants:
            half = half_width(cell)
            arms = (cell.row, base.label)
            missing = [
                label if filled.status[label] == NOT_RUN else f"{label} ({filled.status[label]})"
                for label in arms
                if filled.cell(label, FAMILY).value is None
            ]
            given = [f"{label} {filled.survived[label]}" for label in arms if label in filled.survived]
            stopped = filled.stopped.get(cell.row)
            notes = [_why(cell, missing)] if cell.verdict is None and (missing or not stopped) else []
            notes += [stopped] if stopped and not missing else []
            if given and cell.delta is not None:
                notes.append(f"of the runs that finished: {'; '.join(given)}")
            if cell.bound:
                notes.append(f"they take {cell.bound:.2f} off the margin of {cell.margin:g}")
            found.append(
                VerdictLine(
                    cell,
                    name,
                    table_anchor(filled.table),
                    base.label,
                    against(base.slug) if cell.pairs and base.slug else None,
                    number(FAMILY, cell.delta, "+", 1) + ("" if half is None else f" ± {half:.2f}"),
                    said(cell.verdict, cell.margin, cell.marked),
                    number(FAMILY, cell.paper_delta, "+"),
                    "; ".join(notes),
                )
            )
    return found


def _why(cell: Cell, missing: Sequence[str]) -> str:
    if missing:
        return f"without a finished run: {'; '.join(missing)}"
    return "no seed in common with its baseline" if cell.pairs == 0 else "one seed in common: run more"


def headline(study: Study) -> str:
    """How many comparisons of a study have which verdict: the one count, wherever it is printed."""
    filled = study.filled.values()
    found = {(cell.experiment, base.slug): cell for each in filled for cell, base in each.variants}
    cells = found.values()
    total = len(study.comparisons)
    if not total:
        return "These tables compare no rows in AP."
    margins = sorted({cell.margin for cell in cells if cell.margin is not None}) or [study.margin]
    margin = " or ".join(f"{each:g}" for each in margins)  # a rule by which rows stop has its own
    small = f"no effect beyond {margin} AP"
    marked = Counter((cell.marked or OPEN).split(", ")[0] for cell in cells if cell.verdict is not None)
    alone = Counter(
        said(cell.verdict, cell.margin)
        for cell in cells
        if cell.verdict not in (None, OPEN) and cell.marked is None
    )
    parts = [f"{marked['higher']} higher", f"{marked['lower']} lower", f"{marked['no effect']} {small}"]
    parts.append(f"{marked[OPEN]} inconclusive")
    refused = {pair for table in study.tables if table.name in study.refused for pair in compared(table)}
    if unfilled := len(refused - found.keys()):
        parts.append(f"{unfilled} of tables that would mix runs")
    if hidden := total - len(cells) - unfilled:
        parts.append(f"{hidden} of tables that do not show AP")
    if silent := len(cells) - marked.total():
        parts.append(f"{silent} without an interval yet")
    text = (
        f"{total} comparison{'s' if total > 1 else ''} in AP: {', '.join(parts)}. A word counts if it holds "
        f"for all {total} at once (Holm)"
    )
    if alone:
        words = ", ".join(f"{count} {word}" for word, count in alone.items())
        text += f"; uncorrected, {words}"
    shown = [cell for cell in cells if (cell.verdict or "").endswith(("small", "no effect"))]
    if len(shown) == total > 1:
        text += f". None of the {total} has an effect beyond {margin} AP"
    return " ".join(f"{each[0].upper()}{each[1:]}." for each in (text, *study.rules))


UNFINISHED = (*GOING_ON, State.PREEMPTED, State.INTERRUPTED, State.CANCELLED, State.NOT_SENT)
FEW = 3  # things named in one sentence
MEANINGLESS = "Profile {} shows that the path works: its numbers, verdicts and figures mean nothing."
SHORT = 8  # characters of a hash that people read


def warnings(study: Study) -> list[str]:
    """Sentences, the gravest first; none where a study is complete and of one piece."""
    runs = study.runs
    found = [] if profile_named(study.profile).meaningful else [MEANINGLESS.format(study.profile)]
    found += _unreadable(study)
    listed = study.listed
    for state in LOST:
        gone = listed[listed["state"] == state]
        if not gone.empty:
            found.append(f"{_runs(len(gone), 'has', 'have')} {state}: {_named(gone['run'])}.")
    going = listed[listed["state"].isin(UNFINISHED)]
    if not going.empty:
        states = ", ".join(f"{count} {state}" for state, count in going["state"].value_counts().items())
        found.append(
            f"{_runs(len(going))} not finished ({states}); no table counts them yet, and of the figures only "
            "the curves."
        )
    if not runs.empty and not runs["state"].eq("done").any():
        found.append(
            "No run is finished: the figures of implicit knowledge show runs as far as they have come."
        )
    silent = runs[(runs["state"] == "done") & ~runs["run"].isin(_used(study))]
    if not silent.empty and not study.refused:
        found.append(f"{_runs(len(silent))} done without a score: {_named(silent['run'])}.")
    for column, what in (("source_hash", "yolor_core sources"), ("fingerprint", "data")):
        groups = runs.dropna(subset=[column]).groupby(column)["run"].count()
        if len(groups) > 1:
            parts = ", ".join(f"{str(key)[:SHORT]}: {count}" for key, count in groups.items())
            found.append(f"The runs are of {len(groups)} different {what} ({parts}).")
    if runs["dirty"].eq(True).any():
        count = int(runs["dirty"].eq(True).sum())
        found.append(f"{_runs(count)} of code that was not committed: their commits do not say all of it.")
    return [*found, *_others(study), *_seeds(study)]


def nothing(study: Study) -> str | None:
    """Why there is nothing to report, and what to do; None where there are runs."""
    if not study.runs.empty:
        return None
    where = study.results / "runs"
    if study.everything.empty:
        return f"there are no runs in {where}; `ablate launch --all --profile {study.profile}` makes some"
    damaged = int((study.everything["state"] == State.UNREADABLE).sum())
    said = f"none of the runs in {where} is of these tables at profile {study.profile} with these settings"
    return said + (f"; {damaged} cannot be read, `ablate status` says why" if damaged else "")


def _unreadable(study: Study) -> list[str]:
    damaged = study.everything[study.everything["state"] == State.UNREADABLE]
    found = []
    if not damaged.empty:
        count = len(damaged)
        found.append(
            f"{count} run folder{'s' if count > 1 else ''} cannot be read: {_named(damaged['run'])}. "
            "The reasons are on their pages."
        )
    return found + [f"{run} is shown in part: {reason}" for run, reason in sorted(study.unread.items())]


def _others(study: Study) -> list[str]:
    found = []
    profiles = study.everything["profile"].dropna()
    elsewhere = profiles[profiles != study.profile].value_counts()
    if not elsewhere.empty:
        parts = ", ".join(f"{count} of {name}" for name, count in elsewhere.items())
        found.append(f"Runs of other profiles are left out: {parts}.")
    listed = study.listed
    strangers = listed[listed["signature"].notna() & ~listed["run"].isin(study.runs["run"])]
    if not strangers.empty:
        found.append(
            f"{_runs(len(strangers))} of this profile in no table here (other settings, seeds or "
            f"experiments): {_named(strangers['run'])}."
        )
    return found


def _seeds(study: Study) -> list[str]:
    done = study.runs[study.runs["state"] == "done"]
    if done.empty:
        return []
    counts = done.groupby("experiment")["seed"].nunique()
    if counts.max() == 1:
        return ["Every experiment has a single seed: no interval and no verdict can be given."]
    if counts.min() < counts.max():
        few = sorted(counts[counts < counts.max()].index)
        return [f"Some experiments have fewer seeds than others ({counts.max()}): {_named(pd.Series(few))}."]
    return []


def _used(study: Study) -> set[str]:
    return {run for filled in study.filled.values() for frame in filled.runs.values() for run in frame["run"]}


def _runs(count: int, one: str = "is", many: str = "are") -> str:
    return f"1 run {one}" if count == 1 else f"{count} runs {many}"


def _named(names: pd.Series) -> str:
    return some_of(list(names), FEW)
