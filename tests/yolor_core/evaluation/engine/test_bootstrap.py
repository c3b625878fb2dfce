"""Bootstrap over images: the same resamples for all arms, whatever the threads; arms that cannot score."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from yolor_core.errors import DataError
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.engine import (
    bootstrap,
    bootstrap_weights,
    check_detections,
    check_pair,
    match,
    paired_bootstrap,
    resample,
    score,
)
from yolor_core.tasks import COCO_NUMBERS


def test_few_images_and_an_empty_arm_are_warned_of(scene) -> None:
    truth, found = scene(13, 49)
    full, empty = match(truth, found), match(truth, Detections.from_results([]))
    assert check_pair(full, full) == ["only 49 images: a bootstrap over fewer than 50 understates the spread"]
    result = paired_bootstrap(full, empty, 10, seed=0)
    assert result.warnings[1:] == ["arm b has no detections"]
    assert (result.resampled_b.metrics["AP"] == 0).all()


def test_arms_of_other_images_categories_or_boxes_are_refused(scene) -> None:
    truth, found = scene(14, 50)
    a = match(truth, found)
    fewer = {**truth, "images": [i for i in truth["images"] if i["id"] != 6]}
    kept = Detections(*(column[found.image_id != 6] for column in dataclasses.astuple(found)))
    more = {**truth, "categories": [*truth["categories"], {"id": 77, "name": "new"}]}
    called = {**truth, "categories": [x | {"name": f"other {x['id']}"} for x in truth["categories"]]}
    crowd = {**truth, "annotations": [{**x, "iscrowd": 1} for x in truth["annotations"]]}
    for b, message in (
        (match(fewer, kept), r"different images: 50 and 49, of which 1 are in one arm only: \[6\]"),
        (match(more, found), r"different categories: 4 and 5, .*\[77\]"),
        (match(called, found), "categories of other names: class 2 and other 2, class 4 and other 4, "),
        (match(crowd, found), "different true boxes"),
    ):
        for call in (lambda b=b: check_pair(a, b), lambda b=b: paired_bootstrap(a, b, 5, 0)):
            with pytest.raises(DataError, match=message):
                call()
    for runs, resamples in (([], 5), ([a], 0)):
        with pytest.raises(DataError, match="cannot bootstrap"):
            bootstrap(runs, resamples, 0)


def changed(found: Detections, column: str, value: object) -> Detections:
    values = getattr(found, column).copy()
    values[3] = value
    return dataclasses.replace(found, **{column: values})


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("image_id", 1000, "image ids are not in the annotations.*row 3: image 1000"),
        ("category_id", 3, "category ids are not in the annotations.*category 3"),
        ("scores", np.nan, r"scores are not in \[0, 1\].*score nan"),
        ("scores", 1.01, "scores are not in"),
        ("scores", -0.1, "scores are not in"),
        ("boxes", [0, 0, np.inf, 1], "boxes are not finite"),
        ("boxes", [np.nan, 0, 1, 1], "boxes are not finite"),
        ("boxes", [0, 0, -1, 1], r"negative width or height.*\[0.0, 0.0, -1.0, 1.0\]"),
    ],
)
def test_detections_that_are_none_are_refused_by_row(scene, column, value, message) -> None:
    truth, found = scene(15, 50, levels=0)
    check_detections(truth, found)
    with pytest.raises(DataError, match=rf"^1 of {len(found)} detections: .*{message}"):
        check_detections(truth, changed(found, column, value))


def test_repeated_rows_are_counted_and_named(scene) -> None:
    truth, found = scene(15, 50, levels=0)
    rows = np.concatenate([np.arange(len(found)), [5, 5, 7]])
    again = Detections(*(column[rows] for column in dataclasses.astuple(found)))
    with pytest.raises(DataError, match=r"^3 of \d+ detections: rows are exact duplicates of another row"):
        check_detections(truth, again)
    with pytest.raises(DataError, match=r"have .* rows"):
        check_detections(truth, dataclasses.replace(found, scores=found.scores[:-1]))
    check_detections(truth, Detections.from_results([]))


def drawn(images: int, resamples: int, seed: int) -> np.ndarray:
    return np.concatenate(list(bootstrap_weights(images, resamples, seed)))


def worse(found: Detections) -> Detections:
    """Without every third detection."""
    return Detections(*(column[np.arange(len(found)) % 3 > 0] for column in dataclasses.astuple(found)))


def test_weights_are_multinomial() -> None:
    """Repeated draws count: as many zeros and as large a variance as drawing with replacement gives."""
    weights = drawn(500, 1000, 0).astype(float)
    assert weights.shape == (1000, 500) and (weights.sum(1) == 500).all()
    assert (weights == 0).mean() == pytest.approx((1 - 1 / 500) ** 500, abs=0.003)
    assert weights.var() == pytest.approx(1 - 1 / 500, abs=0.01)
    assert np.corrcoef(weights[:, 0], weights[:, 1])[0, 1] == pytest.approx(-1 / 499, abs=0.13)
    assert weights.mean(0) == pytest.approx(1, abs=0.2)


def test_weights_depend_on_the_seed_alone_and_more_begin_with_the_same() -> None:
    few, more = drawn(70, 40, 3), drawn(70, 100, 3)
    assert few.dtype == np.uint8
    np.testing.assert_array_equal(few[:32], more[:32])
    np.testing.assert_array_equal(few, more[:40])
    assert not np.array_equal(few, drawn(70, 40, 4))
    assert len({row.tobytes() for row in more}) == 100
    assert [len(block) for block in bootstrap_weights(70, 70, 0)] == [32, 32, 6]
    for images, resamples in ((0, 10), (10, -1)):
        with pytest.raises(DataError, match="cannot draw"):
            bootstrap_weights(images, resamples, 0)


def test_both_arms_are_scored_on_the_same_resamples_whatever_the_threads(scene) -> None:
    truth, found = scene(11, 60, 8, 25, 1000)
    a, b = match(truth, found), match(truth, worse(found))
    result = paired_bootstrap(a, b, 150, seed=5, threads=2, per_class=True)
    alone = paired_bootstrap(a, b, 150, seed=5, threads=1, per_class=True)
    weights = drawn(60, 150, 5)
    for arm, matches, other in (
        (result.resampled_a, a, alone.resampled_a),
        (result.resampled_b, b, alone.resampled_b),
    ):
        expected = resample(matches, weights)
        np.testing.assert_array_equal(arm.per_class, expected.per_class)
        np.testing.assert_array_equal(arm.per_class, other.per_class)
        for name in COCO_NUMBERS:
            np.testing.assert_array_equal(arm.metrics[name], expected.metrics[name])
            np.testing.assert_array_equal(arm.metrics[name], other.metrics[name])
    assert (result.a, result.b) == (score(a)["detection"], score(b)["detection"])
    assert result.warnings == []
    # pairing works: the arms move together
    spread = result.difference("AP").std()
    assert 0 < spread < 0.7 * np.hypot(*(r.metrics["AP"].std() for r in bootstrap([a, b], 150, 5)))
    assert not np.array_equal(result.difference("AP"), paired_bootstrap(a, b, 150, seed=6).difference("AP"))


def test_an_arm_against_itself_differs_nowhere(scene) -> None:
    matches = match(*scene(12, 50))
    result = paired_bootstrap(matches, matches, 40, seed=0)
    assert (result.difference("AP") == 0).all() and result.a == result.b
    assert result.resampled_a.per_class.shape == (40, 0)


def test_the_spread_is_that_of_independent_images() -> None:
    """One box an image, found with certainty or not: AR is a share, whose standard error is known."""
    images, share = 400, 0.3
    box = [0.0, 0, 10, 10]
    truth = {
        "images": [{"id": i} for i in range(images)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": i + 1, "image_id": i, "category_id": 1, "bbox": box, "area": 100, "iscrowd": 0}
            for i in range(images)
        ],
    }
    rows = [{"image_id": i, "category_id": 1, "bbox": box, "score": 0.5} for i in range(int(images * share))]
    recall = bootstrap([match(truth, Detections.from_results(rows))], 3000, 1)[0].metrics["AR100"]
    assert recall.mean() == pytest.approx(share, abs=0.002)
    assert recall.std() == pytest.approx((share * (1 - share) / images) ** 0.5, rel=0.05)
