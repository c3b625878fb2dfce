"""Matches compressed to what a resample of the images needs.

Between two true positives precision only falls, and recall changes only at true positives, so only these
are events, for each category, area and overlap. How many detections stand before an event is the same at all
ten overlaps but for few: detections ignored at an overlap because they match a box that does not count, and
true positives that are themselves outside the area. So the detections inside the area are counted once, at
each `stop` (a true positive at any overlap), and the few are events of their own that shift the count.
Detections after the last true positive do not matter at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from yolor_core.evaluation.engine.accumulate import AT_MOST
from yolor_core.evaluation.engine.matching import OVERLAPS, Matches
from yolor_core.evaluation.engine.truth import AREAS

IN, OUT, DROPPED = 0, 1, 2  # event: true positive inside the area, one outside it, a detection to count out
RECALLS = len(AT_MOST) + len(AREAS)  # kinds of recall: AR1, AR10, AR100, ARS, ARM, ARL
SUMS = len(AREAS) + RECALLS  # weighted sums a category


@dataclass(frozen=True)
class Events:
    """Lists over images, cut by offsets; an image's weight is added once for each place it has in a list.

    Curve c = category * 4 + area. Images are named by position.
    """

    image_ids: NDArray[np.int64]  # (images,)
    names: tuple[str, ...]  # of the categories
    base_start: NDArray[np.int64]  # (curves + 1,) into `base`
    base: NDArray[np.int32]  # image of each detection inside the area, up to the last stop
    stop_start: NDArray[np.int64]  # (curves + 1,) into `stop`
    stop: NDArray[np.int32]  # how many of the curve's `base` stand up to here
    event_start: NDArray[np.int64]  # (curves * 10 + 1,) into the next three, by curve and overlap
    event_image: NDArray[np.int32]
    event_stop: NDArray[np.int32]  # which of the curve's stops; of true positives only
    event_kind: NDArray[np.uint8]  # IN, OUT or DROPPED
    sum_start: NDArray[np.int64]  # (categories * 10 + 1,): true boxes by area, then the kinds of recall
    sum_image: NDArray[np.int32]
    sum_times: NDArray[np.int32]  # how often to add the weight

    @property
    def nbytes(self) -> int:
        """Memory of the lists, in bytes."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))


def compress(matches: Matches) -> Events:
    """List what changes the curves. Takes time and memory linear in the detections."""
    curves = len(matches.names) * len(AREAS)
    bases, stops = np.zeros(curves + 1, np.int64), np.zeros(curves + 1, np.int64)
    events = np.zeros(curves * len(OVERLAPS) + 1, np.int64)
    none32, none8 = np.zeros(0, np.int32), np.zeros(0, np.uint8)
    table = (matches.start, matches.image, matches.inside, matches.true, matches.false)
    _list(*table, bases, stops, events, none32, none32, none32, none32, none8, False)
    for starts in (bases, stops, events):
        np.cumsum(starts, out=starts)
    base, stop = np.empty(bases[-1], np.int32), np.empty(stops[-1], np.int32)
    image, at = np.empty(events[-1], np.int32), np.zeros(events[-1], np.int32)
    kind = np.empty(events[-1], np.uint8)
    _list(*table, bases, stops, events, base, stop, image, at, kind, True)
    return Events(
        *(matches.image_ids, matches.names, bases, base, stops, stop, events, image, at, kind),
        *_sums(matches),
    )


def _sums(matches: Matches) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Images of true boxes by category and area, then of true positives (at all overlaps) by recall."""
    images = max(len(matches.image_ids), 1)
    category = np.repeat(np.arange(len(matches.names)), np.diff(matches.start))
    hits = np.bitwise_count(matches.true).astype(np.int64)  # (4, n) overlaps at which it is found
    areas = range(len(AREAS))
    lists: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = [
        *((matches.truth_category, matches.truth_image, matches.truth_counted >> area & 1) for area in areas),
        *((category, matches.image, hits[0] * (matches.rank < most)) for most in AT_MOST),
        *((category, matches.image, hits[area]) for area in areas),
    ]

    keys, times = [], []
    for position, (of, image, count) in enumerate(lists):
        some = np.flatnonzero(count)
        keys.append((of[some].astype(np.int64) * SUMS + position) * images + image[some])
        times.append(count[some])
    key, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    total = np.bincount(inverse, np.concatenate(times), len(key))
    start = np.searchsorted(key, np.arange(len(matches.names) * SUMS + 1) * images)
    return start.astype(np.int64), (key % images).astype(np.int32), total.astype(np.int32)


@njit(cache=True, nogil=True)
def _list(  # type: ignore[no-untyped-def]
    start, image, inside, true, false, bases, stops, events, base, stop, event_image, event_stop, kind, fill
):
    """Count each curve's entries, into bases, stops and events at its number + 1; with `fill`, write them."""
    areas, overlaps = true.shape[0], len(OVERLAPS)
    at = np.empty(overlaps, np.int64)
    for curve in range(len(bases) - 1):
        k, area = curve // areas, curve % areas
        last = start[k + 1] - 1  # the last true positive: nothing matters after it
        while last >= start[k] and true[area, last] == 0:
            last -= 1
        counted, stopped = 0, 0
        at[:] = 0
        if fill:
            at[:] = events[curve * overlaps : (curve + 1) * overlaps]
        for i in range(start[k], last + 1):
            here = inside[i] >> area & 1
            if here:
                if fill:
                    base[bases[curve] + counted] = image[i]
                counted += 1
            hit = true[area, i]
            dropped = (here * ((1 << overlaps) - 1)) & ~(hit | false[area, i])
            if hit | dropped:
                for t in range(overlaps):
                    if (hit | dropped) >> t & 1:
                        if fill:
                            event_image[at[t]] = image[i]
                            event_stop[at[t]] = stopped
                            kind[at[t]] = DROPPED if dropped >> t & 1 else (IN if here else OUT)
                        at[t] += 1
            if hit:
                if fill:
                    stop[stops[curve] + stopped] = counted
                stopped += 1
        if not fill:
            bases[curve + 1] = counted
            stops[curve + 1] = stopped
            events[curve * overlaps + 1 : (curve + 1) * overlaps + 1] = at
