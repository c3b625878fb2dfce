"""Decoding: raw logits to boxes in pixels and scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def decode(raw: Sequence[Tensor], strides: Sequence[int], anchors: Tensor) -> Tensor:
    """Raw logits (B, anchors, ny, nx, 5 + classes) per level -> (B, N, 5 + classes).

    With p the sigmoid of the logits, s the stride and (aw, ah) the anchor of cell (cx, cy):
    x = (2 p0 - 1/2 + cx) s, y = (2 p1 - 1/2 + cy) s, w = (2 p2)^2 aw, h = (2 p3)^2 ah, all in pixels;
    objectness and class scores follow as they are. Rows are ordered level, anchor, row, column.
    anchors: (levels, anchors, 2) in pixels.
    """
    rows = []
    for logits, stride, sizes in zip(raw, strides, anchors, strict=True):
        _, _, ny, nx, _ = logits.shape
        if logits.dtype in (torch.float16, torch.bfloat16):  # too coarse for pixel coordinates
            logits = logits.float()
        p = logits.sigmoid()
        cy, cx = torch.meshgrid(
            torch.arange(ny, device=p.device, dtype=p.dtype),
            torch.arange(nx, device=p.device, dtype=p.dtype),
            indexing="ij",
        )
        xy = (2 * p[..., 0:2] - 0.5 + torch.stack((cx, cy), dim=-1)) * stride
        wh = (2 * p[..., 2:4]).square() * sizes.to(p)[None, :, None, None, :]
        rows.append(torch.cat((xy, wh, p[..., 4:]), dim=-1).flatten(1, 3))
    return torch.cat(rows, dim=1)
