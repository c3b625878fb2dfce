"""The file of a plan of seeds: the rule, the comparisons, and the rows that have stopped.

`stopping/NAME.json` beside a results folder's `runs` holds it, so that a launch that was interrupted goes on
by the same rule. docs/seeds.md describes the file, `analysis.stopping` what a look decides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from analysis.design import Pair
from analysis.statistics.blocks import Outcome
from analysis.statistics.stopping import Look, repeated
from yolor_core.runs.directory import number, read_json, unreadable

SCHEMA = 1
FOLDER = "stopping"
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

    @property
    def sentence(self) -> str:
        """What a reader of the intervals has to know of it."""
        if self.precision is not None:
            return f"seeds were added {self}, a rule that looks at no sign, so that these intervals are plain"
        return (
            f"repeated: seeds were added {self}, {self.looks[-1]} at most, and interval, p and verdict are "
            "those of the look at which the row stopped, widened so that a word is false with at most 5 % "
            "over all looks"
        )


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


def plan_name(content: Mapping[str, Any]) -> str:
    """Of the file of a plan: for these comparisons, on these data."""
    signed = (each["signatures"] for each in content["comparisons"])
    named = sorted(f"{arm} {control} {content['fingerprint']}" for arm, control in signed)
    return f"{hashlib.sha256(json.dumps(named).encode()).hexdigest()[:10]}.json"


def read_plan(path: Path) -> dict[str, Any]:
    """What a plan's file holds.

    Raises RunError, naming the field and what is allowed, where that is not what a launch writes.
    """
    there = read_json(path, REMEDY) or {}

    def need(good: bool, field: str, value: object, allowed: str) -> None:
        if not good:
            raise unreadable(path, f"{field} is {value!r:.60}; allowed: {allowed}", REMEDY)

    need(there.get("schema") == SCHEMA, "schema", there.get("schema"), str(SCHEMA))
    for name, kind, allowed in _KINDS:
        need(isinstance(there.get(name), kind), name, there.get(name), allowed)
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
    named = plan_name(there)
    need(path.name == named, "the name", path.name, f"{named}, by comparisons and fingerprint")
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
