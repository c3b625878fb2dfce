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
from analysis.errors import NothingToShow
from analysis.figures.catalogue import SECTIONS, table_anchor
from analysis.report.files import MAKER, MARKER, Shown, Watch, csv_file, replaced, write_figures
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
from analysis.report.verdicts import headline, nothing, verdict_lines, warnings
from analysis.study import Study
from analysis.tables.formats import number, span, to_csv
from yolor_core.runs.directory import RunDirectory

HERE = Path(__file__).parent
KEY = "effects-by-row"  # the figure of the first page
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


def write_report(
    study: Study,
    target: Path,
    log_files: LogFiles = lambda run_dir: RunDirectory(run_dir).last_logs(),
    date: datetime | None = None,
    watch: Watch = iter,
) -> Written:
    """Write the report of a study into the folder `target`, in place of an older report.

    The pages are the same for the same runs, apart from the date.

    Args:
        study: of `analysis.study.open_study`.
        target: a new or empty folder, or one with a report.
        log_files: the logs of a run folder; those of its last start on this machine by default.
        date: that the pages say; now by default.
        watch: passes on the figures that are drawn, which takes most of the time, and may say how far it is.

    Raises:
        NothingToShow: no run is of these tables at this profile.
        NotAReportError: `target` holds something else.
    """
    if why := nothing(study):
        raise NothingToShow(why)
    with replaced(target) as folder:
        written = _fill(folder, study, log_files, date or datetime.now(UTC), watch)
    return replace(written, folder=target)


def _fill(folder: Path, study: Study, log_files: LogFiles, date: datetime, watch: Watch) -> Written:
    for name in ("runs", "experiments", "tables"):
        (folder / name).mkdir()
    shutil.copytree(HERE / "assets", folder / "assets")
    # Two folders of one name would be one page; `load_runs` gives a readable run once.
    listed = study.listed.drop_duplicates("run", keep="last")
    slugs = [each.slug for each in study.experiments]
    links = Links(page_names(listed["run"].astype(str)), page_names(slugs), "../")
    shown = write_figures(study, folder, watch=watch)
    runs = _run_pages(study, listed, links, folder, log_files)
    views = _tables(study, links, folder)
    own = {view.anchor: [each for each in shown if _is_of(view, each)] for view in views}
    sections = _sections([each for each in shown if not any(_is_of(view, each) for view in views)])
    verdicts = verdict_lines(study)
    said = warnings(study)
    said += [f"A figure could not be drawn: {each.drawing.title}." for each in shown if each.failed]

    pages = Pages(folder, study, date, links, views, [name for name, _ in sections])
    pages.write(
        "index.html",
        "index.html",
        key=next((each for each in shown if each.drawing.name == KEY and not each.nothing), None),
        verdicts=verdicts,
        summary=headline(study),
        warnings=said,
        caveat=profile_named(study.profile).caveat,
        states=study.runs["state"].value_counts().sort_index().to_dict(),
        seeds=sorted({int(seed) for seed in study.runs["seed"].dropna()}),
        listed=len(runs),
    )
    for view in views:
        name, figures = f"tables/{view.anchor}.html", own[view.anchor]
        of = [line for line in verdicts if line.anchor == view.anchor]
        pages.write("figures.html", name, view=view, figures=figures, verdicts=of)
    for section, figures in sections:
        name = f"figures/{anchor(section)}.html"
        pages.write("figures.html", name, view=None, section=section, figures=figures)
    pages.write("runs.html", "runs/index.html", runs=runs)
    for page in runs:
        pages.write("run.html", f"runs/{links.runs[page.run]}.html", page=page)
    for experiment in study.experiments:
        of_it = experiment_page(experiment, study, links)
        pages.write("experiment.html", f"experiments/{links.experiments[experiment.slug]}.html", page=of_it)

    marker = {"made by": MAKER, "date": pages.date, "profile": study.profile, "runs": len(runs)}
    (folder / MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
    empty = tuple(each.drawing.title for each in shown if each.nothing)
    return Written(folder, len(runs), len(views), len(shown) - len(empty), empty, tuple(said))


def _is_of(view: TableView, shown: Shown) -> bool:
    """Whether a figure is of this table alone, and so on its page."""
    return shown.drawing.name.endswith(f"-{view.anchor}")


class Pages:
    """The templates, and what every page knows."""

    def __init__(
        self,
        folder: Path,
        study: Study,
        date: datetime,
        links: Links,
        tables: Sequence[TableView],
        sections: Sequence[str],
    ) -> None:
        self.folder = folder
        self.links = links
        self.date = date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters |= {"anchor": anchor, "prose": prose}
        self.templates.globals |= {
            "coco": ALL_DETECTION, "study": study, "date": self.date, "tables": tables, "sections": sections,
            "number": number, "span": span,
        }  # fmt: skip

    def write(self, template: str, name: str, **content: Any) -> None:
        """Fill a template into the file `name`, below the report's folder."""
        up = "../" * name.count("/")
        text = self.templates.get_template(template).render(
            up=up, here=name, links=replace(self.links, up=up), **content
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
