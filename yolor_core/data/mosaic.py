"""Mosaics of four and nine images: first where each lies, then the pixels of those that will be seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from yolor_core.data.images import GREY

Pixels = NDArray[np.uint8]
Boxes = NDArray[np.float32]
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
    meaning (see `augment.map_image`).

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
