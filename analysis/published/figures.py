"""The figures of a published folder, and the numbers behind them made again."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.errors import NothingToShow
from analysis.figures.catalogue import DIFFERENCES, Drawing, drawings
from analysis.published.evidence import counted_runs
from analysis.report.figures import write_csv
from analysis.study import Study


@dataclass(frozen=True)
class FigureData:
    """The numbers of a figure: its file, and the frame that it was written from."""

    content: bytes = b""
    frame: pd.DataFrame | None = None
    failed: str = ""  # why it could not be made


def published_drawings(study: Study) -> tuple[Drawing, ...]:
    """The catalogue; without figures that show images unless these are synthetic.

    Photographs have licences of their own, and a published folder does not say where they are.
    """
    data = counted_runs(study)["data"].astype(str)
    synthetic = bool(data.str.startswith("shapes").all())
    return tuple(each for each in drawings(study) if synthetic or each.section != DIFFERENCES)


def figure_data(study: Study) -> dict[str, FigureData]:
    """{path in the folder: data} of every figure that shows something, as a report has it.

    Of figures that share a file the first one counts.
    """
    found: dict[str, FigureData] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "figures").mkdir()
        for drawing in published_drawings(study):
            name = drawing.csv
            if drawing.data_of is not None and {name, f"{name}.gz"} & found.keys():
                continue
            try:
                data = drawing.data(study)
            except NothingToShow:
                continue
            except Exception as error:  # one figure must not cost the check of the others
                found[name] = FigureData(failed=f"{type(error).__name__}: {error}")
                continue
            name = write_csv(data, folder, name)
            found[name] = FigureData((folder / name).read_bytes(), data)
    return found
