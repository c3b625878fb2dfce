"""summary.md: what a study measured, row by row, whatever it is, and what cannot be concluded from it."""

from __future__ import annotations

import pandas as pd

from ablations.profiles import profile_named
from ablations.table import CLASSIFICATION, EMBEDDING
from analysis.cells import FAMILY, Cell
from analysis.printed import MISSING, number
from analysis.published.evidence import commit, counted_runs, lacking
from analysis.report.names import page_names
from analysis.report.tables import Links
from analysis.report.verdicts import OPEN, VerdictLine, sentence, verdict_lines
from analysis.study import Study

CONTROLS = ("controls",)  # tables of which the summary says what they mean
MEANING = (
    "Measured: what the interval says by itself. Verdict: on the paper's difference; at a reduced profile on "
    "its sign alone. p is two-sided, and corrected within the table. Every row is listed, whatever it gave."
)
HEAD = ("table", "row", "against", "pairs", "Δ AP [95 %]", "measured", "p, Holm", "paper", "verdict", "why")


def summary(study: Study, bytes_: int) -> str:
    """Markdown. `bytes_` is the size of the runs, tables and figures beside it."""
    runs = counted_runs(study)
    lines = verdict_lines(study, Links({}, page_names(each.slug for each in study.experiments)))
    seeds = sorted({int(seed) for seed in runs["seed"]})
    parts = [
        f"# Published study, profile {study.profile}",
        f"{len(runs)} finished runs of {runs['experiment'].nunique()} experiments, "
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}, "
        f"Tables {', '.join(study.filled)}. Commit {_commits(runs)}; yolor_core "
        f"{_values(runs, 'source_hash')}; data {_values(runs, 'data')} ({_values(runs, 'fingerprint')}); "
        f"{_values(runs, 'device')}. Runs, tables and figures: {bytes_ / 1e6:.2f} MB.",
        f"Profile {study.profile}: {profile_named(study.profile).caveat}{_settings(study)}.",
        f"## Verdicts\n\n{sentence(lines)} {_tally(study, lines)}",
        MEANING,
        _table(lines),
        *_controls(study, lines),
        "## What cannot be concluded\n\n" + "\n".join(f"- {each}" for each in _limits(study, lines)),
        "`ablate verify` on this folder makes every number again from the detections and metrics beside it.",
    ]
    return "\n\n".join(parts) + "\n"


def _commits(runs: pd.DataFrame) -> str:
    named = (commit(of, dirty) for of, dirty in zip(runs["commit"], runs["dirty"], strict=True))
    return ", ".join(dict.fromkeys(named))


def _values(runs: pd.DataFrame, column: str) -> str:
    return ", ".join(dict.fromkeys(str(value)[:40] for value in runs[column]))


def _settings(study: Study) -> str:
    """Overrides of the launch, which every run has."""
    if not study.overrides:
        return ""
    return "; with " + ", ".join(f"{each.path}={each.value}" for each in study.overrides)


def measured(cell: Cell) -> str:
    """What a difference says by itself, without the paper."""
    if cell.delta is None:
        return MISSING
    if cell.delta_low is None or cell.delta_high is None:
        return "one pair, no interval"
    if cell.delta_low > 0:
        return "higher"
    return "lower" if cell.delta_high < 0 else "not told from 0"


def _tally(study: Study, lines: list[VerdictLine]) -> str:
    """How many differences are there, in which direction, and how many are left by the correction."""
    pairs = {}
    for line in lines:
        table = study.filled[line.table].table
        row = next(row for row in table.rows if row.label == line.cell.row)
        pairs[row.slug, table.baseline(row, FAMILY).slug] = measured(line.cell)
    named = ("higher", "lower", "not told from 0", "one pair, no interval")
    kinds = list(pairs.values())
    parts = [f"{kinds.count(kind)} {kind}" for kind in named if kinds.count(kind)]
    if not parts:
        return ""
    said = (
        f"They are {len(pairs)} different comparisons, since tables share experiments; by the 95 % interval "
        f"over seeds alone: {', '.join(parts)}."
    )
    apart = [line.cell for line in lines if measured(line.cell) in ("higher", "lower")]
    if apart:
        left = sum(cell.p_holm is not None and cell.p_holm < 0.05 for cell in apart)
        said += (
            f" Of the {len(apart)} rows whose interval excludes 0, {left} have a p below 0.05 after Holm's "
            "correction within their table."
        )
    return said


def _table(lines: list[VerdictLine]) -> str:
    rows = [HEAD, ("---",) * len(HEAD)]
    for line in lines:
        cell = line.cell
        rows.append(
            (
                line.table,
                cell.row,
                line.against,
                str(cell.pairs),
                _difference(cell),
                measured(cell),
                line.p,
                line.paper,
                line.verdict,
                line.why,
            )
        )
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows)


def _controls(study: Study, lines: list[VerdictLine]) -> list[str]:
    """Of tables whose rows are controls: what holds by construction, and what was measured."""
    found = []
    for name, filled in study.filled.items():
        if name not in CONTROLS:
            continue
        table = filled.table
        found += [
            f"## {table.title}",
            f"{table.question} By construction, whatever is measured: {table.hypothesis}",
            " ".join(table.remarks),
            "\n".join(f"- {_reading(line)}" for line in lines if line.table == name),
        ]
    return found


def _reading(line: VerdictLine) -> str:
    """A row against the one it is compared with, as a sentence."""
    cell, names = line.cell, f"{line.cell.row} against {line.against}"
    if cell.delta is None:
        return f"{names}: not measured ({line.why})."
    pairs = f"{cell.pairs} pair{'s' if cell.pairs != 1 else ''}"
    said = f"{names}: Δ AP {_difference(cell)} ({pairs})"
    if cell.delta_low is None or cell.delta_high is None:
        return f"{said}, which may be the noise from run to run."
    if cell.delta_low > 0 or cell.delta_high < 0:
        return f"{said}, {measured(cell)}: the interval excludes 0."
    reach = number(FAMILY, max(abs(cell.delta_low), abs(cell.delta_high)), more=1)
    return f"{said}, not told from 0; differences up to {reach} AP are not excluded."


def _difference(cell: Cell) -> str:
    """`+0.31 [-0.20, +0.82]`"""
    span = ""
    if cell.delta_low is not None and cell.delta_high is not None:
        span = f" [{number(FAMILY, cell.delta_low, '+', 1)}, {number(FAMILY, cell.delta_high, '+', 1)}]"
    return number(FAMILY, cell.delta, "+", 1) + span


def _limits(study: Study, lines: list[VerdictLine]) -> list[str]:
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
        "The intervals are Student's t, which takes differences for normal. "
        "That a difference is not told from 0 does not say that it is 0."
    )
    if fewest < 2:
        limits.append("Rows of one pair: their difference includes the noise from run to run.")
    limits.append("Other columns than AP: they are in the tables, with p-values that nothing corrects.")
    if runs["data"].astype(str).str.startswith("shapes").all():
        limits.append("Photographs: the images are synthetic shapes, which the code draws.")
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
    if absent := lacking(study):
        limits.append(f"Runs that have not finished ({len(absent)}): {', '.join(absent)}.")
    return limits
