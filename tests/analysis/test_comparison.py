"""Comparing two models or runs on the same images, with pycocotools and known answers as references."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from analysis.comparison import compare
from tests.analysis.conftest import two_detectors
from yolor_core.evaluation.coco import COCO_NUMBERS, evaluate_boxes
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.engine import match


def test_scores_are_pycocotools_and_the_better_model_is_significantly_better() -> None:
    truth, first, second = two_detectors()
    a, b = (Detections.from_results(entries) for entries in (first, second))
    found = compare(match(truth, a), match(truth, b), 500)
    references = [evaluate_boxes(copy.deepcopy(truth), arm) for arm in (a, b)]
    for each in found.metrics:
        expected = [r["detection"][each.name] for r in references]
        assert [each.a, each.b] == pytest.approx([100 * v for v in expected])
    assert [each.name for each in found.metrics] == list(COCO_NUMBERS)
    ap = found.metrics[0]
    assert ap.delta is not None and ap.percentile is not None and ap.bca is not None
    assert ap.percentile[0] > 0 and ap.bca[0] > 0
    assert ap.percentile[0] < ap.delta < ap.percentile[1]
    assert {each.name for each in found.classes} == {"ant", "bee", "cat"}
    sizes = [abs(each.delta or 0) for each in found.classes]
    assert sizes == sorted(sizes, reverse=True)


def test_an_images_part_is_the_difference_less_that_without_the_image() -> None:
    truth, first, second = two_detectors(30, 1)
    a, b = (Detections.from_results(entries) for entries in (first, second))
    found = compare(match(truth, a), match(truth, b), 100)
    image, part = found.images[0]
    rest = {
        **truth,
        "images": [i for i in truth["images"] if i["id"] != image],
        "annotations": [x for x in truth["annotations"] if x["image_id"] != image],
    }
    without = []
    for entries in (first, second):
        kept = Detections.from_results([e for e in entries if e["image_id"] != image])
        without.append(100 * evaluate_boxes(copy.deepcopy(rest), kept)["detection"]["AP"])
    delta = found.metrics[0].delta
    assert delta is not None
    assert part == pytest.approx(delta - (without[1] - without[0]))
    assert any("only 30 images" in warning for warning in found.warnings)


def test_a_model_does_not_differ_from_itself() -> None:
    truth, first, _ = two_detectors(20)
    arm = match(truth, Detections.from_results(first))
    found = compare(arm, arm, 100)
    assert all(each.delta in (None, 0.0) for each in (*found.metrics, *found.classes))
    assert all(each.percentile in (None, (0.0, 0.0)) for each in found.metrics)
    assert found.images == ()


def test_rows_that_are_equal_but_for_the_order_of_sums_read_the_same() -> None:
    truth, _, _ = two_detectors(50)
    per_class = {1: [10.0, 10.0, 40.0, 40.0], 2: [80.0, 10.0, 40.0, 40.0], 3: [150.0, 10.0, 40.0, 40.0]}
    boxes = [
        {"image_id": image["id"], "category_id": category, "bbox": box}
        for image in truth["images"]
        for category, box in per_class.items()
    ]
    truth["annotations"] = [b | {"id": i, "area": 1600.0, "iscrowd": 0} for i, b in enumerate(boxes, 1)]
    scored = [b | {"score": 0.9} for b in boxes]
    kept = [b for b in scored if b["category_id"] == 1]
    near = [b | {"bbox": [b["bbox"][0] + 5.0, *b["bbox"][1:]]} for b in scored]  # overlap 35/45: AP 60
    for other in (kept, near):
        arms = [match(truth, Detections.from_results(some)) for some in (scored, other)]
        found = compare(*arms, 200)
        rows = [each for each in found.metrics if each.name in ("AP", "APM", "AR1", "AR100", "ARM")]
        assert {round(each.delta or 0, 6) for each in rows} == {-66.666667 if other is kept else -40.0}
        assert [(each.percentile, each.bca) for each in rows] == [(None, None)] * 5
        assert found.images == ()  # no image changes the difference but by rounding


def test_the_reference_detections_of_the_coco_api_are_compared_with_a_worse_copy(real_data: Path) -> None:
    folder = real_data / "eval" / "cocoapi_val2014_100"
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    entries = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    worse = [e for i, e in enumerate(entries) if i % 3]
    a, b = (Detections.from_results(some) for some in (worse, entries))
    found = compare(match(truth, a), match(truth, b), 300)
    reference = evaluate_boxes(truth, b)["detection"]
    assert [m.b for m in found.metrics] == pytest.approx([100 * reference[m.name] for m in found.metrics])
    ap = found.metrics[0]
    assert ap.percentile is not None and ap.percentile[0] > 0


def test_where_few_resamples_have_such_boxes_there_is_no_interval() -> None:
    truth, first, second = two_detectors(60)
    truth["annotations"] = [x for x in truth["annotations"] if x["area"] <= 96**2]
    big = {"image_id": 3, "category_id": 1, "bbox": [10.0, 10.0, 300.0, 300.0]}
    truth["annotations"].append(big | {"id": 9999, "area": 90_000.0, "iscrowd": 0})
    arms = [match(truth, Detections.from_results(some)) for some in (first, [*second, big | {"score": 0.9}])]
    found = {each.name: each for each in compare(*arms, 200).metrics}
    assert found["APL"].delta is not None and found["APL"].percentile is None
    assert found["AP"].percentile is not None
