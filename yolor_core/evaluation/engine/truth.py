"""Ground truth as arrays: the boxes of an instances file in the order in which they are matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolor_core.data.annotations import class_labels
from yolor_core.errors import DataError

AREAS = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))  # all, small, medium, large: px²


@dataclass(frozen=True)
class Truth:
    """Annotated boxes by category, then image, then their order in the file.

    Images and categories are named by their position among the sorted ids. Annotations of an image or
    category that the file does not list are left out, as pycocotools leaves them out.
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
    def read(cls, content: Mapping[str, Any]) -> Truth:
        """From the content of a COCO instances file.

        Raises:
            DataError: naming a field that an annotation lacks, an id given twice, or boxes that are no boxes.
        """
        for key in ("images", "annotations", "categories"):
            if not isinstance(content.get(key), list):
                raise DataError(
                    f"the annotations have no list {key!r}; a COCO instances file has three of them"
                )
        annotations = content["annotations"]
        try:
            names = class_labels({category["id"]: category["name"] for category in content["categories"]})
            image_ids = np.unique(np.array([image["id"] for image in content["images"]], np.int64))
            category_ids = np.array(sorted(names), np.int64)
            ids = np.array([a["id"] for a in annotations], np.int64)
            image = np.array([a["image_id"] for a in annotations], np.int64)
            category = np.array([a["category_id"] for a in annotations], np.int64)
            boxes = _boxes([a["bbox"] for a in annotations])
            area = np.array([a["area"] for a in annotations], np.float64)
        except KeyError as error:
            raise DataError(f"an annotation, image or category has no {error.args[0]!r}") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"an annotation, image or category cannot be read: {error}") from None
        crowd = np.array([bool(a.get("iscrowd", 0)) for a in annotations], bool)
        if len(np.unique(ids)) < len(ids):
            value, times = np.unique(ids, return_counts=True)
            raise DataError(
                f"{int((times - 1).sum())} annotation ids appear twice: {value[times > 1][:5]} ..."
            )
        if not (np.isfinite(boxes).all() and np.isfinite(area).all()):
            raise DataError("an annotation's box or area is not finite")

        image_at, listed = locate(image, image_ids)
        category_at, named = locate(category, category_ids)
        order = np.flatnonzero(listed & named)
        order = order[np.lexsort((image_at[order], category_at[order]))]
        area, crowd = area[order], crowd[order]
        counted = area_bits(area) * ~crowd
        return cls(
            image_ids,
            category_ids,
            tuple(names[c] for c in category_ids.tolist()),
            category_at[order].astype(np.int32),
            image_at[order].astype(np.int32),
            np.ascontiguousarray(boxes[order]),
            crowd,
            counted.astype(np.uint8),
            ids[order] != 0,
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


def _boxes(rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    try:
        return np.array(rows, np.float64).reshape(len(rows), 4)
    except (ValueError, TypeError):
        wrong = next((row for row in rows if np.shape(row) != (4,)), "?")
        raise DataError(f"an annotation's bbox is not four numbers: {wrong}") from None
