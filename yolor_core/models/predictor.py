"""The predictor of a level: a bare 1x1 convolution, seen anchor by anchor where an implicit site asks."""

from __future__ import annotations

from torch import Tensor, cat, nn

from yolor_core.implicit.sites import Maps


class Predictor(nn.Conv2d):
    """1x1 convolution with bias from features to anchors x outputs channels.

    `added` input channels in front of the features' own come from concatenated implicit knowledge.
    """

    def __init__(self, features: int, added: int, anchors: int, outputs: int) -> None:
        super().__init__(added + features, anchors * outputs, 1)
        self.added, self.anchors, self.outputs = added, anchors, outputs

    def forward(self, maps: Maps) -> Tensor:  # type: ignore[override]
        """One map (B, C, H, W), or one per anchor, -> (B, anchors x outputs, H, W)."""
        if len(maps) == 1:
            return super().forward(maps[0])
        assert self.bias is not None
        weights, biases = self.weight.chunk(self.anchors), self.bias.chunk(self.anchors)
        parts = zip(maps, weights, biases, strict=True)
        return cat([nn.functional.conv2d(x, w, b) for x, w, b in parts], dim=1)
