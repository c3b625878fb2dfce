"""Atomic writes: temporary file in the same folder, fsync, `os.replace`."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from yolor_core.errors import RunError


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step.

    A reader sees the old file or the new one, never a part. On an error the old file stays.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # not the temporary one; a full disk names none
        raise


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN is refused, because it is not JSON."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, or None where there is no such file.

    Raises RunError, naming the file and the remedy, for a file that cannot be read or holds anything else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, why(error)) from None
    if not isinstance(value, dict):
        raise unreadable(path, f"holds {type(value).__name__}, not an object")
    return value


def unreadable(path: Path, reason: str) -> RunError:
    """The error for a damaged file of a run: which one, why, and what to do."""
    reason = reason.strip().rstrip(".")
    return RunError(
        f"{path} cannot be read: {reason}. Remove the file, or the folder {path.parent} to run it anew"
    )


def why(error: Exception) -> str:
    """What is wrong with a file, in a few words without its name."""
    if isinstance(error, UnicodeDecodeError):
        return f"not text (byte {error.start} is 0x{error.object[error.start]:02x})"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error})" if error.doc.strip() else "it is empty"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"


def number(value: object) -> int | float | None:
    """The value where it is a finite number, None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def cache_folder() -> Path:
    """Where what was computed is remembered: ABLATE_CACHE, else the user's cache folder."""
    folder = os.environ.get("ABLATE_CACHE")
    return Path(folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ablate")


def write_cache(path: Path, content: object) -> None:
    """Write JSON in one step, or nothing where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_text(json.dumps(content))
        os.replace(partial, path)
    except OSError:
        pass  # a read-only home costs time, not correctness
