"""Two runs that are worth a closer look: a variant and its baseline, where they differ most."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from analysis.cells import FAMILY
from analysis.errors import NothingToShow
from analysis.seed_plans import variants
from analysis.tables import FilledTable


def most_different(filled: Iterable[FilledTable]) -> tuple[Path, Path]:
    """The folders of a baseline's run and a variant's: of the row whose AP differs most, the lowest seed.

    Raises NothingToShow where no row and its baseline have finished on the same seed and data.
    """
    best: tuple[float, pd.DataFrame] | None = None
    for each in filled:
        rows = {row.label: row for row in each.table.rows}
        for cell in variants(each):
            base = each.table.baseline(rows[cell.row], FAMILY).slug
            if cell.delta is None or cell.experiment is None or base is None:
                continue
            if best is None or abs(cell.delta) > best[0]:
                best = abs(cell.delta), paired(each.runs[base], each.runs[cell.experiment])
    if best is None:
        raise NothingToShow("No row and its baseline have both finished with the same seed yet.")
    first = best[1].dropna(subset=[FAMILY, f"{FAMILY} other"]).iloc[0]
    return Path(first["path"]), Path(first["path other"])


def paired(runs: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Runs beside others of the same seed and data, whose columns end in ` other`; by seed."""
    both = runs.merge(others, on=["seed", "fingerprint"], suffixes=("", " other"))
    return both.sort_values(["seed", "run", "run other"], ignore_index=True)
