"""Commands about one run, where the run has several tasks or no detection."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ablations.commands.evaluate import percentages
from tests.ablations.trained import ablate, untrained

TASKS = {
    "csp.jdc": ("detection", "classification"),
    "csp.jde.implicit": ("detection", "embedding"),
    "csp.classification-alone": ("classification",),
    "csp.embedding-alone": ("embedding",),
}
NUMBERS = {
    "detection": ["AP", "AP50", "AP75", "APS", "APM", "APL", "AR1", "AR10", "AR100", "ARS", "ARM", "ARL"],
    "classification": ["mAP", "F1_micro", "F1_macro"],
    "embedding": ["recall@1", "mAP", "AUC"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run directories by experiment."""
    results = tmp_path_factory.mktemp("results")
    return {experiment: untrained(results, experiment) for experiment in TASKS}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 100, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize("experiment", TASKS)
def test_evaluate_scores_every_task(runs: dict[str, Path], experiment: str) -> None:
    result = ablate("evaluate", "--run", runs[experiment], "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert set(found) & set(NUMBERS) == set(TASKS[experiment])
    assert ("detections" in found) == ("per_class" in found) == ("detection" in TASKS[experiment])
    for task in TASKS[experiment]:
        scores = {name: found[task][name] for name in NUMBERS[task]}
        assert all(value is None or 0 <= value <= 1 for value in scores.values())
        assert any(value is not None for value in scores.values())
    text = ablate("evaluate", "--run", runs[experiment]).output
    lines = text.splitlines()
    assert ("detections" in lines[1]) == ("detection" in TASKS[experiment])
    assert [line.partition(":")[0] for line in lines[2:]] == list(TASKS[experiment])
    for task, line in zip(TASKS[experiment], lines[2:], strict=True):
        assert [word for word in line.split(": ")[1].split() if word[0].isalpha()] == NUMBERS[task]


def test_a_line_of_scores_is_in_percent_and_leaves_counts_and_lists_out() -> None:
    scores = {
        "mAP": 0.1234,
        "F1_micro": None,
        "recall@1": 1.0,
        "AUC": 0.5,
        "images": 8,
        "per_class": {"a": 0.1},
    }
    assert percentages(scores) == "mAP 12.3  F1_micro -  recall@1 100.0  AUC 50.0"


def test_detect_draws_the_detections_of_a_run_with_further_tasks(
    runs: dict[str, Path], picture: Path, tmp_path: Path
) -> None:
    options = ("--out", tmp_path / "out", "--confidence", "0", "--max-detections", "3", "--json")
    result = ablate("detect", picture, "--run", runs["csp.jdc"], *options)
    assert result.exit_code == 0, result.output
    (record,) = json.loads(result.output)
    assert len(record["detections"]) == 3


@pytest.mark.parametrize("experiment", ["csp.classification-alone", "csp.embedding-alone"])
def test_detect_refuses_a_run_without_detection_and_names_it(
    runs: dict[str, Path], experiment: str, picture: Path, tmp_path: Path
) -> None:
    run = runs[experiment]
    result = ablate("detect", picture, "--run", run, "--out", tmp_path / "out")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert f"run {run.name} has no detection, only {TASKS[experiment][0]}" in line
    assert "ablate evaluate --run" in line
    assert not (tmp_path / "out").exists()


def test_weights_with_a_branch_are_no_weights_of_a_named_model(runs: dict[str, Path], tmp_path: Path) -> None:
    weights = runs["csp.jde.implicit"] / "weights.safetensors"
    options = ("--model", "yolov4_csp_mish", "--format", "onnx", "--out", tmp_path / "w.onnx")
    result = ablate("weights", "export", weights, *options)
    assert result.exit_code == 2
    assert "branches.embedding" in result.stderr
    assert not (tmp_path / "w.onnx").exists()


def test_status_shows_a_run_without_detection_without_ap(runs: dict[str, Path]) -> None:
    results = runs["csp.embedding-alone"].parent.parent
    records = {r["run"]: r for r in json.loads(ablate("status", "--results", results, "--json").output)}
    record = records[runs["csp.embedding-alone"].name]
    assert (record["state"], record["ap"]) == ("done", None)
    assert "4 done" in ablate("status", "--results", results).output
