"""The backbone: stem and stages, from images to one map per stage."""

from __future__ import annotations

from torch import Tensor, nn

from yolor_core.models.architectures import Architecture, Stage
from yolor_core.models.blocks import CSP, Bottleneck, Style, downsample
from yolor_core.models.scaling import scaled_channels, scaled_repeats
from yolor_core.models.stems import build_stem
from yolor_core.models.v5 import C3, SPPC3


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
