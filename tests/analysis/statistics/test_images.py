"""Intervals where images are random: against scipy's, known designs, and coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from analysis.statistics.images import bca_interval, components, on_images_like_these, percentile_interval


def drawn(random: np.random.Generator, images: int, resamples: int) -> NDArray[np.int64]:
    """(resamples, images): how often each resample has each image."""
    chosen = random.integers(0, images, (resamples, images)) + images * np.arange(resamples)[:, None]
    return np.bincount(chosen.ravel(), minlength=resamples * images).reshape(resamples, images)


@pytest.mark.parametrize("n", [3, 5, 10])
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
        weights = drawn(random, images, resamples)
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
    weights = drawn(random, images, 400)
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


def test_rounding_is_no_effect() -> None:
    equal = 100 * (np.array([0.1 + 0.2, 0.7 + 0.1]) - np.array([0.3, 0.8]))
    dust = np.random.default_rng(0).uniform(-1, 1, (50, 2)) * 1e-14
    crossed = on_images_like_these(equal, dust, 40)
    assert (equal != 0).all() and (crossed.low, crossed.high, crossed.p) == (0, 0, 1)


@pytest.mark.parametrize("n", [12, 80])
def test_intervals_are_those_of_scipy(n: int) -> None:
    values = np.random.default_rng(n).exponential(size=n)
    options = {"n_resamples": 4000, "rng": np.random.default_rng(1), "vectorized": True}
    found = stats.bootstrap((values,), np.mean, method="BCa", **options)
    drawn = found.bootstrap_distribution
    left_out = (values.sum() - values) / (n - 1)
    low, high = bca_interval(float(values.mean()), drawn, left_out)
    assert (low, high) == pytest.approx(tuple(found.confidence_interval), rel=1e-9)
    plain = stats.bootstrap((values,), np.mean, method="percentile", bootstrap_result=found, n_resamples=0)
    assert percentile_interval(drawn) == pytest.approx(tuple(plain.confidence_interval), rel=1e-9)
    assert low > percentile_interval(drawn)[0]  # a skewed mean: the correction moves it to the right


@pytest.mark.parametrize(("n", "ones"), [(100, 1), (1000, 2), (30, 5)])
def test_resamples_that_tie_are_ties_whatever_the_order_of_their_sums(n: int, ones: int) -> None:
    random = np.random.default_rng(n)
    counts = np.zeros(n)  # whole numbers, whose sums are exact
    counts[:ones] = 1
    found = stats.bootstrap(
        (counts,), lambda x, axis: x.sum(axis=axis), method="BCa", n_resamples=4000, rng=random, batch=500
    )
    drawn, left_out = found.bootstrap_distribution, (ones - counts) / (n - 1)
    dust = random.uniform(-1, 1, (2, max(len(drawn), n))) * 1e-13
    low, high = bca_interval(
        100 * ones / n + 1e-14, 100 * drawn / n + dust[0, : len(drawn)], 100 * left_out + dust[1, :n]
    )
    exact = found.confidence_interval
    assert (low, high) == pytest.approx((100 * exact.low / n, 100 * exact.high / n), abs=1e-9)


def test_rounding_alone_has_no_skew() -> None:
    dust = np.array([3e-14, *np.full(99, -1e-15)])  # a third moment as large as any
    values = np.random.default_rng(0).normal(0, 1, 999)
    assert bca_interval(0.1, values, 5.0 + dust) == bca_interval(0.1, values, np.full(100, 5.0))


def test_undefined_resamples_are_left_out() -> None:
    values = np.array([np.nan, *np.linspace(0, 1, 1001), np.nan])
    assert percentile_interval(values) == pytest.approx((0.025, 0.975))
    with pytest.raises(ValueError, match="1 of 2 resampled values"):
        percentile_interval(np.array([np.nan, 1.0]))


def test_values_that_never_change_have_an_interval_of_no_length() -> None:
    assert bca_interval(0.3, np.full(100, 0.3), np.full(20, 0.3)) == (0.3, 0.3)
    low, high = bca_interval(0.0, np.ones(100), np.zeros(20))  # all on one side is no infinity
    assert (low, high) == (1.0, 1.0)
