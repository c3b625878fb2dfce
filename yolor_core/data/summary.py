"""What a split holds, in numbers small enough to lie beside every run; and a few images of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from yolor_core.data.evaluation_batches import EvaluationBatches
from yolor_core.data.images import ImageSet

EDGES = tuple(2 ** (k / 2) for k in range(23))  # pixels: 1 to 2048 in half octaves
REFERENCE = 16  # images


def summarise(images: ImageSet, size: int) -> dict[str, Any]:
    """Boxes by class and by size, plain values; crowds are left out.

    Boxes are measured in pixels of the image with its long side resized to `size`. `sizes` counts them by
    width and height between `size_edges`, those outside with the nearest.
    """
    classes = len(images.names)
    boxes, holding = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    sides = []
    for index in range(len(images)):
        found, corners = images.classes(index), images.boxes(index)
        boxes += np.bincount(found, minlength=classes)
        holding[np.unique(found)] += 1
        sides.append((corners[:, 2:] - corners[:, :2]) * (size / images.sizes[index].max()))
    places = [np.clip(side, EDGES[0], EDGES[-1]) for side in np.concatenate(sides).T]
    counts = np.histogram2d(places[0], places[1], bins=(EDGES, EDGES))[0]
    return {
        "images": len(images),
        "boxes": int(boxes.sum()),
        "boxes_per_class": boxes.tolist(),
        "images_per_class": holding.tolist(),
        "size": size,
        "size_edges": [round(edge, 3) for edge in EDGES],
        "sizes": counts.astype(int).tolist(),
    }


def reference_images(images: ImageSet, size: int, stride: int) -> torch.Tensor:
    """The first 16 images as an evaluation without rectangles sees them, uint8 (B, 3, side, side)."""
    return EvaluationBatches(images, size, stride, REFERENCE, rectangular=False).build(0)[0].images
