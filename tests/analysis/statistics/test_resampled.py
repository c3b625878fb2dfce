"""Bootstrap intervals against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.images import bca_interval, percentile_interval


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


def test_bootstrap_intervals_of_a_mean_cover_as_often_as_they_say() -> None:
    random = np.random.default_rng(3)
    covered = {"percentile": 0, "bca": 0}
    studies, n = 600, 60
    for _ in range(studies):
        values = random.normal(1.0, 1.0, n)
        weights = random.multinomial(n, np.full(n, 1 / n), 400)
        drawn, left_out = weights @ values / n, (values.sum() - values) / (n - 1)
        low, high = percentile_interval(drawn)
        covered["percentile"] += low <= 1.0 <= high
        low, high = bca_interval(float(values.mean()), drawn, left_out)
        covered["bca"] += low <= 1.0 <= high
    assert all(0.92 < count / studies < 0.97 for count in covered.values()), covered
