"""The arms × seeds of a study: which runs stand beside each other, and what follows for every comparison.

An arm is an experiment; a block is a seed. Runs share a layout where data and code are the same. Any column
of scores will do: AP, another score, a loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablations.experiments import Experiment
from ablations.overrides import Override
from ablations.registry import everything, resolve
from ablations.table import Table
from analysis.statistics.blocks import Comparison, compare
from analysis.statistics.seeds import LEVEL, Interval, over_seeds
from analysis.statistics.stopping import Look, repeated_level, repeated_p
from yolor_core.identity import signature
from yolor_core.runs import LOST

GROUP = ("fingerprint", "source_hash")  # what runs of one layout share, beside profile and settings
Pair = tuple[str, str]  # an arm and its control, by slug, or by signature where that is said
VAL_LOSS = "val/loss"


@dataclass(frozen=True)
class Layout:
    """The scores of all runs on the same data by the same code."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    scores: NDArray[np.float64]  # (arms, seeds); NaN where no run has finished
    lost: NDArray[np.bool_]  # (arms, seeds) whether the run diverged or failed
    _known: dict[tuple[str, float], list[Comparison | None]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def compare(self, arm: str, control: str, level: float = LEVEL) -> Comparison | None:
        """The arm less the control, by `blocks.compare` on the whole layout; None where no seed has both."""
        key = control, level
        if key not in self._known:
            self._known[key] = compare(self.scores, self.arms.index(control), level, self.lost)
        return self._known[key][self.arms.index(arm)]


def design_of(
    runs: pd.DataFrame,
    experiments: Iterable[Experiment],
    profile: str,
    overrides: Sequence[str | Override] = (),
    seeds: Sequence[int] | None = None,
) -> Design:
    """The design of these experiments and all that are known, so that all tables have the same intervals.

    Args:
        runs: of `analysis.runs.load_runs`; those count that have the settings of an experiment.
        experiments: beside the known ones, e.g. of a table of one's own.
        profile: of the runs that count.
        overrides: as they were given to `ablate launch --set`.
        seeds: those that count; all by default.
    """
    counted = runs if seeds is None else runs[runs["seed"].isin(list(seeds))]
    named = signatures([*everything().experiments, *experiments], profile, overrides)
    return Design({slug: counted[counted["signature"] == name] for slug, name in named.items()})


def signatures(
    experiments: Iterable[Experiment], profile: str, overrides: Sequence[str | Override] = ()
) -> dict[str, str]:
    """The signature of each experiment at a profile, by slug."""
    return {each.slug: signature(resolve(each, profile, overrides)) for each in experiments}


class Design:
    """The runs of a study by arm, in any state, and their comparisons in any score.

    Args:
        runs: the runs of each arm; columns of `analysis.runs.load_runs`, `column` of the methods among them.
        stops: comparisons whose seeds are added until a verdict, by the signatures of arm and control.
        rules: by what rule seeds of a comparison are added, in a sentence, by the same.

    Example:
        >>> from analysis import open_study
        >>> design = open_study("results/published/mini").design
        >>> found = design.compare("csp-fast.mul-pr-wh", "csp-fast")
        >>> found.method, round(found.interval.mean, 2), round(found.interval.half_width, 2)
        ('pooled', 0.44, 1.44)
    """

    def __init__(
        self,
        runs: Mapping[str, pd.DataFrame],
        stops: Mapping[Pair, Stop] | None = None,
        rules: Mapping[Pair, str] | None = None,
    ) -> None:
        self.runs, self.stops, self.rules = runs, stops or {}, rules or {}
        # Experiments of two names and equal settings are one arm: its runs must not count twice.
        self._signed = {arm: str(frame["signature"].iloc[0]) for arm, frame in runs.items() if len(frame)}
        first = {name: arm for arm, name in reversed(self._signed.items())}
        self._arms = {arm: first[name] for arm, name in self._signed.items()}
        self._layouts: dict[str, dict[tuple[object, ...], Layout]] = {}

    def layouts(self, column: str = "AP") -> dict[tuple[object, ...], Layout]:
        """The layouts of the scores in a column, by the values of `GROUP`."""
        if column not in self._layouts:
            named = [self.runs[arm].assign(arm=arm) for arm in dict.fromkeys(self._arms.values())]
            every = pd.concat(named) if named else pd.DataFrame(columns=[*GROUP, column, "arm"])
            scored = every[_scored(every, column)] if named else every
            groups = scored.groupby(list(GROUP), dropna=False)
            self._layouts[column] = {key: _layout(group, every, column) for key, group in groups}
        return self._layouts[column]

    def compare(self, arm: str, control: str, column: str = "AP", level: float = LEVEL) -> Comparison | None:
        """The arm less the control, in the unit of the scores; None where they share no seed and data.

        Runs of several data or codes (`--mixed`) share no layout; of them the paired t of their differences
        is left, those of one seed on several data being one value. A comparison that has a `stop` is as its
        look leaves it; without one, or where the runs here are not those of the look, it has no interval.
        """
        if (stop := self.stop(arm, control)) is not None:
            return stop.compare(column, level) if stop.look else _bare(*self.paired(arm, control, column))
        arm, control = (self._arms.get(each, each) for each in (arm, control))
        of = [each for each in self.layouts(column).values() if arm in each.arms or control in each.arms]
        if len(of) == 1:
            known = arm in of[0].arms and control in of[0].arms
            return of[0].compare(arm, control, level) if known else None
        own, other = self.paired(arm, control, column)
        if not own:
            return None
        row = over_seeds([a - b for a, b in zip(own, other, strict=True)], level)
        return Comparison(row, "row", row)

    def _signatures(self, arm: str, control: str) -> Pair:
        return self._signed.get(arm, ""), self._signed.get(control, "")

    def stop(self, arm: str, control: str) -> Stop | None:
        """What a rule that stops at a verdict has made of a comparison; None where there is none."""
        return self.stops.get(self._signatures(arm, control))

    def rules_of(self, comparisons: Iterable[Pair]) -> list[str]:
        """The rules by which seeds of any of these were added, each once."""
        found = (self.rules.get(self._signatures(*pair)) for pair in comparisons)
        return list(dict.fromkeys(rule for rule in found if rule is not None))

    def paired(self, arm: str, control: str, column: str = "AP") -> tuple[list[float], list[float]]:
        """The scores of both on the seeds and data that they share, by seed; of a stop, at its look."""
        if (stop := self.stop(arm, control)) is not None and stop.look:
            return stop.design.paired(*stop.signatures, column)
        a, b = (by_seed(self.runs.get(slug), column) for slug in (arm, control))
        shared = (a - b).dropna().index
        own, other = (list(scores[shared].groupby(level="seed").mean()) for scores in (a, b))
        return own, other

    def covers(self, comparisons: Iterable[Pair]) -> bool:
        """Whether no other comparison of the known tables has finished runs on both sides in one layout."""

        def arms(pairs: Iterable[Pair]) -> set[Pair]:
            return {(self._arms.get(arm, arm), self._arms.get(control, control)) for arm, control in pairs}

        others = arms(pair for table in everything().tables for pair in compared(table)) - arms(comparisons)
        layouts = self.layouts().values()
        return not any({*pair} <= {*layout.arms} for pair in others for layout in layouts)

    def scored_by(self, values: pd.Series[float]) -> Design:
        """The same runs with other scores, by run id, in the column `value`."""
        runs = {arm: runs.assign(value=runs["run"].map(values)) for arm, runs in self.runs.items()}
        stops = {
            pair: replace(stop, design=stop.design.scored_by(values)) for pair, stop in self.stops.items()
        }
        return Design(runs, stops, self.rules)


@dataclass(frozen=True)
class Stop:
    """A comparison whose seeds are added until its verdict, as its looks leave it (`analysis.stopping`).

    Its interval is the repeated one, wider than the plain one at every look, so that it holds whenever the
    comparison stops, and for every score.
    """

    signatures: Pair
    looks: tuple[int, ...]  # of the rule, at so many seeds
    look: Look | None  # at which it stopped, or the last one taken; None where that is not to be had
    margin: float  # AP, of the rule
    said: str  # how it stands
    design: Design  # the runs of the look, arms by signature

    def compare(self, column: str = "AP", level: float = LEVEL) -> Comparison | None:
        """The arm less the control at its look; p values are repeated ones."""
        assert self.look is not None
        at = repeated_level(self.looks, self.look.seeds, level)
        found = self.design.compare(*self.signatures, column, at)
        if found is None or found.interval.error is None:
            return found
        main, row = (replace(each, p=self.p(each.p)) for each in (found.interval, found.row))
        return replace(found, interval=main, row=row, method="repeated")

    def p(self, p: float | None) -> float | None:
        """The repeated p value of a two-sided one at this look."""
        return None if p is None or self.look is None else repeated_p(p, self.looks, self.look.seeds)


@dataclass(frozen=True)
class OverEpochs:
    """The logarithm of a loss at every epoch that was evaluated: losses scatter in proportion to their size.

    logs: a row for each run, a column for each epoch; designs: with these values as scores, by epoch.
    """

    whole: Design
    logs: pd.DataFrame
    designs: dict[int, Design]

    @classmethod
    def of(cls, whole: Design, metrics: pd.DataFrame, column: str) -> OverEpochs:
        """Of the runs in `whole`; `metrics` as of `analysis.runs.load_metrics`, which may lack the column."""
        found = metrics[metrics[column] > 0] if column in metrics else metrics.assign(**{column: np.nan})[:0]
        logs = found.assign(log=np.log(found[column].astype(float)))
        wide = logs.pivot_table(index="run", columns="epoch", values="log")
        return cls(whole, wide, {int(str(epoch)): whole.scored_by(wide[epoch]) for epoch in wide})

    def compare(self, arm: str, control: str) -> tuple[dict[int, Comparison], Comparison | None]:
        """The arm less the control at each epoch that both have, and in the mean over these epochs."""
        found = {epoch: each.compare(arm, control, "value") for epoch, each in self.designs.items()}
        known = {epoch: each for epoch, each in found.items() if each is not None}
        mean = self.whole.scored_by(self.logs[list(known)].mean(axis=1, skipna=False))
        return known, mean.compare(arm, control, "value") if known else None


def compared(table: Table, column: str = "AP") -> list[Pair]:
    """What a table compares in a score, shown or not, each once: an experiment and its control."""
    found = ((row.slug, base.slug) for row in table.rows if (base := table.control(row, column)) is not None)
    return list(dict.fromkeys((arm, control) for arm, control in found if arm and control))


def _bare(own: Sequence[float], other: Sequence[float]) -> Comparison | None:
    """A mean difference without an interval; None without pairs."""
    if not own:
        return None
    mean = Interval(float(np.mean(np.subtract(own, other))), len(own))
    return Comparison(mean, "row", mean)


def _scored(runs: pd.DataFrame, column: str) -> pd.Series[bool]:
    return runs["state"].eq("done") & runs[column].notna()


def by_seed(runs: pd.DataFrame | None, column: str) -> pd.Series[float]:
    """The score by (seed, data fingerprint): differences pair runs on the same data."""
    if runs is None or runs.empty:
        return pd.Series(
            dtype=float, index=pd.MultiIndex.from_arrays([[], []], names=["seed", "fingerprint"])
        )
    return runs[_scored(runs, column)].groupby(["seed", "fingerprint"], dropna=False)[column].mean()


def _layout(group: pd.DataFrame, every: pd.DataFrame, column: str) -> Layout:
    """The layout of the scored runs of one group; the lost ones of its arms are among `every` run."""
    gone = every[every["state"].isin(LOST) & every["arm"].isin(group["arm"])]
    for name in GROUP:  # a run that was lost early may not say
        gone = gone[gone[name].isna() | gone[name].eq(group[name].iloc[0])]
    arms = tuple(dict.fromkeys(group["arm"]))
    seeds = sorted({int(seed) for seed in [*group["seed"], *gone["seed"]]})
    scores = group.groupby(["arm", "seed"])[column].mean().unstack("seed").reindex(index=arms, columns=seeds)
    array = scores.to_numpy(float)
    lost = np.zeros(array.shape, bool)
    for arm, seed in zip(gone["arm"], gone["seed"], strict=True):
        lost[arms.index(arm), seeds.index(int(seed))] = True
    return Layout(arms, tuple(seeds), array, lost & np.isnan(array))
