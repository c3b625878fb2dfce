"""The effect on images like these: training and images are random, and every seed sees the same images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.seeds import LEVEL, TIE, Interval, student


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
