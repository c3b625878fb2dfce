"""Stems: the first layers, which may only rearrange pixels into channels (paper figure A2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from yolor_core.models.architectures import StemLayer
from yolor_core.models.blocks import ConvBNAct, Style, downsample
from yolor_core.models.scaling import scaled_channels


class ReOrg(nn.Module):
    """Space to depth."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4C, H / 2, W / 2).

        Pixels of (even row, even column), then (odd, even), (even, odd) and (odd, odd).
        """
        return torch.cat((x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]), dim=1)


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
        return torch.cat(((top + bottom) / 4, details / 4 + 0.5), dim=1)


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
