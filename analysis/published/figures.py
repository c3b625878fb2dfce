"""The numbers behind the figures of a published folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

from analysis.catalogue import drawings
from analysis.nothing import NothingToShow
from analysis.report.figures import write_csv
from analysis.study import Study


def figure_data(study: Study) -> dict[str, bytes]:
    """{path in the folder: content} of the CSV of every figure that shows something, as a report has it."""
    found = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "figures").mkdir()
        for drawing in drawings(study):
            try:
                data = drawing.data(study)
            except NothingToShow:
                continue
            name = write_csv(data, folder, f"figures/{drawing.name}.csv")
            found[name] = (folder / name).read_bytes()
    return found
