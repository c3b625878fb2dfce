"""Which images are trained on, in which order, and which are evaluated together. All of it deterministic."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Draw(IntEnum):
    """What a random stream of an epoch is for."""

    ORDER = 1
    SAMPLE = 2
    MULTI_SCALE = 3


def generator(draw: Draw, seed: int, epoch: int, sample: int = 0) -> np.random.Generator:
    """Generator keyed by (seed, epoch, sample index): the same numbers for every model, worker and resume."""
    return np.random.default_rng([0xDA7A, int(draw), seed, epoch, sample])


def kept(ids: Sequence[int], keep_one_in: int) -> NDArray[np.int64]:
    """Positions of the images with SHA-1(decimal image id) mod keep_one_in = 0."""
    if keep_one_in == 1:
        return np.arange(len(ids))
    digests = (int(hashlib.sha1(str(i).encode()).hexdigest(), 16) for i in ids)
    return np.array([p for p, digest in enumerate(digests) if digest % keep_one_in == 0], np.int64)


def epoch_order(positions: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """The positions shuffled for an epoch."""
    return generator(Draw.ORDER, seed, epoch).permutation(positions)


def share(count: int, rank: int, ranks: int, group: int = 0) -> slice:
    """The contiguous part of `count` images that a rank works on; the parts of all ranks follow one another.

    Cuts lie at multiples of `group` (0 and 1: anywhere). Parts differ by at most one group, earlier ranks
    having the larger ones; the last group may be short, and a part may be empty. Raises ValueError for a rank
    that does not exist.
    """
    if not 0 <= rank < ranks:
        raise ValueError(f"rank is {rank}; with {ranks} ranks, 0 to {ranks - 1} are allowed")
    if count < 0 or group < 0:
        raise ValueError(f"count is {count} and group is {group}; neither may be negative")
    unit = max(group, 1)
    each, more = divmod(math.ceil(count / unit), ranks)
    cuts = (min((r * each + min(r, more)) * unit, count) for r in (rank, rank + 1))
    return slice(*cuts)


def by_aspect(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions ordered by height / width, equal ratios by position. sizes: (n, 2) width, height."""
    return np.argsort(sizes[:, 1] / sizes[:, 0], kind="stable")


def rectangle(sizes: NDArray[np.int64], size: int, stride: int, pad: float) -> tuple[int, int]:
    """Width and height, multiples of stride, of a batch of images whose long sides become `size`.

    Each side is ceil(ratio * size / stride + pad) * stride, ratio being the largest in the batch of that side
    to its image's long side, as in the released test.
    """
    ratios = (sizes / sizes.max(axis=1, keepdims=True)).max(axis=0)
    w, h = (math.ceil(float(r) * size / stride + pad) * stride for r in ratios)
    return w, h
