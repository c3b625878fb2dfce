"""Blocks and neck of YOLOv5 release 5, for the U5R5 row of Table A1 (from its public description)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, cat, nn

from yolor_core.models.blocks import ConvBNAct, Style, bottlenecks, downsample, pyramid
from yolor_core.models.neck import NeckParts, upsample


class C3(nn.Module):
    """A CSP block of three convolutions; every path is normalised before the concatenation."""

    def __init__(self, c_in: int, channels: int, repeats: int, add: bool, style: Style) -> None:
        super().__init__()
        half = channels // 2
        self.enter = ConvBNAct(c_in, half, 1, 1, style)
        self.skip = ConvBNAct(c_in, half, 1, 1, style)
        self.fuse = ConvBNAct(2 * half, channels, 1, 1, style)
        self.body = bottlenecks(half, repeats, add, style)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, channels, H, W)."""
        return self.fuse(cat((self.body(self.enter(x)), self.skip(x)), dim=1))


class SPPC3(nn.Module):
    """Spatial pyramid pooling in front of a C3 without residuals: the top stage."""

    def __init__(self, c_in: int, channels: int, repeats: int, style: Style) -> None:
        super().__init__()
        half = c_in // 2
        self.reduce = ConvBNAct(c_in, half, 1, 1, style)
        self.expand = ConvBNAct(4 * half, channels, 1, 1, style)
        self.block = C3(channels, channels, repeats, False, style)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, channels, H, W)."""
        return self.block(self.expand(pyramid(self.reduce(x), largest_first=False)))


class TopDownV5(nn.Module):
    """As `neck.TopDown`, without a lateral convolution; the bottom-up path reuses the reduced map."""

    def __init__(self, c_top: int, c_lateral: int, channels: int, repeats: int, style: Style) -> None:
        super().__init__()
        self.reduce = ConvBNAct(c_top, channels, 1, 1, style)
        self.block = C3(channels + c_lateral, channels, repeats, False, style)

    def forward(self, top: Tensor, lateral: Tensor) -> tuple[Tensor, Tensor]:
        """(B, c_top, H, W), (B, c_lateral, 2H, 2W) -> (B, channels, 2H, 2W), (B, channels, H, W)."""
        reduced = self.reduce(top)
        return self.block(cat((upsample(reduced), lateral), dim=1)), reduced


class BottomUpV5(nn.Module):
    """As `neck.BottomUp` with C3; keeps the width of the level below on the way up."""

    def __init__(self, c_below: int, channels: int, repeats: int, style: Style) -> None:
        super().__init__()
        self.down = downsample(c_below, c_below, "conv", style)
        self.block = C3(2 * c_below, channels, repeats, False, style)

    def forward(self, below: Tensor, kept: Tensor) -> Tensor:
        """(B, c_below, 2H, 2W), (B, c_below, H, W) -> (B, channels, H, W)."""
        return self.block(cat((self.down(below), kept), dim=1))


def build_v5_neck(channels: Sequence[int], repeats: int, style: Style) -> NeckParts:
    """The neck as wide as the backbone's maps (`channels`); predictors read it directly."""
    steps = list(itertools.pairwise(channels))
    return NeckParts(
        top=nn.Identity(),
        ups=[TopDownV5(above, c, c, repeats, style) for c, above in reversed(steps)],
        downs=[BottomUpV5(below, c, repeats, style) for below, c in steps],
        heads=[nn.Identity() for _ in channels],
    )
