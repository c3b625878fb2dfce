"""Scores of multi-label classification against the definitions, and at their edges."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from yolor_core.errors import InputError
from yolor_core.tasks.classification import score_classes

NAMES = ["cat", "dog", "cow", "hen", "pig"]


def average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """Gain in recall times precision, threshold by threshold, as it is defined."""
    area, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        found = scores >= threshold
        recall = (found & truth).sum() / truth.sum()
        area += (recall - before) * (found & truth).sum() / found.sum()
        before = recall
    return area


def f1(truth: np.ndarray, found: np.ndarray) -> float:
    return 2 * (truth & found).sum() / (truth.sum() + found.sum())


@pytest.mark.parametrize("levels", [3, 7, 10**6])  # few levels: many ties
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_follow_their_definitions(levels: int, dtype: type) -> None:
    rng = np.random.default_rng(levels)
    truth = rng.random((60, 5)) < [0.5, 0.3, 0.1, 0.8, 0.05]
    scores = ((rng.integers(0, levels, (60, 5)) + truth * levels / 4) / (1.25 * levels)).astype(dtype)
    found = scores > 0.5
    expected = [average_precision(truth[:, c], scores[:, c]) for c in range(5)]

    result = score_classes(truth, scores, NAMES)
    assert list(result["per_class"].values()) == pytest.approx(expected, abs=1e-6)
    assert result["mAP"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert result["F1_micro"] == pytest.approx(f1(truth, found), abs=1e-6)
    assert result["F1_macro"] == pytest.approx(
        np.mean([f1(truth[:, c], found[:, c]) for c in range(5)]), abs=1e-6
    )
    assert (result["images"], result["absent"]) == (60, [])


def test_precision_and_recall_by_hand() -> None:
    truth = np.array([[True], [False], [True], [False]])
    result = score_classes(truth, np.array([[0.9], [0.8], [0.7], [0.1]]), ["cat"])
    assert result["mAP"] == pytest.approx((1 + 2 / 3) / 2)
    assert result["F1_micro"] == pytest.approx(2 * 2 / (2 + 3))


def test_images_of_equal_score_enter_together_whatever_their_order() -> None:
    truth = np.array([[True], [False], [False], [True]])
    for order in ([0, 1, 2, 3], [1, 0, 3, 2], [2, 1, 3, 0]):
        assert score_classes(truth[order], np.full((4, 1), 0.25), ["cat"])["mAP"] == pytest.approx(0.5)


def test_a_score_of_exactly_one_half_is_a_no() -> None:
    truth = np.array([[True], [True]])
    result = score_classes(truth, np.array([[0.5], [0.6]]), ["cat"])
    assert result["F1_micro"] == result["F1_macro"] == pytest.approx(2 / 3)


def test_an_absent_class_has_no_score_and_no_place_in_the_means() -> None:
    truth = np.array([[True, False, True], [False, False, True]])
    scores = np.array([[0.9, 0.9, 0.2], [0.2, 0.1, 0.9]])
    result = score_classes(truth, scores, NAMES[:3])
    rest = score_classes(truth[:, [0, 2]], scores[:, [0, 2]], ["cat", "cow"])
    assert result["per_class"] == {"cat": 1.0, "dog": None, "cow": 1.0}
    assert result["absent"] == ["dog"]
    assert (result["mAP"], result["F1_macro"]) == (rest["mAP"], rest["F1_macro"])
    # but finding it is wrong: 2 true, 1 false, 1 missed
    assert result["F1_micro"] == pytest.approx(4 / 6)
    assert rest["F1_micro"] == pytest.approx(4 / 5)


def test_without_any_positive_there_is_no_score() -> None:
    result = score_classes(np.zeros((3, 2), bool), np.full((3, 2), 0.9), ["cat", "dog"])
    assert result == {
        "mAP": None,
        "F1_micro": None,
        "F1_macro": None,
        "per_class": {"cat": None, "dog": None},
        "images": 3,
        "absent": ["cat", "dog"],
    }


def test_an_image_without_labels_counts_as_a_negative() -> None:
    truth, scores = np.array([[True], [False]]), np.array([[0.6], [0.9]])
    assert score_classes(truth, scores, ["cat"])["mAP"] == pytest.approx(0.5)
    assert score_classes(truth[:1], scores[:1], ["cat"])["mAP"] == 1.0


def test_nothing_found_is_an_f1_of_zero() -> None:
    result = score_classes(np.array([[True, True]]), np.zeros((1, 2)), ["cat", "dog"])
    assert (result["F1_micro"], result["F1_macro"], result["mAP"]) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.5])
def test_what_is_no_probability_is_refused_by_name(value: float) -> None:
    scores = np.full((2, 2), 0.5)
    scores[1, 0] = value
    with pytest.raises(InputError, match=r"scores\[1, 0\] \(class 'cat'\).*sigmoid"):
        score_classes(np.ones((2, 2), bool), scores, ["cat", "dog"])


@pytest.mark.parametrize(
    ("truth", "scores", "names", "message"),
    [
        (np.ones((2, 2)), np.ones((2, 2)), ["a", "b"], "truth is float64"),
        (np.ones(2, bool), np.ones(2), ["a", "b"], "truth is bool"),
        (np.ones((2, 2), bool), np.ones((3, 2)), ["a", "b"], "scores are"),
        (np.ones((2, 2), bool), np.ones((2, 2), np.float16), ["a", "b"], "scores are float16"),
        (np.ones((2, 2), bool), np.ones((2, 2)), ["a"], "1 names"),
        (np.ones((2, 2), bool), np.ones((2, 2)), ["a", "a"], "2 names"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    truth: np.ndarray, scores: np.ndarray, names: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        score_classes(truth, scores, names)


def test_torchmetrics_is_imported_only_when_a_score_wants_it() -> None:
    code = "import sys; import yolor_core.training; assert 'torchmetrics' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
