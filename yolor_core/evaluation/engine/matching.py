"""True boxes as arrays, and COCO's greedy assignment of detections to them, for 4 areas and 10 overlaps.

And the stable sorts in linear time that it needs, of rows by small numbers or by scores, and work shared by
threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from yolor_core.data.annotations import class_labels
from yolor_core.data.records import read_content
from yolor_core.errors import DataError
from yolor_core.evaluation.detections import PER_IMAGE_AND_CATEGORY, Detections

AREAS = ("all", "small", "medium", "large")  # in px²: see `data.records.area_ranges`
SPARSE = 4  # ids that are this many times as far apart as they are many are searched for


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
    ranges: NDArray[np.float64]  # (4, 2) least and largest area of each of AREAS, px²

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
            (area_bits(read.areas[order], read.ranges) * ~crowd).astype(np.uint8),
            read.ids[order] != 0,
            read.ranges,
        )


@njit(cache=True, nogil=True)
def area_bits(area: NDArray[np.float64], ranges: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(n,) px² -> (n,): bit a is set when the area lies in ranges[a] of (4, 2), both limits included."""
    bits = np.empty(len(area), np.uint8)
    for i in range(len(area)):
        bits[i] = _bits(area[i], ranges)
    return bits


@njit(cache=True, nogil=True)
def _bits(area, ranges):  # type: ignore[no-untyped-def]
    bits = 0
    for position in range(len(ranges)):
        if ranges[position, 0] <= area <= ranges[position, 1]:
            bits |= 1 << position
    return bits


def locate(ids: NDArray[np.integer], known: NDArray[np.int64]) -> NDArray[np.int32]:
    """Positions (n,) of ids among the rising `known`, -1 where one is not there."""
    ids = np.require(ids, np.int64, ["C", "W"])
    position = np.full(len(ids), -1, np.int32)
    span = int(known[-1]) - int(known[0]) + 1 if len(known) else 0
    dense = span <= SPARSE * (len(ids) + len(known))  # looking up is faster than searching
    table = np.full(span if dense else 0, -1, np.int32)
    if dense and span:
        table[known - known[0]] = np.arange(len(known))
    _locate(ids, known, table, position)
    return position


@njit(cache=True, nogil=True)
def _locate(ids, known, table, position):  # type: ignore[no-untyped-def]
    if len(known) == 0:
        return
    for i in range(len(ids)):
        if known[0] <= ids[i] <= known[-1]:
            if len(table):
                position[i] = table[ids[i] - known[0]]
            else:
                place = np.searchsorted(known, ids[i])
                if known[place] == ids[i]:
                    position[i] = place


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


IMAGE_BIT, AREA_BIT = 31, 58  # where they begin in a number that begins with a row
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
    ranges: NDArray[np.float64]  # those of the truth
    detections: int  # given, before the cut at 100 per image and category


def match(truth: Mapping[str, Any] | Truth, detections: Detections, threads: int = 1) -> Matches:
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
        threads: share the categories; the result does not depend on how many.

    Raises:
        DataError: when a detection names an image or category that the file does not have.
    """
    truth = truth if isinstance(truth, Truth) else Truth.read(truth)
    image = _positions("image", detections.image_id, truth.image_ids)
    category = _positions("category", detections.category_id, truth.category_ids)
    classes, count = len(truth.category_ids), len(image)
    by_image = None if np.all(image[1:] >= image[:-1]) else group(image, len(truth.image_ids))[0]
    rows, start = group(category, classes, by_image)

    scores, boxes = _plain(detections.scores), _plain(detections.boxes).reshape(-1, 4)
    given = (len(truth.image_ids), rows, start, image, scores, boxes)
    truth_start = np.searchsorted(truth.category, np.arange(classes + 1))
    true_boxes = (truth_start, truth.image, truth.boxes, truth.crowd, truth.counted, truth.found)
    kept, place = np.zeros(classes, np.int64), np.empty(count, np.int32)
    rank, inside = (np.empty(count, np.uint8) for _ in range(2))
    true, false = (np.zeros((len(AREAS), count), np.uint16) for _ in range(2))
    out = (kept, place, rank, inside, true, false)
    spread(
        lambda some: _match(some, *given, *true_boxes, truth.ranges, OVERLAPS, *out), np.diff(start), threads
    )

    if kept.sum() < count:  # rows beyond the best 100 have left gaps
        filled = np.arange(count) - np.repeat(start[:-1], np.diff(start)) < np.repeat(kept, np.diff(start))
        place, rank, inside = place[filled], rank[filled], inside[filled]
        true, false = (np.ascontiguousarray(each[:, filled]) for each in (true, false))
        start = np.concatenate([[0], np.cumsum(kept)])
    return Matches(
        truth.image_ids,
        truth.category_ids,
        truth.names,
        start,
        place,
        rank,
        inside,
        true,
        false,
        truth.category,
        truth.image,
        truth.counted,
        truth.ranges,
        count,
    )


def _plain(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Of one of two types, contiguous and writeable: kernels are compiled anew for any other."""
    kind = np.float32 if values.dtype == np.float32 else np.float64
    return np.require(values, kind, ["C", "W"])


def _positions(kind: str, ids: NDArray[np.integer], known: NDArray[np.int64]) -> NDArray[np.int32]:
    position = locate(ids, known)
    if len(position) and position.min() < 0:
        unknown = np.unique(ids[position < 0])
        raise DataError(
            f"{len(unknown)} {kind} ids of the detections are not in the annotations: "
            f"{unknown[:5].tolist()} ..."
        )
    return position


@njit(cache=True, nogil=True, error_model="numpy")
def _match(  # type: ignore[no-untyped-def]
    categories, images, rows, start, image, scores, boxes,
    truth_start, truth_image, truth_boxes, crowd, counted, found, ranges, thresholds,
    kept, place, rank, inside, true, false,
):  # fmt: skip
    """Fill the columns of `Matches`, each category from its `start` on; `kept` of its rows are filled.

    `rows` are those of the detections by category, then image; the true boxes stand in that order.
    """
    largest, most = 1, 1
    for k in categories:
        largest = max(largest, start[k + 1] - start[k])
        run = 0
        for g in range(truth_start[k], truth_start[k + 1]):
            run = run + 1 if g > truth_start[k] and truth_image[g] == truth_image[g - 1] else 1
            most = max(most, run)
    pairs, space = np.empty((largest, 2), np.uint64), np.empty((largest, 2), np.uint64)
    row_of = np.empty(largest, np.int32)  # of each place in the output, from the category's start
    cells = np.empty(largest, np.int32)  # places by image, then falling score
    first, seen = np.empty(images, np.int32), np.empty(images, np.int32)  # in `cells`, of an image
    found_boxes = np.empty((PER_IMAGE_AND_CATEGORY, 4))
    overlap = np.empty((PER_IMAGE_AND_CATEGORY, most))
    close = np.empty(PER_IMAGE_AND_CATEGORY, np.int64)  # rows of `overlap` that may match at all
    near_start = np.zeros(PER_IMAGE_AND_CATEGORY + 1, np.int64)  # of those, in `near_box`
    near_box = np.empty(PER_IMAGE_AND_CATEGORY * most, np.int64)
    hits = np.empty((len(AREAS), PER_IMAGE_AND_CATEGORY), np.uint16)  # masks of the overlaps
    ignored = np.empty((len(AREAS), PER_IMAGE_AND_CATEGORY), np.uint16)
    taken, now = np.zeros(most, np.int64), 0

    for k in categories:
        low, size = start[k], start[k + 1] - start[k]
        own = rows[low : low + size]
        for g in range(truth_start[k], truth_start[k + 1]):
            seen[truth_image[g]] = 0
        write_keys(scores, own, pairs)
        for i in range(size):
            row, where = np.int64(own[i]), np.int64(image[own[i]])
            if i == 0 or where != image[own[i - 1]]:
                first[where], seen[where] = i, 0
            bits = _bits(np.float64(boxes[row, 2]) * np.float64(boxes[row, 3]), ranges)
            pairs[i, 1] = row | where << IMAGE_BIT | bits << AREA_BIT  # looked up in order, here
        at = 0
        for pair in sort_pairs(pairs[:size], space[:size]):
            packed = np.int64(pair[1])
            where, bits = packed >> IMAGE_BIT & ((1 << AREA_BIT - IMAGE_BIT) - 1), packed >> AREA_BIT
            if seen[where] == PER_IMAGE_AND_CATEGORY:
                continue
            place[low + at] = where
            rank[low + at] = seen[where]
            inside[low + at] = bits
            for area in range(len(AREAS)):
                false[area, low + at] = EVERY if bits >> area & 1 else 0
            row_of[at] = packed & ((1 << IMAGE_BIT) - 1)
            cells[first[where] + seen[where]] = at
            seen[where] += 1
            at += 1
        kept[k] = at

        far = truth_start[k]
        while far < truth_start[k + 1]:
            near, where = far, np.int64(truth_image[far])
            while far < truth_start[k + 1] and truth_image[far] == where:
                far += 1
            if seen[where] == 0:
                continue
            count = far - near
            cell = cells[first[where] : first[where] + seen[where]]
            for d in range(len(cell)):
                found_boxes[d] = boxes[row_of[cell[d]]]
            overlaps(found_boxes[: len(cell)], truth_boxes[near:far], crowd[near:far], overlap)
            some, pair = 0, 0
            for d in range(len(cell)):
                for g in range(count):
                    if overlap[d, g] >= thresholds[0]:
                        near_box[pair] = g
                        pair += 1
                if pair > near_start[some]:
                    close[some] = d
                    some += 1
                    near_start[some] = pair
            if some == 0:
                continue
            for area in range(len(AREAS)):
                alike = _alike(counted[near:far], area)
                if alike < area:
                    hits[area, :some] = hits[alike, :some]
                    ignored[area, :some] = ignored[alike, :some]
                    continue
                now = _take(
                    *(area, close[:some], near_start, near_box, overlap, thresholds),
                    *(counted[near:far], crowd[near:far], found[near:far]),
                    *(taken, now, hits[area], ignored[area]),
                )
            for area in range(len(AREAS)):
                for c in range(some):
                    j = low + cell[close[c]]
                    true[area, j] = hits[area, c]
                    false[area, j] &= EVERY ^ (hits[area, c] | ignored[area, c])


@njit(cache=True, nogil=True)
def _take(  # type: ignore[no-untyped-def]
    area, close, near_start, near_box, overlap, thresholds, counted, crowd, found, taken, now, hits, ignored
):
    """The boxes of one image and category at every threshold: which detections find one, in `hits`, and
    which take one that does not count here, in `ignored`. The c-th of the n detections is row close[c] of
    `overlap` and may take near_box[near_start[c] : near_start[c + 1]].

    `taken` (boxes,) has the number of the round in which each was taken last; `now` is that of the last
    round, and the new one is returned.
    """
    hits[: len(close)] = 0
    ignored[: len(close)] = 0
    for t in range(len(thresholds)):
        now += 1
        for c in range(len(close)):
            counting, other = -1, -1
            least, least_other = thresholds[t], thresholds[t]
            for g in near_box[near_start[c] : near_start[c + 1]]:
                value = overlap[close[c], g]
                if taken[g] == now:
                    continue
                if counted[g] >> area & 1:
                    if value >= least:
                        counting, least = g, value
                elif value >= least_other:
                    other, least_other = g, value
            if counting >= 0:
                taken[counting] = now
                hits[c] |= found[counting] << t
            elif other >= 0:
                taken[other] = 0 if crowd[other] else now
                ignored[c] |= 1 << t
    return now


@njit(cache=True, nogil=True)
def _alike(counted, area):  # type: ignore[no-untyped-def]
    """The first area in which the same boxes (n,) count as in this one."""
    for other in range(area):
        differ = 0
        for bits in counted:
            differ |= (bits >> area ^ bits >> other) & 1
        if not differ:
            return other
    return area


DIGIT = 11  # bits that one pass sorts by; 2,048 counters fit into a core's nearest memory
LOWEST = np.uint64((1 << DIGIT) - 1)
SIGN = np.uint64(1 << 63)


@njit(cache=True, nogil=True)
def write_keys(scores, rows, pairs):  # type: ignore[no-untyped-def]
    """Write into pairs[:, 0] (n, uint64) numbers that rise as the scores of `rows` (n,) fall, NaN last."""
    floats = pairs.view(np.float64)
    for i in range(len(rows)):
        falling = 0.0 - np.float64(scores[rows[i]])  # so that both zeros are 0.0
        floats[i, 0] = falling
        bits = pairs[i, 0]
        pairs[i, 0] = ~np.uint64(0) if falling != falling else ~bits if bits & SIGN else bits | SIGN


def group(
    key: NDArray[np.int32], bins: int, order: NDArray[np.int32] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Rows by rising key, equal ones as they stand in `order` (n,), or by rising row without it.

    Returns:
        rows: (n,); start: (bins + 1,), where each of the keys 0 to bins - 1 begins in it.
    """
    order = np.arange(len(key), dtype=np.int32) if order is None else order
    start, rows = np.zeros(bins + 1, np.int64), np.empty(len(key), np.int32)
    _group(key, order, start, rows)
    return rows, start


@njit(cache=True, nogil=True)
def _group(key, order, start, rows):  # type: ignore[no-untyped-def]
    for value in key:
        start[value + 1] += 1
    for bin in range(1, len(start)):
        start[bin] += start[bin - 1]
    at = start.copy()
    for row in order:
        rows[at[key[row]]] = row
        at[key[row]] += 1


@njit(cache=True, nogil=True)
def sort_pairs(pairs, space):  # type: ignore[no-untyped-def]
    """Sort pairs (n, 2) of a key and a value by key, equal ones as they stand; all are uint64.

    A radix sort from the lowest digit, of as many bits as the keys differ in (float32 scores: about 30).
    space: as `pairs`. Both are overwritten; returns the one of them that holds the result.
    """
    count = len(pairs)
    if count < 2:
        return pairs
    least, differ = pairs[:, 0].min(), np.uint64(0)
    for i in range(count):
        differ |= pairs[i, 0] - least
    low, high = 0, 64
    while low < 64 and not differ >> np.uint64(low) & np.uint64(1):
        low += 1
    while high > low and not differ >> np.uint64(high - 1) & np.uint64(1):
        high -= 1
    at = np.empty(1 << DIGIT, np.int64)
    for digit in range(low, high, DIGIT):
        shift = np.uint64(digit)
        at[:] = 0
        for i in range(count):
            at[(pairs[i, 0] - least) >> shift & LOWEST] += 1
        total = 0
        for value in range(len(at)):
            total, at[value] = total + at[value], total
        for i in range(count):
            value = (pairs[i, 0] - least) >> shift & LOWEST
            space[at[value], 0] = pairs[i, 0]
            space[at[value], 1] = pairs[i, 1]
            at[value] += 1
        pairs, space = space, pairs
    return pairs


def spread(work: Callable[[NDArray[np.int64]], Any], sizes: NDArray[np.int64], threads: int) -> None:
    """Call `work` with the positions of `sizes` (n,), shared out to so many threads by size."""
    if threads < 2 or len(sizes) < 2:
        work(np.arange(len(sizes)))
        return
    shares: list[list[int]] = [[] for _ in range(threads)]
    loads = np.zeros(threads)
    for position in np.argsort(-sizes, kind="stable").tolist():
        least = int(loads.argmin())
        shares[least].append(position)
        loads[least] += sizes[position]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [np.array(sorted(share), np.int64) for share in shares if share]))
