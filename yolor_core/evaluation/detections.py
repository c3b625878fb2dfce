"""The table of detections that scores are computed from, and its file format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from yolor_core.errors import DataError
from yolor_core.runs.files import unreadable, why, write_atomically

LARGEST_ID = 2**31  # of images and categories
PER_IMAGE_AND_CATEGORY = 100  # COCO scores no more (maxDets)


@dataclass(frozen=True)
class Detections:
    """Detections of many images, one row each.

    `boxes` are x, y, width, height in pixels of the original image, rounded to 3 decimals, `scores` rounded
    to 5 (the authors' rounding); both float32 when they are a run's. Reported scores are computed from
    exactly these values.
    """

    image_id: NDArray[np.int64]  # (n,)
    category_id: NDArray[np.int32]  # (n,) the annotation file's own ids
    boxes: NDArray[np.floating]  # (n, 4)
    scores: NDArray[np.floating]  # (n,)

    def __len__(self) -> int:
        return len(self.image_id)

    @classmethod
    def build(
        cls,
        image_id: NDArray[np.integer],
        category_id: NDArray[np.integer],
        boxes: NDArray[np.floating],
        scores: NDArray[np.floating],
    ) -> Detections:
        """Round, and keep what COCO can score: the best 100 of each image and category, best first.

        Rows are ordered by image, category and falling score; equal scores keep their order.
        """
        rounded = np.round(scores.astype(np.float64), 5).astype(np.float32)
        order = np.lexsort((-rounded, category_id, image_id))
        image, category = image_id[order], category_id[order]
        first = np.ones(len(order), bool)
        first[1:] = (image[1:] != image[:-1]) | (category[1:] != category[:-1])
        start = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
        kept = order[np.arange(len(order)) - start < PER_IMAGE_AND_CATEGORY]
        return cls(
            image_id[kept].astype(np.int64),
            category_id[kept].astype(np.int32),
            np.round(boxes.astype(np.float64), 3).astype(np.float32)[kept].reshape(-1, 4),
            rounded[kept],
        )

    @classmethod
    def merge(cls, parts: Sequence[Detections]) -> Detections:
        """The detections of disjoint sets of images together, ordered as `build` orders them."""
        image, category, boxes, scores = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("image_id", "category_id", "boxes", "scores")
        )
        order = np.argsort(image, kind="stable")
        return cls(image[order], category[order], boxes[order], scores[order])

    @classmethod
    def from_results(cls, results: Sequence[dict]) -> Detections:
        """From COCO's results format (`image_id`, `category_id`, `bbox`, `score`), without rounding.

        Raises:
            DataError: naming the first entry that lacks a field, or has an id that is no whole number, a box
                that is not four numbers, or a score that is no number.
        """
        for index, entry in enumerate(results):
            if not isinstance(entry, dict):
                raise DataError(f"result {index} is {entry!r:.60}, not an object")
            missing = [key for key in ("image_id", "category_id", "bbox", "score") if key not in entry]
            if missing:
                raise DataError(f"result {index} has no {', '.join(missing)}")
            _check_entry(index, entry)
        return cls(
            np.array([r["image_id"] for r in results], np.int64),
            np.array([r["category_id"] for r in results], np.int32),
            np.array([r["bbox"] for r in results], np.float64).reshape(-1, 4),
            np.array([r["score"] for r in results], np.float64),
        )

    def write(self, path: Path) -> None:
        """Write detections.parquet: image_id, category_id, x, y, width, height, score."""
        columns = dict(zip(("x", "y", "width", "height"), self.boxes.T, strict=True))
        table = pa.table(
            {"image_id": self.image_id, "category_id": self.category_id, **columns, "score": self.scores}
        )
        write_atomically(path, lambda file: pq.write_table(table, file, compression="zstd"))

    @classmethod
    def read(cls, path: Path) -> Detections:
        """Read what `write` wrote. Raises RunError for a file that is missing, damaged or something else."""
        try:
            table = pq.read_table(path)
            columns = {name: table[name].to_numpy() for name in table.column_names}
            boxes = np.stack([columns[name] for name in ("x", "y", "width", "height")], 1)
            return cls(columns["image_id"], columns["category_id"], boxes, columns["score"])
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise unreadable(path, why(error)) from None


def _check_entry(index: int, entry: dict) -> None:
    """Raises DataError for values that would be cut or cast into others."""
    for key in ("image_id", "category_id"):
        value = entry[key]
        whole = _is_number(value) and value == value and abs(value) < LARGEST_ID and value == int(value)
        if not whole:
            raise DataError(f"result {index}: {key} is {value!r:.60}; a whole number is needed")
    box = entry["bbox"]
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(_is_number, box)):
        raise DataError(f"result {index}: bbox is {box!r:.60}; four numbers x, y, width, height are needed")
    if not _is_number(entry["score"]):
        raise DataError(f"result {index}: score is {entry['score']!r:.60}; a number is needed")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
