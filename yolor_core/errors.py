"""Errors that a user can act on. Each message names the thing, the value and what is allowed.

And the words for lists and numbers of things in sentences.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def some_of(words: Sequence[object], most: int = 8, between: str = ", ") -> str:
    """A list in a sentence, cut where it is long: `a, b and 3 more`."""
    more = f"{'; ' if between == '; ' else ' '}and {len(words) - most} more" if len(words) > most else ""
    return between.join(map(str, words[:most])) + more


def counted(count: int, thing: str) -> str:
    """`1 run`, `2 runs`, `3 boxes`, `2 identities`."""
    if count == 1:
        return f"1 {thing}"
    if thing.endswith("y"):
        return f"{count:,} {thing[:-1]}ies"
    return f"{count:,} {thing}{'es' if thing.endswith(('x', 's')) else 's'}"


class YolorError(Exception):
    """Base of all errors caused by input; the command line prints them without a traceback.

    `final`: trying again without a change would end the same way.
    """

    final = True


class ConfigError(YolorError, ValueError):
    """A configuration field has a value that is not allowed."""


class UnknownNameError(YolorError, KeyError):
    """A name (experiment, table, field, profile, model ...) that is not registered."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name = kind, name
        self.known = sorted(set(known))
        super().__init__(unknown_name(kind, name, self.known))

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])


class DataError(YolorError, ValueError):
    """A dataset or annotation file that cannot be used as it is."""


class InputError(YolorError, ValueError):
    """Images a model cannot take: wrong shape, type or size."""


class FoldingError(YolorError, ValueError):
    """Something that cannot be merged into a convolution, or a use that a folded model no longer allows."""


class RunError(YolorError):
    """A run directory that cannot be used: locked by another process, or of another configuration."""


class RankLostError(RunError):
    """Another process that trained along is gone, silent, or has failed and says itself why."""

    final = False


class BusyError(RunError):
    """Another process holds the run."""

    final = False


class WeightsError(YolorError, ValueError):
    """A weights file that is damaged, unsafe, or of another model; or a model that a format cannot hold."""


SHORT = 80  # characters of a list of names that is printed whole


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Sentence that names an unknown thing: with all allowed names where they are few, else the near ones."""
    names = sorted(set(known))
    near = _near(name, names)
    listed = ", ".join([*near, *(n for n in names if n not in near)])
    if len(listed) <= SHORT:
        return f"unknown {kind} {name!r}; allowed: {listed or 'none'}"
    if near:
        return f"unknown {kind} {name!r}; did you mean {' or '.join(near)}?"
    return f"unknown {kind} {name!r}; none of the {len(names)} is near, e.g. {', '.join(names[:3])}"


def _near(name: str, names: Iterable[str]) -> list[str]:
    """At most three, best first: names of one beginning are all alike, so only those like the best count."""
    like = {known: difflib.SequenceMatcher(None, known, name).ratio() for known in names}
    least = max(0.6, max(like.values(), default=0) - 0.1)
    return sorted((known for known in like if like[known] >= least), key=lambda known: -like[known])[:3]


def summary(error: BaseException) -> str:
    """An error in one line: its message where it is one of ours, else its kind and message."""
    message = " ".join(str(error).split())
    if isinstance(error, YolorError):
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def json_kind(value: object) -> str:
    """What a value of a JSON file is called there, e.g. "an object" for a dict."""
    kinds = {bool: "true or false", dict: "an object", list: "a list", str: "text", type(None): "null"}
    return kinds.get(type(value), "a number")
