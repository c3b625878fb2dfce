"""The path aggregation neck: top-down, then bottom-up, over the backbone's maps (paper figure A1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, cat, nn

from yolor_core.models.blocks import CSP2, SPPCSP, ConvBNAct, Style, downsample


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
