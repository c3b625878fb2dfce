"""The table of detections that scores are computed from, and its file format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from yolor_core.data.records import Records
from yolor_core.runs.directory import unreadable, why, write_atomically

SIDES = ("x", "y", "width", "height")
UNREADABLE = (OSError, KeyError, ValueError, pa.ArrowException)  # what a file that is something else raises
PER_IMAGE_AND_CATEGORY = 100  # COCO scores no more (maxDets)


@dataclass(frozen=True)
class Detections:
    """Detections of many images, one row each.

    `boxes` are x, y, width, height in pixels of the original image, rounded to 3 decimals (the authors'
    rounding), `scores` as the model gave them; both float32 when they are a run's. Reported scores are
    computed from exactly these values.
    """

    image_id: NDArray[np.int64]  # (n,)
    category_id: NDArray[np.int64]  # (n,) the annotation file's own ids
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
        """Round boxes, and keep what COCO can score: the best 100 of each image and category, best first.

        Rows are ordered by image, category and falling score; equal scores keep their order. Scores are not
        rounded: equal ones of two images are ranked by image id, so that every tie that rounding makes lets
        the numbers of the images into the score.
        """
        exact = scores.astype(np.float32)
        order = np.lexsort((-exact, category_id, image_id))
        image, category = image_id[order], category_id[order]
        first = np.ones(len(order), bool)
        first[1:] = (image[1:] != image[:-1]) | (category[1:] != category[:-1])
        start = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
        kept = order[np.arange(len(order)) - start < PER_IMAGE_AND_CATEGORY]
        return cls(
            image_id[kept].astype(np.int64),
            category_id[kept].astype(np.int64),
            np.round(boxes.astype(np.float64), 3).astype(np.float32)[kept].reshape(-1, 4),
            exact[kept],
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
    def from_results(cls, results: Sequence[dict[str, Any]], source: str = "detections") -> Detections:
        """From COCO's results format (`image_id`, `category_id`, `bbox`, `score`), without rounding.

        Raises:
            DataError: naming the file, by `source`, and the first entry that lacks a field, or has an id that
                is no whole number, a box that is not four finite numbers, or a score that is no number.
        """
        records = Records(results, "result", source, by_id=False)
        return cls(
            records.integers("image_id", floats=True),
            records.integers("category_id", floats=True),
            records.boxes(),
            records.numbers("score", limit=None),
        )

    def write(self, path: Path) -> None:
        """Write detections.parquet: image_id, category_id, x, y, width, height, score."""
        columns = dict(zip(SIDES, self.boxes.T, strict=True))
        ids = {"image_id": self.image_id, "category_id": narrow(self.category_id)}
        table = pa.table({**ids, **columns, "score": self.scores})
        write_atomically(path, lambda file: pq.write_table(table, file, compression="zstd"))

    @classmethod
    def read(cls, path: Path) -> Detections:
        """Read what `write` wrote. Raises RunError for a file that is missing, damaged or something else."""
        try:
            return cls.of(pq.read_table(path))
        except UNREADABLE as error:
            raise unreadable(path, why(error)) from None

    @classmethod
    def of(cls, table: pa.Table) -> Detections:
        """From the columns that `write` writes. Raises one of UNREADABLE where they are others."""
        return cls(
            column(table, "image_id", whole=True),
            column(table, "category_id", whole=True),
            np.stack([column(table, name) for name in SIDES], 1),
            column(table, "score"),
        )


def column(table: pa.Table, name: str, whole: bool = False) -> NDArray[Any]:
    """(n,) of a column, int64 if `whole`. Raises one of UNREADABLE where it is missing or holds others."""
    found = table[name]
    if found.null_count or not (pa.types.is_integer if whole else pa.types.is_floating)(found.type):
        gaps = f" with {found.null_count} gaps" if found.null_count else ""
        raise ValueError(
            f"its column {name} is {found.type}{gaps}; {'whole' if whole else 'real'} numbers needed"
        )
    return np.asarray((found.cast(pa.int64()) if whole else found).to_numpy())


def narrow(ids: NDArray[np.int64]) -> NDArray[np.integer]:
    """As int32 where they fit, which halves what is stored."""
    small = ids.astype(np.int32)
    return small if np.array_equal(small, ids) else ids
