"""Notebooks executed top to bottom in a kernel on a small study: what has to come out of their cells."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from nbconvert import HTMLExporter
from nbformat import NotebookNode

pytestmark = pytest.mark.slow

SVG, WIDGET = "image/svg+xml", "application/vnd.jupyter.widget-view+json"
PROBE = "import sys; print('torch' in sys.modules)"


def outputs(notebook: NotebookNode, cell: str | None = None) -> list[NotebookNode]:
    cells = [c for c in notebook.cells if c.cell_type == "code" and cell in (None, c.id)]
    return [output for each in cells for output in each.outputs]


def said(notebook: NotebookNode, cell: str | None = None) -> str:
    return "".join(output.text for output in outputs(notebook, cell) if output.output_type == "stream")


def words(notebook: NotebookNode, cell: str) -> str:
    """What a cell's outputs say, without widgets."""
    bundles = [each.data for each in outputs(notebook, cell) if "data" in each]
    return "".join(each["text/plain"] for each in bundles if WIDGET not in each)


def figures(notebook: NotebookNode) -> list[str]:
    """Titles of the figures; each has to be a drawing with much in it, not empty axes."""
    titles = []
    for output in outputs(notebook):
        if SVG in output.get("data", {}):
            root = ElementTree.fromstring(output.data[SVG])
            drawn = [each.tag.rpartition("}")[2] for each in root.iter()]
            # A heat map's cells are one image, which empty axes have not.
            assert "image" in drawn or sum(drawn.count(tag) for tag in ("path", "use", "text")) > 30
            titles.append(output.data["text/plain"])
    return titles


class Rows(HTMLParser):
    """The texts of the cells of HTML tables, row by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def tables(notebook: NotebookNode, cell: str) -> list[list[list[str]]]:
    pages = [o.data["text/html"] for o in outputs(notebook, cell) if "text/html" in o.get("data", {})]
    return [Rows(page).rows for page in pages if "<table" in page]


def ap(results: Path, experiment: str) -> list[float]:
    """Percent, of the runs of an experiment in order of their seeds."""
    found = sorted((results / "runs").glob(f"{experiment}-smoke-s*/evaluation.json"))
    return [100 * json.loads(path.read_text())["detection"]["AP"] for path in found]


def test_tables_show_the_measured_numbers(execute: Callable[..., NotebookNode], study: Path) -> None:
    notebook = execute("01_tables", study)
    shown = tables(notebook, "tables")
    assert len(shown) == 8
    mean = sum(ap(study, "csp-fast.add-fa")) / 2
    *_, ours = [row for row in shown[0] if row[1] == "ours"]
    assert ours[2].startswith(f"{mean:.2f} ± ")
    assert figures(notebook) == ["Δ AP of every row", "AP of every run"]
    ((head, *rows),) = tables(notebook, "cells")
    assert {row[head.index("table")] for row in rows} >= {"1", "2", "4"}
    assert r"\begin{tabular}" in said(notebook, "latex")
    parameters, mflops = shown[6][-1][-2:]  # those of `ablate tables`, notes behind them
    assert parameters == "37 265 016 (+2 812)" and mflops.startswith("326 264.7304 (+8.5680)†")


def test_implicit_vectors_show_what_was_learnt(execute: Callable[..., NotebookNode], study: Path) -> None:
    notebook = execute("02_implicit_vectors", study, PROBE)
    assert set(figures(notebook)) >= {
        "What was learnt, by dimension",
        "Effect on every raw output",
        "Effect on boxes, objectness and classes",
        "Effect by class",
        "Shift of the boxes' centres",
        "Size of the anchors before and after",
        "Similarity of the effects",
        "Principal components of the effects",
        "Objects and background along the learnt vector",
        "Levels in the space of predictions",
    }
    assert any(title.startswith("Change over epochs, csp-fast.add-") for title in figures(notebook))
    assert "launch Table 6" in words(notebook, "runs")
    assert said(notebook).splitlines()[-1] == "False", "vectors need no torch"


CHOOSE = """
chosen.experiments.value = ("csp-fast",)
chosen.seeds.value = (1,)
"""


def test_curves_show_every_quantity_of_a_choice_and_are_in_an_exported_page(
    execute: Callable[..., NotebookNode], study: Path
) -> None:
    """The choice is made in a cell below the figures."""
    notebook = execute("03_training_curves", study, CHOOSE)
    assert figures(notebook) == [
        "Losses over epochs",
        "AP over epochs",
        "Learning rate",
        "Time and speed of training",
    ]
    assert words(notebook, "choose") == "Chosen: 1 of 6 runs: csp-fast; seeds 1.\n"
    assert "only runs of several tasks do" in words(notebook, "conflict")
    (rows,) = tables(notebook, "frame")
    assert "loss/box" in rows[0] and len(rows) == 1 + 1
    assert "add-fa" not in outputs(notebook, "losses")[0].data[SVG]
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert page.count("<figure") == len(figures(notebook))
    assert "Chosen: 1 of 6 runs" in page and "only runs of several tasks do" in page


def test_seeds_are_compared_with_chance(execute: Callable[..., NotebookNode], study: Path) -> None:
    notebook = execute("06_same_in_every_seed", study)
    assert figures(notebook) == [
        "Similarity of the learnt values",
        "Similarity of the effects",
        "Does every seed learn the same?",
        "Anchors: asked for and learned",
    ]
    (slopes,) = tables(notebook, "slopes")
    assert {row[slopes[0].index("series")] for row in slopes[1:]} == {"csp-fast.add-pr"}
    ((head, *rows),) = tables(notebook, "null")
    found = [dict(zip(head, row, strict=True)) for row in rows]
    assert [(row["of"], row["series"], row["runs"]) for row in found] == [
        (of, f"csp-fast.{name}", "2") for of in ("values", "effects") for name in ("add-fa", "add-pr")
    ]
    for row in found:
        assert -1 <= float(row["cosine"]) <= 1 and 0 < float(row["p"]) <= 1


def test_two_runs_are_compared(execute: Callable[..., NotebookNode], study: Path) -> None:
    notebook = execute("04_compare_two_runs", study)
    assert figures(notebook) == ["Scores and classes of A and B", "Images that changed most"]
    ((head, first, *_),) = tables(notebook, "frame")
    chosen = words(notebook, "choose")
    a, b = re.findall(r"(\S+)-smoke-s0-", chosen)
    assert a == "csp-fast"
    assert first[head.index("name")] == "AP"
    assert float(first[head.index("a")]) == pytest.approx(ap(study, a)[0], abs=0.006)
    assert float(first[head.index("b")]) == pytest.approx(ap(study, b)[0], abs=0.006)


def test_an_ablation_of_ones_own_fills_its_table(
    execute: Callable[..., NotebookNode], tmp_path: Path
) -> None:
    notebook = execute("05_write_your_own_ablation", tmp_path)
    assert "(missing)" in said(notebook, "plan")
    assert "2 of 2 done" in said(notebook, "launch")
    (rows,) = tables(notebook, "read")
    (place,) = [k for k, row in enumerate(rows) if row[0] == "+ iFA, std 0.2"]
    assert rows[place][1].startswith("ours")
    assert re.fullmatch(r"\d+\.\d \([+-]\d+\.\d\)", rows[place][2])
    assert figures(notebook) == ["Losses over epochs"]
    assert not list(tmp_path.iterdir()), "the user's own folder of results is left alone"
