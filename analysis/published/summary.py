"""summary.md: what a study measured, row by row, whatever it is, and what cannot be concluded from it."""

from __future__ import annotations

import pandas as pd

from ablations.experiments import Experiment
from ablations.profiles import profile_named
from ablations.table import CLASSIFICATION, EMBEDDING
from analysis.cells import FAMILY, Cell
from analysis.formats import MISSING, number
from analysis.published.evidence import counted_runs
from analysis.report.names import page_names
from analysis.report.tables import Links
from analysis.report.verdicts import OPEN, VerdictLine, sentence, verdict_lines
from analysis.study import Study

HEAD = ("table", "row", "against", "pairs", "Δ AP [95 %]", "measured", "p, Holm", "paper", "verdict", "why")


def summary(study: Study, bytes_: int) -> str:
    """Markdown. `bytes_` is the size of the runs, tables and figures beside it."""
    runs = counted_runs(study)
    lines = verdict_lines(study, Links({}, page_names(each.slug for each in study.experiments)))
    seeds = sorted({int(seed) for seed in runs["seed"]})
    missing = [each for each in study.experiments if each.slug not in set(runs["experiment"])]
    parts = [
        f"# Published study, profile {study.profile}",
        f"{len(runs)} finished runs of {runs['experiment'].nunique()} experiments, "
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}, "
        f"Tables {', '.join(study.filled)}. Commit {_values(runs, 'commit')}; yolor_core "
        f"{_values(runs, 'source_hash')}; data {_values(runs, 'data')} ({_values(runs, 'fingerprint')}); "
        f"{_values(runs, 'device')}. Runs, tables and figures: {bytes_ / 1e6:.2f} MB.",
        f"Profile {study.profile}: {profile_named(study.profile).caveat}.",
        f"## Verdicts\n\n{sentence(lines)} {_tally(lines)}",
        _table(lines),
        "## What cannot be concluded\n\n" + "\n".join(f"- {each}" for each in _limits(study, lines, missing)),
        "`ablate verify` on this folder makes every number again from the detections and metrics beside it.",
    ]
    return "\n\n".join(parts) + "\n"


def _values(runs: pd.DataFrame, column: str) -> str:
    return ", ".join(dict.fromkeys(str(value)[:40] for value in runs[column]))


def measured(cell: Cell) -> str:
    """What a difference says by itself, without the paper."""
    if cell.delta is None:
        return MISSING
    if cell.delta_low is None or cell.delta_high is None:
        return "one pair, no interval"
    if cell.delta_low > 0:
        return "higher"
    return "lower" if cell.delta_high < 0 else "not told from 0"


def _tally(lines: list[VerdictLine]) -> str:
    kinds = [measured(line.cell) for line in lines]
    named = ("higher", "lower", "not told from 0", "one pair, no interval")
    parts = [f"{kinds.count(kind)} {kind}" for kind in named if kinds.count(kind)]
    return f"By the 95 % interval over seeds alone: {', '.join(parts)}." if parts else ""


def _table(lines: list[VerdictLine]) -> str:
    rows = [HEAD, ("---",) * len(HEAD)]
    for line in lines:
        cell = line.cell
        span = ""
        if cell.delta_low is not None and cell.delta_high is not None:
            span = f" [{number(FAMILY, cell.delta_low, '+', 1)}, {number(FAMILY, cell.delta_high, '+', 1)}]"
        delta = number(FAMILY, cell.delta, "+", 1) + span
        rows.append(
            (
                line.table,
                cell.row,
                line.against,
                str(cell.pairs),
                delta,
                measured(cell),
                line.p,
                line.paper,
                line.verdict,
                line.why,
            )
        )
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows)


def _limits(study: Study, lines: list[VerdictLine], missing: list[Experiment]) -> list[str]:
    runs = counted_runs(study)
    limits = []
    if study.profile != "paper":
        limits.append(
            f"Sizes of effects at the paper's scale: models, images and schedules of profile {study.profile} "
            "are reduced, so at most signs can be compared with the paper's."
        )
    fewest = min((line.cell.pairs for line in lines if line.cell.pairs), default=0)
    limits.append(
        f"Effects smaller than the intervals: rows rest on as few as {fewest} "
        f"pair{'s' if fewest != 1 else ''} of seeds. "
        "That a difference is not told from 0 does not say that it is 0."
    )
    if fewest < 2:
        limits.append("Rows of one pair: their difference includes the noise from run to run.")
    limits.append(
        "Other images: the intervals are over trainings, on one validation set; `ablate tables --images` "
        "gives the effect on images like these."
    )
    limits.append(
        "Families of claims: p is corrected by Holm inside a table, not over all tables; experiments that "
        "stand in several tables are the same runs."
    )
    others = [column for column in (*CLASSIFICATION, *EMBEDDING) if runs[column].notna().any()]
    if others:
        limits.append(
            f"Scores of the other tasks ({', '.join(others)}): they are as training wrote them, since "
            "detections do not hold what they are computed from."
        )
    open_ = [line for line in lines if line.verdict == OPEN]
    if open_:
        limits.append(f"{len(open_)} of {len(lines)} rows have no verdict; the table says why.")
    if missing:
        slugs = ", ".join(each.slug for each in missing)
        limits.append(f"Experiments without a finished run: {slugs}.")
    return limits
