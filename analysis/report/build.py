"""From a study to the folder: gather what pages show, fill the templates, copy the assets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ablations.profiles import profile_named
from ablations.table import ALL_DETECTION
from analysis.figures.catalogue import SECTIONS, table_anchor
from analysis.report.files import MAKER, MARKER, Shown, csv_file, replaced, write_figures
from analysis.report.runs import RunPage, panel_data, run_page, tail
from analysis.report.tables import (
    Links,
    TableView,
    anchor,
    experiment_page,
    page_names,
    prose,
    table_view,
)
from analysis.report.verdicts import sentence, verdict_lines, warnings
from analysis.study import Study
from analysis.tables.formats import to_csv
from yolor_core.runs.directory import RunDirectory

HERE = Path(__file__).parent
LogFiles = Callable[[Path], Sequence[Path]]  # the logs of a run folder


@dataclass(frozen=True)
class Written:
    """What a report shows."""

    folder: Path
    runs: int
    tables: int
    figures: int
    nothing: tuple[str, ...]  # titles of figures without anything to show
    warnings: tuple[str, ...]

    @property
    def index(self) -> Path:
        """The page to open."""
        return self.folder / "index.html"


def _last_logs(run_dir: Path) -> list[Path]:
    return RunDirectory(run_dir).last_logs()


def write_report(
    study: Study, target: Path, log_files: LogFiles = _last_logs, date: datetime | None = None
) -> Written:
    """Write the report of a study into the folder `target`, in place of an older report.

    The pages are the same for the same runs, apart from the date.

    Args:
        study: of `analysis.study.open_study`.
        target: a new or empty folder, or one with a report.
        log_files: the logs of a run folder; those of its last start on this machine by default.
        date: that the pages say; now by default.

    Raises:
        NotAReportError: `target` holds something else.
    """
    with replaced(target) as folder:
        written = _fill(folder, study, log_files, date or datetime.now(UTC))
    return replace(written, folder=target)


def _fill(folder: Path, study: Study, log_files: LogFiles, date: datetime) -> Written:
    for name in ("runs", "experiments", "tables"):
        (folder / name).mkdir()
    shutil.copytree(HERE / "assets", folder / "assets")
    # Two folders of one name would be one page; `load_runs` gives a readable run once.
    listed = study.listed.drop_duplicates("run", keep="last")
    slugs = [each.slug for each in study.experiments]
    links = Links(page_names(listed["run"].astype(str)), page_names(slugs))
    pages = Pages(folder, study, date)

    shown = write_figures(study, folder)
    run_pages = _run_pages(study, listed, links, folder, log_files)
    for page in run_pages:
        pages.write("run.html", f"runs/{links.runs[page.run]}.html", links, page=page)
    for experiment in study.experiments:
        page_of = experiment_page(experiment, study, links=replace(links, up="../"))
        pages.write(
            "experiment.html", f"experiments/{links.experiments[experiment.slug]}.html", links, page=page_of
        )
    said = warnings(study)
    said += [f"A figure could not be drawn: {each.drawing.title}." for each in shown if each.failed]
    verdicts = verdict_lines(study)
    views = _tables(study, links, folder)
    pages.write(
        "index.html",
        "index.html",
        links,
        up="",
        tables=views,
        sections=_sections(shown),
        verdicts=verdicts,
        summary=sentence(verdicts),
        runs=run_pages,
        warnings=said,
        caveat=profile_named(study.profile).caveat,
        states=study.runs["state"].value_counts().sort_index().to_dict(),
        seeds=sorted({int(seed) for seed in study.runs["seed"].dropna()}),
    )
    marker = {"made by": MAKER, "date": pages.date, "profile": study.profile, "runs": len(run_pages)}
    (folder / MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
    nothing = tuple(each.drawing.title for each in shown if each.nothing)
    return Written(folder, len(run_pages), len(views), len(shown) - len(nothing), nothing, tuple(said))


class Pages:
    """The templates, and what every page knows."""

    def __init__(self, folder: Path, study: Study, date: datetime) -> None:
        self.folder = folder
        self.study = study
        self.date = date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters |= {"anchor": anchor, "prose": prose}
        self.templates.globals["coco"] = ALL_DETECTION

    def write(self, template: str, name: str, links: Links, up: str = "../", **content: Any) -> None:
        """Fill a template into the file `name`; `up` leads from it to the report's folder."""
        text = self.templates.get_template(template).render(
            study=self.study, date=self.date, up=up, links=replace(links, up=up), **content
        )
        (self.folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")


def _run_pages(
    study: Study, listed: pd.DataFrame, links: Links, folder: Path, log_files: LogFiles
) -> list[RunPage]:
    epochs = dict(iter(study.all_metrics.groupby("run"))) if not study.all_metrics.empty else {}
    cells = _cells(study)
    found = []
    for _, row in listed.iterrows():
        run = str(row["run"])
        metrics = epochs.get(run, study.all_metrics.iloc[:0])
        page = run_page(row, metrics, [tail(path) for path in log_files(Path(row["path"]))])
        if run in study.unread:
            page.problems.append(study.unread[run])
        page.cells = cells.get(run, [])
        if page.panels:
            page.csv, content = csv_file(panel_data(metrics), f"runs/{links.runs[run]}.csv")
            (folder / page.csv).write_bytes(content)
        found.append(page)
    return found


def _cells(study: Study) -> dict[str, list[tuple[str, str, str]]]:
    """For every run the rows of tables that count it: (table, its anchor, row)."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for name, filled in study.filled.items():
        for row in filled.table.rows:
            used = {run for metric in filled.table.metrics for run in filled.cell(row.label, metric).runs}
            for run in used:
                found.setdefault(run, []).append((name, table_anchor(filled.table), row.label))
    return found


def _tables(study: Study, links: Links, folder: Path) -> list[TableView]:
    views = []
    for table in study.tables:
        if table.name in study.refused:
            views.append(TableView(table, table.title, "", refused=study.refused[table.name]))
            continue
        filled = study.filled[table.name]
        name = f"tables/{table_anchor(table)}.csv"
        (folder / name).write_text(to_csv([filled]), encoding="utf-8")
        views.append(table_view(filled, links, name))
    return views


def _sections(shown: Sequence[Shown]) -> list[tuple[str, list[Shown]]]:
    """The figures by section, in the catalogue's order."""
    found = [(name, [each for each in shown if each.drawing.section == name]) for name in SECTIONS]
    return [(name, figures) for name, figures in found if figures]
