"""The catalogue's figures as files: an SVG, and its data as CSV beside it."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.errors import NothingToShow
from analysis.figures.catalogue import Drawing, drawings
from analysis.figures.style import svg
from analysis.study import Study

LARGE = 1_000_000  # bytes of a CSV that is packed
DIGITS = "%.6g"
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


def write_figures(study: Study, folder: Path, shown: Iterable[Drawing] | None = None) -> list[Shown]:
    """Draw the catalogue, or what is `shown` of it, into `folder`/figures."""
    (folder / "figures").mkdir()
    return [_write(each, study, folder) for each in (drawings(study) if shown is None else shown)]


def _write(drawing: Drawing, study: Study, folder: Path) -> Shown:
    try:
        data = drawing.data(study)
        text = svg(drawing.draw(data), drawing.title, drawing.caption, drawing.name)
    except NothingToShow as reason:
        return Shown(drawing, nothing=str(reason))
    except Exception as error:  # one figure must not cost the report
        return Shown(drawing, nothing=f"It could not be drawn: {type(error).__name__}: {error}", failed=True)
    path = f"figures/{drawing.name}.svg"
    (folder / path).write_text(text, encoding="utf-8")
    found = BOX.search(text)
    width, height = (round(float(found[1])), round(float(found[2]))) if found else (504, 300)
    csv, content = csv_file(data, drawing.csv)
    (folder / csv).write_bytes(content)
    return Shown(drawing, svg=path, csv=csv, rows=len(data), width=width, height=height)


def csv_file(data: pd.DataFrame, name: str) -> tuple[str, bytes]:
    """The name and content of a frame's file: CSV, packed where it is large."""
    text = data.to_csv(index=False, float_format=DIGITS, lineterminator="\n").encode()
    return (f"{name}.gz", gzip.compress(text, mtime=0)) if len(text) > LARGE else (name, text)
