"""Folding a known representation g into a single convolution next to it (section 4.4, eqs. 9 and 10)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from yolor_core.errors import FoldingError, UnknownNameError
from yolor_core.implicit.affine import Affine
from yolor_core.implicit.loading import load_class
from yolor_core.implicit.registry import OPERATORS


def fold_into_next(conv: nn.Conv2d, operator: str, g: Tensor) -> nn.Conv2d:
    """One convolution that equals conv(x * g), for the operator * in front of it; `conv` is left as it is.

    multiply: W' = W diag(g) (eq. 9). add: b' = b + W g. concatenate: the half of W that sees g becomes bias.
    g has the channels of x: `conv.in_channels`, half of them for concatenate. Computed in float64.

    Raises UnknownNameError for an operator that is not registered, and FoldingError for g of another size,
    for an addition or concatenation in front of a convolution that pads with zeros, and for a concatenation
    in front of a grouped convolution.
    """
    affine = _affine(operator, g)
    added = 0 if affine.constant is None else len(affine.constant)
    _check_size(operator, g, conv.in_channels - added, "in front of")
    if not affine.keeps_zero and _pads_with_zeros(conv):
        raise FoldingError(
            f"operator {operator!r} in front of a convolution with padding {conv.padding}: zeros are padded "
            "behind the operator, so at the border the convolution meets 0 where g would have to be, and no "
            "single bias is right there; allowed: kernels without padding, or operator 'multiply'"
        )
    if added and conv.groups > 1:
        raise FoldingError(
            f"operator {operator!r} in front of a convolution of {conv.groups} groups; allowed: 1 group"
        )
    weight, bias = affine.into_next(*_wide(conv))
    return rebuilt(conv, weight, bias)


def fold_into_previous(conv: nn.Conv2d, operator: str, g: Tensor) -> nn.Conv2d:
    """One convolution that equals conv(x) * g, for the operator * behind it and no activation in between.

    add: b' = b + g (eq. 10). multiply: W' = diag(g) W, b' = g b. concatenate: channels of bias alone come
    first. g has `conv.out_channels` numbers; `conv` is left as it is. Computed in float64.

    Raises UnknownNameError for an operator that is not registered, and FoldingError for g of another size
    or a concatenation behind a grouped convolution.
    """
    affine = _affine(operator, g)
    _check_size(operator, g, conv.out_channels, "behind")
    if affine.constant is not None and conv.groups > 1:
        raise FoldingError(
            f"operator {operator!r} behind a convolution of {conv.groups} groups; allowed: 1 group"
        )
    weight, bias = affine.into_previous(*_wide(conv))
    return rebuilt(conv, weight, bias)


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


def _affine(operator: str, g: Tensor) -> Affine:
    if operator not in OPERATORS:
        raise UnknownNameError("implicit operator", operator, OPERATORS)
    affine: Affine = load_class(OPERATORS[operator])().affine(g.detach().double())
    return affine


def _check_size(operator: str, g: Tensor, channels: int, where: str) -> None:
    if g.shape != (channels,):
        raise FoldingError(
            f"g of shape {tuple(g.shape)} for operator {operator!r} {where} the convolution; "
            f"allowed: ({channels},)"
        )


def _pads_with_zeros(conv: nn.Conv2d) -> bool:
    if conv.padding_mode != "zeros" or conv.padding == "valid":
        return False
    if conv.padding == "same":
        return any(k > 1 for k in conv.kernel_size)
    return any(side != 0 for side in conv.padding)


def _wide(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias in float64; a convolution without bias has one of zeros."""
    weight = conv.weight.detach().double()
    bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach().double()
    return weight, bias
