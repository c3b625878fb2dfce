"""Plans: the promised power is the one that simulated studies have."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.seeds import effect_seen, power, seeds_needed, upper_sigma


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("effect", [0.0, 0.15, 0.3])
def test_the_power_is_that_of_simulated_tests(n: int, effect: float) -> None:
    draws = np.random.default_rng([n, int(100 * effect)]).normal(effect, 0.2, (20_000, n))
    rejected = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert power(n, effect, 0.2) == pytest.approx(rejected, abs=0.011)


@pytest.mark.parametrize("pilot", [3, 5, 10])
def test_a_plan_from_a_pilot_keeps_its_promise_as_often_as_it_says(pilot: int) -> None:
    """With an assurance of 80 % the seeds planned have 80 % power or more, whatever the pilot has seen."""
    random = np.random.default_rng(pilot)
    sigma, effect, kept = 0.2, 0.2, []
    for _ in range(400):
        seen = random.normal(effect, sigma, pilot).std(ddof=1)
        kept.append(power(seeds_needed(effect, upper_sigma(seen, pilot)), effect, sigma) >= 0.8)
    assert 0.74 < np.mean(kept) < 0.9  # seeds are whole, so a plan has a little more than it needs


def test_the_fewest_seeds_are_the_fewest() -> None:
    seeds = seeds_needed(0.2, 0.25, 0.8, tests=5)
    assert power(seeds, 0.2, 0.25, 0.01) >= 0.8 > power(seeds - 1, 0.2, 0.25, 0.01)


def test_the_effect_seen_is_the_inverse_of_the_seeds_needed() -> None:
    for n in (3, 8, 30):
        effect = effect_seen(n, 0.2)
        assert power(n, effect, 0.2) == pytest.approx(0.8, abs=1e-6)
        assert seeds_needed(effect * 1.0001, 0.2) == n
    assert effect_seen(1, 0.2) == float("inf") and effect_seen(5, 0.0) == 0


@pytest.mark.parametrize(
    ("effect", "sigma", "wanted"), [(0.0, 0.1, 0.8), (0.1, 0.1, 1.0), (0.1, -1.0, 0.8), (1e-6, 1.0, 0.8)]
)
def test_plans_that_make_no_sense_are_refused(effect: float, sigma: float, wanted: float) -> None:
    with pytest.raises(ValueError, match=r"effect|seeds"):
        seeds_needed(effect, sigma, wanted)


def test_a_pilot_of_one_pair_knows_nothing() -> None:
    with pytest.raises(ValueError, match="two at least"):
        upper_sigma(0.1, 1)


def test_differences_that_do_not_vary_need_two_seeds() -> None:
    assert seeds_needed(0.1, 0.0) == 2
