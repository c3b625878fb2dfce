"""Ground truth as arrays: the boxes of an instances file in the order in which they are matched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolor_core.data.annotations import class_labels
from yolor_core.data.records import read_content

AREAS = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))  # all, small, medium, large: px²


@dataclass(frozen=True)
class Truth:
    """Annotated boxes by category, then image, then their order in the file.

    Images and categories are named by their position among the sorted ids.
    """

    image_ids: NDArray[np.int64]  # (images,) rising
    category_ids: NDArray[np.int64]  # (categories,) rising
    names: tuple[str, ...]  # of the categories, as `class_labels` makes them
    category: NDArray[np.int32]  # (boxes,) position
    image: NDArray[np.int32]  # (boxes,) position
    boxes: NDArray[np.float64]  # (boxes, 4) x, y, width, height in pixels
    crowd: NDArray[np.bool_]  # (boxes,) stands for a group: may be found often, and never counts
    counted: NDArray[np.uint8]  # (boxes,) bit a: counts in AREAS[a]
    found: NDArray[np.bool_]  # (boxes,) False for an annotation with id 0; see `match`

    @classmethod
    def read(cls, content: Any, source: str = "the annotations") -> Truth:
        """From the content of a COCO instances file, whose images need neither a file name nor a size.

        Raises DataError (see `read_content`), with `source` for the name of the file.
        """
        read = read_content(content, source, pictures=False)
        images, categories = np.argsort(read.image_ids), np.array(sorted(read.names), np.int64)
        image, category = np.argsort(images)[read.image], np.searchsorted(categories, read.category)
        order = np.lexsort((image, category))
        crowd, names = read.crowd[order], class_labels(read.names)
        return cls(
            read.image_ids[images],
            categories,
            tuple(names[key] for key in categories.tolist()),
            category[order].astype(np.int32),
            image[order].astype(np.int32),
            np.ascontiguousarray(read.boxes[order]),
            crowd,
            (area_bits(read.areas[order]) * ~crowd).astype(np.uint8),
            read.ids[order] != 0,
        )


def area_bits(area: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(n,) px² -> (n,): bit a is set when the area lies in AREAS[a], whose limits both belong to it."""
    bits = np.zeros(len(area), np.uint8)
    for position, (least, most) in enumerate(AREAS):
        bits |= (((area >= least) & (area <= most)) << position).astype(np.uint8)
    return bits


def locate(ids: NDArray[np.integer], known: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Positions (n,) of ids among the rising `known`, and whether each is there at all."""
    position = np.searchsorted(known, ids)
    if not len(known):
        return position, np.zeros(len(ids), bool)
    position = np.minimum(position, len(known) - 1)
    return position, known[position] == ids
