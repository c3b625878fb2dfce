"""Seeds until the answer is known: a rule that is fixed before the runs, and what each look decides by it.

Rule and looks are kept in a file (`analysis.plan_file`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablations.overrides import Override
from ablations.registry import Selection, everything, merge
from analysis.design import Design, Pair, Stop, compared, signatures
from analysis.plan_file import FOLDER, SCHEMA, Row, Rule, plan_name, read_plan
from analysis.statistics.blocks import Comparison, connected, fit, outcome
from analysis.statistics.stopping import Look, Scatter, first_look
from yolor_core.errors import ConfigError, counted
from yolor_core.runs import LOST
from yolor_core.runs.directory import write_json

GIVEN_UP = "given up"  # too few runs finish for an interval
NARROW = "narrow enough"
OPEN = "inconclusive"
SAME = {"rel_tol": 1e-9, "abs_tol": 1e-9}  # of AP that was computed from the same runs


def comparisons(selection: Selection) -> tuple[Pair, ...]:
    """What a launch of these tables and experiments compares in AP.

    Raises ConfigError where that is nothing.
    """
    found = [pair for table in selection.tables for pair in compared(table)]
    named = [pair for table in everything().tables for pair in compared(table)]
    found += [pair for pair in named if set(pair) <= selection.named]
    if not found:
        named = list(dict.fromkeys(named))
        others = [control for arm, control in named if arm in selection.named]
        others = others or [arm for arm, control in named if control in selection.named]
        near = " or ".join(others[:3])
        said = f"name also what it is compared with: {near}" if near else "launch with --seeds"
        raise ConfigError(f"nothing here is compared in AP, so there is no interval to wait for; {said}")
    return tuple(dict.fromkeys(found))


def arms(pairs: Iterable[Pair]) -> tuple[str, ...]:
    """The experiments of comparisons, each once, controls first."""
    pairs = list(pairs)
    return tuple(dict.fromkeys([control for _, control in pairs] + [arm for arm, _ in pairs]))


@dataclass
class Plan:
    """A rule for some comparisons in a results folder, and what has been decided by it."""

    path: Path
    rule: Rule
    pairs: tuple[Pair, ...]
    signatures: Mapping[str, str]  # of the arms by slug; where a launch holds the plan, of all that are known
    profile: str
    fingerprint: str  # of the data
    content: dict[str, Any]  # of the file
    begun: bool = False
    given_up: set[Pair] = field(default_factory=set)  # of this launch: too few of their runs finish

    @classmethod
    def read(cls, path: Path) -> Plan:
        """The plan of a file. Raises RunError for a damaged one."""
        there = read_plan(path)
        rule = Rule(**there["rule"] | {"looks": tuple(there["rule"]["looks"])})
        pairs = tuple((each["arm"], each["control"]) for each in there["comparisons"])
        signed = {
            slug: name
            for each in there["comparisons"]
            for slug, name in zip((each["arm"], each["control"]), each["signatures"], strict=True)
        }
        return cls(path, rule, pairs, signed, there["profile"], there["fingerprint"], there, True)

    @classmethod
    def of_launch(
        cls,
        results: Path,
        rule: Rule,
        selection: Selection,
        pairs: Sequence[Pair],
        profile: str,
        overrides: Sequence[str | Override],
        fingerprint: str,
    ) -> Plan:
        """The plan of a launch, which may have begun.

        Args:
            results: the folder.
            rule: asked for.
            selection, pairs: what is launched, and its `comparisons`.
            profile, overrides: of the runs.
            fingerprint: of their data.

        Raises ConfigError where the folder has another rule for any of these comparisons, RunError for a
        damaged file.
        """
        known = signatures(merge([*everything().experiments, *selection.experiments]), profile, overrides)
        named = [{"arm": a, "control": b, "signatures": [known[a], known[b]]} for a, b in pairs]
        content: dict[str, Any] = {
            "schema": SCHEMA,
            "rule": asdict(rule) | {"looks": list(rule.looks)},
            "profile": profile,
            "fingerprint": fingerprint,
            "comparisons": named,
            "begun": None,
            "taken": [],
            "decided": [],
        }
        path = results / FOLDER / plan_name(content)
        plan = cls(path, rule, tuple(pairs), known, profile, fingerprint, content)
        for each in sorted((results / FOLDER).glob("*.json")):
            plan._beside(cls.read(each))
        return plan

    def signed(self, pair: Pair) -> Pair:
        """The signatures of arm and control."""
        return self.signatures[pair[0]], self.signatures[pair[1]]

    def _beside(self, there: Plan) -> None:
        """Take over what was decided by the same rule; refuse another one."""
        signed = {there.signed(pair) for pair in there.pairs}
        own = {self.signed(pair) for pair in self.pairs}
        shared = [pair for pair in self.pairs if self.signed(pair) in signed]
        if there.fingerprint != self.fingerprint or not shared:
            return
        # Half-widths know no sign, so another one may be asked for at any time.
        both = there.rule.precision is not None and self.rule.precision is not None
        if not both and (there.rule != self.rule or own != signed):
            number = counted(len(there.pairs), "comparison")
            theirs = f"{there.rule} ({number}, since {there.content['begun']}; {there.path})"
            asked = f"{self.rule} ({counted(len(own), 'comparison')})"
            rows = "" if own == signed else f" and the {number} of that file"
            raise ConfigError(
                f"{' against '.join(shared[0])} is launched {theirs}, and now {asked} is asked for. Here the "
                "rule itself cannot change, for a stop that is chosen after runs were seen makes false "
                f"verdicts: go on with {there.rule.options}{rows}, or choose another folder with --results"
            )
        if there.path == self.path:
            self.begun = there.rule == self.rule
            self.content |= {key: there.content[key] for key in ("begun", "taken", "decided")}

    @property
    def decided(self) -> dict[Pair, Row]:
        """The rows that have stopped."""
        return {row.pair: row for row in (Row(**each) for each in self.content["decided"])}

    @property
    def open(self) -> tuple[Pair, ...]:
        """The comparisons that go on."""
        stopped = {*self.decided, *self.given_up}
        return tuple(pair for pair in self.pairs if pair not in stopped)

    def taken(self, look: Look) -> bool:
        """Whether this look was taken before: it is never taken twice, whatever became of its lost runs."""
        return self.rule.precision is None and look.seeds in self.content["taken"]

    @property
    def looks(self) -> tuple[Look, ...]:
        """Those that were taken."""
        return tuple(look for look in self.rule.levels() if self.taken(look))

    def begin(self) -> None:
        """Write the rule down, before the first run starts."""
        if not self.begun:
            self.content["begun"] = self.content["begun"] or datetime.now(UTC).isoformat(timespec="seconds")
            self._write()
            self.begun = True

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.content)

    def seeds(self, arm: str, look: int) -> int:
        """How many seeds the rule has asked of an arm by a look: no more where all its rows have stopped."""
        decided = self.decided
        rows = [decided.get(pair) for pair in self.pairs if arm in pair]
        return max(look if row is None else min(row.seeds, look) for row in rows)

    def design(self, runs: pd.DataFrame, seeds: int | None = None) -> Design:
        """Arms × seeds behind the intervals: of these data, the first so many seeds.

        A half-width is that of the tables, from every arm that is known; a verdict's looks are at the arms of
        the plan alone, and no more of their seeds than it asked for, so that no other launch has a part in
        them.
        """
        runs = runs[runs["fingerprint"].eq(self.fingerprint) | runs["fingerprint"].isna()]
        until = self.rule.precision is None
        found = {}
        for slug in arms(self.pairs) if until else self.signatures:
            own = runs[runs["signature"] == self.signatures[slug]]
            if seeds is not None:
                own = own[own["seed"] < (self.seeds(slug, seeds) if until else seeds)]
            found[slug] = own
        return Design(found)

    def look(self, look: Look, runs: pd.DataFrame) -> list[Row]:
        """The open comparisons after so many seeds; those that stop are written down.

        Args:
            look: one of the rule's.
            runs: of `analysis.runs.load_runs`, every one of this look done or lost.
        """
        rows = self._rows(look, runs, self.open)
        self.given_up |= {row.pair for row in rows if row.word == GIVEN_UP}
        if self.rule.precision is None:
            self.content["decided"] += [asdict(row) for row in rows if row.word not in (None, GIVEN_UP)]
            self.content["taken"].append(look.seeds)
            self._write()
        return rows

    def _rows(self, look: Look, runs: pd.DataFrame, pairs: Iterable[Pair]) -> list[Row]:
        design = self.design(runs, look.seeds)
        level = look.sign if self.rule.precision is None else Look(look.seeds).sign
        rows = []
        for arm, control in pairs:
            found = design.compare(arm, control, level=level)
            rows.append(_row(arm, control, look, found, self._word(look, found)))
        return rows

    def may_stop(self, look: Look) -> bool:
        """Whether the scatter is known well enough at this look to stop at a half-width."""
        return self.rule.precision is None or look.seeds >= first_look(len(arms(self.pairs)))

    def _word(self, look: Look, found: Comparison | None) -> str | None:
        if not self.may_stop(look):
            return None
        if found is None or found.interval.error is None:
            return GIVEN_UP
        if self.rule.precision is not None:
            return NARROW if (found.interval.half_width or 0.0) <= self.rule.precision else None
        word = outcome(found.interval, self.rule.margin - found.bound, look.sign, look.small)
        last = look.seeds == self.rule.looks[-1]
        return word if word != OPEN or last else None

    # What tables, reports and published folders make of it.

    def runs(self, runs: pd.DataFrame) -> pd.DataFrame:
        """Those that its looks were taken at, finished or lost."""
        last = self.content["taken"][-1] if self.content["taken"] else 0
        ended = runs[runs["state"].isin(LOST) | (runs["state"].eq("done") & runs["AP"].notna())]
        names = [name for own in self.design(ended, last).runs.values() for name in own["run"]]
        return ended[ended["run"].isin(names)]

    def going(self, look: Look) -> list[Pair]:
        """The comparisons that had not stopped before a look."""
        decided = self.decided
        return [pair for pair in self.pairs if pair not in decided or decided[pair].seeds >= look.seeds]

    def astray(self, runs: pd.DataFrame) -> dict[Pair, str]:
        """The comparisons whose looks, taken again at these runs, are not those of the file, and why."""
        found: dict[Pair, str] = {}
        decided = self.decided
        for look in self.looks:
            for row in self._rows(look, runs, self.going(look)):
                was = decided.get(row.pair)
                was = was if was is not None and was.seeds == look.seeds else None
                if row.pair not in found and not _same(row, was):
                    found[row.pair] = self._why(look, runs, row, was)
        return found

    def _why(self, look: Look, runs: pd.DataFrame, row: Row, was: Row | None) -> str:
        there = self.design(runs[runs["state"].isin(("done", *LOST))], look.seeds).runs
        absent = [
            f"{slug} seed {seed}"
            for slug, own in there.items()
            for seed in sorted({*range(self.seeds(slug, look.seeds))} - {*own["seed"].astype(int)})
        ]
        at = f"the look at {look.seeds} seeds"
        if absent:
            are = "is" if len(absent) == 1 else "are"
            return f"of {at} {counted(len(absent), 'run')} {are} not here, e.g. {absent[0]}"
        margin = self.rule.margin
        now, then = (_told(each, margin) for each in (row, was or Row(*row.pair, look.seeds, None)))
        return f"at {at} the runs here give {now}, and {FOLDER}/{self.path.name} says {then}"

    def stop(self, pair: Pair, runs: pd.DataFrame, why: str | None = None) -> Stop:
        """How a comparison stands whose seeds are added until its verdict. why: the looks are `astray`."""
        row, looks, first = self.decided.get(pair), self.looks, self.rule.looks[0]
        look = next((look for look in looks if row is not None and look.seeds == row.seeds), None)
        if why:
            said = f"no interval, for {why}"
        elif look is not None:
            open_ = row is not None and row.word == OPEN
            said = f"{'has no verdict after' if open_ else 'stopped at'} the look at {look.seeds} seeds"
        elif looks:
            look = looks[-1]
            said = f"open since the look at {look.seeds} seeds"
        else:
            said = f"no interval before the first look, at {first} seeds"
        design = self.design(runs, look.seeds if look else None)
        signed = Design({self.signatures[slug]: own for slug, own in design.runs.items()})
        return Stop(self.signed(pair), self.rule.looks, None if why else look, self.rule.margin, said, signed)


def plans_of(results: Path, profile: str, runs: pd.DataFrame) -> tuple[Plan, ...]:
    """The plans in a results folder for runs of a profile; those of other data or settings are left out.

    Raises RunError for a damaged file.
    """
    known = set(zip(runs["signature"], runs["fingerprint"], strict=True))
    plans = [Plan.read(path) for path in sorted((results / FOLDER).glob("*.json"))]
    return tuple(
        plan
        for plan in plans
        if plan.profile == profile
        if any((name, plan.fingerprint) in known for name in plan.signatures.values())
    )


def by_rules(design: Design, plans: Iterable[Plan], runs: pd.DataFrame) -> Design:
    """The design with what plans say of its comparisons.

    Args:
        design: of a study.
        plans: of `plans_of`.
        runs: that the study counts, in any state.
    """
    stops: dict[Pair, Stop] = {}
    rules: dict[Pair, str] = {}
    holds: dict[Pair, Plan] = {}
    for plan in plans:
        astray = plan.astray(runs)
        for pair in plan.pairs:
            signed, why = plan.signed(pair), astray.get(pair)
            rules[signed] = plan.rule.sentence
            if plan.rule.precision is not None:
                continue
            if signed in stops:
                both = f"{holds[signed].path.name} and {plan.path.name}"
                why = f"two plans of {FOLDER} hold for its runs, {both}; --fingerprint chooses data"
            stops[signed], holds[signed] = plan.stop(pair, runs, why), plan
    return Design(design.runs, stops, rules)


def asked(plans: Iterable[Plan]) -> dict[str, int]:
    """How many seeds plans until a verdict have asked for, by signature."""
    found: dict[str, int] = {}
    for plan in plans:
        last = plan.content["taken"][-1] if plan.content["taken"] else plan.rule.looks[0]
        for arm in arms(plan.pairs) if plan.rule.precision is None else ():
            name = plan.signatures[arm]
            found[name] = max(found.get(name, 0), plan.seeds(arm, last))
    return found


def _same(row: Row, was: Row | None) -> bool:
    """Whether a row that was looked at again is as it was written down; None: it went on, or was given up."""
    if was is None:
        return row.word in (None, GIVEN_UP)
    ends = zip((row.delta, row.low, row.high), (was.delta, was.low, was.high), strict=True)
    equal = (row.word, row.finished, row.lost) == (was.word, was.finished, was.lost)
    return equal and all(math.isclose(a or 0.0, b or 0.0, **SAME) for a, b in ends)


def _told(row: Row, margin: float) -> str:
    """`higher, +1.20 (+0.60 to +1.80)`."""
    if row.delta is None or row.low is None or row.high is None:
        return words(row, margin)
    return f"{words(row, margin)}, {row.delta:+.2f} ({row.low:+.2f} to {row.high:+.2f})"


def _row(arm: str, control: str, look: Look, found: Comparison | None, word: str | None) -> Row:
    if found is None:
        return Row(arm, control, look.seeds, word)
    of = found.interval
    return Row(
        arm, control, look.seeds, word, of.mean, of.low, of.high, of.half_width, found.method, found.row.n,
        found.lost,
    )  # fmt: skip


def scatter(design: Design, column: str = "AP") -> tuple[Scatter, int] | None:
    """The residual of a run, from the layout that knows it best, and the arms there.

    None where no layout has two arms of two seeds in common.
    """
    known: list[tuple[Scatter, int]] = []
    for layout in design.layouts(column).values():
        rest = np.isfinite(layout.scores)
        while rest.any():  # arms that no seed joins to the others are fitted by themselves
            joined = connected(rest, int(rest.any(1).argmax()))
            rest = rest & ~joined[:, None]
            try:
                found = fit(layout.scores[joined])
            except ValueError:
                continue
            known.append((Scatter(found.variance, found.freedom), int(joined.sum())))
    return max(known, key=lambda each: each[0].freedom, default=None)


def rule_of(precision: float | None, margin: float, most: int, batch: int) -> Rule:
    """The rule of a launch that looks every `batch` seeds, and at the last of `most`, at least 2.

    Raises ConfigError for batches of more than these.
    """
    if batch > most:
        raise ConfigError(f"--batch is {batch}; seeds from 1 to --most, {most}, are needed")
    looks = [*range(batch, most, batch), most]
    return Rule(tuple(n for n in looks if n >= 2), precision, margin)


def words(row: Row, margin: float) -> str:
    """`higher, by less than 0.5`."""
    if row.word is None:
        return "open"
    if row.word == "no effect":
        return f"no effect beyond {margin:g}"
    return row.word.replace("small", f"by less than {margin:g}")


def records(rows: Iterable[Row]) -> list[Mapping[str, Any]]:
    """For JSON."""
    return [asdict(row) for row in rows]
