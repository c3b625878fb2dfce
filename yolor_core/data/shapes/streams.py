"""The random streams of the synthetic dataset: one independent generator per purpose, split and image."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

SPLITS = {"train": 0, "val": 1}


class Stream(IntEnum):
    """What a generator is for. The numbers are part of the dataset: changing one changes its images."""

    IDENTITIES = 1
    LAYOUT = 2
    PIXELS = 3


def generator(stream: Stream, seed: int, *key: int) -> np.random.Generator:
    """Generator keyed by (stream, seed, key); negative seeds are allowed."""
    return np.random.default_rng([0x5A9E5, int(stream), seed % 2**64, *key])
