"""Resizing to the network's scale, and letterboxing."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
GREY = 114  # fills what no image covers

cv2.setNumThreads(0)  # parallelism is the loader's


def fitted(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height with the long side `size`, the other rounded to at least one pixel."""
    ratio = size / max(width, height)
    return max(round(width * ratio), 1), max(round(height * ratio), 1)


def resize(image: Pixels, size: int, purpose: Literal["train", "test"]) -> Pixels:
    """Scale so that the long side is `size`: bilinear, but by area when a test image shrinks, as released."""
    height, width = image.shape[:2]
    target = fitted(width, height, size)
    if target == (width, height):
        return image
    shrinks = max(target) < max(width, height)
    method = cv2.INTER_AREA if purpose == "test" and shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, target, interpolation=method), np.uint8)


def letterbox(image: Pixels, width: int, height: int) -> tuple[Pixels, int, int]:
    """Centre an image on a grey canvas (height, width, 3); also returns its left and top offset in pixels.

    An odd pixel of padding goes to the right or bottom. Raises ValueError when the image does not fit.
    """
    h, w = image.shape[:2]
    if w > width or h > height:
        raise ValueError(f"an image of {w} x {h} does not fit into {width} x {height}")
    left, top = (width - w) // 2, (height - h) // 2
    canvas = np.full((height, width, 3), GREY, np.uint8)
    canvas[top : top + h, left : left + w] = image
    return canvas, left, top
