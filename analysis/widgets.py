"""Widgets to choose runs in a notebook: native lists that work with the keyboard alone.

Where no front end is running, as in tests, all of them have a useful choice from the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd

from analysis.comparison import Comparison
from analysis.differences import compare_runs
from analysis.errors import NothingToShow
from analysis.pairs import most_different
from analysis.study import Study

LINES = 12  # of a list, before it scrolls
AGAIN = "After a change, run the cells below again."
WIDE = {"width": "36em"}
WHOLE = {"description_width": "initial"}  # of names, which are cut short otherwise


class ChosenRuns:
    """Experiments and seeds to choose from a study; all of them at first."""

    def __init__(self, study: Study) -> None:
        runs = study.runs
        names = [str(each) for each in dict.fromkeys(runs["experiment"].dropna())]
        seeds = sorted({int(seed) for seed in runs["seed"].dropna()})
        self._study = study
        self._kept: tuple[tuple[Any, ...], Study] | None = None
        self.experiments = _list("Experiments", [(_counted(runs, name), name) for name in names], WIDE)
        self.seeds = _list("Seeds", [(str(seed), seed) for seed in seeds], {"width": "12em"})
        self._said = widgets.Label()
        for each in (self.experiments, self.seeds):
            each.observe(self._say, "value")
        self._say()

    @property
    def runs(self) -> pd.DataFrame:
        """The chosen rows of `Study.runs`."""
        return self.study.runs

    @property
    def study(self) -> Study:
        """The study of the chosen runs alone, which keeps what it has read until the choice changes."""
        chosen = self.experiments.value, self.seeds.value
        if self._kept is None or self._kept[0] != chosen:
            runs = self._study.runs
            rows = runs[runs["experiment"].isin(chosen[0]) & runs["seed"].isin(chosen[1])]
            same = len(rows) == len(runs)
            self._kept = chosen, self._study if same else replace(self._study, everything=rows)
        return self._kept[1]

    def _say(self, _change: object = None) -> None:
        self._said.value = f"{self} {AGAIN}"

    def __str__(self) -> str:
        return f"Chosen: {len(self.runs)} of {len(self._study.runs)} runs."

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        if self._study.runs.empty:
            return {"text/plain": "There are no runs to choose from."}
        lists = widgets.HBox([self.experiments, self.seeds], layout={"flex_flow": "row wrap"})
        return _shown(widgets.VBox([lists, self._said]), str(self), options)


class ChosenRun:
    """One run to choose; at first the first that is done, else the first.

    `runs` are rows of `Study.runs`; `what` says which in a few words, as in "with implicit knowledge".
    """

    def __init__(self, study: Study, runs: pd.DataFrame, what: str) -> None:
        self._study, self._runs, self._what = study, runs, what
        done = list(runs.loc[runs["state"] == "done", "run"])
        self.run = _menu("Run", list(runs["run"]), next(iter(done or runs["run"]), None))

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
        return "There is no such run." if self._runs.empty else f"Chosen: {self.run.value}"

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        if self._runs.empty:
            return {"text/plain": f"There is no run {self._what} to choose."}
        return _shown(widgets.VBox([self.run, widgets.Label(AGAIN)]), str(self), options)


class ChosenPair:
    """Two finished runs to compare; at first those of the row whose AP differs most from its baseline's."""

    def __init__(self, study: Study) -> None:
        runs = study.runs
        scored = list(runs.loc[(runs["state"] == "done") & runs["AP"].notna(), "run"])
        self._paths = dict(zip(runs["run"], runs["path"], strict=True))
        self._kept: tuple[tuple[Path, Path], int, Comparison] | None = None
        first, second = _pair(study, scored)
        self.a, self.b = _menu("Run A", scored, first), _menu("Run B", scored, second)

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

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        if len(self.a.options) < 2:
            return {"text/plain": "There are no two finished runs to choose from."}
        return _shown(widgets.VBox([self.a, self.b, widgets.Label(AGAIN)]), str(self), options)


def _pair(study: Study, scored: Sequence[str]) -> tuple[str | None, str | None]:
    if len(scored) < 2:
        return next(iter(scored), None), None
    try:
        names = {str(path): run for run, path in zip(study.runs["run"], study.runs["path"], strict=True)}
        a, b = (names[str(path)] for path in most_different(study.filled.values()))
    except NothingToShow:
        return scored[0], scored[1]
    return a, b


def _counted(runs: pd.DataFrame, name: str) -> str:
    own = runs[runs["experiment"] == name]
    return f"{name} ({(own['state'] == 'done').sum()} of {len(own)} done)"


def _list(name: str, options: list[tuple[str, Any]], layout: dict[str, str]) -> Any:
    return widgets.SelectMultiple(
        description=name,
        options=options,
        value=[value for _, value in options],
        rows=max(2, min(LINES, len(options))),
        layout=layout,
        style=WHOLE,
    )


def _menu(name: str, options: list[str], value: str | None) -> Any:
    return widgets.Dropdown(description=name, options=options, value=value, layout=WIDE, style=WHOLE)


def _shown(widget: Any, text: str, options: dict[str, Any]) -> dict[str, Any]:
    """What a widget shows, with words for where no widgets can be shown."""
    bundle: dict[str, Any] = widget._repr_mimebundle_(**options)
    return bundle | {"text/plain": text}
