"""What the catalogue holds: a figure of a study, with the words around it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from ablations.table import Table
from analysis.study import Study

SCORES, CURVES = "Scores", "Training"
IMPLICIT, DIFFERENCES = "Implicit knowledge", "Differences"
SECTIONS = (SCORES, IMPLICIT, CURVES, DIFFERENCES)  # in the order of the report


@dataclass(frozen=True)
class Drawing:
    """A figure: `data` of a study gives the frame that `draw` draws.

    Both raise NothingToShow where there is nothing to show. `name` is that of its files. Figures that draw
    the same frame share a file of data: `data_of` names the one that it is named after.
    """

    name: str
    title: str
    caption: str
    section: str
    data: Callable[[Study], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]
    data_of: str | None = None

    @property
    def csv(self) -> str:
        """The file of its data, below a report or a published folder."""
        return f"figures/{self.data_of or self.name}.csv"


def table_anchor(table: Table) -> str:
    """What a table's figures, files and part of a page are named after: letters, digits and `-`.

    Names that differ give names that differ, whatever signs they have.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", table.name.lower()).strip("-")
    if plain == table.name.lower():
        return f"table-{plain}"
    return f"table-{plain}-{hashlib.sha256(table.name.encode()).hexdigest()[:6]}"
