"""What the notebooks need besides figures: a study, how to show things, what to say where some are missing.

Widgets to choose runs are in `analysis.widgets`.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path

from IPython.core.getipython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure

from ablations.profiles import profile_named
from analysis.formats import to_html
from analysis.runs import UNREADABLE
from analysis.study import Study, open_study
from analysis.style import svg
from yolor_core.errors import UnknownNameError, YolorError

SOURCES = Path(__file__).parent.parent
PIXELS = 120  # an inch of a figure on the screen
SVG = "image/svg+xml"


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
            `project()`.
        profile: of the runs; by default that of ABLATE_PROFILE, else mini.
    """
    folder = Path(results or project() / (os.environ.get("ABLATE_RESULTS") or "results")).resolve()
    wanted = profile or os.environ.get("ABLATE_PROFILE") or "mini"
    try:
        profile_named(wanted)
    except UnknownNameError as error:
        print(f"{error} Showing mini.")
        wanted = "mini"
    draw_figures_as_svg()
    study = open_study(folder, wanted, [str(table) for table in tables], unread=Announced())
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
        lines.append(f"{tables} at profile {study.profile}: {_runs(len(study.runs))} ({states})")
        lines.append(f"in {study.results}; {profile_named(study.profile).caveat}.")
    if others:
        found = ", ".join(f"{name} ({n})" for name, n in sorted(others.items()))
        lines.append(f'Left out, of other profiles: {found}. To see one: here(profile="{min(others)}")')
    damaged = study.everything[study.everything["state"] == UNREADABLE]
    lines += [f"Left out, cannot be read: {run.run}: {run.reason}" for run in damaged.itertuples()]
    return "\n".join(lines)


def _runs(number: int) -> str:
    return f"{number} run{'' if number == 1 else 's'}"


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
