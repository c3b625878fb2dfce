"""Intervals where the images are random: of two single runs, and over seeds and images together.

Two single runs have a bootstrap over the images alone: their training is not random in it. The effect on
images like these has both: training and images are random, and every seed sees the same images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.statistics.seeds import LEVEL, TIE, Interval, student, tied


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


@dataclass(frozen=True)
class Components:
    """Where the variance of a mean difference comes from (squared units of the score)."""

    seeds: float  # s_Δ² / n: training, on these images, interaction included
    images: float  # of the images alone, what all seeds share; not below 0
    interaction: float  # of one seed's difference with the images, n times what is in the mean


def components(differences: NDArray[np.floating], resampled: NDArray[np.floating]) -> Components:
    """Variance components of the mean difference over seeds.

    V_img(Δ̄), the variance of the mean over resamples of the images, holds the images' own part and 1/n of the
    interaction of seeds with images; the interaction is in s_Δ² too, so it is taken out here.

    Args:
        differences: (n,) score of the variant less that of the baseline on the images themselves, by seed.
        resampled: (B, n) the same on B resamples of the images; one resample serves all seeds and both arms.

    Raises:
        ValueError: fewer than two seeds or resamples, or shapes that do not fit.
    """
    observed, drawn = np.asarray(differences, np.float64), np.asarray(resampled, np.float64)
    if observed.ndim != 1 or drawn.ndim != 2 or drawn.shape[1] != observed.size:
        raise ValueError(f"{observed.shape} differences and {drawn.shape} resampled ones do not fit")
    n = observed.size
    if n < 2 or drawn.shape[0] < 2:
        raise ValueError(f"{n} seeds, {drawn.shape[0]} resamples: at least two of each are needed")
    mean = drawn.mean(axis=1)
    own = drawn - mean[:, None]  # what each seed has beside the mean, by resample
    interaction = float(own.var(axis=0, ddof=1).sum() / (n - 1))
    images = max(0.0, float(mean.var(ddof=1)) - interaction / n)
    return Components(float(observed.var(ddof=1)) / n, images, interaction)


def on_images_like_these(
    differences: NDArray[np.floating],
    resampled: NDArray[np.floating],
    images: int,
    level: float = LEVEL,
) -> Interval:
    """Interval of the effect on other images of the same kind, by other trainings.

    V = s_Δ²/n + max(0, V_img(Δ̄) - V_seed×img/n), with Satterthwaite's degrees of freedom: n - 1 for the first
    part, the number of images less 1 for the second.

    Args:
        differences, resampled: as for `components`.
        images: in the validation set.
        level: of confidence.
    """
    parts = components(differences, resampled)
    observed = np.asarray(differences, np.float64)
    total = parts.seeds + parts.images
    n = observed.size
    if total <= TIE**2:
        return student(float(observed.mean()), 0.0, n - 1, n, level)
    freedom = total**2 / (parts.seeds**2 / (n - 1) + parts.images**2 / max(images - 1, 1))
    return student(float(observed.mean()), float(np.sqrt(total)), freedom, n, level)
