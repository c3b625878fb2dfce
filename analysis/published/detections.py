"""Detections small enough to publish, from which every score is the same to the last bit.

A detection is kept to a thousandth of a pixel where its box matters: it has a score of `SEEN` or more, or
overlaps a true box of its class by `NEAR` or more, before or after rounding. The others, nine in ten at a
low threshold, are false positives of which COCO counts the score alone and the area (small, medium, large);
their boxes are moved to a grid, unless that changes the area or makes one row of two. What is written is
matched once more, and where anything came out differently the boxes stay as they were.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from yolor_core.evaluation.detections import SIDES, UNREADABLE, Detections, column, narrow
from yolor_core.evaluation.engine import Matches, Truth, match
from yolor_core.evaluation.engine.matching import area_bits, overlaps
from yolor_core.runs.directory import unreadable, why, write_atomically

GRID = 4  # pixels
SEEN = 0.3  # what figures draw
NEAR = 0.45  # below the 0.5 from which COCO matches
PIXEL = 1_000  # steps of a stored box in a pixel
BITS = "score_bits"  # a column that training does not write: of the float32, less those of the row before


def pack(detections: Detections, truth: Truth, path: Path, grid: int = GRID) -> None:
    """Write detections compactly; `read_detections` gives them back, ordered by image, category and score."""
    kept = coarse(detections, truth, grid) if grid else detections
    steps = np.rint(kept.boxes.astype(np.float64) * PIXEL).astype(np.int32)
    columns = {
        "image_id": kept.image_id.astype(np.int64),
        "category_id": narrow(kept.category_id),
        **{name: (steps[:, place] // PIXEL).astype(np.int32) for place, name in enumerate(SIDES)},
        **{f"{name}_rest": (steps[:, place] % PIXEL).astype(np.int32) for place, name in enumerate(SIDES)},
        BITS: np.diff(kept.scores.astype(np.float32).view(np.int32), prepend=np.int32(0)),
    }
    ids = ["image_id", "category_id"]
    split = [name for name in columns if name not in ids]

    def write(file: object) -> None:
        pq.write_table(
            pa.table(columns),
            file,
            compression="zstd",
            compression_level=19,
            use_dictionary=ids,
            use_byte_stream_split=split,
            write_statistics=False,
        )

    write_atomically(path, write)


def read_detections(path: Path) -> Detections:
    """The detections of a run, as training wrote them or as `pack` did. Raises as `Detections.read`."""
    try:
        return detections_in(path)
    except UNREADABLE as error:
        raise unreadable(path, why(error)) from None


def detections_in(path: Path | BinaryIO) -> Detections:
    """The same. Raises one of UNREADABLE where the file is something else."""
    table = pq.read_table(path)
    if BITS not in table.column_names:
        return Detections.of(table)
    of = {name: column(table, name, whole=True) for name in table.column_names}
    boxes = np.stack([of[name] * PIXEL + of[f"{name}_rest"] for name in SIDES], 1) / PIXEL
    scores = np.cumsum(of[BITS], dtype=np.int32).view(np.float32)
    return Detections(of["image_id"], of["category_id"], boxes.astype(np.float32), scores)


def _size_bits(boxes: NDArray[np.float64], truth: Truth) -> NDArray[np.uint8]:
    return area_bits(boxes[:, 2] * boxes[:, 3], truth.ranges)


def coarse(detections: Detections, truth: Truth, grid: int) -> Detections:
    """The same detections with the boxes that no score depends on moved to a grid of so many pixels."""
    boxes = detections.boxes.astype(np.float64)
    moved = np.round(boxes / grid) * grid
    exact = detections.scores >= SEEN
    exact |= _size_bits(boxes, truth) != _size_bits(moved, truth)
    for each in (boxes, moved):
        exact |= most_overlap(detections, each, truth) >= NEAR
    exact |= _meet(detections, moved)
    rounded = np.where(exact[:, None], boxes, moved).astype(np.float32)
    made = Detections(detections.image_id, detections.category_id, rounded, detections.scores)
    return made if _same(match(truth, detections), match(truth, made)) else detections


def _meet(detections: Detections, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) which rows would be the same as another with these boxes; they came from different detections."""
    keys = np.column_stack([detections.image_id, detections.category_id, detections.scores, boxes])
    _, group, members = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    return np.asarray(members[group.ravel()] > 1)


def most_overlap(detections: Detections, boxes: NDArray[np.float64], truth: Truth) -> NDArray[np.float64]:
    """(n,) the largest overlap of each box with a true one of its image and category, as COCO measures it."""
    most = np.zeros(len(boxes))
    if not len(boxes):
        return most
    cells = {
        (int(cell[0]), int(cell[1])): rows
        for cell, rows in _groups(np.stack([detections.image_id, detections.category_id], 1))
    }
    true = np.stack([truth.image_ids[truth.image], truth.category_ids[truth.category]], 1)
    for cell, near in _groups(true):
        rows = cells.get((int(cell[0]), int(cell[1])))
        if rows is not None:
            found = np.zeros((len(rows), len(near)))
            overlaps(boxes[rows], truth.boxes[near], truth.crowd[near], found)
            most[rows] = found.max(1)
    return most


def _groups(keys: NDArray[np.integer]) -> list[tuple[NDArray[np.integer], NDArray[np.int64]]]:
    """Each key (a row) with the positions where it stands."""
    if not len(keys):
        return []
    order = np.lexsort(keys.T[::-1])
    starts = np.flatnonzero((np.diff(keys[order], axis=0) != 0).any(1)) + 1
    return [(keys[rows[0]], rows) for rows in np.split(order, starts)]


def _same(a: Matches, b: Matches) -> bool:
    """Whether every detection met the same fate."""
    return all(np.array_equal(getattr(a, each.name), getattr(b, each.name)) for each in fields(Matches))
