"""Notebooks on studies that lack something, or are large: every cell says what is missing, and none fails.

Their cells are executed in this process, which starts no kernel; `test_executed` does that.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.formatters import DisplayFormatter

pytestmark = pytest.mark.slow

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAMES = (
    "01_tables",
    "02_implicit_vectors",
    "03_training_curves",
    "04_compare_two_runs",
    "06_same_in_every_seed",
)


@dataclass
class Shown:
    """What the cells of a notebook have shown."""

    figures: list[str] = field(default_factory=list)
    text: str = ""


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Shown]:
    """Execute the cells of a notebook on a results folder, in this process; an error in a cell is raised."""

    def run(name: str, results: Path) -> Shown:
        shown = Shown()

        def display(*things: Any, raw: bool = False, display_id: bool = False) -> None:
            for thing in things:
                bundle = thing if raw else DisplayFormatter().format(thing)[0]
                assert bundle["text/plain"] or display_id  # what it shows has been displayed before
                if display_id:
                    shown.text += bundle["text/plain"]
                if "image/svg+xml" in bundle:
                    shown.figures.append(bundle["text/plain"])

        monkeypatch.setattr("analysis.notebook.display", display)
        monkeypatch.setattr("IPython.display.display", display)
        monkeypatch.setenv("ABLATE_RESULTS", str(results))
        monkeypatch.setenv("ABLATE_PROFILE", "smoke")
        space: dict[str, Any] = {}
        for cell in nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells:
            if cell.cell_type == "code":
                body = ast.parse(cell.source).body
                last = body.pop() if isinstance(body[-1], ast.Expr) else None
                exec(compile(ast.Module(body, []), cell.id, "exec"), space)
                if isinstance(last, ast.Expr):
                    value = eval(compile(ast.Expression(last.value), cell.id, "eval"), space)
                    if value is not None:
                        display(value)
        shown.text += capsys.readouterr().out
        return shown

    return run


every = pytest.mark.parametrize("name", NAMES)


@every
def test_without_runs_a_notebook_says_how_to_make_some(
    name: str, look: Callable[..., Shown], tmp_path: Path
) -> None:
    shown = look(name, tmp_path / "nowhere")
    assert "No runs of Table" in shown.text
    assert "ablate launch 1 2 --profile smoke" in shown.text
    assert shown.figures == []


def test_a_hundred_runs_need_no_weights(look: Callable[..., Shown], copies: Callable[..., Path]) -> None:
    results = copies(100)
    assert not list(results.rglob("weights*"))
    shown = look("02_implicit_vectors", results)
    assert "100 runs (100 done)" in shown.text
    assert {"What was learnt, by dimension", "Similarity of the effects"} <= set(shown.figures)


@every
def test_one_run_without_implicit_knowledge(
    name: str, look: Callable[..., Shown], copies: Callable[..., Path]
) -> None:
    shown = look(name, copies(1, "csp-fast"))
    assert "1 run (1 done)" in shown.text
    figures = {"01_tables": 1, "03_training_curves": 4}
    assert len(shown.figures) == figures.get(name, 0)
    if name == "02_implicit_vectors":
        assert "There is no run with implicit knowledge to look at." in shown.text
    if name == "04_compare_two_runs":
        assert "Two finished runs with detections are needed for a comparison; there is one" in shown.text


@every
def test_runs_still_going_are_shown_as_far_as_they_are(
    name: str, look: Callable[..., Shown], copies: Callable[..., Path]
) -> None:
    results = copies(3, state="running")
    (results / "runs" / "queued").mkdir()
    (results / "runs" / "queued" / "state.json").write_text(json.dumps({"state": "queued"}))
    shown = look(name, results)
    assert "3 runs (3 running)" in shown.text
    if name == "02_implicit_vectors":
        assert "Effect on boxes, objectness and classes" in shown.figures
    if name == "03_training_curves":
        assert "Losses over epochs" in shown.figures


@every
def test_a_damaged_file_costs_its_run_only(
    name: str, look: Callable[..., Shown], copies: Callable[..., Path]
) -> None:
    results = copies(6)
    (damaged,) = (results / "runs").glob("csp-fast.add-fa-smoke-s1-*")
    for file in ("implicit.parquet", "effects.parquet", "detections.parquet"):
        (damaged / file).write_bytes(b"PAR1")
    (results / "runs" / "broken").mkdir()
    (results / "runs" / "broken" / "run.json").write_text("{")
    shown = look(name, results)
    assert "Left out, cannot be read: broken" in shown.text
    assert len(shown.figures) >= 2
    if name == "02_implicit_vectors":
        assert shown.text.count(f"Left out, {damaged.name}") >= 1
