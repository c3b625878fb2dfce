"""Paired bootstrap over images: all models are scored on the same resamples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yolor_core.errors import DataError
from yolor_core.evaluation.engine.accumulate import score
from yolor_core.evaluation.engine.checks import check_pair
from yolor_core.evaluation.engine.events import compress
from yolor_core.evaluation.engine.matching import Matches
from yolor_core.evaluation.engine.resampling import LANES, Resampled, resample


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
