"""Predictors of branches: plain layers that know which input channels are implicit knowledge's.

`added` channels in front of the features' own come from concatenation; initialisation draws them apart, so
that the features' part starts the same with and without them.
"""

from __future__ import annotations

from torch import nn


class BranchConv(nn.Conv2d):
    """A convolution with bias and zero padding that keeps the size of the map."""

    def __init__(self, features: int, added: int, outputs: int, kernel: int) -> None:
        super().__init__(added + features, outputs, kernel, padding=kernel // 2)
        self.added = added


class BranchLinear(nn.Linear):
    """A linear layer with bias."""

    def __init__(self, features: int, added: int, outputs: int) -> None:
        super().__init__(added + features, outputs)
        self.added = added
