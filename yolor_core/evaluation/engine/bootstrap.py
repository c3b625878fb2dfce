"""Paired bootstrap over images, all models on the same resamples; and what is wrong with an arm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolor_core.data.records import FARTHEST
from yolor_core.errors import DataError, some_of
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.engine.matching import Matches, Truth
from yolor_core.evaluation.engine.scores import LANES, Resampled, compress, resample, score

FEW_IMAGES = 50  # below this a bootstrap over images is too coarse to trust its intervals


def check_detections(truth: Mapping[str, Any] | Truth, detections: Detections) -> None:
    """Refuse detections that would be scored without complaint and should not be.

    Boxes of zero size are allowed: rounding makes them, and they match nothing.

    Raises:
        DataError: for columns of different lengths, an unknown image or category id, a score that is not in
            [0, 1], a box that is not finite, far off any image or of negative size, or rows that are repeated
            exactly (image, category, box and score); each time with a count and the first example.
    """
    truth = truth if isinstance(truth, Truth) else Truth.read(truth)
    boxes, scores, rows = detections.boxes, detections.scores, len(detections)
    lengths = [rows, len(detections.category_id), len(boxes), len(scores)]
    if len(set(lengths)) > 1 or boxes.shape[1:] != (4,):
        raise DataError(f"image ids, categories, boxes and scores have {lengths} rows; boxes {boxes.shape}")
    for kind, found, known in (
        ("image", detections.image_id, truth.image_ids),
        ("category", detections.category_id, truth.category_ids),
    ):
        _refuse(
            ~np.isin(found, known),
            detections,
            f"{kind} ids are not in the annotations, which have {some_of(known.tolist())}",
        )
    _refuse(~((scores >= 0) & (scores <= 1)), detections, "scores are not in [0, 1]")
    _refuse(~np.all(np.abs(boxes) < FARTHEST, axis=1), detections, "boxes are not finite, or far off")
    _refuse(np.any(boxes[:, 2:] < 0, axis=1), detections, "boxes have a negative width or height")
    keys = (scores, *boxes.T, detections.category_id, detections.image_id)
    order = np.lexsort(keys)
    again = np.zeros(rows, bool)
    again[order[1:]] = np.logical_and.reduce([key[order[1:]] == key[order[:-1]] for key in keys])
    _refuse(again, detections, "rows are exact duplicates of another row")


def check_pair(a: Matches, b: Matches) -> list[str]:
    """Whether two arms can be compared image by image.

    Returns:
        Warnings, one sentence each: that there are fewer than 50 images, or that an arm detected nothing.

    Raises:
        DataError: when the arms were matched against different images, categories or true boxes.
    """
    for kind, first, second in (
        ("images", a.image_ids, b.image_ids),
        ("categories", a.category_ids, b.category_ids),
    ):
        if not np.array_equal(first, second):
            only = np.setxor1d(first, second)
            raise DataError(
                f"the arms were scored on different {kind}: {len(first)} and {len(second)}, of which "
                f"{len(only)} are in one arm only: {only[:5].tolist()} ..."
            )
    if a.names != b.names:
        differ = [f"{one} and {other}" for one, other in zip(a.names, b.names, strict=True) if one != other]
        raise DataError(f"the arms were scored on categories of other names: {some_of(differ)}")
    for name in ("truth_category", "truth_image", "truth_counted"):
        if not np.array_equal(getattr(a, name), getattr(b, name)):
            raise DataError("the arms were matched against different true boxes of the same images")
    warnings = []
    if len(a.image_ids) < FEW_IMAGES:
        warnings.append(
            f"only {len(a.image_ids)} images: a bootstrap over fewer than {FEW_IMAGES} understates the spread"
        )
    warnings += [f"arm {name} has no detections" for name, arm in (("a", a), ("b", b)) if not arm.detections]
    return warnings


def _refuse(wrong: NDArray[np.bool_], detections: Detections, sentence: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{int(wrong.sum())} of {len(wrong)} detections: {sentence}; the first is row {row}: "
            f"image {detections.image_id[row]}, category {detections.category_id[row]}, "
            f"box {detections.boxes[row].tolist()}, score {detections.scores[row]}"
        )


@dataclass(frozen=True)
class PairedBootstrap:
    """Two arms on all images, and on the same resamples of the images."""

    a: dict[str, float | None]  # the twelve numbers on all images, None where undefined
    b: dict[str, float | None]
    resampled_a: Resampled  # row i of both arms is the same resample
    resampled_b: Resampled
    warnings: list[str]

    def difference(self, metric: str) -> NDArray[np.float64]:
        """b - a on each resample, (resamples,); NaN where the metric is undefined."""
        return self.resampled_b.metrics[metric] - self.resampled_a.metrics[metric]


def bootstrap_weights(images: int, resamples: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """How often each image is drawn, `images` times with replacement, in each resample.

    Blocks of 32 resamples (the last may be smaller), each from its own Philox stream: block i depends on
    `images`, the seed and i alone, so more resamples begin with the same ones.

    Yields:
        (up to 32, images) uint8, each row summing to `images`. A count above 255, which has a probability
        below 1e-500, would be an error.

    Raises:
        DataError: for no images or a negative number of resamples.
    """
    if images < 1 or resamples < 0:
        raise DataError(f"cannot draw {resamples} resamples of {images} images")
    return (_weights(images, resamples, seed, block) for block in range(_blocks(resamples)))


def bootstrap(
    runs: Sequence[Matches], resamples: int, seed: int, threads: int = 1, per_class: bool = False
) -> list[Resampled]:
    """Score each run on the same resamples, as a paired or a crossed (seeds × images) bootstrap needs.

    The result does not depend on `threads`; they share the events and hold a block of weights each.

    Raises:
        DataError: when the runs were not matched against the same truth, or without a run, image or resample.
    """
    if not runs or resamples < 1:
        raise DataError(f"cannot bootstrap {len(runs)} runs with {resamples} resamples")
    for other in runs[1:]:
        check_pair(runs[0], other)
    images = len(runs[0].image_ids)
    if not images:
        raise DataError("cannot bootstrap without images")
    events = [compress(run) for run in runs]

    def one(block: int) -> list[Resampled]:
        weights = _weights(images, resamples, seed, block)
        return [resample(run, weights, per_class) for run in events]

    with ThreadPoolExecutor(max(threads, 1)) as pool:
        blocks = list(pool.map(one, range(_blocks(resamples))))
    return [Resampled.join(parts) for parts in zip(*blocks, strict=True)]


def paired_bootstrap(
    a: Matches, b: Matches, resamples: int, seed: int, threads: int = 1, per_class: bool = False
) -> PairedBootstrap:
    """Two arms on the same resamples of the images.

    Fewer than 50 images give a warning in the result.

    Raises:
        DataError: as `bootstrap`, naming what differs.
    """
    warnings = check_pair(a, b)
    first, second = bootstrap([a, b], resamples, seed, threads, per_class)
    return PairedBootstrap(score(a)["detection"], score(b)["detection"], first, second, warnings)


def _blocks(resamples: int) -> int:
    return -(-resamples // LANES)


def _weights(images: int, resamples: int, seed: int, block: int) -> NDArray[np.uint8]:
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(block,))))
    rows = min(LANES, resamples - block * LANES)
    weights = np.empty((rows, images), np.uint8)
    for row in weights:
        counts = np.bincount(stream.integers(0, images, images), minlength=images)
        if counts.max() > np.iinfo(np.uint8).max:
            raise DataError(f"one image was drawn {counts.max()} times; at most 255 are supported")
        row[:] = counts
    return weights
