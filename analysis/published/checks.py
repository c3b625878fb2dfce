"""Comparing what is published with what is found again: number by number, and texts by their numbers."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

# Columns and keys that the code words; what stands in others is a fact.
WORDED = frozenset({"table", "row", "status", "why", "lacks", "against"})
# A measured number in a text has decimals, and is not that of a section.
MEASURED = re.compile(r"(?<![\w.])(?<!section )[+-]?\d+\.\d+(?:e[+-]?\d+)?(?!\w)")
PRINTED = 6  # significant digits in the data of the figures
SHOWN = 3  # differences named of a check
UNREADABLE = (ValueError, OSError, EOFError, zlib.error, csv.Error, RecursionError)
Close = Callable[[str, float, float], bool]  # key, published number, number found again -> equal


def same_score(_: str, a: float, b: float) -> bool:
    """Whether scores are equal that were summed from the same detections."""
    return math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12)


def same_value(_: str, a: float, b: float) -> bool:
    """Whether numbers are equal that were computed from scores; NaN equals NaN."""
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(a) and math.isnan(b))


def same_printed(exact: pd.DataFrame) -> Close:
    """Whether a number of a figure is that of the frame, rounded to the digits in which it is printed.

    What is 0 but for rounding is measured by the largest number of its column.
    """
    numbers = exact.select_dtypes("number")
    dust = {str(name): 1e-12 * float(column.abs().max()) for name, column in numbers.items()}

    def close(column: str, a: float, b: float) -> bool:
        if not math.isfinite(b):
            return same_value(column, a, b)
        half = 0.5 * 10.0 ** (math.floor(math.log10(abs(b))) - PRINTED + 1) if b else 0.0
        return abs(a - b) <= half + max(1e-9 * abs(b), dust.get(column, 0.0))

    return close


@dataclass
class Check:
    """One kind of comparison: how many were made, and what they found."""

    name: str
    why: str = ""  # some numbers are not derived again
    done: int = 0
    not_derived: int = 0
    differences: list[str] = field(default_factory=list)
    wording: list[str] = field(default_factory=list)  # other words around the same numbers

    def fail(self, what: str) -> None:
        """Count a comparison that could not be made, or failed."""
        self.done += 1
        self.differences.append(what)

    def compare(
        self, place: str, old: Any, new: Any, close: Close | None = None, worded: Container[str] = WORDED
    ) -> None:
        """Count a comparison of a published JSON value with the one found again.

        Args:
            place: where they are, for messages.
            old, new: the values; numbers that `new` has as floats are compared by `close`.
            worded: keys of texts that the code words.
        """

        def walk(place: str, key: str, a: Any, b: Any) -> None:
            if isinstance(a, dict) and isinstance(b, dict):
                if a and b and not a.keys() & b.keys():
                    self.differences.append(f"{place}: no column is the same")
                for each in dict.fromkeys([*b, *a]):
                    if each in a and each in b:
                        walk(f"{place}: {each}", each, a[each], b[each])
                    else:  # another version of the code may have others
                        said = "not published" if each in b else "made no more"
                        self.wording.append(f"{place}: {each} is {said}")
            elif isinstance(a, list) and isinstance(b, list):
                if len(a) != len(b):
                    self.differences.append(f"{place}: {len(a)} values are published, not {len(b)}")
                for count, (x, y) in enumerate(zip(a, b, strict=False), 1):
                    walk(f"{place}, {count}", key, x, y)
            elif a != b or isinstance(a, bool) != isinstance(b, bool):
                number = isinstance(a, int | float) and isinstance(b, float) and not isinstance(a, bool)
                if not (number and close is not None and close(key, a, b)):
                    words = key in worded and a and b and isinstance(a, str) and isinstance(b, str)
                    (self.wording if words else self.differences).append(_unequal(place, a, b))

        self.done += 1
        walk(place, "", old, new)

    def file(self, name: str, old: bytes, new: bytes, frame: pd.DataFrame | None = None) -> None:
        """Count a comparison of a published file with the same made again; of a figure, from its `frame`."""
        try:
            if old == new:
                self.done += 1
            elif frame is not None:
                frame = frame.astype(dict.fromkeys(frame.select_dtypes("float32"), "float64"))
                exact = columns(frame.to_csv(index=False, lineterminator="\n"))
                self.compare(name, loaded(name, old), exact, same_printed(frame), frame.columns)
            elif isinstance(again := loaded(name, new), str):
                self._text(name, loaded(name, old), again)
            else:
                self.compare(name, loaded(name, old), again, same_value)
        except UNREADABLE as error:
            self.fail(f"{name} cannot be read: {type(error).__name__}: {error}")

    def _text(self, name: str, old: str, new: str) -> None:
        self.done += 1
        start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(new))
        place = f"{name}: line {old.count(chr(10), 0, start) + 1}"
        self.wording.append(_unequal(place, old[start:], new[start:]))
        had, has = (Counter(MEASURED.findall(text)) for text in (old, new))
        if had != has:
            gone, come = (" ".join((a - b).elements()) for a, b in ((had, has), (has, had)))
            self.differences.append(_unequal(f"{name}: numbers", gone, come))

    def join(self, other: Check) -> None:
        """Take over what the same check found elsewhere."""
        self.done += other.done
        self.not_derived += other.not_derived
        self.differences += other.differences
        self.wording += other.wording

    @property
    def line(self) -> str:
        """`ok      COCO's twelve numbers: 168 compared, all equal`."""
        found = self.differences or self.wording
        word, equal = "ok     ", f"{self.done} compared, all equal" if self.done else "none compared"
        if self.differences:
            s = "s" if len(found) != 1 else ""
            word, equal = "DIFFERS", f"{len(found)} difference{s} in {self.done} compared"
        elif self.wording:
            word, equal = "WORDING", f"{self.done} compared, numbers equal"
        skipped = f"; {self.not_derived} not re-derived ({self.why})" if self.not_derived else ""
        more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        return "\n        ".join([f"{word} {self.name}: {equal}{skipped}", *found[:SHOWN], *more])


def _unequal(place: str, old: object, new: object) -> str:
    return f"{place}: {old!r:.80} is published, {new!r:.80} was found"


def loaded(name: str, data: bytes) -> Any:
    """What a file holds: JSON, the columns of a CSV file, else a text. Raises one of UNREADABLE."""
    text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
    if name.endswith(".json"):
        return json.loads(text)
    return columns(text) if name.endswith((".csv", ".csv.gz")) else text


def columns(text: str) -> dict[str, list[int | float | str]]:
    """The columns of a CSV file, numbers as numbers. Raises one of UNREADABLE."""
    head, *rows = list(csv.reader(io.StringIO(text), strict=True))
    if wrong := [number for number, row in enumerate(rows, 2) if len(row) != len(head)]:
        raise ValueError(f"line {wrong[0]} has not {len(head)} values")
    return {name: [_value(row[place]) for row in rows] for place, name in enumerate(head)}


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
