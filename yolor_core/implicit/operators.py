"""Operators that combine a map with a representation (paper section 3, figure 10): f(x) * g(z).

An operator takes a map x (B, C, H, W) and a constant g (C,) and returns the map that follows. `Affine` says
what it does once g is known, from which follows how a convolution next to it takes it over (section 4.4,
eqs. 9 and 10). Weights are (outputs, inputs / groups, kernel, kernel), biases (outputs,).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from yolor_core.errors import FoldingError


@dataclass(frozen=True)
class Affine:
    """x -> [constant ; scale * x + shift], channel by channel; a part that is None is absent.

    constant: (K,) channels put in front; scale, shift: (C,).
    """

    scale: Tensor | None = None
    shift: Tensor | None = None
    constant: Tensor | None = None

    @property
    def keeps_zero(self) -> bool:
        """Whether a zero stays a zero: only then does zero padding mean the same in front and behind."""
        return self.shift is None and self.constant is None

    def into_next(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution behind, (O, K + C, k, k) -> of both, (O, C, k, k).

        W' = W diag(scale) (eq. 9) and b' = b + W shift, summed over the kernel; the constant's half of W
        becomes bias likewise. The same at every position only if nothing or `keeps_zero` meets padding.
        """
        if self.constant is not None:
            count = len(self.constant)
            bias = bias + _applied(weight[:, :count], self.constant)
            weight = weight[:, count:]
        if self.shift is not None:
            bias = bias + _applied(weight, self.shift)
        if self.scale is not None:
            weight = weight * _spread(weight, self.scale)
        return weight, bias

    def into_previous(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution in front, (O, I, k, k) -> of both, (K + O, I, k, k).

        b' = b + shift (eq. 10), W' = diag(scale) W, b' = scale b; a constant becomes channels of bias alone.
        """
        if self.scale is not None:
            weight, bias = weight * self.scale[:, None, None, None], bias * self.scale
        if self.shift is not None:
            bias = bias + self.shift
        if self.constant is not None:
            weight = torch.cat((weight.new_zeros(len(self.constant), *weight.shape[1:]), weight))
            bias = torch.cat((self.constant, bias))
        return weight, bias


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


@torch.no_grad()
def rebuilt(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A plain convolution like `conv` (stride, padding, groups, type, device) with these values."""
    outputs, inputs = weight.shape[:2]
    new = nn.Conv2d(
        inputs * conv.groups,
        outputs,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        padding_mode=conv.padding_mode,
        device="meta",  # no random numbers are drawn for values that are replaced
        dtype=conv.weight.dtype,
    )
    new.weight, new.bias = (nn.Parameter(values.to(conv.weight)) for values in (weight, bias))
    return new.train(conv.training)


def _spread(weight: Tensor, values: Tensor) -> Tensor:
    """(C,) per input channel -> (O, C / groups, 1, 1), as the groups of outputs see them."""
    groups = len(values) // weight.shape[1]
    per_group = values.view(groups, 1, weight.shape[1], 1, 1)
    return per_group.expand(-1, len(weight) // groups, -1, -1, -1).flatten(0, 1)


def _applied(weight: Tensor, values: Tensor) -> Tensor:
    """What a map that is `values` (C,) everywhere gives, (O,)."""
    return (weight * _spread(weight, values)).sum((1, 2, 3))
