"""A printed table says which row a difference is against, where that is not the first row."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from ablations.experiments import ADD_FA, ADD_PR, CSP_FAST
from ablations.registry import everything, table_named
from ablations.table import Row, Table
from analysis.runs import load_runs
from analysis.tables.cells import Cell
from analysis.tables.fill import FilledTable, fill_table, footnotes, tidy
from analysis.tables.formats import render

START = "Differences (Δ) are against the first row, "
SAID = {
    "3": f"{START}baseline, but: + iJDC against JDC; + iJDE against JDE.",
    "6x": f"{START}baseline, but: + miFA against + iFA.",
    "7": f"{START}baseline 1, but: implicit 2 against baseline 2.",
    "A1": f"{START}Y4-SSS, but: Y4-SSSS, YOLOR against Y4-SSSS; U5R5-S, YOLOR against U5R5-S.",
    "controls": f"{START}baseline, but: faster bias against + iPR; frozen iFA against + iFA; "
    "folded iFA against + iFA.",
}


@pytest.fixture
def no_runs(tmp_path: Path) -> pd.DataFrame:
    return load_runs(tmp_path)


def filled(table: Table, runs: pd.DataFrame) -> FilledTable:
    return fill_table(table, "mini", runs)


def said(table: Table, runs: pd.DataFrame) -> list[str]:
    return [note for note in filled(table, runs).notes if note.startswith(START)]


@pytest.mark.parametrize("table", everything().tables, ids=lambda table: table.name)
def test_a_table_says_what_its_rows_are_against_where_that_is_not_the_first(
    table: Table, no_runs: pd.DataFrame
) -> None:
    found = said(table, no_runs)
    if table.name == "3x":
        assert len(found) == 1
    else:
        assert found == ([SAID[table.name]] if table.name in SAID else [])


def test_a_row_whose_tasks_have_a_control_each_names_the_task(no_runs: pd.DataFrame) -> None:
    (note,) = said(table_named("3x"), no_runs)
    parts = note.removesuffix(".").split(": ", 1)[1].split("; ")
    assert {"JDC against C alone in classification", "JDE against E alone in embedding"} <= set(parts)
    assert {"C alone + i against C alone", "+ iJDC against JDC"} <= set(parts)
    assert not any(part.startswith(("C alone against", "E alone against")) for part in parts)


def test_a_table_of_ones_own_says_it_too_in_every_format(no_runs: pd.DataFrame) -> None:
    base, variant = Row("base", CSP_FAST, "nothing"), Row("with iFA", CSP_FAST.plus(ADD_FA), "a vector")
    both = Row("both", CSP_FAST.plus(ADD_FA, ADD_PR), "two vectors", against="with iFA")
    own = filled(Table("own", "My rows", (base, variant, both), metrics=("AP", "AP50")), no_runs)
    sentence = f"{START}base, but: both against with iFA."
    for form in ("text", "markdown", "html"):
        assert sentence in render([own], form)
    assert sentence.replace("Δ", r"$\Delta$") in render([own], "latex")
    against = {"base": None, "with iFA": "base", "both": "with iFA"}
    assert {(r["row"], r["against"]) for r in json.loads(render([own], "json"))} == set(against.items())
    assert len(re.findall(r"both,.*,with iFA,not run$", render([own], "csv"), re.MULTILINE)) == 2


def test_no_cell_is_against_a_row_that_can_have_no_such_score(no_runs: pd.DataFrame) -> None:
    cells = tidy([filled(table_named("3x"), no_runs)]).set_index(["row", "metric"])["against"]
    assert cells["JDC", "AP"] == "baseline" and cells["JDC", "cls mAP"] == "C alone"
    for alone in (("C alone", "AP"), ("C alone", "cls mAP"), ("JDC", "task cosine"), ("baseline", "AP")):
        assert pd.isna(cells[alone])


def notes(*cells: Cell) -> tuple[str, ...]:
    table = Table("own", "Mine", (Row("baseline", CSP_FAST, "nothing"),), metrics=("AP",))
    return footnotes(table, cells, {})[0]


def ap(row: str, seeds: tuple[int, ...], left: float | None = None) -> Cell:
    return Cell("1", row, row, "AP", "mini", seeds=seeds, variance_left=left)


def test_rows_that_lack_seeds_are_named() -> None:
    (note,) = notes(
        ap("baseline", (0, 1, 2)), ap("a", (0, 2)), ap("b", (0, 2)), ap("c", (1,)), ap("no run", ())
    )
    assert note.startswith("Not every row has every seed: a; b without 1. c without 0, 2. ")
    assert notes(ap("baseline", (0, 1)), ap("a", (0, 1)), ap("not run", ())) == notes() == ()


def test_a_pairing_that_did_not_help_says_so() -> None:
    (one,), (two,) = notes(ap("a", (0, 1), 0.8)), notes(ap("a", (0, 1), 0.8), ap("b", (0, 1), 1.2))
    assert "has left 80 % of" in one and "not helped" not in one
    assert "left 80 to 120 % of" in two and "above 100 %, it has not helped" in two
