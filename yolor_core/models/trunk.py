"""The trunk: stem and stages of the backbone, and the path aggregation neck (figures A1 and A2)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, cat, nn

from yolor_core.models.architectures import Architecture, Stage, StemLayer
from yolor_core.models.blocks import (
    CSP,
    CSP2,
    SPPCSP,
    Bottleneck,
    ConvBNAct,
    Style,
    bottlenecks,
    downsample,
    pyramid,
)


def scaled_channels(channels: int, width: float) -> int:
    """ceil(channels x width / 8) x 8."""
    return math.ceil(channels * width / 8) * 8


def scaled_repeats(repeats: int, depth: float) -> int:
    """Blocks repeated more than once: max(round(repeats x depth), 1)."""
    return max(round(repeats * depth), 1) if repeats > 1 else repeats


class ReOrg(nn.Module):
    """Space to depth."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4C, H / 2, W / 2).

        Pixels of (even row, even column), then (odd, even), (even, odd) and (odd, odd).
        """
        return cat((x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]), dim=1)


class DWT(nn.Module):
    """One level of the Haar wavelet transform, scaled to the range of the input.

    For a 2x2 cell a b / c d: LL = (a+b+c+d)/4, LH = (a+b-c-d)/4 + 1/2, HL = (a-b+c-d)/4 + 1/2 and
    HH = (a-b-c+d)/4 + 1/2. All LL channels come first, then LH, HL, HH of each input channel in turn.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4C, H / 2, W / 2)."""
        a, b, c, d = x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]
        top, bottom, left, right = a + b, c + d, a - b, c - d
        details = torch.stack((top - bottom, left + right, left - right), dim=2).flatten(1, 2)
        return cat(((top + bottom) / 4, details / 4 + 0.5), dim=1)


def build_stem(
    layers: tuple[StemLayer, ...], width: float, style: Style, c_in: int = 3
) -> tuple[nn.Sequential, int]:
    """The stem and its output channels; `width` scales convolutions, rearrangements multiply by four."""
    stem = nn.Sequential()
    for layer in layers:
        if layer.kind in ("reorg", "dwt"):
            stem.append(ReOrg() if layer.kind == "reorg" else DWT())
            c_in *= 4
            continue
        channels = scaled_channels(layer.channels, width)
        if layer.kind == "down":
            stem.append(downsample(c_in, channels, "csp", style))
        else:
            stem.append(ConvBNAct(c_in, channels, 3, layer.stride, style))
        c_in = channels
    return stem, c_in


class C3(nn.Module):
    """A CSP block of YOLOv5 release 5 (from its public description): three convolutions, every path
    normalised before the concatenation.
    """

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


def _block(stage: Stage, c_in: int, channels: int, repeats: int, style: Style) -> nn.Module:
    if stage.block == "bottleneck":
        return Bottleneck(channels, channels // 2, True, style)
    if stage.block in ("csp", "cspf"):
        return CSP(c_in, channels, repeats, style, closing=stage.block == "csp")
    if stage.block == "c3":
        return C3(c_in, channels, repeats, True, style)
    return SPPC3(c_in, channels, repeats, style)


class Backbone(nn.Module):
    """Images to the maps of the prediction levels; `channels` holds the channels of those maps."""

    def __init__(self, architecture: Architecture, width: float, depth: float, style: Style) -> None:
        super().__init__()
        self.stem, c_in = build_stem(architecture.stem, width, style)
        self.stages = nn.ModuleList()
        channels = []
        for stage in architecture.stages:
            c_out = scaled_channels(stage.channels, width)
            layers = nn.Sequential()
            if stage.down:
                layers.append(downsample(c_in, c_out, architecture.down, style))
                c_in = c_out
            layers.append(_block(stage, c_in, c_out, scaled_repeats(stage.repeats, depth), style))
            self.stages.append(layers)
            channels.append(c_out)
            c_in = c_out
        self.levels = architecture.levels
        self.channels = channels[-self.levels :]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps (B, channels, H / stride, W / stride), finest first."""
        maps = []
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[-self.levels :]


def upsample(x: Tensor) -> Tensor:
    """Nearest neighbour, (B, C, H, W) -> (B, C, 2H, 2W)."""
    return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")


class TopDown(nn.Module):
    """One level further down: the upper level's neck map meets the backbone's map of this level."""

    def __init__(self, c_top: int, c_lateral: int, channels: int, repeats: int, style: Style) -> None:
        super().__init__()
        self.reduce = ConvBNAct(c_top, channels, 1, 1, style)
        self.lateral = ConvBNAct(c_lateral, channels, 1, 1, style)
        self.block = CSP2(2 * channels, channels, repeats, style)

    def forward(self, top: Tensor, lateral: Tensor) -> tuple[Tensor, Tensor]:
        """(B, c_top, H, W), (B, c_lateral, 2H, 2W) -> this level's map (B, channels, 2H, 2W), and top.

        The second map is what the bottom-up path concatenates at the upper level.
        """
        return self.block(cat((self.lateral(lateral), upsample(self.reduce(top))), dim=1)), top


class BottomUp(nn.Module):
    """One level further up: the lower level's map meets the top-down map of this level."""

    def __init__(self, c_below: int, channels: int, down: str, repeats: int, style: Style) -> None:
        super().__init__()
        self.down = downsample(c_below, channels, down, style)
        self.block = CSP2(2 * channels, channels, repeats, style)

    def forward(self, below: Tensor, kept: Tensor) -> Tensor:
        """(B, c_below, 2H, 2W), (B, channels, H, W) -> (B, channels, H, W)."""
        return self.block(cat((self.down(below), kept), dim=1))


@dataclass(frozen=True)
class NeckParts:
    """The modules of a neck: `ups` from the second-highest level down, `downs` from the second-lowest up."""

    top: nn.Module
    ups: list[nn.Module]
    downs: list[nn.Module]
    heads: list[nn.Module]  # finest level first


def build_csp_neck(
    channels: Sequence[int], widths: Sequence[int], repeats: int, down: str, spp_pairs: int, style: Style
) -> NeckParts:
    """The neck of all YOLOv4-CSP and P6 models.

    channels: of the backbone's maps; widths: of the neck's maps; the 3x3 heads return to `channels`.
    """
    levels = range(len(channels))
    return NeckParts(
        top=SPPCSP(channels[-1], widths[-1], style, spp_pairs),
        ups=[TopDown(widths[i + 1], channels[i], widths[i], repeats, style) for i in reversed(levels[:-1])],
        downs=[BottomUp(widths[i - 1], widths[i], down, repeats, style) for i in levels[1:]],
        heads=[ConvBNAct(widths[i], channels[i], 3, 1, style) for i in levels],
    )


class TopDownV5(nn.Module):
    """As `TopDown`, without a lateral convolution; the bottom-up path reuses the reduced map."""

    def __init__(self, c_top: int, c_lateral: int, channels: int, repeats: int, style: Style) -> None:
        super().__init__()
        self.reduce = ConvBNAct(c_top, channels, 1, 1, style)
        self.block = C3(channels + c_lateral, channels, repeats, False, style)

    def forward(self, top: Tensor, lateral: Tensor) -> tuple[Tensor, Tensor]:
        """(B, c_top, H, W), (B, c_lateral, 2H, 2W) -> (B, channels, 2H, 2W), (B, channels, H, W)."""
        reduced = self.reduce(top)
        return self.block(cat((upsample(reduced), lateral), dim=1)), reduced


class BottomUpV5(nn.Module):
    """As `BottomUp` with C3; keeps the width of the level below on the way up."""

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
