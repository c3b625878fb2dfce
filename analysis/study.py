"""One study: the runs of some tables at one profile, and what they left, each file read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.costs import Cost
from ablations.experiments import Experiment
from ablations.overrides import Override
from ablations.plan import cores
from ablations.profiles import profile_named
from ablations.registry import as_overrides, merge, resolve, select_tables
from ablations.table import Table
from analysis.comparison import Comparison, compare_runs, most_different
from analysis.design import VAL_LOSS, Design, OverEpochs, Pair, compared, design_of
from analysis.implicit import load_spectra
from analysis.runs import (
    Outputs,
    dataset,
    load_effects,
    load_features,
    load_implicit,
    load_metrics,
    load_runs,
    outputs_of,
)
from analysis.statistics.blocks import MARGIN
from analysis.stopping import Plan, by_rules, plans_of
from analysis.tables.fill import FilledTable, MixedRunsError, at_once, family, fill_table, tidy
from yolor_core.errors import RunError
from yolor_core.identity import signature
from yolor_core.runs import State
from yolor_core.runs.directory import RunDirectory, number

RESAMPLES = 500  # of the images, for one comparison
Loader = Callable[[pd.DataFrame], pd.DataFrame]
Costs = Callable[[Table], Mapping[str, Cost]]  # parameters and FLOPs of a table's experiments, by slug


def no_costs(table: Table) -> Mapping[str, Cost]:
    """For tables whose parameters and FLOPs nobody counts: counting needs torch, which analysis has not."""
    return {}


@dataclass(frozen=True)
class Study:
    """The runs of a results folder that count for some tables at one profile. Made by `open_study`.

    What is derived is computed when it is first asked for, and kept.
    """

    results: Path
    profile: str
    tables: tuple[Table, ...]
    everything: pd.DataFrame = field(repr=False)  # of `load_runs`, whatever the profile
    overrides: tuple[Override, ...] = ()
    seeds: tuple[int, ...] | None = None
    mixed: bool = False  # whether tables may mix runs of different sources or data
    margin: float = MARGIN  # AP: an effect that is shown to be smaller counts as none
    costs: Costs = field(default_factory=lambda: no_costs)
    unread: dict[str, str] = field(default_factory=dict)  # run -> what could not be read of it, so far

    def __repr__(self) -> str:
        states = self.runs["state"].value_counts()
        rows = sum(len(table.rows) for table in self.tables)
        seeds = ", ".join(str(seed) for seed in sorted(self.runs["seed"].dropna().astype(int).unique()))
        return "\n".join(
            (
                f"study    {self.results}, profile {self.profile}",
                f"tables   {', '.join(table.name for table in self.tables)}",
                f"rows     {rows} of {len(self.experiments)} experiments",
                f"runs     {', '.join(f'{number} {state}' for state, number in states.items()) or 'none'}",
                f"seeds    {seeds or 'none'}",
            )
        )

    @property
    def experiments(self) -> tuple[Experiment, ...]:
        """Those of the tables, each once, in order of first mention."""
        return merge(experiment for table in self.tables for experiment in table.experiments)

    @cached_property
    def wanted(self) -> pd.DataFrame:
        """`everything` of the seeds that count."""
        every = self.everything
        return every if self.seeds is None else every[every["seed"].isin(self.seeds)]

    @cached_property
    def runs(self) -> pd.DataFrame:
        """Runs in any state with the settings of the tables' experiments; columns of `analysis.runs`."""
        wanted = {signature(resolve(each, self.profile, self.overrides)) for each in self.experiments}
        return self.wanted[self.wanted["signature"].isin(wanted)]

    @cached_property
    def design(self) -> Design:
        """The arms × seeds behind all intervals: every experiment that is known, of these tables or not."""
        found = design_of(self.everything, self.experiments, self.profile, self.overrides, self.seeds)
        return by_rules(found, self.plans, self.wanted)

    @cached_property
    def plans(self) -> tuple[Plan, ...]:
        """Of the launches that added seeds by a rule to runs that are here (`stopping/*.json`)."""
        return plans_of(self.results, self.profile, self.everything)

    @property
    def rules(self) -> list[str]:
        """By which seeds of the tables' comparisons were added, a sentence each."""
        return self.design.rules_of(self.comparisons)

    @cached_property
    def val_losses(self) -> OverEpochs:
        """The loss on the validation images of all finished runs that have recorded it, by epoch."""
        return OverEpochs.of(self.design, self.all_metrics, VAL_LOSS)

    @cached_property
    def comparisons(self) -> tuple[Pair, ...]:
        """The rows of the tables that are compared in AP, each once: experiment and control."""
        pairs = (pair for table in self.tables for pair in compared(table))
        return tuple(dict.fromkeys(pairs))

    @cached_property
    def family(self) -> str:
        """What an asterisk holds for: all comparisons of the study, or those of these tables alone."""
        return family(self.comparisons, self.design)

    @cached_property
    def listed(self) -> pd.DataFrame:
        """Runs of the profile in any state, with any settings, and those that do not say their profile."""
        profile = self.everything["profile"]
        return self.everything[profile.isna() | (profile == self.profile)]

    @cached_property
    def filled(self) -> dict[str, FilledTable]:
        """The tables with their cells, by name; those that would mix runs are in `refused` instead."""
        return self._filling[0]

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Every cell of the tables, a line each; columns of `analysis.tables.fill.tidy`, AP in percent."""
        return tidy(list(self.filled.values()))

    @cached_property
    def refused(self) -> dict[str, str]:
        """Why tables are not filled, by name."""
        return self._filling[1]

    @cached_property
    def _filling(self) -> tuple[dict[str, FilledTable], dict[str, str]]:
        filled: dict[str, FilledTable] = {}
        refused: dict[str, str] = {}
        for table in self.tables:
            chosen = self.overrides, self.costs(table), self.seeds, self.mixed, self.margin, self.design
            try:
                filled[table.name] = fill_table(table, self.profile, self.everything, *chosen)
            except MixedRunsError as error:
                refused[table.name] = str(error)
        whole = at_once([*filled.values()], self.comparisons, self.design)
        return {each.table.name: each for each in whole}, refused

    @cached_property
    def all_metrics(self) -> pd.DataFrame:
        """Epochs of the listed runs, those of other settings too; see `analysis.runs.load_metrics`."""
        return self._read(load_metrics, self.listed)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Epochs of `runs`: losses, learning rates, times and, where evaluated, scores (percent)."""
        frame = self.all_metrics[self.all_metrics["run"].isin(self.runs["run"])]
        return load_metrics(self.runs.iloc[:0]) if frame.empty else frame

    @cached_property
    def settled(self) -> pd.DataFrame:
        """Those `runs` whose last epoch can be compared: finished ones; all, where none has finished."""
        done = self.runs[self.runs["state"] == "done"]
        return self.runs if done.empty else done

    @cached_property
    def implicit(self) -> pd.DataFrame:
        """g(z) of the `settled` runs after their last epoch."""
        return self._read(load_implicit, self.settled)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """What the implicit knowledge of the `settled` runs does to raw predictions at the end (logits)."""
        return self._read(load_effects, self.settled)

    @cached_property
    def spectra(self) -> pd.DataFrame:
        """Singular values of the matrices behind the implicit knowledge of the `settled` runs."""
        return self._read(load_spectra, self.settled)

    @cached_property
    def features(self) -> pd.DataFrame:
        """Features of real images of those `runs` for which `ablate features` has written them."""
        return self._read(load_features, self.runs)

    @cached_property
    def outputs(self) -> dict[str, Outputs]:
        """Levels and classes of those runs that say them."""
        found = {}
        for run, path in self._paths(self.settled):
            with self._noted(run):
                found[run] = outputs_of(path)
        return found

    def history(self, run: str) -> pd.DataFrame:
        """g(z) of one run after every epoch."""
        return self._read(lambda rows: load_implicit(rows, "all"), self.runs[self.runs["run"] == run])

    @cached_property
    def implicit_over_epochs(self) -> pd.DataFrame:
        """g(z) of the `settled` runs after every epoch."""
        return self._read(lambda rows: load_implicit(rows, "all"), self.settled)

    def effects_over_epochs(self, experiment: str) -> pd.DataFrame:
        """`effects` of an experiment, by slug, after every epoch."""
        own = self.settled[self.settled["experiment"] == experiment]
        return self._read(lambda rows: load_effects(rows, "all"), own)

    @cached_property
    def _described(self) -> tuple[Outputs, dict[str, Any]] | None:
        """Classes and training split of the first run that says both."""
        for run, path in self._paths(self.settled):
            with self._noted(run):
                return outputs_of(path), dict(dataset(path)["train"])
        return None

    @cached_property
    def boxes(self) -> dict[str, dict[str, Any]]:
        """The training split in numbers (`analysis.runs.dataset`), by run, of those that have them."""
        found = {}
        for run, path in self._paths(self.settled):
            with suppress(RunError):  # said where the figures of classes need them
                found[run] = dict(dataset(path)["train"])
        return found

    @property
    def training_data(self) -> dict[str, Any] | None:
        """The training split in numbers (`analysis.runs.dataset`), of the first run that has them."""
        return None if self._described is None else self._described[1]

    @property
    def class_boxes(self) -> dict[str, int]:
        """Boxes of each class in the training data, as the first run says that has recorded them."""
        if self._described is None:
            return {}
        known, data = self._described
        return dict(zip(known.classes, data["boxes_per_class"], strict=False))

    @cached_property
    def class_scores(self) -> pd.DataFrame:
        """AP of each class (percent) of every finished run: columns run, output (the class) and AP."""
        done = self.runs[self.runs["state"] == "done"]
        rows = []
        for run, path in self._paths(done):
            with self._noted(run):
                scores = (RunDirectory(path).read_evaluation() or {}).get("per_class") or {}
                if not isinstance(scores, dict):
                    said = f"per_class is {scores!r:.40}; a score by class is needed"
                    raise RunError(f"{path}/evaluation.json: {said}")
                rows += [(run, name, 100 * ap) for name, ap in scores.items() if number(ap) is not None]
        return pd.DataFrame(rows, columns=["run", "output", "AP"])

    @cached_property
    def compared(self) -> tuple[Path, Path, Comparison]:
        """The runs of a baseline and a variant that are `most_different`, and their comparison by image.

        Raises NothingToShow where there are no two such runs with detections.
        """
        a, b = most_different(self.filled.values())
        return a, b, compare_runs(a, b, RESAMPLES, threads=cores())

    @staticmethod
    def _paths(runs: pd.DataFrame) -> Iterator[tuple[str, str]]:
        readable = runs[runs["state"] != State.UNREADABLE]
        return zip(readable["run"].astype(str), readable["path"].astype(str), strict=True)

    @contextmanager
    def _noted(self, run: str) -> Iterator[None]:
        """A file of a run that cannot be read costs what is in it, and is named in `unread`."""
        try:
            yield
        except RunError as error:
            known = self.unread.get(run, "")
            if str(error) not in known:
                self.unread[run] = f"{known} {error}.".strip() if known else f"{error}."

    def _read(self, load: Loader, runs: pd.DataFrame) -> pd.DataFrame:
        """Run by run, so that a damaged file costs that run only."""
        parts = [load(runs.iloc[:0])]  # the columns
        for place in range(len(runs)):
            one = runs.iloc[place : place + 1]
            if one["state"].iloc[0] != State.UNREADABLE:
                with self._noted(str(one["run"].iloc[0])):
                    parts.append(load(one))
        found = [part for part in parts if not part.empty]
        return pd.concat(found, ignore_index=True) if found else parts[0]


def open_study(
    results: Path | str,
    profile: str = "mini",
    tables: str | int | Path | Sequence[str | int | Path] = (),
    overrides: Sequence[str | Override] = (),
    seeds: Sequence[int] | None = None,
    **further: Any,
) -> Study:
    """The study in a results folder.

    Args:
        results: its runs are in `results`/runs; it may be empty or absent.
        profile: of the runs that count.
        tables: one or several names ("1" or 1, "controls") or Python files; Tables 1-8 by default.
        overrides: as they were given to `ablate launch --set`.
        seeds: those that count; all by default.
        further: other fields of `Study`; `everything`, where the runs are loaded already.

    Raises:
        UnknownNameError: no such profile, table or field.

    Example:
        >>> study = open_study("results/published/mini", tables=[1, "controls"])
        >>> study
        study    results/published/mini, profile mini
        tables   1, controls
        rows     11 of 9 experiments
        runs     27 done
        seeds    0, 1, 2
        >>> ap = study.cells.query("metric == 'AP'")
        >>> ap[["table", "row", "value", "delta", "delta_low", "delta_high"]].round(2).head(3)
               table       row  value  delta  delta_low  delta_high
        0          1  baseline  62.32    NaN        NaN         NaN
        6          1     + iFA  61.60  -0.72      -2.27        0.83
        12  controls  baseline  62.32    NaN        NaN         NaN
    """
    profile_named(profile)
    named = [tables] if isinstance(tables, str | int | Path) else tables
    folder = Path(results)
    if "everything" not in further:
        further["everything"] = load_runs(folder)
    return Study(
        results=folder,
        profile=profile,
        tables=select_tables([str(each) for each in named]),
        overrides=tuple(as_overrides(overrides)),
        seeds=None if seeds is None else tuple(seeds),
        **further,
    )
