"""Augmentation of training images: mosaic and mixup of tiles, affine warps, colour, flips."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from yolor_core.config import AugmentConfig
from yolor_core.data.images import GREY, letterbox
from yolor_core.data.mosaic import Labelled, Part, compose, layout4, layout9

Pixels = NDArray[np.uint8]
STRIP = 128  # rows


def jitter(rng: np.random.Generator, image: Pixels, config: AugmentConfig) -> Pixels:
    """Multiply hue, saturation and value by gains uniform in 1 +- hsv_h, hsv_s, hsv_v. RGB in, RGB out."""
    limits = np.array([config.hsv_h, config.hsv_s, config.hsv_v])
    gains = 1 + limits * rng.uniform(-1, 1, size=3)
    if not limits.any():
        return image
    levels = np.arange(256) * gains[:, None]
    table = np.empty((1, 256, 3), np.uint8)
    table[0, :, 0] = levels[0] % 180  # OpenCV's hue runs from 0 to 179
    table[0, :, 1:] = np.clip(levels[1:], 0, 255).T
    columns = [np.ascontiguousarray(table[..., channel]) for channel in range(3)]
    height, width = image.shape[:2]
    # In strips, whose buffers stay in the processor's cache from one step to the next.
    strip = np.empty((min(STRIP, height), width, 3), np.uint8)
    planes = np.empty((3, *strip.shape[:2]), np.uint8)
    changed = np.empty_like(image)
    for y in range(0, height, STRIP):
        rows = image[y : y + STRIP]
        hsv, channels = strip[: len(rows)], [plane[: len(rows)] for plane in planes]
        cv2.cvtColor(rows, cv2.COLOR_RGB2HSV, dst=hsv)
        cv2.split(hsv, channels)
        for channel, column in zip(channels, columns, strict=True):
            cv2.LUT(channel, column, dst=channel)
        cv2.merge(channels, dst=hsv)
        cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=changed[y : y + STRIP])
    return changed


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


Fetch = Callable[[int], Part]
"""Image at a position, its long side resized to the training size. Must not be written into."""


def training_sample(
    rng: np.random.Generator,
    fetch: Fetch,
    index: int,
    pool: NDArray[np.int64],
    config: AugmentConfig,
    size: int,
) -> Labelled:
    """The augmented image at position `index`: pixels (size, size, 3), boxes inside it.

    `pool` holds the positions that the other images of a mosaic are drawn from, uniformly and with
    replacement.
    """
    if rng.random() < config.mosaic:
        image = _mosaic(rng, fetch, index, pool, config, size)
        if rng.random() < config.mixup:
            second = _mosaic(rng, fetch, int(rng.choice(pool)), pool, config, size)
            image = mix(image, second, float(rng.beta(8.0, 8.0)))
    else:
        alone = fetch(index).load()
        pixels, left, top = letterbox(alone.pixels, size, size)
        boxes = alone.boxes + np.array([left, top, left, top], np.float32)
        matrix, scale = random_map(rng, config, size, size, size)
        image = _mapped(Labelled(pixels, boxes, alone.classes, alone.identities), matrix, scale, size)
    image.pixels = jitter(rng, image.pixels, config)
    across, upside = rng.random(2)
    return flip(image, bool(across < config.flip_horizontal), bool(upside < config.flip_vertical))


def _mosaic(
    rng: np.random.Generator,
    fetch: Fetch,
    index: int,
    pool: NDArray[np.int64],
    config: AugmentConfig,
    size: int,
) -> Labelled:
    others = rng.choice(pool, size=config.mosaic_images - 1)
    parts = [fetch(int(i)) for i in (index, *others)]
    layout = (layout4 if config.mosaic_images == 4 else layout9)(rng, parts, size)
    # The map is drawn before anything is decoded: what it leaves outside need not be.
    matrix, scale = random_map(rng, config, layout.side, layout.side, size)
    canvas = compose(layout, parts, view(matrix, layout.side, size))
    return _mapped(canvas, matrix, scale, size)


def _mapped(image: Labelled, matrix: Matrix, scale: float, size: int) -> Labelled:
    boxes, keep = map_boxes(image.boxes, matrix, scale, size)
    pixels = map_image(image.pixels, matrix, size)
    return Labelled(pixels, boxes[keep], image.classes[keep], image.identities[keep])


def mix(first: Labelled, second: Labelled, share: float) -> Labelled:
    """Blend two images, `share` of the first; all labels of both."""
    pixels = np.asarray(cv2.addWeighted(first.pixels, share, second.pixels, 1 - share, 0), np.uint8)
    return Labelled(
        pixels,
        np.concatenate([first.boxes, second.boxes]),
        np.concatenate([first.classes, second.classes]),
        np.concatenate([first.identities, second.identities]),
    )


def flip(image: Labelled, horizontal: bool, vertical: bool) -> Labelled:
    """Mirror pixels and boxes."""
    height, width = image.pixels.shape[:2]
    pixels, boxes = image.pixels, image.boxes
    if horizontal:
        boxes = boxes[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (width, 0, width, 0)
    if vertical:
        boxes = boxes[:, [0, 3, 2, 1]] * (1, -1, 1, -1) + (0, height, 0, height)
    if horizontal or vertical:
        around = -1 if horizontal and vertical else 1 if horizontal else 0
        pixels = np.asarray(cv2.flip(pixels, around), np.uint8)
    return Labelled(pixels, boxes.astype(np.float32), image.classes, image.identities)
