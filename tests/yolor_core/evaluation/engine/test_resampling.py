"""Weighted scores against pycocotools on files in which images really stand several times."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolor_core.errors import DataError
from yolor_core.evaluation.coco import COCO_NUMBERS, evaluate_boxes
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.engine import compress, match, resample


def copied(truth, detections: Detections, weights: np.ndarray):
    """A file with each image as often as its weight says, copies beside the original."""
    images, annotations, columns = [], [], []
    for image, weight in zip(sorted(i["id"] for i in truth["images"]), weights.tolist(), strict=True):
        own = [a for a in truth["annotations"] if a["image_id"] == image]
        rows = np.flatnonzero(detections.image_id == image)
        for _ in range(weight):
            new = len(images) + 1
            images.append({"id": new})
            annotations += [{**a, "image_id": new, "id": len(annotations) + i} for i, a in enumerate(own, 1)]
            columns.append((np.full(len(rows), new), *(c[rows] for c in dataclasses.astuple(detections)[1:])))
    empty = tuple(c[:0] for c in dataclasses.astuple(detections))
    joined = Detections(*(np.concatenate(parts) for parts in zip(empty, *columns, strict=True)))
    return {**truth, "images": images, "annotations": annotations}, joined


def assert_equal(resampled, row: int, expected) -> None:
    """All numbers to 1e-12, undefined where they are undefined."""
    found = {name: values[row] for name, values in resampled.metrics.items()}
    number = {k: np.nan if v is None else v for k, v in expected["detection"].items()}
    assert found == pytest.approx(number, abs=1e-12, nan_ok=True)
    classes = [np.nan if v is None else v for v in expected["per_class"].values()]
    assert resampled.names == tuple(expected["per_class"])
    assert resampled.per_class[row] == pytest.approx(classes, abs=1e-12, nan_ok=True)


def test_weights_of_one_give_real_scores(real_scene) -> None:
    truth, detections = real_scene
    resampled = resample(match(truth, detections), np.ones((2, 100), int))
    for row in range(2):
        assert_equal(resampled, row, evaluate_boxes(truth, detections))


def test_real_images_copied(real_scene) -> None:
    truth, detections = real_scene
    # four pairs of scores tie inside an image and class, where the order of copies differs (see `resample`)
    detections = dataclasses.replace(detections, scores=detections.scores - 1e-9 * np.arange(len(detections)))
    weights = np.random.default_rng(0).multinomial(100, np.full(100, 0.01), 2)
    assert weights.max() > 2
    resampled = resample(match(truth, detections), weights)
    for row in range(2):
        assert_equal(resampled, row, evaluate_boxes(*copied(truth, detections, weights[row])))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    images=st.integers(1, 7),
    boxes=st.integers(0, 9),
    detections=st.integers(0, 30),
    most=st.sampled_from([1, 2, 5]),
)
def test_any_images_copied_or_left_out(scene, seed, images, boxes, detections, most) -> None:
    """Weights 0 and 1 leave images out, larger ones copy them; scores tie between images."""
    truth, found = scene(seed, images, boxes, detections, levels=0)
    weights = np.random.default_rng(seed).integers(0, most + 1, (2, images))
    resampled = resample(match(truth, found), weights)
    for row in range(2):
        assert_equal(resampled, row, evaluate_boxes(*copied(truth, found, weights[row])))


def test_more_than_a_hundred_detections_an_image_copied(scene) -> None:
    truth, found = scene(3, 5, 30, 900, levels=0)
    weights = np.array([[2, 0, 1, 3, 1]])
    resampled = resample(match(truth, found), weights)
    assert_equal(resampled, 0, evaluate_boxes(*copied(truth, found, weights[0])))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), images=st.integers(1, 7), levels=st.sampled_from([1, 3, 1000]))
def test_weights_of_zero_and_one_score_a_subset_with_any_ties(scene, seed, images, levels) -> None:
    truth, found = scene(seed, images, 6, 20, levels)
    weights = np.random.default_rng(seed).integers(0, 2, (2, images))
    weights[1] = 1
    resampled = resample(match(truth, found), weights)
    for row in range(2):
        assert_equal(resampled, row, evaluate_boxes(*copied(truth, found, weights[row])))


@pytest.mark.parametrize("boxes", [100, 300, 7])
def test_each_recall_threshold_is_reached_when_pycocotools_says_so(boxes: int) -> None:
    """With n of `boxes` found and false positives between, recall meets the floats of linspace exactly."""
    rng = np.random.default_rng(boxes)
    image = np.arange(boxes)
    truth = {
        "images": [{"id": int(i)} for i in image],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": i + 1, "image_id": i, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}
            for i in image.tolist()
        ],
    }
    hit = np.repeat([[0.0, 0, 10, 10], [90, 90, 10, 10]], boxes, 0)
    ids, scores = np.tile(image, 2), rng.permutation(2 * boxes) / (2 * boxes)
    for kept in (boxes, boxes * 2 // 3):
        rows = np.flatnonzero(ids < kept)
        found = Detections(ids[rows], np.ones(len(rows), np.int32), hit[rows], scores[rows])
        assert_equal(resample(match(truth, found), np.ones((1, boxes), int)), 0, evaluate_boxes(truth, found))


def test_blocks_and_compressed_events_give_the_same_as_one_by_one(scene) -> None:
    truth, found = scene(4, 12, 9, 30)
    matches = match(truth, found)
    weights = np.random.default_rng(1).integers(0, 4, (71, 12))  # three blocks, the last one smaller
    whole = resample(compress(matches), weights.astype(np.uint8))
    assert list(whole.metrics) == list(COCO_NUMBERS) and whole.per_class.shape == (71, 4)
    for row in (0, 31, 32, 70):
        single = resample(matches, weights[row : row + 1])
        for name in COCO_NUMBERS:
            np.testing.assert_array_equal(whole.metrics[name][row], single.metrics[name][0])
        np.testing.assert_array_equal(whole.per_class[row], single.per_class[0])
    assert resample(matches, weights, per_class=False).per_class.shape == (71, 0)
    assert len(set(whole.metrics["AP"].tolist())) > 60


def test_nothing_drawn_is_undefined_and_no_resample_is_no_score(scene) -> None:
    truth, found = scene(4, 12)
    matches = match(truth, found)
    nothing = resample(matches, np.zeros((1, 12), int))
    assert all(np.isnan(values).all() for values in nothing.metrics.values())
    assert np.isnan(nothing.per_class).all()
    assert resample(matches, np.zeros((0, 12), int)).metrics["AP"].shape == (0,)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones((2, 11), int), r"\(2, 11\), not \(resamples, 12 images\)"),
        (np.ones(12, int), r"\(12,\)"),
        (np.ones((1, 12)), "float64.*integer"),
        (np.full((1, 12), -1), "-1 to -1; allowed: 0 to 255"),
        (np.full((1, 12), 256), "256 to 256"),
    ],
)
def test_weights_that_are_no_counts_are_refused(scene, weights, message) -> None:
    with pytest.raises(DataError, match=message):
        resample(match(*scene(4, 12)), weights)
