"""Taking the machine out of a run's files: paths, host and user names, process and job numbers."""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

ABSOLUTE = re.compile(r"(?<![\w.:/~-])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\:;,'\"]+[/\\])*([^\s/\\:;,'\"]*)")
OF_THE_MACHINE = ("host", "pid", "jobs", "heartbeat", "lease")  # fields that name it or its processes
HIDDEN = "-"


def scrub(value: Any, names: Iterable[str]) -> Any:
    """A JSON value without fields of the machine; of absolute paths in its texts the last part is left.

    Args:
        value: of a JSON file.
        names: words that are replaced wherever they stand alone, see `machine_names`.
    """
    words = sorted({name for name in names if name}, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, words))})(?![\w-])") if words else None
    return _scrubbed(value, pattern)


def machine_names(known: Iterable[object] = ()) -> set[str]:
    """The names of this machine and its user, and others that files mention (as state.json's host)."""
    names = {str(name) for name in known if name} | {socket.gethostname(), socket.getfqdn()}
    with suppress(KeyError, OSError):  # a user without a name
        names.add(getpass.getuser())
    return names - {"localhost"}


def _scrubbed(value: Any, pattern: re.Pattern[str] | None) -> Any:
    if isinstance(value, dict):
        return {key: _scrubbed(each, pattern) for key, each in value.items() if key not in OF_THE_MACHINE}
    if isinstance(value, list):
        return [_scrubbed(each, pattern) for each in value]
    if not isinstance(value, str):
        return value
    text = ABSOLUTE.sub(lambda found: found[1] or HIDDEN, value)
    return pattern.sub(HIDDEN, text) if pattern else text
