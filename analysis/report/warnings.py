"""What a reader of a study has to know before its numbers: what is missing, mixed or damaged."""

from __future__ import annotations

import pandas as pd

from analysis.study import Study
from yolor_core.runs.life import GOING_ON, LOST, State

UNFINISHED = (*GOING_ON, State.PREEMPTED, State.INTERRUPTED, State.CANCELLED, State.NOT_SENT)
FEW = 3  # things named in one sentence
SHORT = 8  # characters of a hash that people read


def warnings(study: Study) -> list[str]:
    """Sentences, the gravest first; none where a study is complete and of one piece."""
    runs = study.runs
    found = [*_nothing(study), *_unreadable(study)]
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


def _nothing(study: Study) -> list[str]:
    if not study.runs.empty:
        return []
    where = study.results / "runs"
    if study.everything.empty:
        return [f"There are no runs in {where}. `ablate launch --all --profile {study.profile}` makes some."]
    return [f"None of the runs in {where} is of these tables at profile {study.profile} with these settings."]


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
        return ["Every experiment has a single seed: no interval, no p and no verdict can be given."]
    if counts.min() < counts.max():
        few = sorted(counts[counts < counts.max()].index)
        return [f"Some experiments have fewer seeds than others ({counts.max()}): {_named(pd.Series(few))}."]
    return []


def _used(study: Study) -> set[str]:
    return {run for filled in study.filled.values() for frame in filled.runs.values() for run in frame["run"]}


def _runs(count: int, one: str = "is", many: str = "are") -> str:
    return f"1 run {one}" if count == 1 else f"{count} runs {many}"


def _named(names: pd.Series) -> str:
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(map(str, names[:FEW])) + more
