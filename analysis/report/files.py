"""The files of a report: figures with their data, in a folder that is replaced as a whole or not at all."""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ablations.profiles import profile_named
from analysis.errors import NothingToShow
from analysis.figures.catalogue import Drawing, drawings
from analysis.figures.style import svg
from analysis.study import Study
from yolor_core.errors import YolorError
from yolor_core.runs.directory import umask

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
        new.chmod(0o777 & ~umask())
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


LARGE = 1_000_000  # bytes of a CSV that is packed
DIGITS = "%.6g"
JPEG = "data:image/jpeg"  # how photographs are embedded
Watch = Callable[[Sequence[Drawing]], Iterable[Drawing]]  # passes figures on, and says how far they are
BOX = re.compile(r'viewBox="[\d.]+ [\d.]+ ([\d.]+) ([\d.]+)"')


@dataclass(frozen=True)
class Shown:
    """A figure of the report: its files relative to the report, or why there is nothing to show."""

    drawing: Drawing
    nothing: str | None = None
    failed: bool = False  # whether that is a fault, and not for want of runs
    svg: str = ""
    csv: str = ""
    rows: int = 0
    width: int = 0  # points
    height: int = 0
    inline: str = ""  # the SVG itself where it has photographs, which a page must not invert in the dark


def write_figures(
    study: Study, folder: Path, shown: Sequence[Drawing] | None = None, watch: Watch = iter
) -> list[Shown]:
    """Draw the catalogue, or what is `shown` of it, into `folder`/figures.

    Those of a profile whose numbers mean nothing say so across the picture.
    """
    (folder / "figures").mkdir()
    return [_write(each, study, folder) for each in watch(drawings(study) if shown is None else shown)]


def _write(drawing: Drawing, study: Study, folder: Path) -> Shown:
    try:
        data = drawing.data(study)
        text = svg(drawing.draw(data), drawing.title, drawing.caption, drawing.name)
    except NothingToShow as reason:
        return Shown(drawing, nothing=str(reason))
    except Exception as error:  # one figure must not cost the report
        return Shown(drawing, nothing=f"It could not be drawn: {type(error).__name__}: {error}", failed=True)
    path = f"figures/{drawing.name}.svg"
    found = BOX.search(text)
    width, height = (round(float(found[1])), round(float(found[2]))) if found else (504, 300)
    if not profile_named(study.profile).meaningful:
        text = text.replace("</svg>", f"{_watermark(study.profile, width, height)}</svg>")
    (folder / path).write_text(text, encoding="utf-8")
    csv, content = csv_file(data, drawing.csv)
    (folder / csv).write_bytes(content)
    inline = text if JPEG in text else ""
    return Shown(drawing, None, False, path, csv, len(data), width, height, inline)


def _watermark(profile: str, width: int, height: int) -> str:
    """SVG text from corner to corner."""
    said = f"{profile}: the numbers mean nothing"
    size, angle = 1.5 * math.hypot(width, height) / len(said), -math.degrees(math.atan2(height, width))
    return (
        f'<text x="{width / 2}" y="{height / 2}" text-anchor="middle" dominant-baseline="middle" '
        f'transform="rotate({angle:.1f} {width / 2} {height / 2})" '
        f'style="font: {size:.0f}px sans-serif; fill: #B00020; fill-opacity: 0.3">{said}</text>\n'
    )


def csv_file(data: pd.DataFrame, name: str) -> tuple[str, bytes]:
    """The name and content of a frame's file: CSV, packed where it is large."""
    text = data.to_csv(index=False, float_format=DIGITS, lineterminator="\n").encode()
    return (f"{name}.gz", gzip.compress(text, mtime=0)) if len(text) > LARGE else (name, text)
