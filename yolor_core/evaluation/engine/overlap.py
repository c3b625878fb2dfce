"""Intersection over union, rounded as COCO's reference rounds it."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True, error_model="numpy")
def overlaps(
    found: NDArray[np.float64], truth: NDArray[np.float64], crowd: NDArray[np.bool_], out: NDArray[np.float64]
) -> None:
    """Write the overlap of each found box with each true one into `out`.

    For a crowd the intersection is divided by the found box's area alone. The operations and their order are
    those of bbIou in COCO's maskApi.c, in float64 without fused multiply-add, so the values are bit-equal to
    pycocotools' on x86-64.

    Args:
        found: (d, 4) x, y, width, height in pixels.
        truth: (t, 4) likewise.
        crowd: (t,).
        out: at least (d, t); the rest is left alone.
    """
    for j in range(len(truth)):
        x, y, width, height = truth[j, 0], truth[j, 1], truth[j, 2], truth[j, 3]
        area = width * height
        for i in range(len(found)):
            out[i, j] = 0.0
            across = min(found[i, 2] + found[i, 0], width + x) - max(found[i, 0], x)
            down = min(found[i, 3] + found[i, 1], height + y) - max(found[i, 1], y)
            if across > 0.0 and down > 0.0:
                shared = across * down
                own = found[i, 2] * found[i, 3]
                out[i, j] = shared / (own if crowd[j] else own + area - shared)
