"""A table's intervals for images like these, from stored detections."""

from __future__ import annotations

import json
from collections.abc import Callable
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
from analysis.tables.fill import fill_table
from analysis.tables.other_images import with_other_images
from yolor_core.data.load import load_images
from yolor_core.errors import RunError
from yolor_core.evaluation.coco import evaluate_boxes
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.engine import bootstrap, match

ARMS = {"csp-fast": 0.55, "csp-fast.add-fa": 0.75}  # chance to find an object
SEEDS = 3


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    """The annotations of mini's validation images."""
    return load_images(data_config(None, "mini"), "val").coco


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


@pytest.fixture
def study(
    tmp_path: Path, fabricate: Callable[..., str], truth: dict[str, Any]
) -> dict[tuple[str, int], Detections]:
    """Three seeds of both rows of Table 1, with detections and the scores that they have."""
    arms = {}
    for slug, chance in ARMS.items():
        for seed in range(SEEDS):
            arms[slug, seed] = detections = found(truth, chance, seed)
            scores = evaluate_boxes(truth, detections)["detection"]
            run = fabricate(slug, seed, scores["AP"], **{k: v for k, v in scores.items() if k != "AP"})
            detections.write(tmp_path / "runs" / run / "detections.parquet")
    return arms


def test_the_interval_is_the_crossed_one_of_shared_resamples(
    tmp_path: Path, truth: dict[str, Any], study: dict[tuple[str, int], Detections]
) -> None:
    runs = load_runs(tmp_path)
    plain = fill_table(table_named("1"), "mini", runs)
    cell = with_other_images(plain, resamples=200).cell("+ iFA", "AP")
    order = [(slug, seed) for slug in ARMS for seed in range(SEEDS)]
    drawn = bootstrap([match(truth, study[key]) for key in order], 200, 0)
    values = dict(zip(order, (100 * each.metrics["AP"] for each in drawn), strict=True))
    own = {key: 100 * evaluate_boxes(truth, study[key])["detection"]["AP"] for key in order}
    variant, base = "csp-fast.add-fa", "csp-fast"
    expected = on_images_like_these(
        np.array([own[variant, s] - own[base, s] for s in range(SEEDS)]),
        np.stack([values[variant, s] - values[base, s] for s in range(SEEDS)], 1),
        200,
    )
    assert (cell.images_low, cell.images_high) == pytest.approx((expected.low, expected.high))
    assert cell.delta_low is not None and cell.delta_high is not None and expected.error is not None
    assert cell.delta == pytest.approx(expected.mean)
    assert plain.cell("+ iFA", "AP").images_low is None


def test_the_command_prints_both_targets(tmp_path: Path, study: object) -> None:
    words = ["tables", "1", "--results", str(tmp_path), "--images", "200"]
    shown = CliRunner().invoke(main, words)
    assert shown.exit_code == 0, shown.output
    assert "Δ, other images" in shown.stdout and "the effect on images like these, training" in shown.stdout
    assert "is not shown (--images)" not in shown.stdout
    assert "is not shown (--images)" in CliRunner().invoke(main, words[:-2]).stdout
    records = json.loads(CliRunner().invoke(main, [*words, "--format", "json"]).stdout)
    (cell,) = (r for r in records if (r["row"], r["metric"]) == ("+ iFA", "AP"))
    assert cell["images_low"] < cell["delta"] < cell["images_high"]


def test_a_run_without_its_detections_is_named(tmp_path: Path, study: object) -> None:
    gone = next((tmp_path / "runs").glob("csp-fast.add-fa*")) / "detections.parquet"
    gone.unlink()
    runs = load_runs(tmp_path)
    with pytest.raises(RunError, match=r"has no detections\.parquet"):
        with_other_images(fill_table(table_named("1"), "mini", runs), resamples=10)
