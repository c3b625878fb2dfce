"""Writing a folder so that an interruption leaves the old one, and nothing that is no report is replaced."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from yolor_core.errors import YolorError

MARKER = "report.json"  # says that `ablate report` made a folder, and from what
MAKER = "ablate report"
ENTRIES = frozenset({MARKER, "index.html", "assets", "experiments", "figures", "runs", "tables"})


@dataclass(frozen=True)
class Kind:
    """What a folder of this kind is called, and how one is known."""

    noun: str
    maker: str
    marker: str  # the JSON file in it whose "made by" is the maker
    entries: frozenset[str]  # all that it may hold


REPORT = Kind("a report", MAKER, MARKER, ENTRIES)


class NotAReportError(YolorError):
    """A folder that would be replaced holds something else than a report (or what else is written)."""


@contextmanager
def replaced(target: Path, kind: Kind = REPORT) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `target` when the block ends without an error.

    Raises NotAReportError where `target` is there and is none of this kind, or holds more than one.
    """
    target = target.absolute().resolve()
    previous = target.with_name(f".{target.name}.previous")
    if previous.exists() and not target.exists():
        os.rename(previous, target)  # the last report was interrupted between its two renames
    _check(target, kind)
    target.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        yield new
        new.chmod(0o777 & ~_umask())
        shutil.rmtree(previous, ignore_errors=True)
        if target.exists():
            os.rename(target, previous)
        os.rename(new, target)
        shutil.rmtree(previous, ignore_errors=True)
    except BaseException:
        if previous.exists() and not target.exists():
            os.rename(previous, target)
        shutil.rmtree(new, ignore_errors=True)
        raise


def _check(target: Path, kind: Kind) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise NotAReportError(f"{target} is a file; name a folder with --out")
    names = {path.name for path in target.iterdir()}
    if not names:
        return
    if not is_of(target, kind):
        raise NotAReportError(
            f"{target} is not empty and was not made by `{kind.maker}`; name another folder with --out"
        )
    if strange := sorted(names - kind.entries):
        raise NotAReportError(
            f"{target} holds {', '.join(strange[:3])}, which is no part of {kind.noun} and would be lost; "
            "move it away, or name another folder with --out"
        )


def is_of(folder: Path, kind: Kind) -> bool:
    """Whether a folder says that it was made by this kind's maker."""
    try:
        content = json.loads((folder / kind.marker).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("made by") == kind.maker


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
