"""One training sample: a mosaic or a single image, mapped, blended, coloured and flipped."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from yolor_core.config import AugmentConfig
from yolor_core.data.affine import Matrix, map_boxes, map_image, random_map, view
from yolor_core.data.colour import jitter
from yolor_core.data.mosaic import Labelled, Part, compose, layout4, layout9
from yolor_core.data.resize import letterbox

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
