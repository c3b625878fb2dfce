"""Mosaics of four and nine images on a grey canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yolor_core.data.resize import GREY

Pixels = NDArray[np.uint8]
Boxes = NDArray[np.float32]


@dataclass
class Labelled:
    """An image with boxes (n, 4) x1 y1 x2 y2 in its pixels and contiguous classes (n,)."""

    pixels: Pixels
    boxes: Boxes
    classes: NDArray[np.int64]


def mosaic4(rng: np.random.Generator, parts: Sequence[Labelled], size: int) -> Labelled:
    """Four images that meet at a point uniform in [size/2, 3 size/2]^2 of a canvas of 2 size x 2 size.

    Each image turns the corner to the point that lies opposite to its own quadrant, and is cut at the canvas.
    """
    side = 2 * size
    x, y = (int(v) for v in rng.uniform(size / 2, 3 * size / 2, size=2))
    canvas = _canvas(side)
    placed = []
    for number, part in enumerate(parts):
        h, w = part.pixels.shape[:2]
        left = x if number % 2 else x - w
        top = y if number >= 2 else y - h
        placed.append(_paste(canvas, part, left, top, (0, 0, side, side)))
    return _together(canvas, placed)


def mosaic9(rng: np.random.Generator, parts: Sequence[Labelled], size: int) -> Labelled:
    """Nine images on a canvas of 3 size x 3 size, of which a random window of 2 size x 2 size is kept.

    The first image lies in the middle and its edges, prolonged, divide the canvas into nine cells; each other
    image touches the middle one's cell and is cut at its own. (The sources fix canvas and crop, not the
    layout.)
    """
    side = 3 * size
    h, w = parts[0].pixels.shape[:2]
    left, top = (side - w) // 2, (side - h) // 2
    columns, rows = (0, left, left + w, side), (0, top, top + h, side)
    cells = [(1, 1), (0, 0), (1, 0), (2, 0), (0, 1), (2, 1), (0, 2), (1, 2), (2, 2)]
    canvas = _canvas(side)
    placed = []
    for part, (column, row) in zip(parts, cells, strict=True):
        h, w = part.pixels.shape[:2]
        x = columns[1] - w if column == 0 else columns[column]
        y = rows[1] - h if row == 0 else rows[row]
        placed.append(
            _paste(canvas, part, x, y, (columns[column], rows[row], columns[column + 1], rows[row + 1]))
        )
    whole = _together(canvas, placed)
    x, y = (int(v) for v in rng.integers(0, size + 1, size=2))
    window = np.ascontiguousarray(whole.pixels[y : y + 2 * size, x : x + 2 * size])
    boxes = (whole.boxes - np.array([x, y, x, y], np.float32)).clip(0, 2 * size)
    return _with_area(Labelled(window, boxes, whole.classes))


def _canvas(side: int) -> Pixels:
    return np.full((side, side, 3), GREY, np.uint8)


def _paste(canvas: Pixels, part: Labelled, left: int, top: int, cell: tuple[int, int, int, int]) -> Labelled:
    """Copy what of `part` lies in the cell (x1, y1, x2, y2) onto the canvas; boxes move along and are cut."""
    h, w = part.pixels.shape[:2]
    x1, y1 = max(left, cell[0]), max(top, cell[1])
    x2, y2 = min(left + w, cell[2]), min(top + h, cell[3])
    canvas[y1:y2, x1:x2] = part.pixels[y1 - top : y2 - top, x1 - left : x2 - left]
    boxes = part.boxes + np.array([left, top, left, top], np.float32)
    low, high = np.array([x1, y1, x1, y1], np.float32), np.array([x2, y2, x2, y2], np.float32)
    return Labelled(canvas, np.minimum(np.maximum(boxes, low), high), part.classes)


def _together(canvas: Pixels, placed: Sequence[Labelled]) -> Labelled:
    boxes = np.concatenate([p.boxes for p in placed])
    return _with_area(Labelled(canvas, boxes, np.concatenate([p.classes for p in placed])))


def _with_area(image: Labelled) -> Labelled:
    b = image.boxes
    keep = (b[:, 2] > b[:, 0]) & (b[:, 3] > b[:, 1])
    return Labelled(image.pixels, b[keep], image.classes[keep])
