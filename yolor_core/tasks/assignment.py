"""Which anchors answer for which box: the assignment of YOLOv5's kind used by the released code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Positives(NamedTuple):
    """The positives of one level; n rows, in the order centre, left, up, right, down, anchors outermost."""

    image: Tensor  # (n,) index in the batch
    anchor: Tensor  # (n,) index of the anchor in its level
    row: Tensor  # (n,) grid row
    column: Tensor  # (n,) grid column
    box: Tensor  # (n, 4) centre relative to the cell and size, in cells
    size: Tensor  # (n, 2) the anchor's width and height, in cells
    label: Tensor  # (n,) class index
    target: Tensor  # (n,) row of the targets that it was matched with

    def of_images(self, begin: int, end: int) -> Positives:
        """Those of the images [begin, end), which then count from 0."""
        chosen = (self.image >= begin) & (self.image < end)
        kept = Positives(*(column[chosen] for column in self))
        return kept._replace(image=kept.image - begin)


def assign(
    targets: Tensor, anchors: Sequence[Tensor], grids: Sequence[tuple[int, int]], threshold: float
) -> list[Positives]:
    """Positives of every level.

    Args:
        targets: (n, 6 or more) image index, class, centre x, centre y, width, height, normalised to the
            image; further columns are not looked at.
        anchors: per level (a, 2) width and height in cells of that level.
        grids: per level (rows, columns).
        threshold: an anchor matches when no side is `threshold` times longer or shorter than the box's.

    Each match counts in its own cell and in up to two neighbours: the nearer one in x and the nearer one in
    y, where they exist. The box target keeps the cell it is used in as origin, so it lies in (-0.5, 1.5).
    """
    return [
        _assign_level(targets, level, rows, columns, threshold)
        for level, (rows, columns) in zip(anchors, grids, strict=True)
    ]


def _assign_level(targets: Tensor, anchors: Tensor, rows: int, columns: int, threshold: float) -> Positives:
    grid = targets.new_tensor([columns, rows])
    centre, size = targets[:, 2:4] * grid, targets[:, 4:6] * grid
    ratio = size[None] / anchors[:, None]
    matches = torch.maximum(ratio, 1 / ratio).amax(2) < threshold
    anchor, target = matches.nonzero(as_tuple=True)

    point = centre[target]
    mirrored = grid - point
    near = (point % 1 < 0.5) & (point > 1)
    far = (mirrored % 1 < 0.5) & (mirrored > 1)
    shifts = targets.new_tensor([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]]) * 0.5
    used = torch.stack([torch.ones_like(near[:, 0]), near[:, 0], near[:, 1], far[:, 0], far[:, 1]])
    shift, match = used.nonzero(as_tuple=True)

    anchor, target, point = anchor[match], target[match], point[match]
    cell = (point - shifts[shift]).long()
    # A centre on the border itself would fall outside the grid.
    column = cell[:, 0].clamp(0, columns - 1)
    row = cell[:, 1].clamp(0, rows - 1)
    offset = point - torch.stack([column, row], 1)
    return Positives(
        image=targets[target, 0].long(),
        anchor=anchor,
        row=row,
        column=column,
        box=torch.cat([offset, size[target]], 1),
        size=anchors[anchor],
        label=targets[target, 1].long(),
        target=target,
    )
