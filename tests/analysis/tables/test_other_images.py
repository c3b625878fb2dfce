"""A table's intervals for images like these, from stored detections."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ablations.cli import main
from ablations.plan import data_config
from ablations.registry import table_named
from analysis.runs import load_runs
from analysis.statistics.images import on_images_like_these
from analysis.tables.fill import FilledTable, fill_table
from analysis.tables.formats import render
from analysis.tables.other_images import with_other_images
from tests.analysis.conftest import write_run
from yolor_core.data.load import load_images
from yolor_core.errors import RunError
from yolor_core.evaluation.coco import evaluate_boxes
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.engine import bootstrap, match

ARMS = {"csp-fast": 0.55, "csp-fast.add-fa": 0.75}  # chance to find an object
SEEDS = 3


def found(truth: dict[str, Any], chance: float, seed: int) -> Detections:
    """What a detector finds that misses some objects and is a little off."""
    random = np.random.default_rng([seed, int(100 * chance)])
    entries = []
    for box in truth["annotations"]:
        if random.random() < chance:
            place = np.array(box["bbox"], float) + random.normal(0, 1.5, 4)
            about = {"image_id": box["image_id"], "category_id": box["category_id"]}
            entries.append(about | {"bbox": np.maximum(place, 1).tolist(), "score": random.uniform(0.2, 1)})
    return Detections.from_results(entries)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of both rows of Table 1, with detections and the scores that they have."""
    folder = tmp_path_factory.mktemp("results")
    truth = load_images(data_config(None, "mini"), "val").coco
    for slug, chance in ARMS.items():
        for seed in range(SEEDS):
            detections = found(truth, chance, seed)
            scores = evaluate_boxes(truth, detections)["detection"]
            run = write_run(
                folder, slug, seed, scores["AP"], **{k: v for k, v in scores.items() if k != "AP"}
            )
            detections.write(folder / "runs" / run / "detections.parquet")
    return folder


def filled(results: Path) -> FilledTable:
    return fill_table(table_named("1"), "mini", load_runs(results))


def test_the_interval_is_the_crossed_one_of_shared_resamples(results: Path) -> None:
    plain = filled(results)
    wide = with_other_images(plain, resamples=200)
    cell = wide.cell("+ iFA", "AP")
    truth = load_images(data_config(None, "mini"), "val").coco
    arms = [[match(truth, found(truth, chance, seed)) for seed in range(SEEDS)] for chance in ARMS.values()]
    drawn = np.array([100 * each.metrics["AP"] for each in bootstrap([*arms[0], *arms[1]], 200, 0)])
    runs = load_runs(results).set_index(["experiment", "seed"])["AP"]
    base, variant = (runs[slug].sort_index().to_numpy() for slug in ARMS)
    expected = on_images_like_these(variant - base, (drawn[SEEDS:] - drawn[:SEEDS]).T, 200)
    assert (cell.images_low, cell.images_high) == pytest.approx((expected.low, expected.high))
    assert cell.delta == pytest.approx(expected.mean)
    assert plain.cell("+ iFA", "AP").images_low is None
    (record,) = (r for r in json.loads(render([wide], "json")) if (r["row"], r["metric"]) == ("+ iFA", "AP"))
    assert record["images_low"] < record["delta"] < record["images_high"]


def test_the_command_prints_both_targets(results: Path) -> None:
    words = ["tables", "1", "--results", str(results), "--images", "200"]
    shown = CliRunner().invoke(main, words, env={"COLUMNS": "400"})  # whatever a test process has
    assert shown.exit_code == 0, shown.output
    assert "Δ, other images" in shown.stdout and "the effect on images like these, training" in shown.stdout
    assert "is not shown (--images)" not in shown.stdout
    assert "is not shown (--images)" in CliRunner().invoke(main, words[:-2]).stdout


def test_a_run_without_its_detections_is_named(results: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(results, tmp_path / "copy")
    (next((copy / "runs").glob("csp-fast.add-fa*")) / "detections.parquet").unlink()
    with pytest.raises(RunError, match=r"has no detections\.parquet"):
        with_other_images(filled(copy), resamples=10)
