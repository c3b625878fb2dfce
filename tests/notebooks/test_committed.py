"""The notebooks as they are committed: thin, without outputs, and in a form that changes only by edits."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CELLS, LINES = 8, 25  # of code

_spec = importlib.util.spec_from_file_location("strip_notebooks", ROOT / "tools" / "strip_notebooks.py")
assert _spec is not None
assert _spec.loader is not None
strip_notebooks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(strip_notebooks)

every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_six() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "01_tables",
        "02_implicit_vectors",
        "03_training_curves",
        "04_compare_two_runs",
        "05_write_your_own_ablation",
        "06_same_in_every_seed",
    ]


@every
def test_a_notebook_is_valid_and_without_outputs(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    for cell in code(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None


@every
def test_a_notebook_keeps_nothing_of_who_edited_it(path: Path) -> None:
    notebook = read(path)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}  # no version of the last editor's Python
    assert strip_notebooks.stripped(path.read_text()) == path.read_text()


@every
def test_every_cell_has_an_id_of_its_own_in_the_file(path: Path) -> None:
    names = [cell.get("id") for cell in json.loads(path.read_text())["cells"]]
    assert None not in names
    assert len(set(names)) == len(names)


def test_stripping_leaves_text_code_and_ids() -> None:
    original = NOTEBOOKS[2].read_text()
    used = read(NOTEBOOKS[2])
    used.metadata.language_info.version = "3.11.7"
    used.metadata.widgets = {"application/vnd.jupyter.widget-state+json": {}}
    used.cells[0].metadata.collapsed = True
    code(used)[0].execution_count = 7
    code(used)[0].outputs = [nbformat.v4.new_output("stream", text="6 runs")]
    assert strip_notebooks.stripped(nbformat.writes(used)) == original


@every
def test_a_notebook_is_thin_and_explains_every_step(path: Path) -> None:
    notebook = read(path)
    assert 3 <= len(code(notebook)) <= CELLS
    assert all(cell.source.count("\n") < LINES for cell in code(notebook))
    for cell in code(notebook):  # a function is what a choice draws again
        assert not re.search(r"^\s*(class|for .* in range)\b", cell.source, re.M)
        assert cell.source.count("def ") == len(re.findall(r"^@redraws\(.+\)\ndef ", cell.source, re.M))
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds[0] == "markdown"
    assert list(pairwise(kinds)).count(("code", "code")) <= 1


def test_the_notebook_writes_the_table_of_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    found = re.search(r"```python\n# spread\.py\n(.*?)```", text, re.S)
    assert found is not None
    assert found[1].strip() in code(read(NOTEBOOKS[4]))[0].source


def test_make_lab_starts_jupyterlab_with_the_notebooks() -> None:
    make = ["make", "--no-print-directory", "-n", "lab", "LAB_ARGS=--no-browser"]
    said = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == ".venv/bin/jupyter lab --no-browser notebooks"
    version = [sys.executable, "-m", "jupyterlab", "--version"]
    assert subprocess.run(version, capture_output=True, text=True, check=True).stdout.startswith("4.")
