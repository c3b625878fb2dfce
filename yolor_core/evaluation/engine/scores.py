"""The twelve numbers from matches, and those of many resamples of the images from compressed matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from yolor_core.data.records import size_limits
from yolor_core.errors import DataError
from yolor_core.evaluation.engine.matching import AREAS, EVERY, OVERLAPS, Matches, spread
from yolor_core.tasks import COCO_NUMBERS

RECALLS = np.linspace(0, 1, 101)  # the recall thresholds; thirteen of these floats lie above k / 100
TINY = float(np.spacing(1))  # what pycocotools adds to the denominator of the precision
AT_MOST = (1, 10)  # detections per image and category of AR1 and AR10; the other recalls use all 100


def score(matches: Matches, threads: int = 1) -> dict[str, Any]:
    """The numbers of `coco.evaluate_boxes`, equal to it in every bit and in the same layout, on any threads.

    Returns:
        {"detection": the twelve numbers by name, as fractions, None where there is no ground truth to score,
        "per_class": {category name: AP or None}, "images": count, "detections": count,
        "size_limits": [side from which an object is medium, large; pixels]}.
    """
    precision, recall = curves(matches, threads)
    values = [
        *(precision[0], precision[0, OVERLAPS == 0.5], precision[0, OVERLAPS == 0.75]),
        *(precision[area] for area in (1, 2, 3)),
        *recall,
    ]
    return {
        "detection": {name: _mean(value) for name, value in zip(COCO_NUMBERS, values, strict=True)},
        "per_class": {name: _mean(precision[0, :, :, k]) for k, name in enumerate(matches.names)},
        "images": len(matches.image_ids),
        "detections": matches.detections,
        "size_limits": size_limits(matches.ranges),
    }


def curves(matches: Matches, threads: int = 1) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall of each category, -1 where it has no true box.

    Returns:
        precision: (4 areas, 10 overlaps, 101 recalls, categories), the largest from that recall on.
        recall: (6, 10 overlaps, categories) reached with the best 1, 10 and 100 detections of each image,
            and with 100 for small, medium and large boxes.
    """
    shape = (len(AREAS), len(OVERLAPS), len(RECALLS), len(matches.names))
    precision = np.full(shape, -1.0)
    recall = np.full((len(AT_MOST) + len(AREAS), len(OVERLAPS), len(matches.names)), -1.0)
    table = (matches.start, matches.rank, matches.true, matches.false, positives(matches))
    spread(lambda some: _curves(some, *table, RECALLS, precision, recall), np.diff(matches.start), threads)
    return precision, recall


def positives(matches: Matches) -> NDArray[np.int64]:
    """(categories, 4): true boxes that count, by area."""
    counts = np.zeros((len(matches.names), len(AREAS)), np.int64)
    for area in range(len(AREAS)):
        counting = matches.truth_category[(matches.truth_counted >> area & 1).astype(bool)]
        counts[:, area] = np.bincount(counting, minlength=len(matches.names))
    return counts


def _mean(values: NDArray[np.float64]) -> float | None:
    """Of the defined ones, summed in pycocotools' order (overlap, recall, category), so rounded as there."""
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else None


@njit(cache=True, nogil=True, error_model="numpy")
def _curves(categories, start, rank, true, false, counts, recalls, precision, recall):  # type: ignore[no-untyped-def]
    thresholds = precision.shape[1]
    most = counts.max() if counts.size else 0
    at = np.empty((thresholds, most))  # precision at each true positive
    found = np.empty(thresholds, np.int64)
    early = np.empty((2, thresholds), np.int64)  # of `found`, among the best AT_MOST
    wrong = np.empty(thresholds, np.int64)
    for k in categories:
        for area in range(counts.shape[1]):
            total = counts[k, area]
            if total == 0:
                continue
            found[:] = 0
            early[:] = 0
            wrong[:] = 0
            always = 0  # false positives at every overlap
            for i in range(start[k], start[k + 1]):
                if true[area, i] == 0 and (false[area, i] == 0 or false[area, i] == EVERY):
                    always += false[area, i] == EVERY
                    continue
                for t in range(thresholds):
                    wrong[t] += false[area, i] >> t & 1
                    if true[area, i] >> t & 1:
                        found[t] += 1
                        at[t, found[t] - 1] = found[t] / (always + wrong[t] + found[t] + TINY)
                        early[0, t] += rank[i] < AT_MOST[0]
                        early[1, t] += rank[i] < AT_MOST[1]
            for t in range(thresholds):
                for i in range(found[t] - 2, -1, -1):
                    at[t, i] = max(at[t, i], at[t, i + 1])
                i = 0
                for r in range(len(recalls)):
                    while i < found[t] and (i + 1) / total < recalls[r]:
                        i += 1
                    precision[area, t, r, k] = at[t, i] if i < found[t] else 0.0
                recall[2 + area, t, k] = found[t] / total
                if area == 0:
                    recall[0, t, k] = early[0, t] / total
                    recall[1, t, k] = early[1, t] / total


IN, OUT, DROPPED = 0, 1, 2  # event: true positive inside the area, one outside it, a detection to count out
RECALL_SUMS = len(AT_MOST) + len(AREAS)  # kinds of recall: AR1, AR10, AR100, ARS, ARM, ARL
SUMS = len(AREAS) + RECALL_SUMS  # weighted sums a category


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


LANES = 32  # resamples side by side: the vector length of the inner loops
HEAVIEST = 255  # a weight is one byte


@dataclass(frozen=True)
class Resampled:
    """Scores as fractions, one for each resample; NaN where no true box was drawn."""

    metrics: dict[str, NDArray[np.float64]]  # the twelve numbers by name, (resamples,)
    per_class: NDArray[np.float64]  # (resamples, categories) AP, or no categories if not asked for
    names: tuple[str, ...]  # of those categories

    @classmethod
    def join(cls, parts: Sequence[Resampled]) -> Resampled:
        """Resamples of several calls, in order."""
        metrics = {name: np.concatenate([part.metrics[name] for part in parts]) for name in COCO_NUMBERS}
        return cls(metrics, np.concatenate([part.per_class for part in parts]), parts[0].names)


def resample(matches: Matches | Events, weights: NDArray[np.integer], per_class: bool = True) -> Resampled:
    """The twelve numbers and per-class AP on weighted images.

    A weight is how often an image stands in the resample, and the scores are those of a dataset in which it
    physically does, to rounding: each mean is over the categories of which a true box was drawn. Detections
    of one category are taken by falling score and, at equal scores, in pycocotools' order, the copies of an
    image standing beside it. Where *one* image has detections of equal score and category, the copies of the
    first are taken before those of the second (a a b b), while a file of copies has them image by image
    (a b a b). That moves AP by some 1e-8 at the size of COCO val, but by up to 3e-4 on 100 images.
    A row's scores depend on its weights alone, to the bit.

    Args:
        matches: of one model; `compress` it once when there are several calls.
        weights: (resamples, images), 0 to 255, images by rising id as in `matches.image_ids`.
        per_class: leave False to save 8 bytes a category and resample.

    Raises:
        DataError: for weights of another shape, negative or above 255, or not integers.
    """
    events = matches if isinstance(matches, Events) else compress(matches)
    weights = np.asarray(weights)
    if weights.ndim != 2 or weights.shape[1] != len(events.image_ids):
        raise DataError(f"weights are {weights.shape}, not (resamples, {len(events.image_ids)} images)")
    if weights.dtype.kind not in "iu":
        raise DataError(f"weights are {weights.dtype}: how often an image is drawn is an integer")
    if weights.dtype != np.uint8 and weights.size and not 0 <= weights.min() <= weights.max() <= HEAVIEST:
        raise DataError(f"weights are {weights.min()} to {weights.max()}; allowed: 0 to {HEAVIEST}")
    blocks = [_block(events, weights[i : i + LANES], per_class) for i in range(0, len(weights), LANES)]
    return Resampled.join(blocks or [_block(events, weights, per_class)])


def _block(events: Events, weights: NDArray[np.integer], per_class: bool) -> Resampled:
    """At most LANES resamples."""
    count, categories = len(weights), len(events.names)
    lanes = np.zeros((len(events.image_ids), LANES), np.uint8)
    lanes[:, :count] = weights.T
    sums = np.empty((categories, SUMS, LANES))
    _sum(events.sum_start, events.sum_image, events.sum_times, lanes, sums.reshape(-1, LANES))
    areas = len(AREAS)
    present = np.ascontiguousarray(sums[:, :areas])  # true boxes drawn, by category and area
    precision = np.empty((categories, areas, len(OVERLAPS), LANES))
    _precision(
        *(events.base_start, events.base, events.stop_start, events.stop, events.event_start),
        *(events.event_image, events.event_stop, events.event_kind),
        *(lanes, np.maximum(present, 1).reshape(-1, LANES), precision.reshape(-1, LANES)),
    )

    # over all lanes, used or not, so that rounding does not depend on how many are used
    drawn = present > 0
    ap = precision.mean(2)  # (categories, areas, LANES)
    of_area = [0] * (RECALL_SUMS - areas) + list(range(areas))  # AR1 and AR10 are of all areas
    recall = sums[:, areas:] / np.maximum(present[:, of_area], 1) / len(OVERLAPS)
    at = [(ap[:, 0], 0), (precision[:, 0, OVERLAPS == 0.5][:, 0], 0)]
    at += [(precision[:, 0, OVERLAPS == 0.75][:, 0], 0), *((ap[:, a], a) for a in (1, 2, 3))]
    at += [(recall[:, kind], area) for kind, area in enumerate(of_area)]
    metrics = {
        name: _mean_of_drawn(values, drawn[:, area])[:count]
        for name, (values, area) in zip(COCO_NUMBERS, at, strict=True)
    }
    if not per_class:
        return Resampled(metrics, np.empty((count, 0)), ())
    return Resampled(metrics, np.where(drawn[:, 0], ap[:, 0], np.nan).T[:count], events.names)


def _mean_of_drawn(values: NDArray[np.float64], drawn: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(categories, LANES) -> (LANES,): over the categories that were drawn."""
    count = drawn.sum(0)
    total = np.where(drawn, values, 0.0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


@njit(cache=True, nogil=True, error_model="numpy")
def _sum(start, image, times, weights, out):  # type: ignore[no-untyped-def]
    for group in range(len(start) - 1):
        total = out[group]
        total[:] = 0.0
        for i in range(start[group], start[group + 1]):
            row, factor = weights[image[i]], float(times[i])
            for b in range(LANES):
                total[b] += factor * row[b]


@njit(cache=True, nogil=True, error_model="numpy")
def _precision(  # type: ignore[no-untyped-def]
    base_start, base, stop_start, stop, start, image, at, kind, weights, present, out
):
    """Mean precision over the 101 recalls, (curves * 10, LANES), into `out`. `present` (curves, LANES) >= 1.

    A curve is walked from its last event to its first, so that the largest precision so far is the envelope.
    """
    most = 0
    for curve in range(len(stop_start) - 1):
        most = max(most, stop_start[curve + 1] - stop_start[curve])
    before = np.empty((most, LANES), np.int32)  # weighted detections inside the area up to each stop
    running = np.empty(LANES, np.int32)
    # true positives, shift of the count, thresholds reached, envelope, sum; in one array to vectorise well
    state = np.empty(5 * LANES)
    for curve in range(len(stop_start) - 1):
        running[:] = 0
        i = base_start[curve]
        for s in range(stop_start[curve], stop_start[curve + 1]):
            while i < base_start[curve] + stop[s]:
                row = weights[base[i]]
                for b in range(LANES):
                    running[b] += np.int32(row[b])
                i += 1
            before[s - stop_start[curve]] = running
        true_boxes = present[curve]
        for group in range(curve * len(OVERLAPS), (curve + 1) * len(OVERLAPS)):
            state[:] = 0.0
            for e in range(start[group], start[group + 1]):
                row = weights[image[e]]
                found = 0.0 if kind[e] > OUT else 1.0
                shift = 0.0 if kind[e] == IN else (1.0 if kind[e] == OUT else -1.0)
                for b in range(LANES):
                    state[b] += found * row[b]
                    state[LANES + b] += shift * row[b]
            for b in range(LANES):
                state[2 * LANES + b] = _reached(state[b] / true_boxes[b])
            for e in range(start[group + 1] - 1, start[group] - 1, -1):
                row = weights[image[e]]
                if kind[e] > OUT:
                    for b in range(LANES):
                        state[LANES + b] += row[b]
                    continue
                count = before[at[e]]
                shift = 1.0 if kind[e] == OUT else 0.0
                for b in range(LANES):
                    weight = np.float64(row[b])
                    precision = state[b] / (count[b] + state[LANES + b] + TINY)
                    envelope = max(state[3 * LANES + b], precision)
                    state[3 * LANES + b] = envelope
                    state[b] -= weight
                    state[LANES + b] -= shift * weight
                    reached = _reached(state[b] / true_boxes[b])
                    state[4 * LANES + b] += envelope * (state[2 * LANES + b] - reached)
                    state[2 * LANES + b] = reached
            mean = out[group]
            for b in range(LANES):  # the threshold 0 is reached at once
                mean[b] = (state[4 * LANES + b] + state[3 * LANES + b]) / 101.0


@njit(inline="always")
def _reached(recall):  # type: ignore[no-untyped-def]
    """How many of the thresholds k * 0.01 (the floats of linspace(0, 1, 101)), k from 1, a recall reaches."""
    k = np.float64(np.int32(recall * 100.0))  # off by one at most
    k += 1.0 if (k + 1.0) * 0.01 <= recall else 0.0
    k -= 1.0 if k * 0.01 > recall else 0.0
    return k
