"""Random affine and perspective maps of an image and its boxes."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from yolor_core.config import AugmentConfig
from yolor_core.data.resize import GREY

Pixels = NDArray[np.uint8]
Boxes = NDArray[np.float32]
Matrix = NDArray[np.float64]

MIN_SIDE = 2.0  # pixels; a box is kept if it is wider and higher than this,
MIN_AREA_SHARE = 0.1  # keeps more than this share of its area (scaling aside),
MAX_ASPECT = 20.0  # and is less elongated than this

MARGIN = 2  # pixels of the canvas; bilinear interpolation reads one pixel beyond


def random_map(
    rng: np.random.Generator, config: AugmentConfig, width: int, height: int, size: int
) -> tuple[Matrix, float]:
    """Homogeneous 3 x 3 map from a canvas of width x height to the output of size x size, and its scale
    factor.

    The centre of the canvas goes to uniform(.5 - t, .5 + t) * size, scaled by uniform(1 - s, 1 + s), turned
    by uniform(-degrees, degrees), sheared and tilted likewise. All numbers are always drawn, so that
    switching one kind off leaves the others as they were.
    """
    draw = rng.uniform(-1, 1, size=8)
    scale = 1 + config.scale * draw[0]
    angle = math.radians(config.degrees * draw[1])
    shear_x, shear_y = (math.tan(math.radians(config.shear * d)) for d in draw[2:4])
    tilt_x, tilt_y = config.perspective * draw[4:6]
    shift_x, shift_y = (0.5 + config.translate * draw[6:8]) * size
    c, s = math.cos(angle) * scale, math.sin(angle) * scale
    to_origin = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, 1, 0], [tilt_x, tilt_y, 1]])
    turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    shear = np.array([[1, shear_x, 0], [shear_y, 1, 0], [0, 0, 1]])
    to_place = np.array([[1, 0, shift_x], [0, 1, shift_y], [0, 0, 1]])
    return to_place @ shear @ turn @ tilt @ to_origin, scale


def view(matrix: Matrix, side: int, size: int) -> tuple[int, int, int, int]:
    """The rectangle (x1, y1, x2, y2) of a square canvas outside which nothing matters to the output.

    Only maps that neither turn, shear nor tilt leave anything out: with them, no pixel is read there (MARGIN
    covers interpolation) and no box is kept that lies there. It is empty where the output shows no canvas.
    """
    (scale_x, by_y, x), (by_x, scale_y, y), last = matrix.tolist()
    if by_x or by_y or last != [0, 0, 1] or min(scale_x, scale_y) <= 0:
        return 0, 0, side, side
    x1, x2 = math.floor(-x / scale_x) - MARGIN, math.ceil((size - x) / scale_x) + MARGIN
    y1, y2 = math.floor(-y / scale_y) - MARGIN, math.ceil((size - y) / scale_y) + MARGIN
    return max(x1, 0), max(y1, 0), min(x2, side), min(y2, side)


def map_image(image: Pixels, matrix: Matrix, size: int) -> Pixels:
    """Apply a map bilinearly; output uint8 (size, size, 3), grey where the canvas does not reach.

    `image` has three channels or a fourth that means nothing: OpenCV maps four in half the time of three.
    Coordinates are continuous (pixel 0 covers [0, 1)), as those of boxes are; OpenCV counts pixel centres.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size) and np.array_equal(matrix, np.eye(3)):
        return image if image.shape[2] == 3 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGBA2RGB), np.uint8)
    if image.shape[2] == 3:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), np.uint8)
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    centred = np.linalg.inv(half) @ matrix @ half
    fill = (GREY, GREY, GREY, GREY)
    if centred[2, 0] == 0 and centred[2, 1] == 0:
        flat = np.ascontiguousarray(centred[:2])
        mapped = cv2.warpAffine(image, flat, (size, size), flags=cv2.INTER_LINEAR, borderValue=fill)
    else:
        mapped = cv2.warpPerspective(image, centred, (size, size), flags=cv2.INTER_LINEAR, borderValue=fill)
    return np.asarray(cv2.cvtColor(mapped, cv2.COLOR_RGBA2RGB), np.uint8)


def map_boxes(boxes: Boxes, matrix: Matrix, scale: float, size: int) -> tuple[Boxes, NDArray[np.bool_]]:
    """Boxes (n, 4) x1 y1 x2 y2 around the mapped corners, cut to the output, and which of them to keep
    (n,)."""
    if not len(boxes):
        return boxes, np.zeros(0, bool)
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].astype(np.float64).reshape(-1, 4, 2)
    points = corners @ matrix[:, :2].T + matrix[:, 2]
    points = points[..., :2] / points[..., 2:]
    mapped = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1).clip(0, size)
    return mapped.astype(np.float32), worth_keeping(boxes * scale, mapped)


def worth_keeping(before: NDArray[np.floating], after: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which boxes survive: (n, 4) before the map, scaled as it scales, and after it."""
    w, h = after[:, 2] - after[:, 0], after[:, 3] - after[:, 1]
    area = (before[:, 2] - before[:, 0]) * (before[:, 3] - before[:, 1])
    aspect = np.maximum(w, h) / np.maximum(np.minimum(w, h), 1e-9)
    keep = (w > MIN_SIDE) & (h > MIN_SIDE) & (w * h > MIN_AREA_SHARE * area) & (aspect < MAX_ASPECT)
    return np.asarray(keep, bool)
