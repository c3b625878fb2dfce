"""Random numbers keyed by (seed, parameter name): no draw depends on which other parameters exist."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


class Draws:
    """Source of initial values: each name has its own generator, seeded by SHA-256 of (seed, name).

    Values are drawn on the CPU in float32, so a model starts the same on every device.
    """

    def __init__(self, seed: int, prefix: str = "") -> None:
        self.seed, self.prefix = seed, prefix

    def within(self, name: str) -> Draws:
        """The same source for the parameters of a submodule."""
        return Draws(self.seed, f"{self.prefix}{name}.")

    def _generator(self, name: str) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed}:{self.prefix}{name}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def uniform(self, name: str, shape: Sequence[int], bound: float) -> Tensor:
        """U(-bound, bound), float32."""
        values = torch.rand(tuple(shape), generator=self._generator(name))
        return values.mul_(2 * bound).sub_(bound)

    def normal(self, name: str, shape: Sequence[int], mean: float, std: float) -> Tensor:
        """N(mean, std), float32."""
        return torch.randn(tuple(shape), generator=self._generator(name)).mul_(std).add_(mean)
