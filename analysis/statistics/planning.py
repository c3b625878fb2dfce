"""How many seeds an effect needs, and what effect so many seeds can show (paired t-test, two-sided).

The power of n pairs for an effect δ is that of the noncentral t distribution with n - 1 degrees of freedom
and noncentrality δ√n / σ, σ the standard deviation of the paired differences. A pilot of k pairs knows σ only
roughly, so plans use its upper confidence limit s · √((k-1) / χ²_{1-c}(k-1)): with probability c the promised
power is then reached or passed. Assumed: differences of seeds are independent and normal, and later seeds
scatter as the pilot's do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

ALPHA, POWER, ASSURANCE = 0.05, 0.8, 0.8
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Plan:
    """Seeds to run, per arm."""

    seeds: int
    power: float  # at this number, should σ be as assumed
    sigma: float  # assumed standard deviation of paired differences


def power(n: int, effect: float, sigma: float, alpha: float = ALPHA) -> float:
    """Probability that n pairs reject "no effect" when the effect is `effect` (same units as `sigma`)."""
    if n < 2:
        return 0.0
    if sigma <= 0:
        return 1.0 if effect else alpha
    shift = abs(effect) * math.sqrt(n) / sigma
    critical = float(stats.t.ppf(1 - alpha / 2, n - 1))
    upper = float(stats.nct.sf(critical, n - 1, shift))
    lower = float(stats.nct.cdf(-critical, n - 1, shift))
    # scipy's noncentral t loses its tail at large shifts
    return min(1.0, (upper if math.isfinite(upper) else 1.0) + (lower if math.isfinite(lower) else 0.0))


def upper_sigma(sigma: float, pairs: int, assurance: float = ASSURANCE) -> float:
    """The σ that a pilot's estimate from so many pairs does not pass with probability `assurance`.

    Raises ValueError for fewer than two pairs.
    """
    if pairs < 2:
        raise ValueError(f"{pairs} pairs: two at least are needed to know how differences scatter")
    return sigma * math.sqrt((pairs - 1) / float(stats.chi2.ppf(1 - assurance, pairs - 1)))


def seeds_needed(
    effect: float, sigma: float, wanted: float = POWER, alpha: float = ALPHA, tests: int = 1
) -> Plan:
    """The fewest pairs of runs that show an effect with the wanted power.

    Args:
        effect: to be seen, in the units of `sigma`; not 0.
        sigma: standard deviation of the paired differences (see `upper_sigma`).
        wanted: power, between 0 and 1.
        alpha: error rate of the whole family.
        tests: of a table, corrected by Holm; planned for the worst case, alpha / tests.

    Raises:
        ValueError: numbers out of range, or more than 10,000 seeds would be needed.
    """
    if effect == 0 or not 0 < wanted < 1 or not 0 < alpha < 1 or sigma < 0 or tests < 1:
        raise ValueError(
            f"effect {effect}, power {wanted}, alpha {alpha}, sigma {sigma}, tests {tests}: the effect is "
            "not 0, power and alpha lie between 0 and 1, sigma is not negative, tests are at least 1"
        )
    each = alpha / tests
    low, high = 1, 2
    while power(high, effect, sigma, each) < wanted:
        low, high = high, 2 * high
        if high > MOST_SEEDS:
            raise ValueError(f"an effect of {effect} needs more than {MOST_SEEDS} seeds at sigma {sigma:.3g}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, effect, sigma, each) >= wanted else (middle, high)
    return Plan(high, power(high, effect, sigma, each), sigma)


def effect_seen(n: int, sigma: float, wanted: float = POWER, alpha: float = ALPHA, tests: int = 1) -> float:
    """The smallest effect that n pairs show with the wanted power; infinite for fewer than two."""
    if n < 2:
        return math.inf
    if sigma <= 0:
        return 0.0
    low, high = 0.0, sigma
    while power(n, high, sigma, alpha / tests) < wanted:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if power(n, middle, sigma, alpha / tests) >= wanted else (middle, high)
    return high
