"""What an operator with a known g does to a map, and how a convolution next to it takes that over.

Section 4.4 of the paper. Weights are (outputs, inputs / groups, kernel, kernel), biases (outputs,).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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


def _spread(weight: Tensor, values: Tensor) -> Tensor:
    """(C,) per input channel -> (O, C / groups, 1, 1), as the groups of outputs see them."""
    groups = len(values) // weight.shape[1]
    per_group = values.view(groups, 1, weight.shape[1], 1, 1)
    return per_group.expand(-1, len(weight) // groups, -1, -1, -1).flatten(0, 1)


def _applied(weight: Tensor, values: Tensor) -> Tensor:
    """What a map that is `values` (C,) everywhere gives, (O,)."""
    return (weight * _spread(weight, values)).sum((1, 2, 3))
