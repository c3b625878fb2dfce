"""Intervals over seeds and over images: known answers, and coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.images import components, on_images_like_these
from analysis.statistics.seeds import holm, over_seeds, student, variance_left

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
    drawn = np.random.default_rng(0).uniform(-1, 1, (50, 2)) * 1e-14
    crossed = on_images_like_these(equal, drawn, 40)
    assert (crossed.low, crossed.high, crossed.p) == (0, 0, 1)
    assert variance_left(50 + equal, [50.0, 50.0]) is None


@pytest.mark.parametrize("n", SEEDS)
def test_intervals_over_seeds_cover_as_often_as_they_say(n: int) -> None:
    random = np.random.default_rng(n)
    draws = random.normal(0.2, 0.15, (8000, n))
    covered = [i.low <= 0.2 <= i.high for i in map(over_seeds, draws)]  # type: ignore[operator]
    assert 0.94 < np.mean(covered) < 0.96


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize(
    ("seed", "image", "interaction"), [(0.1, 0.0, 0.0), (0.1, 2.0, 0.0), (0.1, 2.0, 2.0), (0.02, 3.0, 1.0)]
)
def test_intervals_over_seeds_and_images_cover_as_often_as_they_say(
    n: int, seed: float, image: float, interaction: float
) -> None:
    """A score that is a mean over images, each with an effect of its own, by seed and for all seeds."""
    images, resamples, studies = 150, 150, 1000
    random = np.random.default_rng([n, int(100 * image), int(100 * interaction)])
    covered = 0
    for _ in range(studies):
        effects = 0.3 + random.normal(0, seed, n)[:, None] + random.normal(0, image, images)
        effects = effects + random.normal(0, interaction, (n, images))
        weights = random.multinomial(images, np.full(images, 1 / images), resamples)
        interval = on_images_like_these(effects.mean(1), weights @ effects.T / images, images)
        assert interval.low is not None and interval.high is not None
        covered += interval.low <= 0.3 <= interval.high
    assert 0.93 < covered / studies < 0.97


def test_components_of_a_known_design_are_found() -> None:
    random = np.random.default_rng(0)
    n, images = 400, 400
    effects = (
        random.normal(0, 0.2, n)[:, None] + random.normal(0, 3, images) + random.normal(0, 2, (n, images))
    )
    weights = random.multinomial(images, np.full(images, 1 / images), 400)
    found = components(effects.mean(1), weights @ effects.T / images)
    assert found.images == pytest.approx(9 / images, rel=0.25)
    assert found.interaction == pytest.approx(4 / images, rel=0.1)
    assert found.seeds == pytest.approx((0.04 + 4 / images) / n, rel=0.25)


def test_images_that_all_agree_add_nothing() -> None:
    found = components(np.array([0.1, 0.3]), np.tile([0.1, 0.3], (50, 1)))
    assert (found.images, found.interaction) == pytest.approx((0, 0), abs=1e-20)
    assert found.seeds == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("differences", "resampled"),
    [(np.zeros(1), np.zeros((5, 1))), (np.zeros(3), np.zeros((5, 2))), (np.zeros(3), np.zeros((1, 3)))],
)
def test_too_little_for_components_is_refused(differences: np.ndarray, resampled: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"fit|at least two"):
        components(differences, resampled)


def test_holm_is_holm() -> None:
    # The worked example of Holm (1979) in the usual textbooks: 0.01, 0.04, 0.03, 0.005.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([None, 0.5, None, 0.02]) == [None, 0.5, None, 0.04]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_error_rate_of_the_family() -> None:
    random = np.random.default_rng(1)
    wrong = [min(holm(list(random.uniform(size=5)))) <= 0.05 for _ in range(4000)]  # type: ignore[type-var]
    assert 0.04 < np.mean(wrong) < 0.06


def test_pairing_is_measured_not_assumed() -> None:
    random = np.random.default_rng(2)
    common, a, b = random.normal(size=(3, 4000))
    assert variance_left(a, b) == pytest.approx(1, abs=0.06)
    assert variance_left(3 * common + a, 3 * common + b) == pytest.approx(0.1, abs=0.01)
    assert variance_left([1.0], [2.0]) is None
    assert variance_left([1.0, 1.0], [2.0, 2.0]) is None
    with pytest.raises(ValueError, match="pairs are needed"):
        variance_left([1.0, 2.0], [1.0])
