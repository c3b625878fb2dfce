"""Scores of embeddings: retrieval and verification among boxes of known identity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolor_core.errors import InputError

STEPS = 2**20
"""Cosines are rounded to steps of 1 / STEPS, about the error of a sum in float32: what a matrix product makes
of equal embeddings depends on the processor, ties and scores then do not."""
OUT = -STEPS - 1  # stands for a pair that does not count: below every cosine
BLOCK = 2**22  # similarities at a time


def score_embeddings(
    embeddings: NDArray[np.floating],
    identities: NDArray[np.integer],
    image_ids: NDArray[np.integer],
    same_image: bool = True,
) -> dict[str, Any]:
    """Score embeddings of boxes by their cosine similarities. Ours: the sources define no protocol for COCO.

    Args:
        embeddings: float (M, D), of any length; a zero vector has the cosine 0 with everything.
        identities: integer (M,); boxes of identity -1 (unknown) are left out altogether.
        image_ids: integer (M,), the image of each box.
        same_image: whether boxes of one image are compared with each other.

    Returns:
        {"recall@1", "mAP", "AUC", "queries", "boxes", "identities", "alone", "unknown"}.

        Every box is a query against all others. A box is `alone` when no other of its identity is among
        them: it is no query, but stays in the others' gallery. `recall@1` is the share of queries whose most
        similar box has their identity. `mAP` is the mean over queries of the average precision: the mean,
        over the boxes of the query's identity, of the share of that identity among all boxes at least as
        similar. `AUC` is the share of right orders among all (pair of one identity, pair of two identities):
        the area under the ROC curve of verification, over all pairs, none sampled.

        Equal similarities enter average precision together, share recall@1 by what part of them is right,
        and count half in the AUC; so where all embeddings are equal, every number is that of chance. A
        number that is not defined (no query; no pair of one of the two kinds) is None.

    Raises:
        InputError: for shapes that do not fit, and for embeddings that are not finite.
    """
    embeddings, identities = np.asarray(embeddings), np.asarray(identities)
    image_ids = np.asarray(image_ids)
    _check(embeddings, identities, image_ids)
    known = identities != -1
    unit, labels = _normalised(embeddings[known]), identities[known]
    images = None if same_image else image_ids[known]

    precisions: list[float] = []
    hits: list[float] = []
    pairs = np.zeros((2, 2 * STEPS + 2), np.int64)  # different and same identity, by similarity
    for first, steps in _similarities(unit, images):
        same = labels[first : first + len(steps), None] == labels
        bins = steps - OUT
        together = np.bincount(bins[same], minlength=pairs.shape[1])
        pairs[1] += together
        pairs[0] += np.bincount(bins.ravel(), minlength=pairs.shape[1]) - together
        for row, mine in zip(steps, same, strict=True):
            right = row[mine]
            right = np.sort(right[right != OUT])
            if len(right):
                row.sort()
                precisions.append(_average_precision(row, right))
                hits.append(_first_is_right(row, right))
    return {
        "recall@1": _mean(hits),
        "mAP": _mean(precisions),
        "AUC": _area(pairs[:, 1:]),
        "queries": len(hits),
        "boxes": len(labels),
        "identities": len(np.unique(labels)),
        "alone": len(labels) - len(hits),
        "unknown": int((~known).sum()),
    }


def _check(embeddings: NDArray[Any], identities: NDArray[Any], image_ids: NDArray[Any]) -> None:
    if embeddings.ndim != 2 or not np.issubdtype(embeddings.dtype, np.floating):
        raise InputError(
            f"embeddings are {embeddings.dtype} {embeddings.shape}; float (boxes, dimension) is needed"
        )
    for name, values in (("identities", identities), ("image_ids", image_ids)):
        if values.shape != embeddings.shape[:1] or not np.issubdtype(values.dtype, np.integer):
            raise InputError(
                f"{name} are {values.dtype} {values.shape}; integer ({len(embeddings)},) is needed, one for "
                "each embedding"
            )
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        raise InputError(
            f"the embedding of box {bad[0]} (image {image_ids[bad[0]]}) is not finite, one of {len(bad)}; "
            "finite numbers are needed"
        )


def _normalised(embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of length 1, or 0. Scaled by the largest element first: squares of large ones overflow."""
    wide = embeddings.astype(np.float64)
    wide /= np.maximum(np.abs(wide).max(axis=1, keepdims=True, initial=0), np.finfo(np.float64).tiny)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return (wide / np.where(length > 0, length, 1)).astype(np.float32)


def _similarities(
    unit: NDArray[np.float32], images: NDArray[np.integer] | None
) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Blocks of rows: (index of the first row, cosines (rows, M) in steps). OUT for a box and itself, and,
    where `images` are given, for boxes of one image."""
    rows = max(BLOCK // max(len(unit), 1), 1)
    for first in range(0, len(unit), rows):
        cosines = unit[first : first + rows] @ unit.T
        steps = np.rint(cosines.clip(-1, 1) * np.float32(STEPS)).astype(np.int32)
        index = np.arange(len(steps))
        steps[index, first + index] = OUT
        if images is not None:
            steps[images[first : first + rows, None] == images] = OUT
        yield first, steps


def _average_precision(row: NDArray[np.int32], right: NDArray[np.int32]) -> float:
    """Of rising similarities to all boxes and, among them, to those of the query's identity."""
    of_all = len(row) - np.searchsorted(row, right)
    of_right = len(right) - np.searchsorted(right, right)
    return float((of_right / of_all).mean())


def _first_is_right(row: NDArray[np.int32], right: NDArray[np.int32]) -> float:
    """Share of the query's identity among the most similar boxes; more than one box only at a tie."""
    best = row[-1]
    return float((right == best).sum() / (len(row) - np.searchsorted(row, best)))


def _area(pairs: NDArray[np.int64]) -> float | None:
    """Share of right orders, ties half, of counts (different, same) x similarity. In Python's integers."""
    different, same = pairs
    totals = int(different.sum()), int(same.sum())
    if not all(totals):
        return None
    below = np.cumsum(different) - different
    present = np.flatnonzero(same)
    columns = (column[present].tolist() for column in (same, below, different))
    twice = sum(s * (2 * b + d) for s, b, d in zip(*columns, strict=True))
    return twice / (2 * totals[0] * totals[1])


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
