"""Bootstrap intervals against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.resampled import bca_interval, percentile_interval


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
