"""Scores of many resamples of the images, from one matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from yolor_core.errors import DataError
from yolor_core.evaluation.engine.accumulate import TINY
from yolor_core.evaluation.engine.events import IN, OUT, RECALLS, SUMS, Events, compress
from yolor_core.evaluation.engine.matching import OVERLAPS, Matches
from yolor_core.evaluation.engine.truth import AREAS
from yolor_core.tasks import COCO_NUMBERS

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
    of_area = [0] * (RECALLS - areas) + list(range(areas))  # AR1 and AR10 are of all areas
    recall = sums[:, areas:] / np.maximum(present[:, of_area], 1) / len(OVERLAPS)
    at = [(ap[:, 0], 0), (precision[:, 0, OVERLAPS == 0.5][:, 0], 0)]
    at += [(precision[:, 0, OVERLAPS == 0.75][:, 0], 0), *((ap[:, a], a) for a in (1, 2, 3))]
    at += [(recall[:, kind], area) for kind, area in enumerate(of_area)]
    metrics = {
        name: _mean(values, drawn[:, area])[:count]
        for name, (values, area) in zip(COCO_NUMBERS, at, strict=True)
    }
    if not per_class:
        return Resampled(metrics, np.empty((count, 0)), ())
    return Resampled(metrics, np.where(drawn[:, 0], ap[:, 0], np.nan).T[:count], events.names)


def _mean(values: NDArray[np.float64], drawn: NDArray[np.bool_]) -> NDArray[np.float64]:
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
