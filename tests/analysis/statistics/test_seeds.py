"""Intervals over seeds, Holm, agreement with the paper: known answers, and how often they err."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.seeds import (
    agreement,
    holm,
    over_seeds,
    student,
    variance_left,
)

SEEDS = (3, 5, 10)


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    values = np.array([0.3, 0.1, 0.45, 0.2, -0.05])
    reference = stats.ttest_1samp(values, 0)
    low, high = reference.confidence_interval(0.95)
    ours = over_seeds(values)
    assert (ours.low, ours.high, ours.p) == pytest.approx((low, high, reference.pvalue), abs=1e-14)
    assert ours.half_width == pytest.approx((high - low) / 2)


def test_one_seed_has_a_mean_and_no_interval() -> None:
    ours = over_seeds([0.4])
    assert (ours.mean, ours.n, ours.low, ours.high, ours.p) == (0.4, 1, None, None, None)


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [float("inf")]])
def test_what_is_no_number_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="not finite"):
        over_seeds(values)


def test_differences_that_do_not_vary_leave_no_doubt() -> None:
    assert over_seeds([0.5, 0.5, 0.5]).p == 0
    assert over_seeds([0.0, 0.0]).p == 1
    assert student(0.0, 0.0, 4, 5).p == 1


def test_rounding_is_no_effect() -> None:
    equal = 100 * (np.array([0.1 + 0.2, 0.7 + 0.1]) - np.array([0.3, 0.8]))
    assert (equal != 0).all()
    for ours in (over_seeds(equal), over_seeds([equal[0]] * 3)):
        assert (ours.low, ours.high, ours.p) == (0, 0, 1)
    assert variance_left(50 + equal, [50.0, 50.0]) is None


@pytest.mark.parametrize("n", SEEDS)
def test_intervals_over_seeds_cover_as_often_as_they_say(n: int) -> None:
    random = np.random.default_rng(n)
    draws = random.normal(0.2, 0.15, (8000, n))
    covered = [i.low <= 0.2 <= i.high for i in map(over_seeds, draws)]  # type: ignore[operator]
    assert 0.94 < np.mean(covered) < 0.96


def test_holm_is_holm() -> None:
    # The worked example of Holm (1979) in the usual textbooks: 0.01, 0.04, 0.03, 0.005.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([None, 0.5, None, 0.02]) == [None, 0.5, None, 0.04]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_pairing_is_measured_not_assumed() -> None:
    random = np.random.default_rng(2)
    common, a, b = random.normal(size=(3, 4000))
    assert variance_left(a, b) == pytest.approx(1, abs=0.06)
    assert variance_left(3 * common + a, 3 * common + b) == pytest.approx(0.1, abs=0.01)
    assert variance_left([1.0], [2.0]) is None
    assert variance_left([1.0, 1.0], [2.0, 2.0]) is None
    with pytest.raises(ValueError, match="pairs are needed"):
        variance_left([1.0, 2.0], [1.0])


@pytest.mark.parametrize("n", [3, 5, 10, 40])
def test_a_true_effect_of_the_paper_is_found_consistent_whatever_the_number_of_seeds(n: int) -> None:
    random = np.random.default_rng(n)
    agreed = []
    for _ in range(3000):
        baseline, variant = random.normal(0, 0.15, n), random.normal(0.3, 0.15, n)
        # One run per arm, each printed with one decimal.
        paper = round(51 + random.normal(0.3, 0.15), 1) - round(51 + random.normal(0, 0.15), 1)
        ours = over_seeds(variant - baseline)
        agreed.append(agreement(ours, paper, variant.std(ddof=1), baseline.std(ddof=1)))
    # At few seeds the rule errs on the safe side (99 % at three): t has n - 1 degrees of freedom.
    assert 0.93 < np.mean(agreed) < 0.995


def test_one_seed_has_nothing_to_agree_with() -> None:
    with pytest.raises(ValueError, match="one seed"):
        agreement(over_seeds([0.1]), 0.1, 0.1, 0.1)
