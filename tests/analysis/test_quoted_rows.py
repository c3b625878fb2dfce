"""Quoted rows and quoted columns show the paper's cells, in every format, and never a value of ours."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from ablations.costs import Cost
from ablations.registry import table_named
from ablations.table import Row, Table
from analysis.runs import load_runs
from analysis.tables.fill import FilledTable, fill_table, tidy
from analysis.tables.formats import number, render

Fabricate = Callable[..., str]

COSTS = {
    "yolor-p6": Cost(1000, 326_264.7304, 326_264.8324, 326.4),
    "yolor-w6": Cost(2000, 453_893.0, 453_893.0, 454.0),
    "yolor-d6": Cost(3000, 936_801.0, 936_801.0, 936.8),
    "y4-p6": Cost(4000, 700_000.0, 700_000.0, 700.0, fused=True),
}


@pytest.fixture
def filled(tmp_path: Path, fabricate: Fabricate) -> list[FilledTable]:
    """Tables 9 and A2; YOLOR-D6 has run."""
    fabricate("yolor-d6", 0, 0.5)
    runs = load_runs(tmp_path)
    return [fill_table(table_named(name), "mini", runs, costs=COSTS) for name in ("9", "A2")]


def test_quoted_cells_have_the_papers_number_and_no_value(filled: list[FilledTable]) -> None:
    nine, large = filled
    assert nine.status["EfficientDet"] == large.status["U5R5-X6"] == "quoted"
    cell = nine.cell("EfficientDet", "AP")
    assert (cell.paper, cell.value, cell.experiment, cell.runs) == (55.1, None, None, ())
    counted = large.cell("U5R5-X6", "parameters")
    assert (counted.paper, counted.value) == (141755500, None)
    fps = nine.cell("YOLOR (ours)", "FPS")
    assert (fps.paper, fps.value) == (30, None)
    assert nine.cell("YOLOR (ours)", "AP").value == pytest.approx(50.0)
    assert large.cell("YOLOR-D6", "GFLOPs").value == pytest.approx(936.801)


def test_text_has_one_line_per_quoted_row_and_says_so(filled: list[FilledTable]) -> None:
    lines = [re.split(r"\s{2,}", line.strip()) for line in render(filled, "text").splitlines()]
    assert ["EfficientDet", "paper, quoted", "55.1", "74.3", "59.9", "6.5"] in lines
    assert ["SwinTransformer", "paper, quoted", "57.7", "–", "–", "–"] in lines
    assert ["YOLOR (ours)", "paper", "55.4", "73.3", "60.6", "30"] in lines
    assert ["ours", "50.0", "51.0", "52.0", "–"] in lines
    assert sum(line[1:2] == ["paper, quoted"] for line in lines) == 8


def test_markdown_and_latex_hold_the_quoted_rows(filled: list[FilledTable]) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(render(filled, "markdown"))
    texts = [token.content for token in tokens if token.type == "inline"]
    assert texts.count("paper, quoted") == 8
    assert [token.type for token in tokens].count("table_open") == 2
    latex = render(filled, "latex")
    assert latex.isascii()
    assert r"CopyPaste & paper, quoted & \num{57.3} & -- & -- & -- \\" in latex
    assert r"$\ddagger$" in latex


def test_csv_and_json_tell_quoted_from_counted_from_missing(filled: list[FilledTable]) -> None:
    frame = pd.read_csv(io.StringIO(render(filled, "csv")), dtype={"table": str}, keep_default_na=False)
    status = frame.set_index(["table", "row", "metric"])["status"]
    assert status["9", "EfficientDet", "AP"] == "quoted"
    assert status["A2", "U5R5-S6", "parameters"] == "quoted"
    assert status["A2", "YOLOR-P6", "parameters"] == "counted"
    assert status["A2", "YOLOR-P6", "FPS"] == "quoted"
    assert status["A2", "YOLOR-P6", "AP"] == "not run"
    assert status["A2", "YOLOR-D6", "AP"] == "measured"
    assert list(tidy(filled).columns) == list(frame.columns)
    cells = {(r["table"], r["row"], r["metric"]): r for r in json.loads(render(filled, "json"))}
    assert cells["9", "CenterNet2", "FPS"]["paper"] is None
    assert cells["9", "CenterNet2", "AP"] == {
        "table": "9", "row": "CenterNet2", "metric": "AP", "paper": 56.4, "value": None,
        "seeds": [], "profile": "mini", "runs": [],
        "half_width": None,
        "delta": None,
        "delta_low": None,
        "delta_high": None,
        "p": None,
        "p_holm": None,
        "verdict": None, "pairs": 0, "std": None, "delta_std": None, "variance_left": None,
        "images_low": None, "images_high": None, "images_p": None,
        "paper_delta": None, "against": None,
    }  # fmt: skip


def test_notes_explain_peculiar_gflops_and_leave_equal_ones_alone(filled: list[FilledTable]) -> None:
    nine, large = filled
    assert large.marks == {("YOLOR-P6", "GFLOPs"): "‡", ("YOLOR-W6", "GFLOPs"): "‡"}
    notes = "\n".join(large.notes)
    assert "‡ YOLOR-P6: the printed 326.2 is 326.2647 cut after one decimal." in notes
    assert "‡ YOLOR-W6: the printed 454.0 is 4 x 113.5, the rounded figure at 640 px." in notes
    assert "Parameters and GFLOPs are those of the full-size models" in notes
    assert "not fused, except Y4-P6" in notes
    assert "FPS are quoted" in notes
    assert "test-dev" in nine.notes[-1]
    assert "test-dev" in render([nine], "latex")


def test_a_table_of_quoted_rows_alone_can_be_printed(tmp_path: Path) -> None:
    cells = tmp_path / "cells.csv"
    cells.write_text("row,AP\nother,50.5\n")
    table = Table("theirs", "Other models", (Row("other", None, "somebody's"),), metrics=("AP",), cells=cells)
    filled = fill_table(table, "mini", load_runs(tmp_path))
    assert filled.caption == "Table theirs: Other models. All rows are quoted."
    assert "50.5" in render([filled], "text")


def test_a_variant_whose_baseline_has_not_run_has_a_value_and_no_difference(
    tmp_path: Path, fabricate: Fabricate
) -> None:
    fabricate("y4-sss.add-fa.mul-pr", 0, 0.3)
    cell = fill_table(table_named("A1"), "mini", load_runs(tmp_path)).cell("Y4-SSS, YOLOR", "AP")
    assert cell.value == pytest.approx(30.0)
    assert cell.delta is None
    assert cell.paper_delta == 0.5


def test_latex_numbers_tables_itself_so_captions_start_with_the_title(filled: list[FilledTable]) -> None:
    text = render(filled, "latex")
    captions = re.findall(r"\\caption\{(.*)\}", text)
    assert [caption.partition(" (")[0] for caption in captions] == [each.table.title for each in filled]
    assert re.findall(r"\\label\{(.*)\}", text) == ["tab:ablation-9", "tab:ablation-A2"]
    assert render(filled, "markdown").startswith("Table 9: Comparison with the state of the art")


@pytest.mark.parametrize(
    ("value", "sign", "text"), [(30, "", "30"), (6.5, "", "6.5"), (-8, "+", "-8"), (None, "", "–")]
)
def test_images_per_second_are_printed_as_they_are_quoted(value: float | None, sign: str, text: str) -> None:
    assert number("FPS", value, sign) == text
