"""The paper's cells are data: complete, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

import ablations
from ablations.registry import table_named, tables
from ablations.table import CLASSIFICATION, DETECTION, EMBEDDING, Table

OURS = (*CLASSIFICATION, *EMBEDDING)  # scores that the paper does not print


@pytest.mark.parametrize("table", tables().values(), ids=lambda t: t.name)
def test_every_row_has_every_metric_that_the_paper_prints(table: Table) -> None:
    cells = table.paper()
    printed = [metric for metric in table.metrics if metric not in OURS]
    assert list(cells) == [row.label for row in table.rows]
    assert all(list(row) == printed for row in cells.values())
    assert (table.metrics == (*DETECTION, *OURS)) == (table.name == "3")


def test_number_of_cells() -> None:
    assert sum(len(row) for table in tables().values() for row in table.paper().values()) == 25 * 6 + 4 * 3


@pytest.mark.parametrize(
    ("table", "row", "metric", "value"),
    [
        ("1", "baseline", "AP", 47.8),
        ("1", "+ iFA", "APL", 62.6),
        ("2", "+ iPR", "APL", 61.5),
        ("3", "+ iJDE", "AP", 48.3),
        ("3", "JDC", "APS", 30.8),
        ("4", "× iFA", "AP75", 51.6),
        ("4", "⊕ iFA", "APM", 52.9),
        ("5", "× iPR*", "AP", 48.1),
        ("6", "+ icFA", "AP75", 52.6),
        ("7", "baseline 1", "MFLOPs", 117517.2952),
        ("7", "implicit 2", "parameters", 37265016),
        ("8", "fine-tuned implicit", "AP", 52.5),
    ],
)
def test_known_cells(table: str, row: str, metric: str, value: float) -> None:
    assert table_named(table).paper()[row][metric] == value


def test_an_experiment_has_the_same_cells_in_every_table() -> None:
    seen: dict[tuple[str, str], float] = {}
    for table in tables().values():
        for row in table.rows:
            for metric, value in table.paper()[row.label].items():
                assert seen.setdefault((row.experiment.slug, metric), value) == value


def test_average_precisions_are_percentages_in_the_order_that_coco_implies() -> None:
    for table in tables().values():
        if table.metrics[:6] == DETECTION:
            for cells in table.paper().values():
                assert 0 < cells["APS"] < cells["APM"] < cells["APL"] < 100
                assert 0 < cells["AP"] < cells["AP75"] < cells["AP50"] < 100


def test_no_source_file_repeats_a_counted_cell() -> None:
    root = Path(ablations.__file__).parent.parent
    sources = [p for part in ("ablations", "analysis", "yolor_core") for p in (root / part).rglob("*.py")]
    printed = {str(c["parameters"]) for c in table_named("7").paper().values()}
    assert len(sources) > 20
    for source in sources:
        text = source.read_text(encoding="utf-8").replace("_", "").replace(" ", "")
        assert not [number for number in printed if number in text], source
