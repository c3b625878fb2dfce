"""What the notebooks need besides figures: a study, how to show things, what to say where some are missing.

Here are widgets to choose runs, too: native lists that work with the keyboard alone. What depends on a choice
is drawn again after every change of it (`redraws`).
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd
from IPython.core.getipython import get_ipython
from IPython.display import display
from IPython.utils.capture import capture_output
from matplotlib.figure import Figure

from ablations.costs import PUBLISHED, costs_of
from ablations.profiles import profile_named
from analysis.comparison import Comparison, compare_runs, most_different
from analysis.errors import NothingToShow
from analysis.figures.style import svg
from analysis.study import Study, no_costs, open_study
from analysis.tables.formats import to_html
from yolor_core.errors import UnknownNameError, YolorError, counted
from yolor_core.runs import State

SOURCES = Path(__file__).parent.parent
PIXELS = 120  # an inch of a figure on the screen
SVG = "image/svg+xml"
Draw = Callable[[], object]


class Announced(dict[str, str]):
    """What could not be read of which run, printed when it is found out: that run is left out of figures."""

    def __setitem__(self, run: str, problem: str) -> None:
        if self.get(run) != problem:
            print(f"Left out, {run}: {problem}")
        super().__setitem__(run, problem)


def here(*tables: str | Path, results: Path | str | None = None, profile: str | None = None) -> Study:
    """Open the study that a notebook looks at and print what there is, or how to make runs.

    Args:
        tables: names or Python files; Tables 1-8 by default.
        results: folder of results; by default that of ABLATE_RESULTS, else `results`, as seen from
            `project()`; where that has no runs at all, the published study of the profile.
        profile: of the runs; by default that of ABLATE_PROFILE, else mini.
    """
    named = results or os.environ.get("ABLATE_RESULTS")
    folder = (project() / (named or "results")).resolve()
    wanted = profile or os.environ.get("ABLATE_PROFILE") or "mini"
    try:
        profile_named(wanted)
    except UnknownNameError as error:
        print(f"{error} Showing mini.")
        wanted = "mini"
    draw_figures_as_svg()
    if not named and not (folder / "runs").is_dir() and (PUBLISHED / wanted).is_dir():
        print("No runs of your own yet: this is the published study.")
        folder = PUBLISHED / wanted
    study = open_study(folder, wanted, [str(table) for table in tables], unread=Announced(), costs=costs_of)
    print(summary(study))
    return study


def project() -> Path:
    """The project's folder, wherever the notebook is; without a checkout (a wheel) the current folder."""
    return SOURCES if (SOURCES / "pyproject.toml").is_file() else Path.cwd()


def summary(study: Study) -> str:
    """How many runs there are in which state, which are left out, and what to do where there are none."""
    named = [table.name for table in study.tables]
    tables = f"Table{'s' if len(named) > 1 else ''} {', '.join(named)}"
    others = Counter(study.everything["profile"].dropna()) - Counter({study.profile: sys.maxsize})
    lines = []
    if study.runs.empty:
        lines.append(f"No runs of {tables} at profile {study.profile} in {study.results}.")
        program = ".venv/bin/ablate" if project() == SOURCES else "ablate"
        lines.append(f"Make some in a terminal: {program} launch 1 2 --profile {study.profile}")
    else:
        states = ", ".join(f"{n} {state}" for state, n in Counter(study.runs["state"].fillna("new")).items())
        lines.append(f"{tables} at profile {study.profile}: {counted(len(study.runs), 'run')} ({states})")
        lines.append(f"in {study.results}; {profile_named(study.profile).caveat}.")
    if others:
        found = ", ".join(f"{name} ({n})" for name, n in sorted(others.items()))
        lines.append(f'Left out, of other profiles: {found}. To see one: here(profile="{min(others)}")')
    damaged = study.everything[study.everything["state"] == State.UNREADABLE]
    lines += [f"Left out, cannot be read: {run.run}: {run.reason}" for run in damaged.itertuples()]
    return "\n".join(lines)


@contextmanager
def where_possible() -> Iterator[None]:
    """Do the block; where something is missing, print the sentence that says what, and go on behind it."""
    try:
        yield
    except YolorError as error:
        print(error)


def show(figure: Figure, title: str) -> None:
    """Show a figure as vector graphics, with a title that screen readers read out too."""
    text = _sized(figure, title)
    picture = base64.b64encode(text.encode()).decode()
    page = (
        f'<figure style="margin: 0"><figcaption>{escape(title)}</figcaption>'
        f'<img alt="{escape(title)}" src="data:{SVG};base64,{picture}"></figure>'
    )
    display({"text/plain": title, SVG: text, "text/html": page}, raw=True)


def draw_figures_as_svg() -> None:
    """Let Jupyter draw a figure that is the last line of a cell; without pyplot it would print its type."""
    shell = get_ipython()
    if shell is not None and shell.display_formatter is not None:
        shell.display_formatter.formatters[SVG].for_type(Figure, lambda figure: _sized(figure, "Figure"))


def _sized(figure: Figure, title: str) -> str:
    width, height = (round(PIXELS * side) for side in figure.get_size_inches())
    text = svg(figure, title, title, "figure")
    return text.replace("<svg", f'<svg width="{width}" height="{height}"', 1)


def show_tables(study: Study) -> None:
    """Show the tables of a study; of those that cannot be filled, print why."""
    for table in study.tables:
        if table.name in study.refused:
            print(study.refused[table.name])
        else:
            display({"text/plain": table.title, "text/html": to_html([study.filled[table.name]])}, raw=True)


def ablate(*arguments: object) -> None:
    """Run `ablate` with these arguments in a process of its own, and print what it prints as it comes."""
    words = [str(each) for each in arguments]
    print("$ ablate", *words, flush=True)
    command = [sys.executable, "-m", "ablations", *words]
    plain = {name: value for name, value in os.environ.items() if "COLOR" not in name} | {"TERM": "dumb"}
    with subprocess.Popen(
        command, cwd=project(), env=plain, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        for line in child.stdout or ():
            print(line, end="", flush=True)
    if child.returncode:
        print(f"(ended with status {child.returncode})")


def redraws(*choices: Choice) -> Callable[[Draw], Draw]:
    """Show what a function shows, prints or returns, and in the same place again after a change of `choices`.

    The output is the cell's own and no widget's, so that an exported notebook has it, too. Where something is
    missing, it is the sentence that says what.
    """

    def register(draw: Draw) -> Draw:
        handle = display(_drawn(draw), raw=True, display_id=True)
        for choice in choices:
            choice.observe(lambda: handle.update(_drawn(draw), raw=True))
        return draw

    return register


def _drawn(draw: Draw) -> dict[str, str]:
    with capture_output(stderr=False) as caught, where_possible():
        value = draw()
        if value is not None:
            display(value)
    bundles = [output.data for output in caught.outputs]
    if caught.stdout:
        bundles.insert(0, {"text/plain": caught.stdout})
    if len(bundles) == 1:
        return dict(bundles[0])
    pages = (each.get("text/html", f"<pre>{escape(each['text/plain'])}</pre>") for each in bundles)
    return {"text/plain": "\n".join(each["text/plain"] for each in bundles), "text/html": "".join(pages)}


LINES = 12  # of a list, before it scrolls
FIRST = 3  # experiments that are chosen at first
WIDE = {"width": "36em"}
WHOLE = {"description_width": "initial"}  # of names, which are cut short otherwise


class Choice:
    """Lists to choose from, and what to say of a choice; `nothing` is what to say without any."""

    lists: tuple[Any, ...]
    nothing = ""

    def observe(self, call: Callable[[], object]) -> None:
        """Call it after every change."""
        for each in self.lists:
            each.observe(lambda change: call(), "value")

    def show(self) -> None:
        """Show the lists, and in words what is chosen, which an exported notebook keeps."""
        if self.nothing:
            print(self.nothing)
            return
        display(widgets.HBox(self.lists, layout={"flex_flow": "row wrap"}))
        redraws(self)(lambda: print(self))


class ChosenRuns(Choice):
    """Experiments and seeds to choose from a study; the first three with all their seeds at first.

    `runs` are those to choose from, rows of `Study.runs`; all by default.
    """

    def __init__(self, study: Study, runs: pd.DataFrame | None = None) -> None:
        self._of, self._runs = study, study.runs if runs is None else runs
        self._kept: tuple[tuple[Any, ...], Study] | None = None
        known = set(self._runs["experiment"].dropna())
        names = [each.slug for each in study.experiments if each.slug in known]
        seeds = sorted({int(seed) for seed in self._runs["seed"].dropna()})
        counts = [(_done(self._runs, name), name) for name in names]
        self.experiments = _list("Experiments", counts, WIDE, names[:FIRST])
        self.seeds = _list("Seeds", [(str(seed), seed) for seed in seeds], {"width": "12em"}, seeds)
        self.lists = self.experiments, self.seeds
        self.nothing = "There are no runs to choose from." if self._runs.empty else ""

    @property
    def runs(self) -> pd.DataFrame:
        """The chosen rows of `Study.runs`."""
        return self.study.runs

    @property
    def study(self) -> Study:
        """The study of the chosen runs alone, which keeps what it has read until the choice changes."""
        chosen = self.experiments.value, self.seeds.value
        if self._kept is None or self._kept[0] != chosen:
            runs = self._runs
            rows = runs[runs["experiment"].isin(chosen[0]) & runs["seed"].isin(chosen[1])]
            same = len(rows) == len(self._of.runs)
            self._kept = chosen, self._of if same else replace(self._of, everything=rows)
        return self._kept[1]

    def __str__(self) -> str:
        named = ", ".join(self.experiments.value) or "no experiment"
        seeds = ", ".join(map(str, self.seeds.value)) or "none"
        return f"Chosen: {len(self.runs)} of {counted(len(self._runs), 'run')}: {named}; seeds {seeds}."


class ChosenRun(Choice):
    """One run to choose; at first the first that is done, else the first.

    `runs` are rows of `Study.runs`; `what` says which in a few words, as in "with implicit knowledge".
    """

    def __init__(self, runs: pd.DataFrame, what: str) -> None:
        self._runs, self._what = runs, what
        done = list(runs.loc[runs["state"] == "done", "run"])
        self.run = _menu("Run", list(runs["run"]), next(iter(done or runs["run"]), None))
        self.lists = (self.run,)
        self.nothing = f"There is no run {what} to choose." if runs.empty else ""

    @property
    def row(self) -> pd.DataFrame:
        """The chosen row. Raises NothingToShow where there is no such run."""
        if self._runs.empty:
            raise NothingToShow(f"There is no run {self._what} to look at.")
        return self._runs[self._runs["run"] == self.run.value]

    @property
    def name(self) -> str:
        """The run's id. Raises NothingToShow where there is no such run."""
        return str(self.row["run"].iloc[0])

    @property
    def path(self) -> Path:
        """The run's folder. Raises NothingToShow where there is no such run."""
        return Path(self.row["path"].iloc[0])

    def __str__(self) -> str:
        return f"Chosen: {self.run.value}"


class ChosenPair(Choice):
    """Two finished runs to compare; at first those of the row whose AP differs most from its baseline's."""

    def __init__(self, study: Study) -> None:
        runs = study.runs
        scored = list(runs.loc[(runs["state"] == "done") & runs["AP"].notna(), "run"])
        self._paths = dict(zip(runs["run"], runs["path"], strict=True))
        self._kept: tuple[tuple[Path, Path], int, Comparison] | None = None
        first, second = _pair(study, scored)
        self.a, self.b = _menu("Run A", scored, first), _menu("Run B", scored, second)
        self.lists = self.a, self.b
        self.nothing = "There are no two finished runs to choose from." if len(scored) < 2 else ""

    @property
    def folders(self) -> tuple[Path, Path]:
        """Of A and B. Raises NothingToShow where there are no two finished runs, or one was chosen twice."""
        if len(self.a.options) < 2:
            known = f"; there is one, {self.a.value}" if self.a.options else ""
            raise NothingToShow(f"Two finished runs with detections are needed for a comparison{known}.")
        if self.a.value == self.b.value:
            raise NothingToShow(f"A and B are the same run, {self.a.value}: choose another one.")
        return Path(self._paths[self.a.value]), Path(self._paths[self.b.value])

    def compare(self, resamples: int = 500) -> Comparison:
        """A and B on `resamples` resamples of the images (`compare_runs`), computed once for each choice."""
        folders = self.folders
        if self._kept is None or self._kept[:2] != (folders, resamples):
            self._kept = folders, resamples, compare_runs(*folders, resamples)
        return self._kept[2]

    def __str__(self) -> str:
        return f"Chosen: A {self.a.value}, B {self.b.value}"


def _pair(study: Study, scored: Sequence[str]) -> tuple[str | None, str | None]:
    if len(scored) < 2:
        return next(iter(scored), None), None
    try:
        names = {str(path): run for run, path in zip(study.runs["run"], study.runs["path"], strict=True)}
        a, b = (names[str(path)] for path in most_different(replace(study, costs=no_costs).filled.values()))
    except NothingToShow:
        return scored[0], scored[1]
    return a, b


def _done(runs: pd.DataFrame, name: str) -> str:
    own = runs[runs["experiment"] == name]
    return f"{name} ({(own['state'] == 'done').sum()} of {len(own)} done)"


def _list(name: str, options: list[tuple[str, Any]], layout: dict[str, str], value: Sequence[Any]) -> Any:
    return widgets.SelectMultiple(
        description=name,
        options=options,
        value=tuple(value),
        rows=max(2, min(LINES, len(options))),
        layout=layout,
        style=WHOLE,
    )


def _menu(name: str, options: list[str], value: str | None) -> Any:
    return widgets.Dropdown(description=name, options=options, value=value, layout=WIDE, style=WHOLE)
