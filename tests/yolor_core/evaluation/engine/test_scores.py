"""Scores equal pycocotools to the bit, of all images and of weighted ones."""

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
from yolor_core.evaluation.coco import COCO_NUMBERS, evaluate_boxes
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.engine import Truth, compress, match, resample, score
from yolor_core.evaluation.engine.matching import overlaps

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


def test_size_limits_of_the_annotations_are_used_by_both_evaluators(scene) -> None:
    truth, found = scene(5, 9, 9, 30, 1000)
    plain = score(match(truth, found))
    usual = plain["detection"]
    assert plain["size_limits"] == [32, 96]
    truth["info"] = {"size_limits": [32, 96]}
    assert score(match(truth, found))["detection"] == usual
    truth["info"] = {"size_limits": [12.5, 40]}
    own = score(match(truth, found))
    assert own == evaluate_boxes(truth, found)
    assert own["size_limits"] == [12.5, 40]
    assert own["detection"]["APS"] != usual["APS"]
    assert own["detection"]["AP"] == usual["AP"]


@pytest.mark.parametrize("limits", [[96, 32], [0, 3], [3], "32", [32, True], [32, float("nan")]])
def test_size_limits_that_are_none_are_refused(scene, limits) -> None:
    truth, found = scene(2)
    truth["info"] = {"size_limits": limits}
    for evaluate in (lambda: Truth.read(truth), lambda: evaluate_boxes(truth, found)):
        with pytest.raises(DataError, match=r"info.size_limits = .* two rising sides in pixels"):
            evaluate()


@pytest.mark.parametrize("levels", [2, 50])
def test_the_best_hundred_of_an_image_and_category_are_scored(scene, levels: int) -> None:
    truth, found = scene(3, 5, 30, 900, levels)
    matches = match(truth, found)
    assert len(matches.image) < len(found) == matches.detections
    assert matches.rank.max() == 99
    assert score(matches) == evaluate_boxes(truth, found)


@pytest.mark.parametrize("wide", [False, True])
def test_rows_in_no_order_ids_far_apart_and_threads_change_nothing(scene, wide: bool) -> None:
    truth, found = scene(3, 9, 30, 900, 0)
    times = 10**12 if wide else 1  # too far apart to be looked up in a table
    for each in truth["images"]:
        each["id"] *= times
    for each in truth["annotations"]:
        each["image_id"] *= times
    ids = found.image_id.astype(np.int64) * times
    order = np.lexsort((found.scores, found.category_id))  # not by image; equal scores as they were
    expected = evaluate_boxes(truth, dataclasses.replace(found, image_id=ids))
    columns = (ids, found.category_id, found.boxes, found.scores)
    shuffled = Detections(*(column[order] for column in columns))
    for column in vars(shuffled).values():
        column.flags.writeable = False
    matches = match(truth, shuffled)
    assert score(matches) == expected == evaluate_boxes(truth, shuffled)
    for threads in (2, 5):
        shared = match(truth, shuffled, threads)
        for field in dataclasses.fields(matches):
            assert np.array_equal(getattr(shared, field.name), getattr(matches, field.name))
        assert score(shared, threads) == expected


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
