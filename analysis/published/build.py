"""From a study to a published folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.published.evidence import counted_runs, evidence, lacking
from analysis.published.figures import published_drawings
from analysis.published.manifest import (
    FOLDER,
    SUMMARY,
    Made,
    PublishError,
    contents,
    largest,
    write_manifest,
)
from analysis.published.runs import copy_records, copy_run
from analysis.published.summary import summary
from analysis.report.figures import write_figures
from analysis.report.folder import replaced
from analysis.study import Costs, Study, open_study
from analysis.tables.cells import NOT_RUN, QUOTED_ROW
from yolor_core.runs.life import LOST

FEW = 5  # runs named in one line
MOST = 30_000_000  # bytes of a published folder
ONE = (("commit", "commits"), ("source_hash", "yolor_core sources"), ("fingerprint", "data"))


@dataclass(frozen=True)
class Published:
    """What was written."""

    folder: Path
    runs: int
    tables: int
    figures: int
    files: int
    bytes: int
    failed: tuple[str, ...] = ()  # figures that could not be drawn, and why


def publish(
    study: Study,
    made: Made,
    target: Path,
    dirty: bool = False,
    incomplete: bool = False,
    most: int = MOST,
) -> Published:
    """Write the evidence of a study into the folder `target`, in place of an older one.

    Tables and figures are made from the published copies of the runs, so that they can be made again.

    Args:
        study: of `analysis.study.open_study`.
        made: how it was opened.
        target: a new or empty folder, or a published one.
        dirty: whether runs of changed code are published.
        incomplete: whether seeds that were asked for may be missing.
        most: bytes of the whole folder.

    Raises:
        PublishError: no finished runs; runs of different code or data (unless `made.mixed`); runs of a
            changed working tree (unless `dirty`); a seed that was asked for and has not finished (unless
            `incomplete`); more than `most` bytes.
        NotAReportError: `target` holds something else.
    """
    if study.refused:
        raise PublishError("; ".join(study.refused.values()))
    runs = counted_runs(study)
    _refuse(study, runs, made, dirty)
    if made.seeds is not None and not incomplete and (absent := lacking(study)):
        more = f" and {len(absent) - FEW} more" if len(absent) > FEW else ""
        raise PublishError(
            f"{len(absent)} runs have not finished: {', '.join(absent[:FEW])}{more}; "
            "finish them (`ablate status` says how far they are), or allow it with --incomplete"
        )
    with replaced(target, FOLDER) as folder:
        for name, path in zip(runs["run"], runs["path"], strict=True):
            copy_run(Path(path), folder / "runs" / str(name), made.every, made.grid)
        gone = study.runs[study.runs["state"].isin(LOST)]  # tables say what became of them
        for name, path in zip(gone["run"], gone["path"], strict=True):
            copy_records(Path(path), folder / "runs" / str(name))
        copied = reopened(folder, made, study.costs)
        figures = write_figures(copied, folder, published_drawings(copied))
        for name, text in evidence(copied).items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
        (folder / SUMMARY).write_text(summary(copied, payload(folder)), encoding="utf-8")
        files = write_manifest(folder, made)
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if total > most:
            raise PublishError(
                f"the folder would have {total / 1e6:.1f} MB, more than {most / 1e6:g} MB; largest: "
                f"{', '.join(largest(files))}. Publish fewer seeds, a coarser --grid or a larger --every"
            )
    drawn = sum(each.nothing is None for each in figures)
    failed = tuple(f"{each.drawing.name}: {each.nothing}" for each in figures if each.failed)
    return Published(target, len(runs), len(copied.filled), drawn, len(files) + 1, total, failed)


def reopened(folder: Path, made: Made, costs: Costs) -> Study:
    """The study of a published folder, as it was opened to be published; `costs` counts parameters."""
    return open_study(
        folder, made.profile, made.tables, made.overrides, made.seeds, mixed=made.mixed, costs=costs
    )


def payload(folder: Path) -> int:
    """Bytes of the runs, tables and figures of a folder."""
    return sum(
        int(each["bytes"])
        for name, each in contents(folder).items()
        if name.startswith(("runs/", "tables/", "figures/"))
    )


def _refuse(study: Study, runs: pd.DataFrame, made: Made, dirty: bool) -> None:
    if runs.empty:
        states = {row: said for each in study.filled.values() for row, said in each.status.items()}
        why = [f"{row}: {said}" for row, said in states.items() if said not in (NOT_RUN, QUOTED_ROW)]
        raise PublishError(
            f"no finished runs of tables {', '.join(made.tables)} at profile {made.profile}"
            + ("" if made.seeds is None else f" with seeds {', '.join(map(str, made.seeds))}")
            + (f" have a score: {'; '.join(why)}" if why else "")
        )
    if not made.mixed:
        for column, what in ONE:
            groups = runs.groupby(column, dropna=False)["run"]
            if groups.ngroups > 1:
                parts = [f"{str(key)[:10]} ({len(names)} runs, as {names.iloc[0]})" for key, names in groups]
                raise PublishError(
                    f"the runs are of different {what}: {'; '.join(parts)}. Choose some with --source, "
                    "--fingerprint or --seeds, or allow it with --mixed"
                )
    if dirty:
        return
    for found, what in (
        (runs["dirty"].eq(True), "are of code that is in no commit"),
        (~runs["dirty"].eq(False), "do not say which commit they are of (no checkout, as from a wheel)"),
    ):
        if found.any():
            raise PublishError(
                f"{found.sum()} of {len(runs)} runs {what}, as {runs.loc[found, 'run'].iloc[0]}; "
                "train them from a clean checkout, or allow it with --dirty"
            )
