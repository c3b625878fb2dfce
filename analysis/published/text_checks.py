"""The checks of what follows from the runs together: tables, provenance, summary, data of the figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from analysis.published.build import payload, reopened
from analysis.published.checks import Check
from analysis.published.differences import Found, text_differences
from analysis.published.evidence import counted_runs, evidence
from analysis.published.figures import FigureData, figure_data
from analysis.published.manifest import PROVENANCE, SUMMARY, Made
from analysis.published.summary import summary
from analysis.study import Costs
from yolor_core.runs.life import LOST


def check_texts(folder: Path, made: Made, costs: Costs) -> list[Check]:
    """Make every text of a published folder again and compare it."""
    behind = Check("runs, each behind a row of a table")
    tables = Check("tables in every format, made again from the runs")
    verdicts = Check(f"verdicts ({SUMMARY})")
    origin = Check(f"where each cell comes from ({PROVENANCE})")
    drawn = Check("data of the figures")
    checks = [behind, tables, verdicts, origin, drawn]
    try:
        study = reopened(folder, made, costs)
        if study.refused:
            tables.fail(f"the tables cannot be made: {'; '.join(study.refused.values())}")
            return [behind, tables]
        lost = study.runs[study.runs["state"].isin(LOST)]  # published so that tables say so
        counted = {*counted_runs(study)["run"], *lost["run"]}
        for path in sorted((folder / "runs").glob("*")):
            behind.done += 1
            if path.name not in counted:
                behind.differences.append(f"runs/{path.name} has the settings of no row, or is not finished")
        if not counted:
            tables.fail(
                "no run has the settings that the tables have in this version of the code; check out "
                f"commit {made.commit or 'of provenance.csv'}, which published them"
            )
            return [behind, tables]
        again = evidence(study)
        published = {path.relative_to(folder).as_posix() for path in (folder / "tables").glob("*")}
        for name in sorted({*published, *again} - {PROVENANCE}):
            _text(tables, folder, name, again)
        _text(verdicts, folder, SUMMARY, {SUMMARY: summary(study, payload(folder))})
        _text(origin, folder, PROVENANCE, again)
        _figures(drawn, folder, figure_data(study))
    except Exception as error:  # whatever a damaged file leads to, the other checks are told
        checks[-1].fail(f"cannot be made from these runs: {type(error).__name__}: {error}")
    return checks


def _figures(check: Check, folder: Path, again: Mapping[str, FigureData]) -> None:
    published = {p.relative_to(folder).as_posix() for p in (folder / "figures").glob("*.csv*")}
    for name in sorted({*published, *again}):
        data = again.get(name)
        if data is not None and data.failed:
            check.fail(f"{name} cannot be made: {data.failed}")
        elif data is None or name not in published:  # another version of the code may draw others
            check.add(Found(words=[_absent(name, data is not None)]))
        else:
            check.add(text_differences(name, (folder / name).read_bytes(), data.content, data.frame))


def _text(check: Check, folder: Path, name: str, again: Mapping[str, str]) -> None:
    if name not in again or not (folder / name).is_file():
        check.fail(_absent(name, name in again))
    else:
        check.add(text_differences(name, (folder / name).read_bytes(), again[name].encode()))


def _absent(name: str, wanted: bool) -> str:
    return f"{name} is {'missing' if wanted else 'not made from these runs'}"
