"""Seeds until the answer is known: a rule that is fixed before the runs, and what each look decides by it.

`stopping/NAME.json` beside a results folder's `runs` holds the rule and its looks, so that a launch that was
interrupted goes on by the same one. docs/seeds.md describes the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from ablations.columns import counted
from ablations.overrides import Override
from ablations.registry import Selection, everything, merge
from analysis.design import Design, Pair, compared, signatures
from analysis.statistics.blocks import Comparison, Outcome, fit, outcome
from analysis.statistics.stopping import Look, Scatter, first_look, repeated
from yolor_core.errors import ConfigError
from yolor_core.runs.directory import number, read_json, unreadable, write_json

SCHEMA = 1
FOLDER = "stopping"
GIVEN_UP = "given up"  # too few runs finish for an interval
NARROW = "narrow enough"
OPEN = "inconclusive"
REMEDY = "By it a launch decides when to stop: restore it from a copy, or launch with another --results"


@dataclass(frozen=True)
class Rule:
    """When the rows of a launch stop.

    With `precision` (AP, points) all go on until every half-width is at most this one; else each row until
    its verdict, "no effect" meaning none beyond ± `margin`.
    """

    looks: tuple[int, ...]  # after so many seeds, which are 0, 1, 2 ...; the last is the most
    precision: float | None = None
    margin: float = 0.5

    def levels(self) -> tuple[Look, ...]:
        """The looks with the levels of their intervals."""
        return repeated(self.looks) if self.precision is None else tuple(map(Look, self.looks))

    @property
    def options(self) -> str:
        """Of `ablate launch`, for this rule."""
        if self.precision is not None:
            return f"--precision {self.precision:g}"
        batch = 1 if self.looks[:2] == (2, 3) else self.looks[0]  # no look is at one seed
        return f"--until-verdict --margin {self.margin:g} --most {self.looks[-1]} --batch {batch}"

    def __str__(self) -> str:
        if self.precision is not None:
            return f"until every half-width is at most {self.precision:g} AP, at most {self.looks[-1]} seeds"
        looks = ", ".join(map(str, self.looks))
        return f"until the verdict, margin ± {self.margin:g} AP, looks at {looks} seeds"


@dataclass(frozen=True)
class Row:
    """A comparison at a look. AP in points."""

    arm: str
    control: str
    seeds: int  # of the look
    word: str | None  # why it stops; None where it goes on
    delta: float | None = None
    low: float | None = None  # of the interval that decides: 95 %, or the look's repeated one
    high: float | None = None
    half_width: float | None = None
    method: str | None = None
    finished: int = 0  # pairs
    lost: int = 0  # runs of the arm or its control

    @property
    def pair(self) -> Pair:
        """Arm and control."""
        return self.arm, self.control


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


class Plan:
    """A rule for some comparisons in a results folder, and what has been decided by it.

    Args:
        results: the folder.
        rule: asked for.
        selection, pairs: what is launched, and its `comparisons`.
        profile, overrides: of the runs.
        fingerprint: of their data.

    Raises ConfigError where the folder has another rule for any of these comparisons, RunError for a damaged
    file.
    """

    def __init__(
        self,
        results: Path,
        rule: Rule,
        selection: Selection,
        pairs: Sequence[Pair],
        profile: str,
        overrides: Sequence[str | Override],
        fingerprint: str,
    ) -> None:
        self.rule, self.pairs, self.fingerprint = rule, tuple(pairs), fingerprint
        known = merge([*everything().experiments, *selection.experiments])
        self.signatures = signatures(known, profile, overrides)
        named = sorted(f"{self.signatures[a]} {self.signatures[b]} {fingerprint}" for a, b in self.pairs)
        self.path = results / FOLDER / f"{hashlib.sha256(json.dumps(named).encode()).hexdigest()[:10]}.json"
        self.content: dict[str, Any] = {
            "schema": SCHEMA,
            "rule": asdict(rule) | {"looks": list(rule.looks)},
            "profile": profile,
            "fingerprint": fingerprint,
            "comparisons": [{"arm": a, "control": b, "signatures": self._signed((a, b))} for a, b in pairs],
            "begun": None,
            "taken": [],
            "decided": [],
        }
        self.begun = False
        self.given_up: set[Pair] = set()  # of this launch: too few of their runs finish
        for path in sorted((results / FOLDER).glob("*.json")):
            self._beside(path)

    def _signed(self, pair: Pair) -> list[str]:
        return [self.signatures[slug] for slug in pair]

    def _beside(self, path: Path) -> None:
        """Take over what was decided by the same rule; refuse another one."""
        there = read_plan(path)
        rule = Rule(**there["rule"] | {"looks": tuple(there["rule"]["looks"])})
        signed = [tuple(each["signatures"]) for each in there["comparisons"]]
        begun = there["begun"]
        own = {tuple(self._signed(pair)) for pair in self.pairs}
        shared = [p for p in self.pairs if tuple(self._signed(p)) in signed]
        if there["fingerprint"] != self.fingerprint or not shared:
            return
        # Half-widths know no sign, so another one may be asked for at any time.
        both = rule.precision is not None and self.rule.precision is not None
        same = own == set(signed)
        if not both and (rule != self.rule or not same):
            theirs = f"{rule} ({counted(len(signed), 'comparison')}, since {begun}; {path})"
            asked = f"{self.rule} ({counted(len(own), 'comparison')})"
            rows = "" if same else f" and the {counted(len(signed), 'comparison')} of that file"
            raise ConfigError(
                f"{' against '.join(shared[0])} is launched {theirs}, and now {asked} is asked for. Here the "
                "rule itself cannot change, for a stop that is chosen after runs were seen makes false "
                f"verdicts: go on with {rule.options}{rows}, or choose another folder with --results"
            )
        if path == self.path:
            self.begun = rule == self.rule
            self.content |= {"begun": begun, "taken": there["taken"], "decided": there["decided"]}

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

    def begin(self) -> None:
        """Write the rule down, before the first run starts."""
        if not self.begun:
            self.content["begun"] = self.content["begun"] or datetime.now(UTC).isoformat(timespec="seconds")
            self._write()
            self.begun = True

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.content)

    def design(self, runs: pd.DataFrame, seeds: int | None = None) -> Design:
        """Arms × seeds behind the intervals: of these data, the first so many seeds.

        A half-width is that of the tables, from every arm that is known; a verdict's looks are at the arms of
        the plan alone, so that no other launch has a part in them.
        """
        runs = runs[runs["fingerprint"].eq(self.fingerprint) | runs["fingerprint"].isna()]
        if seeds is not None:
            runs = runs[runs["seed"] < seeds]
        slugs = self.signatures if self.rule.precision is not None else arms(self.pairs)
        return Design({slug: runs[runs["signature"] == self.signatures[slug]] for slug in slugs})

    def look(self, look: Look, runs: pd.DataFrame) -> list[Row]:
        """The open comparisons after so many seeds; those that stop are written down.

        Args:
            look: one of the rule's.
            runs: of `analysis.runs.load_runs`, every one of this look done or lost.
        """
        design = self.design(runs, look.seeds)
        level = look.sign if self.rule.precision is None else Look(look.seeds).sign
        rows = []
        for arm, control in self.open:
            found = design.compare(arm, control, level=level)
            rows.append(_row(arm, control, look, found, self._word(look, found)))
        self.given_up |= {row.pair for row in rows if row.word == GIVEN_UP}
        if self.rule.precision is None:
            self.content["decided"] += [asdict(row) for row in rows if row.word not in (None, GIVEN_UP)]
            self.content["taken"].append(look.seeds)
            self._write()
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


def stopped_at_verdicts(results: Path, profile: str) -> dict[Pair, Path]:
    """The comparisons of a folder whose seeds were added until a verdict, and the files of those plans."""
    found: dict[Pair, Path] = {}
    for path in sorted((results / FOLDER).glob("*.json")):
        there = read_plan(path)
        if there["profile"] == profile and there["rule"]["precision"] is None:
            found |= {(row["arm"], row["control"]): path for row in there["decided"]}
    return found


def read_plan(path: Path) -> dict[str, Any]:
    """What a plan's file holds.

    Raises RunError, naming the field and what is allowed, where that is not what a launch writes.
    """
    there = read_json(path, REMEDY) or {}

    def need(good: bool, field: str, value: object, allowed: str) -> None:
        if not good:
            raise unreadable(path, f"{field} is {value!r:.60}; allowed: {allowed}", REMEDY)

    need(there.get("schema") == SCHEMA, "schema", there.get("schema"), str(SCHEMA))
    for field, kind, allowed in _KINDS:
        need(isinstance(there.get(field), kind), field, there.get(field), allowed)
    rule, taken = there["rule"], there["taken"]
    need(set(rule) == {f.name for f in fields(Rule)}, "rule", rule, "looks, precision and margin")
    looks = rule["looks"]
    rising = isinstance(looks, list) and bool(looks) and all(type(n) is int and n >= 2 for n in looks)
    rising = rising and all(one < two for one, two in pairwise(looks))
    need(rising, "rule.looks", looks, "rising numbers of seeds from 2 on")
    for name in ("precision", "margin"):
        points = number(rule[name])
        good = (points is not None and 0 < points <= 100) or (name == "precision" and rule[name] is None)
        need(good, f"rule.{name}", rule[name], "AP points above 0, at most 100")
    need(taken == looks[: len(taken)], "taken", taken, f"the looks {looks} from the first on")
    pairs: set[Pair] = set()
    for index, each in enumerate(there["comparisons"]):
        good = isinstance(each, dict) and isinstance(each.get("signatures"), list)
        names = [each.get("arm"), each.get("control"), *each["signatures"]] if good else []
        good = len(names) == 4 and all(isinstance(name, str) for name in names)
        need(good, f"comparisons[{index}]", each, "arm, control and their two signatures")
        pairs.add((each["arm"], each["control"]))
    for index, row in enumerate(there["decided"]):
        place = f"decided[{index}]"
        known = [f.name for f in fields(Row)]
        need(isinstance(row, dict) and set(row) == set(known), place, row, ", ".join(known))
        pair = (row["arm"], row["control"])
        need(pair in pairs, f"{place}: arm and control", pair, "a pair of `comparisons`, each once")
        pairs.remove(pair)
        words = get_args(Outcome)
        need(row["word"] in words, f"{place}.word", row["word"], "; ".join(words))
        need(row["seeds"] in taken, f"{place}.seeds", row["seeds"], f"a look of `taken`, {taken}")
        for name in ("delta", "low", "high", "half_width", "finished", "lost"):
            need(number(row[name]) is not None, f"{place}.{name}", row[name], "a number")
    return there


_KINDS = (
    ("rule", dict, "an object"),
    ("profile", str, "a name"),
    ("fingerprint", str, "that of the data"),
    ("comparisons", list, "a list"),
    ("begun", str, "a time"),
    ("taken", list, "a list"),
    ("decided", list, "a list"),
)


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
        try:
            found = fit(layout.scores)
        except ValueError:
            continue
        known.append((Scatter(found.variance, found.freedom), len(layout.arms)))
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
