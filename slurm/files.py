"""Small JSON files on a shared file system: replaced in one step, or created by exactly one of many.

And the ends of logs, with what they tell.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LOG_BYTES, LOG_LINES = 20_000, 8
SCRIPT, BEGINNING = "ablate: job script begins", "ablate: run begins"  # lines of ours in the log of a job
MEMORY = ("oom-kill", "out of memory", "oom_kill", "exceeded memory limit", "cannot allocate memory")
NO_TIME = "the time limit came before the run began: the profile's `setup` takes longer than its `time`"
TOO_LATE = "the time limit came before it could save (signal_delay)"
TOO_LITTLE = "out of memory: the job was given less than it needs (memory_gb)"


def replace_json(path: Path, value: Any) -> None:
    """Write a JSON file that readers see whole: the old one or the new one."""
    name = _temporary(path, value)
    try:
        with _named(path):
            os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def create_json(path: Path, value: Any) -> bool:
    """Create a JSON file, whole, unless there is one; whether it was this call that did.

    A hard link is the one thing that all network file systems make for exactly one of several at once; lock
    files of the operating system are not.
    """
    name = _temporary(path, value)
    try:
        os.link(name, path)
    except FileExistsError:
        return False
    finally:
        Path(name).unlink(missing_ok=True)
    return True


def read_json(path: Path, strict: bool = False) -> dict[str, Any] | None:
    """The object in a file; None where there is none or it is damaged.

    strict: raise the OSError of a file that is there and cannot be read now.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, FileNotFoundError):
        return None
    except OSError:
        if strict:
            raise
        return None
    return value if isinstance(value, dict) else None


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Add a line of JSON."""
    with _named(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; damaged lines are left out."""
    found: list[dict[str, Any]] = []
    with suppress(OSError, UnicodeDecodeError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                value = json.loads(line)
                found += [value] if isinstance(value, dict) else []
    return found


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of the block name this file: a full disk names none, and a temporary one says nothing."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def _temporary(path: Path, value: Any) -> str:
    text = json.dumps(value, indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _named(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with _named(path), os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return name


def tail(path: Path | None) -> str:
    """The end of a log; nothing where there is none."""
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - LOG_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def last_lines(text: str, lines: int = LOG_LINES) -> list[str]:
    """The last lines that say something, without our own marks."""
    ours = (SCRIPT, BEGINNING)
    told = [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith(ours)]
    return told[-lines:]


def out_of_memory(log: str) -> bool:
    """Whether a log says that memory ran out."""
    return any(sign in log.lower() for sign in MEMORY)
