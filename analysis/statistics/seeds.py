"""Paired differences over seeds: the effect on this validation set, where training alone is random.

Their intervals, Holm's correction, and whether they agree with the paper's effect. Holm is ours: statsmodels'
knows no tests that are still to come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit  # of stats.t, which takes thirty times as long to call

LEVEL = 0.95
ALPHA, POWER = 0.05, 0.8
ROUNDING = 2 * 0.1**2 / 12  # variance of two cells rounded to 0.1 AP, in AP²
TIE = 1e-9  # percentage points: scores that are closer differ by the order of their sums alone


def tied(a: ArrayLike, b: ArrayLike) -> NDArray[np.bool_]:
    """Whether values are equal but for rounding: within `TIE`, or 1e-11 of themselves if that is more."""
    return np.isclose(a, b, rtol=1e-11, atol=TIE)


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval; all in the units of the values.

    `low`, `high`, `p` and `error` are None where one value cannot tell.
    """

    mean: float
    n: int  # values: pairs of runs, or runs
    error: float | None = None  # standard error of the mean
    freedom: float = 0.0  # degrees of freedom
    low: float | None = None
    high: float | None = None
    p: float | None = None  # two-sided, of the hypothesis that the mean is 0

    @property
    def half_width(self) -> float | None:
        """Half of the interval's length."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def student(mean: float, error: float, freedom: float, n: int, level: float = LEVEL) -> Interval:
    """mean ± t · error with `freedom` degrees of freedom, and the p-value of the mean being 0.

    An error of 0 (within `TIE`) gives an interval of no length, and p = 0 or, for a mean of 0, 1.
    """
    mean, error = (0.0 if tied(value, 0) else value for value in (mean, error))
    reach = float(stdtrit(freedom, 0.5 + level / 2)) * error
    certain = 1.0 if mean == 0 else 0.0
    p = float(2 * stdtr(freedom, -abs(mean) / error)) if error > 0 else certain
    return Interval(mean, n, error, freedom, mean - reach, mean + reach, p)


def over_seeds(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The mean of independent values ± t_{n-1} · s / √n.

    Given the differences of runs with equal seeds this is the paired t-interval of an effect on this
    validation set.

    Args:
        values: one per seed; at least one. A single value has no interval.
        level: of confidence.

    Raises:
        ValueError: no values, or values that are not finite.
    """
    array = np.asarray(values, np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"{array.size} values of which {int((~np.isfinite(array)).sum())} are not finite")
    mean = float(array.mean())
    if array.size == 1:
        return Interval(mean, 1)
    error = float(array.std(ddof=1) / np.sqrt(array.size))
    return student(mean, error, array.size - 1, array.size, level)


def variance_left(variant: Sequence[float], baseline: Sequence[float]) -> float | None:
    """The part of the unpaired variance that pairing by seed has left: s_Δ² / (s_a² + s_b²).

    1 is what independent runs have on average; below 1 common random numbers have helped. None for fewer
    than two pairs, or where nothing varies.

    Args:
        variant, baseline: scores, the same seeds in the same order.

    Raises:
        ValueError: different numbers of scores.
    """
    a, b = np.asarray(variant, np.float64), np.asarray(baseline, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"{a.size} and {b.size} scores; pairs are needed")
    if a.size < 2:
        return None
    unpaired = float(a.var(ddof=1) + b.var(ddof=1))
    return float((a - b).var(ddof=1)) / unpaired if unpaired > TIE**2 else None


def holm(p_values: Sequence[float | None], tests: int = 0) -> list[float | None]:
    """Holm's correction over a family of tests (Holm 1979); None stays None.

    Each result is the smallest family-wise error rate at which its hypothesis is rejected.

    Args:
        p_values: of the tests that were made.
        tests: of the family, where more are to come; at least as many as were made.
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    above = 0.0
    for rank, (p, index) in enumerate(known):
        above = max(above, min(1.0, (max(tests, len(known)) - rank) * p))
        corrected[index] = above
    return corrected


def agreement(ours: Interval, paper: float, spread: float, baseline_spread: float) -> bool:
    """Whether |Δ̄ - Δ_paper| ≤ t_{n-1} · √(SE² + s_p²), s_p² = s_a² + s_b² + 2 · 0.1² / 12.

    The paper's difference is itself one run per arm, rounded to 0.1 AP. So it is compared with a prediction
    interval for one more pair of runs, rounded: that holds equally often for every number of seeds. The rule
    "the paper's Δ lies in our confidence interval" would fail more often the more seeds are run.

    Args:
        ours: the mean difference over at least two seeds, in AP.
        paper: its difference, in AP.
        spread, baseline_spread: standard deviations over seeds of the two arms, in AP; they stand for the
            paper's own runs.
    """
    if ours.error is None:
        raise ValueError("a difference of one seed has no error to compare with")
    predicted = ours.error**2 + spread**2 + baseline_spread**2 + ROUNDING
    reach = float(stdtrit(ours.n - 1, 0.5 + LEVEL / 2)) * np.sqrt(predicted)
    return bool(abs(ours.mean - paper) <= reach)
