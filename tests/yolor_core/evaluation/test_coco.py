"""The twelve numbers against published references, and detections' rounding and file format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from yolor_core.errors import DataError
from yolor_core.evaluation.coco import COCO_NUMBERS, evaluate_boxes
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.engine import match, score


def read(path: Path):
    return json.loads(path.read_text())


def test_the_coco_apis_own_fake_results_give_its_published_numbers(real_data: Path) -> None:
    folder = real_data / "eval" / "cocoapi_val2014_100"
    text = (folder / "val2014_fake_eval_res.txt").read_text().split("type=bbox")[1].split("type=keypoints")[0]
    published = [float(line.split("=")[-1]) for line in text.splitlines() if "maxDets" in line]
    assert len(published) == 12

    detections = Detections.from_results(read(folder / "instances_val2014_fakebbox100_results.json"))
    scores = evaluate_boxes(read(folder / "instances_val2014_100.json"), detections)["detection"]
    assert [round(scores[name], 3) for name in COCO_NUMBERS] == published


def test_an_independent_evaluators_published_numbers(real_data: Path) -> None:
    folder = real_data / "eval" / "padilla_coco_sample"
    aps = [0.503647, 0.696973, 0.571667, 0.593252, 0.557991, 0.489363]
    ars = [0.386813, 0.593680, 0.595353, 0.654764, 0.603130, 0.553744]
    published = dict(zip(COCO_NUMBERS, aps + ars, strict=True))
    detections = Detections.from_results(read(folder / "sampled_bbox_results_list.json"))
    scores = evaluate_boxes(read(folder / "sampled_gts_bbox_area.json"), detections)["detection"]
    assert scores == pytest.approx(published, abs=1e-6)


@pytest.fixture
def annotations() -> dict:
    return {
        "images": [{"id": 7, "width": 100, "height": 100}, {"id": 9, "width": 100, "height": 100}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 8, "bbox": [10, 10, 50, 50], "area": 2500, "iscrowd": 0},
            {"id": 2, "image_id": 9, "category_id": 8, "bbox": [10, 10, 50, 50], "area": 2500, "iscrowd": 0},
        ],
    }


def detections(
    image: list[int], category: list[int], boxes: list[list[float]], scores: list[float]
) -> Detections:
    return Detections.build(
        np.array(image, np.int64),
        np.array(category, np.int64),
        np.array(boxes, float).reshape(-1, 4),
        np.array(scores, float),
    )


def test_a_perfect_detector_scores_one_and_absent_things_are_none(annotations: dict) -> None:
    found = detections([9, 7], [8, 8], [[10, 10, 50, 50]] * 2, [0.9, 0.8])
    result = evaluate_boxes(annotations, found)
    assert result["detection"]["AP"] == pytest.approx(1.0)
    assert result["detection"]["APM"] == pytest.approx(1.0)
    assert result["detection"]["APS"] is None and result["detection"]["APL"] is None
    assert result["per_class"] == {"cat": None, "dog": pytest.approx(1.0)}
    assert (result["images"], result["detections"]) == (2, 2)


def test_categories_of_one_name_keep_a_score_each(annotations: dict) -> None:
    for category in annotations["categories"]:
        category["name"] = "pet"
    annotations["annotations"][0]["category_id"] = 3
    found = detections([9], [8], [[10, 10, 50, 50]], [0.9])
    scores = evaluate_boxes(annotations, found)
    assert scores["per_class"] == {"pet (3)": 0.0, "pet (8)": pytest.approx(1.0)}
    assert score(match(annotations, found)) == scores


def test_no_detection_at_all_scores_zero(annotations: dict) -> None:
    result = evaluate_boxes(annotations, detections([], [], [], []))
    assert result["detection"]["AP"] == 0.0


def test_an_image_id_that_the_file_does_not_have_is_named(annotations: dict) -> None:
    with pytest.raises(DataError, match=r"image ids .*\[5\]"):
        evaluate_boxes(annotations, detections([5], [8], [[0, 0, 1, 1]], [0.5]))


def test_scoring_leaves_the_annotations_as_they_were(annotations: dict) -> None:
    before = json.dumps(annotations)
    evaluate_boxes(annotations, detections([7], [8], [[0, 0, 1, 1]], [0.5]))
    assert json.dumps(annotations) == before


def test_build_rounds_boxes_and_keeps_what_coco_scores() -> None:
    count = 130
    scores = np.linspace(0.1, 0.9, count) + 1e-7  # no whole step of any decimal
    built = detections([7] * count, [8] * count, [[1.23456, 2, 3, 4]] * count, scores.tolist())
    assert len(built) == 100
    assert np.array_equal(built.scores, scores[:29:-1].astype(np.float32))
    assert built.boxes[0, 0] == np.float32(1.235)


def test_keeping_the_hundred_best_of_each_category_changes_no_score(annotations: dict) -> None:
    generator = np.random.default_rng(0)
    count = 300
    boxes = np.abs(generator.normal([10, 10, 50, 50], 6, (count, 4))).round(3)
    scores = generator.random(count).round(5)
    everything = Detections(
        np.full(count, 7), np.full(count, 8, np.int32), boxes.astype(np.float32), scores.astype(np.float32)
    )
    kept = detections([7] * count, [8] * count, boxes.tolist(), scores.tolist())
    whole, part = evaluate_boxes(annotations, everything), evaluate_boxes(annotations, kept)
    assert whole["detection"] == part["detection"] and whole["detection"]["AP"] > 0


def test_the_file_gives_back_the_same_detections(tmp_path: Path) -> None:
    built = detections([9, 7, 7], [8, 3, 8], [[1, 2, 3, 4], [0.5, 0, 9, 9], [5, 5, 5, 5]], [0.3, 0.2, 0.1])
    built.write(tmp_path / "detections.parquet")
    again = Detections.read(tmp_path / "detections.parquet")
    for name in ("image_id", "category_id", "boxes", "scores"):
        assert np.array_equal(getattr(built, name), getattr(again, name))
        assert getattr(built, name).dtype == getattr(again, name).dtype
