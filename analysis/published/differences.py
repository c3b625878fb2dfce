"""What differs between a published text and the same text made again: a number, or only its wording.

Numbers are compared as numbers, so that the last digit of a sum may be another on another processor. Words
are told apart, because captions and notes are worded by the code, which may have been reworded since.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

import pandas as pd

EXACT = 1e-12  # relative: a score summed again from the same detections
CLOSE = 1e-9  # relative: what is computed from scores
DUST = 1e-12  # what is 0 but for rounding: as it is, or relative to the largest of its column
PRINTED = 6  # significant digits in the data of the figures
# Columns and keys that the code words; what stands in others is a fact.
WORDED = frozenset({"table", "row", "status", "why", "lacks", "against"})
# Words that are results wherever they stand in a table.
VERDICTS = (
    "not reproduced", "reproduced", "undecided", "same sign", "opposite sign", "no verdict",
    "not told from 0", "one pair, no interval", "higher", "lower",
)  # fmt: skip
TOKEN = re.compile(
    rf"(?P<verdict>\b(?:{'|'.join(VERDICTS)})\b)"
    # Neither a hash nor part of a name (P3, csp-fast.add-fa-mini-s0), but 42 in "42 %" and "(42)".
    r"|(?P<number>(?<![\w.])[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?!\w))"
    r"|(?P<word>[\w.×⊕*-]+|[^\w\s])"
)
TABULAR = re.compile(r"^\|.*\|$|<t[dh]>|(?<!\\)&.*\\\\$")
COLUMN = re.compile(r" {2,}\S")  # a line of a table in plain text


@dataclass
class Found:
    """Differences, in words: of numbers and other facts, and of mere wording."""

    facts: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Token:
    """A piece of text; a number or verdict in a table is a fact."""

    kind: str
    text: str
    tabular: bool


def close(a: float, b: float, relative: float = CLOSE, dust: float = DUST) -> bool:
    """Whether two numbers are the same but for rounding; NaN equals NaN."""
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b or abs(a - b) <= max(relative * max(abs(a), abs(b)), dust)


def text_differences(name: str, published: bytes, again: bytes, exact: pd.DataFrame | None = None) -> Found:
    """How a published file differs from the same file made again.

    Args:
        name: of the file, whose ending says how it is read.
        published, again: the contents.
        exact: the numbers of a figure, of which `again` has `PRINTED` digits.
    """
    found = Found()
    if published == again:
        return found
    try:
        if name.endswith(".gz"):
            published, again = gzip.decompress(published), gzip.decompress(again)
        texts = published.decode(), again.decode()
        if name.endswith(".json"):
            values = [json.loads(text) for text in texts]
            json_differences(values[0], values[1], name, found)
        elif name.endswith((".csv", ".csv.gz")):
            rows = [list(csv.reader(io.StringIO(text), strict=True)) for text in texts]
            _tables(name, rows[0], rows[1], exact, found)
        else:
            _texts(name, *texts, found)
    except (ValueError, OSError, EOFError, zlib.error, csv.Error, RecursionError) as error:
        found.facts.append(f"{name} cannot be read: {type(error).__name__}: {error}")
    return found


def json_differences(
    published: Any, again: Any, where: str, found: Found, relative: float = CLOSE, worded: bool = False
) -> None:
    """Add to `found` how two JSON values differ at `where`; `worded`: a text there is worded by the code."""
    if isinstance(published, dict) and isinstance(again, dict):
        for key in dict.fromkeys([*again, *published]):
            place = f"{where}: {key}"
            if key not in published or key not in again:
                found.words.append(f"{place} is {'not published' if key in again else 'made no more'}")
                continue
            json_differences(published[key], again[key], place, found, relative, key in WORDED)
    elif isinstance(published, list) and isinstance(again, list):
        if len(published) != len(again):
            found.facts.append(f"{where}: {len(published)} values are published, not {len(again)}")
        for count, (a, b) in enumerate(zip(published, again, strict=False), 1):
            json_differences(a, b, f"{where}, {count}", found, relative, worded)
    elif not _same(published, again, relative):
        both_words = isinstance(published, str) and isinstance(again, str)
        (found.words if worded and both_words else found.facts).append(unequal(where, published, again))


def unequal(where: str, published: object, again: object) -> str:
    """A difference in words."""
    return f"{where}: {published!r:.80} is published, {again!r:.80} was found"


def _same(a: Any, b: Any, relative: float) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, float) and isinstance(b, float):
        return close(a, b, relative)
    return type(a) is type(b) and bool(a == b)


def _tables(
    name: str,
    published: Sequence[Sequence[str]],
    again: Sequence[Sequence[str]],
    exact: pd.DataFrame | None,
    found: Found,
) -> None:
    """Two CSV files, by the columns that they share."""
    if not published or not again:
        found.facts.append(f"{name} is empty")
        return
    head, now = list(published[0]), list(again[0])
    if head != now:
        found.words.append(f"{name}: columns {', '.join(head)} are published, not {', '.join(now)}"[:300])
        if len(head) == len(now) and not set(head) & set(now):
            head = now
    shared = [column for column in now if column in head]
    if not shared:
        found.facts.append(f"{name}: no column is the same")
    if len(published) != len(again):
        found.facts.append(f"{name}: {len(published) - 1} lines are published, not {len(again) - 1}")
    dust = {} if exact is None else _dust(exact)
    for line, (a, b) in enumerate(zip(published[1:], again[1:], strict=False), 1):
        if len(a) != len(head) or len(b) != len(now):
            found.facts.append(f"{name}: line {line + 1} has {len(a)} values")
            continue
        for column in shared:
            x, y = a[head.index(column)], b[now.index(column)]
            if x == y:
                continue
            place = f"{name}: line {line + 1}, {column}"
            value, other = _number(x), _number(y)
            if value is not None and other is not None:
                if column in dust and exact is not None:
                    same = _printed(value, float(exact[column].iloc[line - 1]), dust[column])
                else:
                    same = close(value, other)
                if not same:
                    found.facts.append(unequal(place, value, other))
            elif value is None and other is None and x and y and (exact is not None or column in WORDED):
                found.words.append(unequal(place, x, y))
            else:
                found.facts.append(unequal(place, x, y))


def _dust(exact: pd.DataFrame) -> Mapping[str, float]:
    """What counts as 0 in each column of fractions."""
    return {
        str(name): DUST * float(column.abs().max())
        for name, column in exact.items()
        if pd.api.types.is_float_dtype(column)
    }


def _printed(published: float, exact: float, dust: float) -> bool:
    """Whether a number with `PRINTED` digits is the rounded `exact`, give or take rounding in the latter."""
    if exact == 0 or not math.isfinite(exact):
        return close(published, exact, dust=dust)
    half = 0.5 * 10.0 ** (math.floor(math.log10(abs(exact))) - PRINTED + 1)
    return abs(published - exact) <= half + max(CLOSE * abs(exact), dust)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _texts(name: str, published: str, again: str, found: Found) -> None:
    """Two texts with tables in them, line by line where they differ."""
    lines, wanted = published.splitlines(), again.splitlines()
    for what, a, b, c, d in SequenceMatcher(None, lines, wanted, autojunk=False).get_opcodes():
        if what == "equal":
            continue
        place = f"{name}: line {min(a + 1, len(lines))}"
        old, new = list(_tokens(lines[a:b])), list(_tokens(wanted[c:d]))
        for kind, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if kind == "equal":
                continue
            x, y = old[i:j], new[k:m]
            said = unequal(place, " ".join(t.text for t in x), " ".join(t.text for t in y))
            (found.facts if _of_facts(x, y) else found.words).append(said)
    if not found.facts and not found.words:
        found.words.append(f"{name}: other spaces or empty lines")


def _of_facts(published: Sequence[Token], again: Sequence[Token]) -> bool:
    """Whether pieces of text at the same place differ in a number or a verdict.

    In a table all of these are facts. In a sentence a number is one where both versions have some, or where
    nothing but it differs; else it came or went with the words around it.
    """
    if not _equal(*([t for t in side if t.tabular and t.kind != "word"] for side in (published, again))):
        return True
    x, y = ([t for t in side if t.kind == "number"] for side in (published, again))
    words = any(t.kind != "number" for t in (*published, *again))
    return not _equal(x, y) and bool((x and y) or not words)


def _equal(published: Sequence[Token], again: Sequence[Token]) -> bool:
    for a, b in zip_longest(published, again):
        if a is None or b is None or a.kind != b.kind:
            return False
        x, y = _number(a.text), _number(b.text)
        if a.text != b.text and (x is None or y is None or not close(x, y)):
            return False
    return True


def _tokens(lines: Sequence[str]) -> Iterator[Token]:
    for line in lines:
        tabular = bool(TABULAR.search(line) or COLUMN.search(line))
        for each in TOKEN.finditer(line):
            yield Token(str(each.lastgroup), each[0], tabular)
