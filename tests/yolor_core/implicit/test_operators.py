"""A known g folds into the convolution next to it, against the definition of the operators."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from yolor_core.implicit.operators import Affine, rebuilt
from yolor_core.implicit.registry import OPERATORS


def convolution(inputs: int, outputs: int, kernel: int, **options: object) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, kernel, **options).double()  # type: ignore[arg-type]


def weight_and_bias(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    return conv.weight, torch.zeros(conv.out_channels).double() if conv.bias is None else conv.bias


def affine(operator: str, g: Tensor) -> Affine:
    return OPERATORS[operator].load()().affine(g)  # type: ignore[no-any-return]


def acted(operator: str, x: Tensor, g: Tensor) -> Tensor:
    """The operator by its definition in the paper."""
    g = g.view(1, -1, 1, 1)
    if operator == "concatenate":
        return torch.cat((g.expand(len(x), -1, *x.shape[2:]), x), dim=1)
    return x + g if operator == "add" else x * g


@pytest.mark.parametrize(
    ("operator", "options"),
    [
        *itertools.product(
            OPERATORS, [{"kernel": 1}, {"kernel": 3}, {"kernel": 3, "stride": 2, "bias": False}]
        ),
        ("multiply", {"kernel": 3, "padding": 1}),
        ("multiply", {"kernel": 3, "padding": "same", "groups": 2}),
        ("add", {"kernel": 3, "groups": 2}),
        ("add", {"kernel": 3, "padding": 1, "padding_mode": "replicate"}),
        ("concatenate", {"kernel": 3, "padding": "same", "padding_mode": "reflect"}),
        ("add", {"kernel": 3, "padding": "valid", "dilation": 2}),
    ],
    ids=str,
)
@torch.no_grad()
def test_a_constant_folds_into_the_convolution_behind_it(operator: str, options: dict[str, object]) -> None:
    conv = convolution(8 if operator == "concatenate" else 4, 6, **options)  # type: ignore[arg-type]
    before = conv.weight.clone()
    x, g = torch.randn(2, 4, 9, 8).double(), torch.randn(4).double()
    folded = rebuilt(conv, *affine(operator, g).into_next(*weight_and_bias(conv)))
    torch.testing.assert_close(folded(x), conv(acted(operator, x, g)), rtol=1e-12, atol=1e-12)
    assert torch.equal(conv.weight, before)
    assert (folded.in_channels, folded.out_channels) == (4, 6)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"padding": 1, "stride": 2}], ids=str)
@torch.no_grad()
def test_a_constant_folds_into_the_convolution_in_front(operator: str, options: dict[str, object]) -> None:
    """Padding does no harm there: g acts on what comes out."""
    conv = convolution(4, 6, 3, **options)
    x, g = torch.randn(2, 4, 9, 8).double(), torch.randn(6).double()
    folded = rebuilt(conv, *affine(operator, g).into_previous(*weight_and_bias(conv)))
    torch.testing.assert_close(folded(x), acted(operator, conv(x), g), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_folding_what_does_not_keep_zero_into_a_padded_convolution_is_wrong_at_the_border_alone() -> None:
    conv, g = convolution(4, 6, 3, padding=1), torch.randn(4).double()
    assert {name: affine(name, g).keeps_zero for name in OPERATORS} == {
        "add": False,
        "multiply": True,
        "concatenate": False,
    }
    x = torch.randn(1, 4, 7, 7).double()
    naive = rebuilt(conv, *affine("add", g).into_next(*weight_and_bias(conv)))
    difference = (naive(x) - conv(x + g.view(1, -1, 1, 1))).abs().amax((0, 1))
    assert difference[1:-1, 1:-1].max() < 1e-12
    assert difference[0].min() > 1e-3 and difference[:, -1].min() > 1e-3
