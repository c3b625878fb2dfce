"""True boxes as arrays, and COCO's greedy assignment of detections to them, for 4 areas and 10 overlaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from yolor_core.data.annotations import class_labels
from yolor_core.data.records import read_content
from yolor_core.errors import DataError
from yolor_core.evaluation.detections import PER_IMAGE_AND_CATEGORY, Detections

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


@njit(cache=True, nogil=True, error_model="numpy")
def overlaps(
    found: NDArray[np.float64], truth: NDArray[np.float64], crowd: NDArray[np.bool_], out: NDArray[np.float64]
) -> None:
    """Write the overlap of each found box with each true one into `out`.

    For a crowd the intersection is divided by the found box's area alone. The operations and their order are
    those of bbIou in COCO's maskApi.c, in float64 without fused multiply-add, so the values are bit-equal to
    pycocotools' on x86-64.

    Args:
        found: (d, 4) x, y, width, height in pixels.
        truth: (t, 4) likewise.
        crowd: (t,).
        out: at least (d, t); the rest is left alone.
    """
    for j in range(len(truth)):
        x, y, width, height = truth[j, 0], truth[j, 1], truth[j, 2], truth[j, 3]
        area = width * height
        for i in range(len(found)):
            out[i, j] = 0.0
            across = min(found[i, 2] + found[i, 0], width + x) - max(found[i, 0], x)
            down = min(found[i, 3] + found[i, 1], height + y) - max(found[i, 1], y)
            if across > 0.0 and down > 0.0:
                shared = across * down
                own = found[i, 2] * found[i, 3]
                out[i, j] = shared / (own if crowd[j] else own + area - shared)


OVERLAPS = np.linspace(0.5, 0.95, 10)  # the IoU thresholds
EVERY = (1 << len(OVERLAPS)) - 1  # a mask with the bit of every overlap


@dataclass(frozen=True)
class Matches:
    """What became of each detection, and which true boxes there are.

    Detections stand by category, then falling score, then rising image id, then their order in the input:
    the order in which pycocotools accumulates them. Bit t of a mask stands for OVERLAPS[t].
    """

    image_ids: NDArray[np.int64]  # (images,) rising
    category_ids: NDArray[np.int64]  # (categories,) rising
    names: tuple[str, ...]  # of the categories
    start: NDArray[np.int64]  # (categories + 1,) first row of each category
    image: NDArray[np.int32]  # (n,) position of the image
    rank: NDArray[np.uint8]  # (n,) place by score in its image and category, from 0, below 100
    inside: NDArray[np.uint8]  # (n,) bit a: the box's own area lies in AREAS[a]
    true: NDArray[np.uint16]  # (4, n) true positive
    false: NDArray[np.uint16]  # (4, n) false positive; neither: ignored
    truth_category: NDArray[np.int32]  # (boxes,) position
    truth_image: NDArray[np.int32]  # (boxes,) position
    truth_counted: NDArray[np.uint8]  # (boxes,) bit a: counts in AREAS[a]
    detections: int  # given, before the cut at 100 per image and category


def match(truth: Mapping[str, Any] | Truth, detections: Detections) -> Matches:
    """Match detections to true boxes as pycocotools' COCOeval does for boxes.

    In each image and category the best 100 detections by score (equal scores in the order given) take, from
    the best, the free true box they overlap most (of equal overlaps the last). Boxes that do not count in an
    area (crowds, or by their size) are taken only where no counting one fits, and crowds any number of times;
    such a detection is ignored, and so is one that matches nothing and is itself outside the area.

    A flaw of pycocotools is kept, so that scores are equal: an annotation with id 0 can be taken but is never
    found, as the id doubles as the sign of a match.

    Args:
        truth: the content of a COCO instances file, or `Truth.read` of it; every image in it counts.
        detections: in the file's own image and category ids, boxes in pixels.

    Raises:
        DataError: when a detection names an image or category that the file does not have.
    """
    truth = truth if isinstance(truth, Truth) else Truth.read(truth)
    image = _positions("image", detections.image_id, truth.image_ids)
    category = _positions("category", detections.category_id, truth.category_ids)
    images = max(len(truth.image_ids), 1)

    falling = -detections.scores.astype(np.float64)
    cell = category * images + image
    order = np.lexsort((falling, cell))
    cell = cell[order]
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    rank = np.arange(len(cell)) - np.repeat(first, np.diff(first, append=len(cell)))
    kept = rank < PER_IMAGE_AND_CATEGORY
    order, cell, rank = order[kept], cell[kept], rank[kept]

    boxes = detections.boxes.astype(np.float64).reshape(-1, 4)[order]
    inside = area_bits(boxes[:, 2] * boxes[:, 3])
    true, false = (np.empty((len(AREAS), len(cell)), np.uint16) for _ in range(2))
    _assign(
        cell,
        boxes,
        inside,
        truth.category.astype(np.int64) * images + truth.image,
        truth.boxes,
        truth.crowd,
        truth.counted,
        truth.found,
        OVERLAPS,
        true,
        false,
    )

    start = np.searchsorted(cell, np.arange(len(truth.category_ids) + 1) * images)
    by_score = np.empty(len(cell), np.int64)
    falling = falling[order]
    for low, high in zip(start[:-1].tolist(), start[1:].tolist(), strict=True):
        by_score[low:high] = low + np.argsort(falling[low:high], kind="stable")
    return Matches(
        truth.image_ids,
        truth.category_ids,
        truth.names,
        start.astype(np.int64),
        (cell % images)[by_score].astype(np.int32),
        rank[by_score].astype(np.uint8),
        inside[by_score],
        np.ascontiguousarray(true[:, by_score]),
        np.ascontiguousarray(false[:, by_score]),
        truth.category,
        truth.image,
        truth.counted,
        len(detections),
    )


def _positions(kind: str, ids: NDArray[np.integer], known: NDArray[np.int64]) -> NDArray[np.int64]:
    position, there = locate(ids, known)
    if not there.all():
        unknown = np.unique(ids[~there])
        raise DataError(
            f"{len(unknown)} {kind} ids of the detections are not in the annotations: "
            f"{unknown[:5].tolist()} ..."
        )
    return position


@njit(cache=True, nogil=True, error_model="numpy")
def _assign(  # type: ignore[no-untyped-def]
    cell, boxes, inside, truth_cell, truth_boxes, crowd, counted, found, thresholds, true, false
):
    """Fill `true` and `false` (4, n); `cell` (n,) and `truth_cell` (m,) rise, best score first in a cell."""
    rows, truths = len(cell), len(truth_cell)
    most, run = 1, 0
    for g in range(truths):
        run = run + 1 if g > 0 and truth_cell[g] == truth_cell[g - 1] else 1
        most = max(most, run)
    overlap = np.empty((PER_IMAGE_AND_CATEGORY, most))
    best = np.empty(PER_IMAGE_AND_CATEGORY)
    order = np.empty(most, np.int64)
    taken = np.empty(most, np.bool_)

    low, near = 0, 0
    while low < rows:
        high = low + 1
        while high < rows and cell[high] == cell[low]:
            high += 1
        while near < truths and truth_cell[near] < cell[low]:
            near += 1
        far = near
        while far < truths and truth_cell[far] == cell[low]:
            far += 1
        for area in range(true.shape[0]):
            for i in range(low, high):
                true[area, i] = 0
                false[area, i] = EVERY if inside[i] >> area & 1 else 0
        count = far - near
        if count:
            overlaps(boxes[low:high], truth_boxes[near:far], crowd[near:far], overlap)
            for i in range(high - low):
                best[i] = overlap[i, :count].max()
            for area in range(true.shape[0]):
                counting = _counting_first(counted[near:far], area, order)
                for t in range(len(thresholds)):
                    taken[:count] = False
                    for i in range(high - low):
                        if best[i] < thresholds[t]:
                            continue
                        row = overlap[i]
                        g = _take(row, order, 0, counting, thresholds[t], taken)
                        ignored = g < 0
                        if ignored:
                            g = _take(row, order, counting, count, thresholds[t], taken)
                        if g < 0:
                            continue
                        taken[g] = not crowd[near + g]
                        if ignored:
                            false[area, low + i] &= EVERY ^ (1 << t)
                        elif found[near + g]:
                            true[area, low + i] |= 1 << t
                            false[area, low + i] &= EVERY ^ (1 << t)
        low, near = high, far


@njit(cache=True, nogil=True)
def _counting_first(counted, area, order):  # type: ignore[no-untyped-def]
    """Write the positions of the boxes that count in an area, then of the others; returns how many count."""
    at = 0
    for wanted in (1, 0):
        for g in range(len(counted)):
            if (counted[g] >> area & 1) == wanted:
                order[at] = g
                at += 1
        if wanted == 1:
            counting = at
    return counting


@njit(cache=True, nogil=True)
def _take(overlap, order, begin, end, threshold, taken):  # type: ignore[no-untyped-def]
    """The free box of order[begin:end] that overlaps most, the last of equals; -1: none by the threshold."""
    chosen = -1
    for position in range(begin, end):
        g = order[position]
        if not taken[g] and overlap[g] >= threshold:
            threshold = overlap[g]
            chosen = g
    return chosen
