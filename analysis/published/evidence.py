"""The texts of a published folder that follow from its runs: tables in every format, provenance, summary."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.figures.catalogue import table_anchor
from analysis.published.manifest import PROVENANCE
from analysis.study import Study
from analysis.tables.cells import Cell
from analysis.tables.formats import FORMATS, render
from yolor_core.runs.directory import RunDirectory
from yolor_core.runs.life import State

ENDINGS = {"text": "txt", "markdown": "md", "csv": "csv", "latex": "tex", "html": "html", "json": "json"}
UNKNOWN, CHANGED = "unknown", "-dirty"  # behind a commit: the code was changed since
FROM_RUNS = ("source_hash", "fingerprint", "python", "device")  # as run.json has them
COLUMNS = ("commit", *FROM_RUNS, "packages")


def counted_runs(study: Study) -> pd.DataFrame:
    """The finished runs behind the tables, each once, by name; columns of `analysis.runs.load_runs`."""
    frames = [frame for filled in study.filled.values() for frame in filled.runs.values() if len(frame)]
    if not frames:
        return study.everything.iloc[:0]
    return pd.concat(frames).drop_duplicates("run").sort_values("run").reset_index(drop=True)


def commit(of: Any, dirty: Any) -> str:
    """A run's commit as it is named here: "-dirty" behind it for code that differed, "unknown" for none."""
    if not isinstance(of, str):
        return UNKNOWN
    return of if dirty is False else f"{of}{CHANGED}"


def lacking(study: Study) -> list[str]:
    """Runs of the tables' experiments that have neither finished nor diverged, as `csp-fast seed 1`.

    They are counted at the seeds that were asked for, or at all that any experiment has.
    """
    runs = counted_runs(study)
    there = set(zip(runs["experiment"], runs["seed"].astype(int), strict=True))
    gone = study.runs[study.runs["state"] == State.DIVERGED]  # finished, if badly: they would diverge again
    there |= set(zip(gone["experiment"], gone["seed"].astype(int), strict=True))
    seeds = sorted({seed for _, seed in there}) if study.seeds is None else study.seeds
    return [
        f"{each.slug} seed {seed}"
        for each in study.experiments
        for seed in seeds
        if (each.slug, seed) not in there
    ]


def evidence(study: Study) -> dict[str, str]:
    """Tables and provenance as {path in the folder: text}; the same for the same runs."""
    texts = {}
    for filled in study.filled.values():
        for form in FORMATS:
            texts[f"tables/{table_anchor(filled.table)}.{ENDINGS[form]}"] = render([filled], form)
    return texts | {PROVENANCE: provenance(study)}


def provenance(study: Study) -> str:
    """CSV with a line for every cell of every table: which runs, of which code, on which data, with what."""
    known = {str(r["run"]): environment(Path(r["path"])) for _, r in counted_runs(study).iterrows()}
    rows = []
    for filled in study.filled.values():
        by_label = {row.label: row for row in filled.table.rows}
        for cell in filled.cells:
            base = filled.table.baseline(by_label[cell.row], cell.metric).label
            other = () if base == cell.row or cell.delta is None else filled.cell(base, cell.metric).runs
            rows.append(_line(cell, other, known))
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")


def _line(cell: Cell, other: tuple[str, ...], known: dict[str, dict[str, str]]) -> dict[str, str]:
    of = [known[run] for run in (*cell.runs, *other)]
    line = {"table": cell.table, "row": cell.row, "metric": cell.metric}
    line |= {"runs": " ".join(cell.runs), "baseline_runs": " ".join(other)}
    return line | {name: " ".join(_once(each[name] for each in of)) for name in COLUMNS}


def environment(folder: Path) -> dict[str, str]:
    """What run.json says of code, data and packages of a run, as text; "unknown" where it does not."""
    record: dict[str, Any] = RunDirectory(folder).read_run() or {}
    packages = record.get("packages") or {}
    return {name: str(record.get(name) or UNKNOWN) for name in FROM_RUNS} | {
        "commit": commit(record.get("commit"), record.get("dirty")),
        "packages": ";".join(f"{name}={version}" for name, version in sorted(packages.items())),
    }


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
