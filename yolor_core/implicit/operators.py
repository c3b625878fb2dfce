"""Operators that combine a map with a representation (paper section 3, figure 10): f(x) * g(z).

An operator takes a map x (B, C, H, W) and a constant g (C,) and returns the map that follows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from yolor_core.errors import FoldingError
from yolor_core.implicit.affine import Affine


class Operator(ABC):
    """How a representation acts."""

    centre: ClassVar[float] = 0.0  # the g that changes nothing, and the mean of its initial values
    widens: ClassVar[bool] = False  # whether the following layer sees g's channels in front of x's
    multiplies: ClassVar[bool] = False  # whether the paper's FLOP rule counts it: one per number

    @abstractmethod
    def __call__(self, x: Tensor, g: Tensor) -> Tensor:
        """x (B, C, H, W), g (C,) -> (B, C or 2C, H, W)."""

    def affine(self, g: Tensor) -> Affine:
        """The operator with a known g (C,), which is all that folding needs to know (section 4.4).

        Raises FoldingError for an operator that does not say, as one that is not affine in x cannot.
        """
        raise FoldingError(f"operator {type(self).__name__} does not say how it folds; it needs `affine`")


class Add(Operator):
    """x + g: offset refinement, kernel-space translation."""

    def __call__(self, x: Tensor, g: Tensor) -> Tensor:
        """x (B, C, H, W), g (C,) -> (B, C, H, W)."""
        return x + g.view(1, -1, 1, 1)

    def affine(self, g: Tensor) -> Affine:
        """x -> x + g."""
        return Affine(shift=g)


class Multiply(Operator):
    """x * g: kernel-space scaling, anchor-size search."""

    centre = 1.0
    multiplies = True

    def __call__(self, x: Tensor, g: Tensor) -> Tensor:
        """x (B, C, H, W), g (C,) -> (B, C, H, W)."""
        return x * g.view(1, -1, 1, 1)

    def affine(self, g: Tensor) -> Affine:
        """x -> g x."""
        return Affine(scale=g)


class Concatenate(Operator):
    """[g ; x]: pre-conditioning; the constant comes first, as in the released code."""

    widens = True

    def __call__(self, x: Tensor, g: Tensor) -> Tensor:
        """x (B, C, H, W), g (C,) -> (B, 2C, H, W)."""
        return torch.cat((g.view(1, -1, 1, 1).expand_as(x), x), dim=1)

    def affine(self, g: Tensor) -> Affine:
        """x -> [g ; x]."""
        return Affine(constant=g)
