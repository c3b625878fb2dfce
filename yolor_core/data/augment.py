"""Augmentation of training images: mosaic and mixup of tiles, affine warps, colour, flips."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from yolor_core.config import AugmentConfig
from yolor_core.data.images import GREY, Pixels, letterbox

Boxes = NDArray[np.float32]
Matrix = NDArray[np.float64]
Rectangle = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels."""


@dataclass
class Labelled:
    """An image with boxes (n, 4) x1 y1 x2 y2 in its pixels, contiguous classes (n,), and identities (n,) as
    their index in the split, -1 for none."""

    pixels: Pixels
    boxes: Boxes
    classes: NDArray[np.int64]
    identities: NDArray[np.int64]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    def load(self) -> Labelled:
        """Itself."""
        return self


class Part(Protocol):
    """An image whose size is known before it is decoded, and which is decoded only when it is needed."""

    @property
    def width(self) -> int:
        """Of the pixels that `load` returns."""

    @property
    def height(self) -> int:
        """Of the pixels that `load` returns."""

    def load(self) -> Labelled:
        """The image, which must not be written into."""


@dataclass(frozen=True)
class Tile:
    """Where a part lies on the canvas (its left and top), and the cell of the canvas that it is cut at."""

    left: int
    top: int
    cell: Rectangle


@dataclass(frozen=True)
class Layout:
    """Tiles on a canvas, in the order of the parts, and the square window of the canvas that is kept."""

    tiles: tuple[Tile, ...]
    side: int  # of the window
    x: int = 0  # left and top of the window on the canvas
    y: int = 0
    cut: bool = False  # whether the window is less than the canvas

    def seen(self, part: Part, tile: Tile) -> Rectangle:
        """What of the window a part covers; empty (x2 <= x1 or y2 <= y1) where it does not reach."""
        x1, y1, x2, y2 = _covered(part, tile)
        return (
            max(x1 - self.x, 0),
            max(y1 - self.y, 0),
            min(x2 - self.x, self.side),
            min(y2 - self.y, self.side),
        )


def layout4(rng: np.random.Generator, parts: Sequence[Part], size: int) -> Layout:
    """Four images that meet at a point uniform in [size/2, 3 size/2]^2 of a canvas of 2 size x 2 size.

    Each image turns the corner to the point that lies opposite to its own quadrant, and is cut at the canvas.
    """
    side = 2 * size
    x, y = (int(v) for v in rng.uniform(size / 2, 3 * size / 2, size=2))
    tiles = []
    for number, part in enumerate(parts):
        left = x if number % 2 else x - part.width
        top = y if number >= 2 else y - part.height
        tiles.append(Tile(left, top, (0, 0, side, side)))
    return Layout(tuple(tiles), side)


def layout9(rng: np.random.Generator, parts: Sequence[Part], size: int) -> Layout:
    """Nine images on a canvas of 3 size x 3 size, of which a random window of 2 size x 2 size is kept.

    The first image lies in the middle and its edges, prolonged, divide the canvas into nine cells; each other
    image touches the middle one's cell and is cut at its own. (The sources fix canvas and crop, not the
    layout.)
    """
    side = 3 * size
    w, h = parts[0].width, parts[0].height
    left, top = (side - w) // 2, (side - h) // 2
    columns, rows = (0, left, left + w, side), (0, top, top + h, side)
    cells = [(1, 1), (0, 0), (1, 0), (2, 0), (0, 1), (2, 1), (0, 2), (1, 2), (2, 2)]
    tiles = []
    for part, (column, row) in zip(parts, cells, strict=True):
        x = columns[1] - part.width if column == 0 else columns[column]
        y = rows[1] - part.height if row == 0 else rows[row]
        tiles.append(Tile(x, y, (columns[column], rows[row], columns[column + 1], rows[row + 1])))
    x, y = (int(v) for v in rng.integers(0, size + 1, size=2))
    return Layout(tuple(tiles), 2 * size, x, y, cut=True)


def compose(layout: Layout, parts: Sequence[Part], view: Rectangle | None = None) -> Labelled:
    """The window of a canvas with its parts on grey: pixels (side, side, 4), RGB and a channel without
    meaning (see `map_image`).

    `view` is what of the window still matters (all of it, unless given). Pixels elsewhere are not written at
    all, and a part of which nothing lies in the view is not even loaded; its boxes are left out.
    """
    x_low, y_low, x_high, y_high = view or (0, 0, layout.side, layout.side)
    canvas = np.empty((layout.side, layout.side, 4), np.uint8)
    canvas[y_low:y_high, x_low:x_high] = GREY
    boxes, classes = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int64)]
    identities = classes.copy()
    for part, tile in zip(parts, layout.tiles, strict=True):
        x1, y1, x2, y2 = layout.seen(part, tile)
        x1, y1, x2, y2 = max(x1, x_low), max(y1, y_low), min(x2, x_high), min(y2, y_high)
        if x2 <= x1 or y2 <= y1:
            continue
        left, top = tile.left - layout.x, tile.top - layout.y
        loaded = part.load()
        source = loaded.pixels[y1 - top : y2 - top, x1 - left : x2 - left]
        cv2.cvtColor(source, cv2.COLOR_RGB2RGBA, dst=canvas[y1:y2, x1:x2])
        boxes.append(_moved(loaded.boxes, _covered(part, tile), tile, layout))
        classes.append(loaded.classes)
        identities.append(loaded.identities)
    labels = np.concatenate(classes), np.concatenate(identities)
    return _with_area(Labelled(canvas, np.concatenate(boxes), *labels))


def _covered(part: Part, tile: Tile) -> Rectangle:
    """What of the canvas a part covers."""
    x1, y1, x2, y2 = tile.cell
    return (
        max(tile.left, x1),
        max(tile.top, y1),
        min(tile.left + part.width, x2),
        min(tile.top + part.height, y2),
    )


def _moved(boxes: Boxes, covered: Rectangle, tile: Tile, layout: Layout) -> Boxes:
    """The boxes of a part moved to the window and cut at what it covers of the canvas and the window."""
    x1, y1, x2, y2 = covered
    boxes = boxes + np.array([tile.left, tile.top] * 2, np.float32)
    low, high = np.array([x1, y1, x1, y1], np.float32), np.array([x2, y2, x2, y2], np.float32)
    boxes = np.minimum(np.maximum(boxes, low), high)
    if layout.cut:
        boxes = (boxes - np.array([layout.x, layout.y] * 2, np.float32)).clip(0, layout.side)
    return boxes


def _with_area(image: Labelled) -> Labelled:
    b = image.boxes
    keep = (b[:, 2] > b[:, 0]) & (b[:, 3] > b[:, 1])
    return Labelled(image.pixels, b[keep], image.classes[keep], image.identities[keep])


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
    (n,): none that a strong tilt spreads over the horizon, since no box is around what is left of it."""
    if not len(boxes):
        return boxes, np.zeros(0, bool)
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].astype(np.float64).reshape(-1, 4, 2)
    points = corners @ matrix[:, :2].T + matrix[:, 2]
    depth = points[..., 2]
    whole = (depth > 0).all(axis=1) | (depth < 0).all(axis=1)
    points = points[..., :2] / points[..., 2:]
    mapped = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1).clip(0, size)
    return mapped.astype(np.float32), whole & worth_keeping(boxes * scale, mapped)


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
