"""The texts of a published folder: tables in every format, provenance.csv, and summary.md.

The summary says what a study measured, row by row, whatever it is, and what cannot be concluded from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.profiles import profile_named
from ablations.table import CLASSIFICATION, EMBEDDING
from analysis.design import signatures
from analysis.figures.catalogue import table_anchor
from analysis.report.verdicts import VerdictLine, headline, verdict_lines
from analysis.runs import seconds_added
from analysis.stopping import asked
from analysis.study import Study
from analysis.tables.cells import FAMILY, OPEN, Cell
from analysis.tables.fill import ALL
from analysis.tables.formats import FORMATS, MISSING, markdown, number, render
from yolor_core.runs import State
from yolor_core.runs.directory import RunDirectory

SUMMARY, PROVENANCE = "summary.md", "provenance.csv"
ENDINGS = {"text": "txt", "markdown": "md", "csv": "csv", "latex": "tex", "html": "html", "json": "json"}
FROM_RUNS = ("source_hash", "fingerprint", "python", "device")  # as run.json has them
COLUMNS = ("commit", *FROM_RUNS, "packages")
DIGITS = 12  # of a hash, where it is named for a reader
CONTROLS = ("controls",)  # tables of which the summary says what they mean
MEANING = (
    "AP: mean over seeds, and half of its 95 % interval. Δ: with a 95 % interval from the scatter of all "
    "arms and seeds (pooled), of the two arms where one is unlike the rest (own spreads), or of the row by "
    "itself, as \"by\" says. Row by itself: Student's t of the paired differences. All rows: Dunnett's "
    "intervals, which hold at once for all rows with one baseline. Verdict: higher or lower where the 95 % "
    "interval excludes 0, no effect beyond the margin where the 90 % interval lies within it; \\* holds for "
    "all comparisons at once. p: of no difference. p, small: of an effect of the margin or more. Shows: the "
    "smallest effect that these runs would have shown with a chance of 80 %. Leaves: the largest that the "
    "interval leaves possible. Every row is listed, whatever it gave."
)
HEAD = (
    "table", "row", "AP", "against", "its AP", "pairs", "Δ AP [95 %]", "by", "row by itself", "all rows",
    "verdict", "p", "p, Holm", "p, small", "p, small, Holm", "shows", "leaves", "paper", "note",
)  # fmt: skip


def counted_runs(study: Study) -> pd.DataFrame:
    """The finished runs behind the tables, each once, by name; columns of `analysis.runs.load_runs`."""
    frames = [frame for filled in study.filled.values() for frame in filled.runs.values() if len(frame)]
    if not frames:
        return study.everything.iloc[:0]
    return pd.concat(frames).drop_duplicates("run").sort_values("run").reset_index(drop=True)


def lacking(study: Study) -> list[str]:
    """Runs of the tables' experiments that have neither finished nor diverged, e.g. `csp-fast seed 1`.

    They are counted at the seeds that were asked for, or at all that any experiment has.
    """
    gone = study.runs[study.runs["state"] == State.DIVERGED]  # finished, if badly: they would diverge again
    runs = pd.concat([counted_runs(study), gone])
    there = set(zip(runs["experiment"], runs["seed"].astype(int), strict=True))
    seeds = sorted({seed for _, seed in there}) if study.seeds is None else study.seeds
    named = signatures(study.experiments, study.profile, study.overrides)
    most = asked(study.plans) if study.seeds is None else {}  # where rows stop, no more are wanted
    wanted = [
        (slug, seed) for slug, name in named.items() for seed in seeds if seed < most.get(name, seed + 1)
    ]
    return [f"{slug} seed {seed}" for slug, seed in wanted if (slug, seed) not in there]


def evidence(study: Study) -> dict[str, str]:
    """Tables and provenance as {path in the folder: text}; the same for the same runs."""
    texts = {
        f"tables/{table_anchor(filled.table)}.{ENDINGS[form]}": render([filled], form)
        for filled in study.filled.values()
        for form in FORMATS
    }
    return texts | {PROVENANCE: provenance(study)}


def provenance(study: Study) -> str:
    """CSV with a line for every cell of every table: which runs, of which code, on which data, with what."""
    known = {str(r["run"]): _environment(_record(r["path"])) for _, r in counted_runs(study).iterrows()}
    rows = []
    for filled in study.filled.values():
        by_label = {row.label: row for row in filled.table.rows}
        for cell in filled.cells:
            base = filled.table.baseline(by_label[cell.row], cell.metric).label
            other = () if base == cell.row or cell.delta is None else filled.cell(base, cell.metric).runs
            line = {"table": cell.table, "row": cell.row, "metric": cell.metric}
            line |= {"runs": " ".join(cell.runs), "baseline_runs": " ".join(other)}
            of = [known[run] for run in (*cell.runs, *other)]
            rows.append(line | {name: _once((each[name] for each in of), " ") for name in COLUMNS})
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")


def summary(study: Study) -> str:
    """summary.md of the published folder that a study was opened from."""
    lines = verdict_lines(study)
    settings = ", ".join(f"{each.path}={each.value}" for each in study.overrides)
    parts = [
        f"# Published study, profile {study.profile}",
        _origin(study),
        f"Profile {study.profile}: {profile_named(study.profile).caveat}"
        + (f"; with {settings}." if settings else "."),
        f"## Verdicts\n\n{headline(study)}",
        MEANING if study.family == ALL else MEANING.replace("all comparisons", study.family),
        _table(study, lines),
        *_controls(study, lines),
        "## What cannot be concluded\n\n" + "\n".join(f"- {each}" for each in _limits(study, lines)),
        "`ablate verify` on this folder makes the detection scores again from the detections beside it, and "
        "from them and the metrics all tables, figures and sentences; what it cannot find is in "
        "docs/published.md.",
    ]
    return "\n\n".join(parts) + "\n"


def _record(path: str) -> dict[str, Any]:
    return RunDirectory(Path(path)).read_run() or {}


def _environment(record: dict[str, Any]) -> dict[str, str]:
    """What run.json says of code, data and packages of a run, as text; "unknown" where it does not.

    A commit has "-dirty" after it where the code was changed since.
    """
    commit = record.get("commit")
    packages = record.get("packages") or {}
    return {name: str(record.get(name) or "unknown") for name in FROM_RUNS} | {
        "commit": f"{commit}{'' if record.get('dirty') is False else '-dirty'}" if commit else "unknown",
        "packages": ";".join(f"{name}={version}" for name, version in sorted(packages.items())),
    }


def _once(texts: Iterable[object], between: str = ", ") -> str:
    return between.join(dict.fromkeys(map(str, texts)))


def _origin(study: Study) -> str:
    """What was trained, by which code, on what, when: a Markdown table."""
    runs = counted_runs(study)
    records = [_record(path) for path in runs["path"]]
    known = [_environment(record) for record in records]
    seeds = sorted({int(seed) for seed in runs["seed"]})
    days = sorted(str(r[name])[:10] for r in records for name in ("started", "ended") if r.get(name))
    hours = seconds_added(runs).sum() / 3600
    size = sum(
        path.stat().st_size
        for part in ("runs", "tables", "figures")
        for path in (study.results / part).rglob("*")
        if path.is_file()
    )
    digits = {
        name: _once(f"{str(value)[:DIGITS]}…" for value in runs[name])
        for name in ("source_hash", "fingerprint")
    }
    lines = {
        "runs": f"{len(runs)} finished, of {runs['experiment'].nunique()} experiments",
        "tables": ", ".join(study.filled),
        f"seed{'s' if len(seeds) > 1 else ''}": _once(seeds),
        "commit that trained": _once(each["commit"] for each in known),
        "sources of yolor_core, SHA-256": digits["source_hash"],
        "data": f"{_once(runs['data'])}; SHA-256 {digits['fingerprint']}",
        "trained": _once((days[0], days[-1]), " to ") if days else MISSING,
        "training time": f"{hours:.1f} hours of one device, other work on the machine included",
        "device": _once(runs["device"]),
        "Python": _once(each["python"] for each in known),
        "packages": _once(each["packages"].replace(";", ", ") for each in known),
        "size": f"runs, tables and figures {size / 1e6:.2f} MB",
    }
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in lines.items())])


def _table(study: Study, lines: list[VerdictLine]) -> str:
    rows = [HEAD, ("---",) * len(HEAD)]
    for line in lines:
        cell, base = line.cell, study.filled[line.table].cell(line.against, FAMILY)
        rows.append(
            (
                line.table,
                cell.row,
                _score(cell),
                line.against,
                _score(base),
                str(cell.pairs),
                _difference(cell.delta, cell.delta_low, cell.delta_high),
                cell.method or MISSING,
                _difference(None, cell.row_low, cell.row_high),
                _difference(None, cell.all_low, cell.all_high),
                line.verdict.replace("*", "\\*"),
                *(_chance(p) for p in (cell.p, cell.p_holm, cell.p_small, cell.p_small_holm)),
                number(FAMILY, cell.shows, more=1),
                number(FAMILY, cell.leaves, more=1),
                line.paper,
                line.note,
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
            "\n".join(f"- {markdown(_reading(line))}" for line in lines if line.table == name),
        ]
    return found


def _reading(line: VerdictLine) -> str:
    """A row against the one it is compared with, as a sentence."""
    cell, names = line.cell, f"{line.cell.row} against {line.against}"
    if cell.delta is None:
        return f"{names}: not measured ({line.note})."
    pairs = f"{cell.pairs} pair{'s' if cell.pairs != 1 else ''}"
    told = f"{names}: Δ AP {_difference(cell.delta, cell.delta_low, cell.delta_high)} ({pairs})"
    if cell.verdict is None:
        return f"{told}, which may be the noise from run to run."
    left = f"; differences up to {number(FAMILY, cell.leaves, more=1)} AP are not excluded"
    return f"{told}, {line.verdict}{left if cell.verdict == OPEN else ''}."


def _score(cell: Cell) -> str:
    """`25.62 ± 1.10`"""
    half = "" if cell.half_width is None else f" ± {cell.half_width:.2f}"
    return number(FAMILY, cell.value, more=1) + half


def _difference(delta: float | None, low: float | None, high: float | None) -> str:
    """`+0.31 [-0.20, +0.82]`; without the difference, its interval alone."""
    if low is None or high is None:
        return number(FAMILY, delta, "+", 1)
    span = f"[{number(FAMILY, low, '+', 1)}, {number(FAMILY, high, '+', 1)}]"
    return span if delta is None else f"{number(FAMILY, delta, '+', 1)} {span}"


def _chance(p: float | None) -> str:
    return MISSING if p is None else f"{p:.2g}"


def _limits(study: Study, lines: list[VerdictLine]) -> list[str]:
    runs, absent = counted_runs(study), lacking(study)
    fewest = min((line.cell.pairs for line in lines if line.cell.pairs), default=0)
    others = ", ".join(column for column in (*CLASSIFICATION, *EMBEDDING) if runs[column].notna().any())
    # By experiment: rows of several tables are called baseline, and one run may stand in several rows.
    survived = {
        row.slug: each.survived[row.label]
        for each in study.filled.values()
        for row in each.table.rows
        if row.label in each.survived
    }
    silent = sum(line.cell.verdict is None for line in lines)
    limits = [
        study.profile != "paper"
        and f"Sizes of effects at the paper's scale: models, images and schedules of profile {study.profile} "
        "are reduced, so at most signs can be compared with the paper's.",
        f"Effects smaller than the intervals: rows rest on as few as {fewest} "
        f"pair{'s' if fewest != 1 else ''} of seeds. The intervals take residuals for normal. That a "
        f"difference is {OPEN} does not say that it is 0.",
        fewest < 2 and "Rows of one pair: their difference includes the noise from run to run.",
        "Other columns than AP: they are in the tables, and nothing corrects their verdicts.",
        runs["data"].astype(str).str.startswith("shapes").all()
        and "Photographs: the images are synthetic shapes, which the code draws.",
        "Other images: the intervals are over trainings, on one validation set; `ablate tables --images` "
        "gives the effect on images like these.",
        "Costs: times are of the clock, and runs shared the machine with each other and with other work.",
        f"Families of claims: what is corrected is so over "
        f"{'all comparisons of this study' if study.family == ALL else study.family} in AP, not of "
        "other columns, profiles or studies. Experiments that stand in several tables are the same runs.",
        others
        and f"Scores of the other tasks ({others}): they are as training wrote them, since detections do not "
        "hold what they are computed from.",
        survived
        and "Runs that were lost: rows of the runs that finished are conditional on it "
        f"({'; '.join(f'{slug}: {said}' for slug, said in survived.items())}).",
        silent and f"{silent} of {len(lines)} rows have no interval; the table says why.",
        absent and f"Runs that have not finished ({len(absent)}): {', '.join(absent)}.",
    ]
    return [str(limit) for limit in limits if limit]
