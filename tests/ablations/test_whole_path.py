"""From the launch to the printed cell, with real training in real processes (profile smoke)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from yolor_core.runs.directory import RunDirectory

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
FIGURES = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
ABLATE = [sys.executable, "-c", "from ablations.cli import main; main()"]


def start(*arguments: str) -> subprocess.Popen[str]:
    """The command line in a process group of its own, as a shell starts it."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [*ABLATE, *arguments],
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ablate(*arguments: str) -> str:
    process = start(*arguments)
    output, errors = process.communicate(timeout=900)
    assert process.returncode == 0, output + errors
    return output


def test_launch_all_then_tables_and_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--profile", "smoke", "--results", str(tmp_path / "results"))
    ablate("launch", "--all", *options)
    cells: list[dict[str, Any]] = json.loads(ablate("tables", "--format", "json", *options))
    trained = [cell for cell in cells if cell["metric"] == "AP" and cell["runs"]]
    assert len({run for cell in trained for run in cell["runs"]}) == 19
    assert {cell["table"] for cell in trained} == set("12345678")
    assert all(0 <= cell["value"] <= 100 for cell in trained)
    assert len(trained) == len({(cell["table"], cell["row"]) for cell in cells}) == 29
    three = {(cell["row"], cell["metric"]): cell["value"] for cell in cells if cell["table"] == "3"}
    for row, measured, missing in (("JDC", "cls mAP", "emb mAP"), ("+ iJDE", "emb AUC", "cls mAP")):
        assert 0 <= three[row, measured] <= 100
        assert three[row, missing] is None
    assert "19 done, 0 to run" in ablate("launch", "--all", *options)
    runs = sorted(path.name for path in (tmp_path / "results" / "runs").iterdir())
    ablate("features", *runs, "--results", str(tmp_path / "results"))
    assert "8 tables" in ablate("report", *options)
    report = tmp_path / "results" / "report"
    listed = (report / "runs" / "index.html").read_text(encoding="utf-8")
    assert all(run in listed for run in runs)
    shown = "".join(path.read_text(encoding="utf-8") for path in report.glob("[tf]*/*.html"))
    undrawn = re.findall(r'<div class="figure" id="figure-([\w-]+)">', shown)
    assert "<figure " in shown and undrawn == ["agreement"]  # of seeds, and there is one
    own, published = re.findall(r"^```python\n(.*?)^```", FIGURES, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(own.replace('"mini"', '"smoke"'), "docs/figures.md", "exec"), {})
    (tmp_path / "results" / "published").symlink_to(ROOT / "results" / "published")
    exec(compile(published, "docs/figures.md", "exec"), {})
    assert all((tmp_path / name).stat().st_size > 5_000 for name in ("figure9.pdf", "losses.pdf"))


def test_controls_and_markov_rows_train_and_have_the_scores_of_their_tasks(tmp_path: Path) -> None:
    options = ("--profile", "smoke", "--results", str(tmp_path))
    names = ("csp.classification-alone.implicit", "csp.embedding-alone", "csp.jde.implicit-markov")
    ablate("launch", *names, "csp-fast.add-fa-markov", *options)
    cells: list[dict[str, Any]] = json.loads(ablate("tables", "3x", "6x", "--format", "json", *options))
    found = {(cell["row"], cell["metric"]) for cell in cells if cell["value"] is not None}
    assert {metric for row, metric in found if row == "C alone + i"} == {
        "cls mAP", "cls F1 micro", "cls F1 macro"
    }  # fmt: skip
    assert {metric for row, metric in found if row == "E alone"} == {"emb recall@1", "emb mAP", "emb AUC"}
    joint = {metric for row, metric in found if row == "+ iJDE Markov"}
    assert joint == {"AP", "AP50", "emb recall@1", "emb mAP", "emb AUC", "task cosine"}
    assert ("+ miFA", "AP") in found


def test_rows_of_the_further_tables_train_too(tmp_path: Path) -> None:
    """Five levels with four anchors, and the light model of another family, as the smallest examples."""
    options = ("--profile", "smoke", "--results", str(tmp_path))
    ablate("launch", "y4-p7", "u5r5-s.add-fa.mul-pr", *options)
    cells: list[dict[str, Any]] = json.loads(ablate("tables", "9", "A1", "--format", "json", *options))
    trained = {(cell["table"], cell["row"]): cell["value"] for cell in cells if cell["runs"]}
    assert set(trained) == {("9", "ScaledYOLOv4"), ("A1", "U5R5-S, YOLOR")}
    assert all(0 <= value <= 100 for value in trained.values())


def test_ctrl_c_leaves_runs_that_the_next_launch_finishes(tmp_path: Path) -> None:
    arguments = ("launch", "csp-fast", "csp-fast.add-fa", "--profile", "smoke", "--results", str(tmp_path))
    arguments = (*arguments, "--set", "train.epochs=40", "--jobs", "2")
    process = start(*arguments)
    runs = tmp_path / "runs"
    deadline = time.monotonic() + 120
    while sum(len(RunDirectory(path).read_metrics()) >= 2 for path in runs.glob("*")) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, output + errors
    assert "same command goes on" in errors
    folders = [RunDirectory(path) for path in sorted(runs.glob("*"))]
    states = [folder.read_state() or {} for folder in folders]
    assert [state["state"] for state in states] == ["preempted", "preempted"]
    assert all(2 <= state["epoch"] < 40 for state in states)

    ablate(*arguments)
    for folder in folders:
        assert (folder.read_state() or {})["state"] == "done"
        assert (folder.read_run() or {})["resumes"] == 1
        assert [line["epoch"] for line in folder.read_metrics()] == list(range(1, 41))


def test_two_launches_at_once_train_every_run_once(tmp_path: Path) -> None:
    arguments = (
        "launch",
        "csp-fast",
        "csp-fast.add-fa",
        "--profile",
        "smoke",
        "--results",
        str(tmp_path),
        "--jobs",
        "1",
    )
    launches = [start(*arguments) for _ in range(2)]
    for process in launches:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, output + errors
        assert "2 of 2 done" in output
    for path in (tmp_path / "runs").glob("*"):
        run = RunDirectory(path)
        assert (run.read_state() or {})["state"] == "done"
        assert (run.read_run() or {})["resumes"] == 0


def test_train_runs_in_this_process_and_is_done_only_once(tmp_path: Path) -> None:
    arguments = ("train", "csp-fast", "--profile", "smoke", "--seed", "3", "--results", str(tmp_path))
    assert "done: epoch 1/1" in ablate(*arguments)
    assert "is done: epoch 1/1" in ablate(*arguments)
    (path,) = (tmp_path / "runs").glob("csp-fast-smoke-s3-*")
    assert (RunDirectory(path).read_evaluation() or {})["images"] > 0
