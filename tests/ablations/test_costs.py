"""Table 7's parameters and MFLOPs, to the last digit, and what each table says a row costs."""

from __future__ import annotations

import pytest

from ablations.costs import model_cost
from ablations.registry import paper, table_named
from ablations.table import Row, Table

COUNTABLE = [(t, r) for t in paper().tables for r in t.rows if r.extra_parameters is not None]


@pytest.mark.parametrize("row", table_named("7").rows, ids=lambda row: row.label)
def test_table_7_is_equal_to_the_paper_to_the_last_digit(row: Row) -> None:
    cost, printed = model_cost(row.experiment), table_named("7").paper()[row.label]
    assert cost.parameters == printed["parameters"]
    assert cost.mflops == printed["MFLOPs"]


def test_counting_every_level_differs_for_the_four_level_model_alone() -> None:
    costs = [model_cost(row.experiment) for row in table_named("7").rows]
    extra = [round(cost.mflops_all_levels - cost.mflops, 4) for cost in costs]
    assert extra == [0, 0, 0, round(255 * 20 * 20 / 1e6, 4)]  # P6 of 1280 pixels is 20 x 20 cells


@pytest.mark.parametrize(("table", "row"), COUNTABLE, ids=[f"{t.name}-{r.label}" for t, r in COUNTABLE])
def test_stated_extra_parameters_are_those_of_the_model(table: Table, row: Row) -> None:
    base = table.baseline(row)
    extra = model_cost(row.experiment).parameters - model_cost(base.experiment).parameters
    assert row.extra_parameters == extra
