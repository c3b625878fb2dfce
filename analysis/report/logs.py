"""The end of what a run printed, fit for a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LINES, BYTES, WIDTH = 60, 20_000, 1_000  # of a tail; characters of a line
ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


@dataclass(frozen=True)
class Log:
    """A file's name and the end of its text, without control characters."""

    name: str
    text: str
    cut: bool  # whether the file is longer


def tails(paths: Sequence[Path]) -> list[Log]:
    """The end of every file; one that cannot be read says so in its text."""
    return [_tail(path) for path in paths]


def _tail(path: Path) -> Log:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - BYTES))
            raw = file.read(BYTES)
    except OSError as error:
        return Log(path.name, f"cannot be read: {error.strerror}", False)
    lines = clean(raw.decode("utf-8", errors="replace")).splitlines()
    if size > BYTES and len(lines) > 1:
        lines = lines[1:]  # the first is a part of one
    return Log(path.name, "\n".join(lines[-LINES:]), size > BYTES or len(lines) > LINES)


def clean(text: str) -> str:
    """Text as a terminal leaves it: no escapes, a progress bar's last state, no control characters."""
    lines = []
    for line in ESCAPE.sub("", text).replace("\r\n", "\n").split("\n"):
        shown = line.rstrip("\r").rsplit("\r", 1)[-1].expandtabs(8)
        shown = "".join(c if c.isprintable() else "\ufffd" for c in shown)
        lines.append(shown if len(shown) <= WIDTH else f"{shown[:WIDTH]} ...")
    return "\n".join(lines)
