"""Anchors that fit the boxes of a split, where the released ones are not wanted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans

from yolor_core.errors import DataError

STARTS = 20  # the best end counts
MOST = 50_000  # boxes; of more, so many are drawn


def kmeans_anchors(sizes: NDArray[np.floating], levels: int, per_level: int) -> NDArray[np.float32]:
    """Anchors (levels, per_level, 2) by k-means on the logarithms of box sizes (n, 2), by rising area.

    Logarithms, because an anchor matches a box by the ratios of their sides, not by differences; so a centre
    is the geometric mean of its boxes. The same sizes always give the same anchors. Raises DataError where
    there are fewer different sizes than anchors, or hardly more.
    """
    points = np.log(sizes.astype(np.float64))
    generator = np.random.default_rng(0)
    if len(points) > MOST:
        points = points[generator.choice(len(points), MOST, replace=False)]
    count, different = levels * per_level, np.unique(points, axis=0)
    if len(different) < count:
        those = f"{MOST} of the training boxes" if len(sizes) > MOST else "the training boxes"
        raise DataError(
            f"model.anchors = 'kmeans': {count} anchors are needed, and {those} have {len(different)} "
            "different sizes; allowed with these data: released"
        )
    # From different sizes: of two equal centres one would have no points, and k-means loses such a centre.
    starts = [different[generator.choice(len(different), count, replace=False)] for _ in range(STARTS)]
    ends = [kmeans(points, start) for start in starts]
    whole = [end for end in ends if len(end[0]) == count]
    if not whole:
        raise DataError(
            f"model.anchors = 'kmeans': no start has found {count} groups of box sizes; allowed with these "
            "data: released"
        )
    centres = min(whole, key=lambda end: float(end[1]))[0]
    order = centres.sum(1).argsort(kind="stable")
    return np.exp(centres[order]).reshape(levels, per_level, 2).astype(np.float32)
