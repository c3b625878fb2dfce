"""summary.md: what a study measured, row by row, whatever it is, and what cannot be concluded from it."""

from __future__ import annotations

from ablations.profiles import profile_named
from ablations.table import CLASSIFICATION, EMBEDDING
from analysis.published.evidence import counted_runs, lacking
from analysis.published.origin import origin
from analysis.report.names import page_names
from analysis.report.tables import Links
from analysis.report.verdicts import OPEN, VerdictLine, sentence, verdict_lines
from analysis.statistics.seeds import holm
from analysis.study import Study
from analysis.tables.cells import FAMILY, Cell
from analysis.tables.formats import MISSING, number

CONTROLS = ("controls",)  # tables of which the summary says what they mean
MEANING = (
    "AP: mean over seeds, and half of its 95 % interval. Δ is paired by seed. Measured: what its interval "
    "says by itself. p is two-sided, by itself and corrected within the table. Verdict: on the paper's "
    "difference; at a reduced profile on its sign alone. Every row is listed, whatever it gave."
)
HEAD = (
    "table", "row", "AP", "against", "its AP", "pairs", "Δ AP [95 %]", "measured", "p", "p, Holm", "paper",
    "verdict", "why",
)  # fmt: skip
APART, UNMEASURED = ("higher", "lower"), "not measured"


def summary(study: Study, bytes_: int) -> str:
    """Markdown. `bytes_` is the size of the runs, tables and figures beside it."""
    runs = counted_runs(study)
    lines = verdict_lines(study, Links({}, page_names(each.slug for each in study.experiments)))
    parts = [
        f"# Published study, profile {study.profile}",
        origin(study, runs, bytes_),
        f"Profile {study.profile}: {profile_named(study.profile).caveat}{_settings(study)}.",
        f"## Verdicts\n\n{sentence(lines)} {_tally(study, lines)}",
        MEANING,
        _table(study, lines),
        *_controls(study, lines),
        "## What cannot be concluded\n\n" + "\n".join(f"- {each}" for each in _limits(study, lines)),
        "`ablate verify` on this folder makes the detection scores again from the detections beside it, and "
        "from them and the metrics all tables, figures and sentences; what it cannot find is in "
        "docs/published.md.",
    ]
    return "\n\n".join(parts) + "\n"


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
    """How many differences are there, in which direction, and how many are left by a correction over all."""
    pairs = {}
    for line in lines:
        table = study.filled[line.table].table
        row = next(row for row in table.rows if row.label == line.cell.row)
        pairs[row.slug, table.baseline(row, FAMILY).slug] = line.cell
    if not pairs:
        return ""
    kinds = [UNMEASURED if cell.delta is None else measured(cell) for cell in pairs.values()]
    named = (*APART, "not told from 0", "one pair, no interval", UNMEASURED)
    parts = [f"{kinds.count(kind)} {kind}" for kind in named if kinds.count(kind)]
    said = (
        f"They are {len(pairs)} different comparisons, since tables share experiments; by the 95 % interval "
        f"over seeds alone: {', '.join(parts)}."
    )
    if apart := sum(kind in APART for kind in kinds):
        corrected = holm([cell.p for cell in pairs.values()], len(pairs))
        left = sum(p is not None and p < 0.05 for p in corrected)
        said += (
            f" Holm's correction over all {len(pairs)} leaves a p below 0.05 for {left} of the {apart} whose "
            "interval excludes 0."
        )
    return said


def _table(study: Study, lines: list[VerdictLine]) -> str:
    rows = [HEAD, ("---",) * len(HEAD)]
    for line in lines:
        cell = line.cell
        filled = study.filled[line.table]
        rows.append(
            (
                line.table,
                cell.row,
                _score(cell),
                line.against,
                _score(filled.cell(line.against, FAMILY)),
                str(cell.pairs),
                _difference(cell),
                measured(cell),
                MISSING if cell.p is None else f"{cell.p:.2g}",
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
            f"{table.question}\n\nBy construction, whatever is measured: {table.hypothesis}",
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


def _score(cell: Cell) -> str:
    """`25.62 ± 1.10`"""
    half = "" if cell.half_width is None else f" ± {cell.half_width:.2f}"
    return number(FAMILY, cell.value, more=1) + half


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
        "Costs: times are of the clock, and runs shared the machine with each other and with other work."
    )
    limits.append(
        "Families of claims: the column of corrected p is inside a table, the sentence above the rows over "
        "all of them; neither knows of other columns, profiles or studies. Experiments that stand in several "
        "tables are the same runs."
    )
    others = [column for column in (*CLASSIFICATION, *EMBEDDING) if runs[column].notna().any()]
    if others:
        limits.append(
            f"Scores of the other tasks ({', '.join(others)}): they are as training wrote them, since "
            "detections do not hold what they are computed from."
        )
    rows = {row: said for each in study.filled.values() for row, said in each.survived.items()}
    if rows:
        parts = "; ".join(f"{row}: {said}" for row, said in rows.items())
        limits.append(f"Runs that were lost: rows of the runs that finished are conditional on it ({parts}).")
    open_ = [line for line in lines if line.verdict == OPEN]
    if open_:
        limits.append(f"{len(open_)} of {len(lines)} rows have no verdict; the table says why.")
    if absent := lacking(study):
        limits.append(f"Runs that have not finished ({len(absent)}): {', '.join(absent)}.")
    return limits
