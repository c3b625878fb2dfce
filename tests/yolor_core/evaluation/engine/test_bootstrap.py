"""Drawing images, and two arms on the same draws."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from yolor_core.errors import DataError
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.engine import (
    bootstrap,
    bootstrap_weights,
    match,
    paired_bootstrap,
    resample,
    score,
)
from yolor_core.tasks import COCO_NUMBERS


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
