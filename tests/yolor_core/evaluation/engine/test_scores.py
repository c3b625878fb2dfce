"""Matching and scoring against pycocotools: equal in every bit."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask

from yolor_core.errors import DataError
from yolor_core.evaluation.coco import evaluate_boxes
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.engine import Truth, match, score
from yolor_core.evaluation.engine.overlap import overlaps

NOTHING = Detections.from_results([])


def test_real_detections_score_as_with_pycocotools(real_scene) -> None:
    truth, detections = real_scene
    assert score(match(truth, detections)) == evaluate_boxes(truth, detections)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    images=st.integers(0, 7),
    boxes=st.integers(0, 9),
    detections=st.integers(0, 30),
    levels=st.sampled_from([1, 3, 1000]),
)
def test_any_detections_score_as_with_pycocotools(scene, seed, images, boxes, detections, levels) -> None:
    truth, found = scene(seed, images, boxes, detections, levels)
    assert score(match(truth, found)) == evaluate_boxes(truth, found)


@pytest.mark.parametrize("levels", [2, 50])
def test_the_best_hundred_of_an_image_and_category_are_scored(scene, levels: int) -> None:
    truth, found = scene(3, 5, 30, 900, levels)
    matches = match(truth, found)
    assert len(matches.image) < len(found) == matches.detections
    assert matches.rank.max() == 99
    assert score(matches) == evaluate_boxes(truth, found)


def test_the_scenes_reach_what_they_are_made_for(scene) -> None:
    """So that the tests above could fail: every kind of outcome occurs, and each rule changes a score."""
    truth, found = scene(1, 40, 9, 30, 5)
    matches = match(truth, found)
    ignored = matches.true | matches.false
    assert ((matches.true[0] > 0) & (matches.true[0] < 1023)).any()
    assert (matches.true & matches.false == 0).all()
    assert ((ignored > 0) & (ignored < 1023)).any()
    assert ((matches.true[1] > 0) & (matches.inside & 2 == 0)).any()
    result = score(matches)
    assert None not in result["detection"].values()
    assert result["per_class"]["class 9"] is None and result["per_class"]["class 5"] is None
    backwards = Detections(*(column[::-1] for column in dataclasses.astuple(found)))
    assert score(match(truth, backwards))["detection"] != result["detection"]
    plain = {**truth, "annotations": [{**a, "iscrowd": 0} for a in truth["annotations"]]}
    assert score(match(plain, found))["detection"] != result["detection"]


def test_single_precision_columns_score_as_with_pycocotools(scene) -> None:
    truth, found = scene(5, 20, 9, 30, 1000)
    rng = np.random.default_rng(0)
    boxes = found.boxes + rng.uniform(0, 0.5, found.boxes.shape)
    built = Detections.build(found.image_id, found.category_id, boxes, found.scores)
    assert built.scores.dtype == np.float32
    assert score(match(truth, built)) == evaluate_boxes(truth, built)


def test_overlaps_equal_pycocotools_in_every_bit() -> None:
    rng = np.random.default_rng(0)
    found, true = (
        np.concatenate([rng.uniform(-20, 20, (300, 2)), rng.choice([0, 1e-9, 7.3, 50, 60], (300, 2))], 1)
        for _ in range(2)
    )
    found[:, 2:] *= rng.uniform(1, 2, (300, 2))
    crowd = rng.random(300) < 0.3
    ours = np.empty((300, 300))
    overlaps(found, true, crowd, ours)
    expected = mask.iou(found, true, crowd.astype(np.uint8).tolist())
    assert np.array_equal(ours, expected)
    assert (ours > 0).mean() > 0.1


def test_an_annotation_with_id_zero_is_never_found_as_with_pycocotools(scene) -> None:
    truth, found = scene(8, 10, 9, 30, 1000)
    usual = score(match(truth, found))
    truth = {**truth, "annotations": [{**a, "id": a["id"] - 1} for a in truth["annotations"]]}
    changed = [score(match(_zeroed(truth, i), found)) for i in range(15)]
    assert [evaluate_boxes(_zeroed(truth, i), found) for i in range(15)] == changed
    assert any(c != usual for c in changed)


def _zeroed(truth, chosen: int):
    """The same with the ids exchanged, so that annotation `chosen` has id 0."""
    swap = {0: chosen, chosen: 0}
    return {**truth, "annotations": [{**a, "id": swap.get(a["id"], a["id"])} for a in truth["annotations"]]}


def test_without_detections_or_truth_scores_are_zero_or_undefined(scene) -> None:
    truth, found = scene(2)
    for content, rows in (
        (truth, NOTHING),
        ({**truth, "annotations": []}, found),
        ({**truth, "annotations": []}, NOTHING),
        ({"images": [], "categories": truth["categories"], "annotations": []}, NOTHING),
    ):
        assert score(match(content, rows)) == evaluate_boxes(content, rows)
    assert score(match(truth, NOTHING))["detection"]["AP"] == 0
    empty = score(match({"images": [], "categories": [], "annotations": []}, NOTHING))
    assert set(empty["detection"].values()) == {None} and empty["per_class"] == {}


def test_unknown_ids_are_refused(scene) -> None:
    truth, found = scene(2)
    for column in ("image_id", "category_id"):
        wrong = dataclasses.replace(found, **{column: getattr(found, column) + 1000})
        with pytest.raises(DataError, match=r"ids of the detections are not in the annotations: \["):
            match(truth, wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": 2}, "1 duplicate annotation ids: 2"),
        ({"bbox": [1, 2, 3]}, r"annotation 1: bbox is \[1, 2, 3\]; four numbers"),
        ({"bbox": [1, 2, 3, float("nan")]}, r"annotation 1: bbox is \[1, 2, 3, nan\]; finite numbers"),
        ({"area": float("inf")}, "annotation 1: area is inf; finite numbers"),
        ({"image_id": 1}, r"1 annotations of images that are not listed: annotation 1 \(image 1\)"),
        ({"category_id": 7}, r"annotations of categories that are not listed: annotation 1 \(category 7\)"),
    ],
)
def test_annotations_that_are_none_are_refused(scene, change, message) -> None:
    truth, _ = scene(2)
    truth["annotations"][0].update(change)
    with pytest.raises(DataError, match=message):
        Truth.read(truth)


def test_an_annotation_without_a_field_is_refused(scene) -> None:
    truth, _ = scene(2)
    del truth["annotations"][0]["area"]
    with pytest.raises(DataError, match="annotation 1: key 'area' is missing"):
        Truth.read(truth)


def test_the_engine_is_imported_without_torch() -> None:
    code = "import sys, yolor_core.evaluation.engine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
