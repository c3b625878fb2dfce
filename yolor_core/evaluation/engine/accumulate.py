"""The twelve COCO numbers from matches, with the reference's rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from yolor_core.evaluation.engine.matching import EVERY, OVERLAPS, Matches
from yolor_core.evaluation.engine.truth import AREAS
from yolor_core.tasks import COCO_NUMBERS

RECALLS = np.linspace(0, 1, 101)  # the recall thresholds; thirteen of these floats lie above k / 100
TINY = float(np.spacing(1))  # what pycocotools adds to the denominator of the precision
AT_MOST = (1, 10)  # detections per image and category of AR1 and AR10; the other recalls use all 100


def score(matches: Matches) -> dict[str, Any]:
    """The numbers of `coco.evaluate_boxes`, equal to it in every bit and in the same layout.

    Returns:
        {"detection": the twelve numbers by name, as fractions, None where there is no ground truth to score,
        "per_class": {category name: AP or None}, "images": count, "detections": count}.
    """
    precision, recall = curves(matches)
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
    }


def curves(matches: Matches) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall of each category, -1 where it has no true box.

    Returns:
        precision: (4 areas, 10 overlaps, 101 recalls, categories), the largest from that recall on.
        recall: (6, 10 overlaps, categories) reached with the best 1, 10 and 100 detections of each image,
            and with 100 for small, medium and large boxes.
    """
    shape = (len(AREAS), len(OVERLAPS), len(RECALLS), len(matches.names))
    precision = np.full(shape, -1.0)
    recall = np.full((len(AT_MOST) + len(AREAS), len(OVERLAPS), len(matches.names)), -1.0)
    _curves(
        matches.start,
        matches.rank,
        matches.true,
        matches.false,
        positives(matches),
        RECALLS,
        precision,
        recall,
    )
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
def _curves(start, rank, true, false, counts, recalls, precision, recall):  # type: ignore[no-untyped-def]
    thresholds = precision.shape[1]
    most = counts.max() if counts.size else 0
    at = np.empty((thresholds, most))  # precision at each true positive
    found = np.empty(thresholds, np.int64)
    early = np.empty((2, thresholds), np.int64)  # of `found`, among the best AT_MOST
    wrong = np.empty(thresholds, np.int64)
    for k in range(counts.shape[0]):
        for area in range(counts.shape[1]):
            total = counts[k, area]
            if total == 0:
                continue
            found[:] = 0
            early[:] = 0
            wrong[:] = 0
            always = 0  # false positives at every overlap
            for i in range(start[k], start[k + 1]):
                if false[area, i] == EVERY:
                    always += 1
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
