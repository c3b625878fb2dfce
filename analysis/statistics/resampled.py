"""Intervals from a bootstrap, for two single runs: the images are random, their training is not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.statistics.seeds import LEVEL, tied


def percentile_interval(resampled: NDArray[np.floating], level: float = LEVEL) -> tuple[float, float]:
    """The middle `level` of the resampled values, NaN left out.

    Raises ValueError where fewer than two values are numbers.
    """
    values = _numbers(resampled)
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def bca_interval(
    observed: float,
    resampled: NDArray[np.floating],
    left_out: NDArray[np.floating],
    level: float = LEVEL,
) -> tuple[float, float]:
    """The bias-corrected and accelerated interval (Efron 1987).

    Values that equal the observed one but for rounding (`seeds.tied`) count half on each side.

    Args:
        observed: the value on all images.
        resampled: (B,) on resamples of the images; NaN are left out.
        left_out: (images,) without each image in turn, which says how the spread changes with the value.
        level: of confidence.

    Raises:
        ValueError: where fewer than two values are numbers.
    """
    values = _numbers(resampled)
    ties = tied(values, observed)
    below = float(np.mean((values < observed) & ~ties) + np.mean(ties) / 2)
    # All on one side would be an infinite correction; half a resample is as far as B of them can tell.
    below = min(max(below, 0.5 / len(values)), 1 - 0.5 / len(values))
    shift = float(stats.norm.ppf(below))
    deviations = np.nanmean(left_out) - left_out[np.isfinite(left_out)]
    deviations[tied(deviations, 0)] = 0.0
    spread = float((deviations**2).sum())
    acceleration = float((deviations**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    normal = stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    moved = shift + (shift + normal) / (1 - acceleration * (shift + normal))
    low, high = np.quantile(values, stats.norm.cdf(moved))
    return float(low), float(high)


def _numbers(values: NDArray[np.floating]) -> NDArray[np.float64]:
    found = np.asarray(values, np.float64)
    found = found[np.isfinite(found)]
    if len(found) < 2:
        raise ValueError(f"{len(found)} of {len(values)} resampled values are numbers; 2 are needed")
    return found
