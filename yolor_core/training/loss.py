"""The detection loss: CIoU on positives, objectness on every cell, classification on positives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from yolor_core.config import LossConfig
from yolor_core.training.assignment import assign

EPSILON = 1e-9

# Weight of each level's objectness, by the number of levels (released code).
BALANCE = {3: (4.0, 1.0, 0.4), 4: (4.0, 1.0, 0.4, 0.1), 5: (4.0, 1.0, 0.5, 0.4, 0.1)}


class LossTerms(NamedTuple):
    """Scalar loss terms with their gains applied; `total` is also multiplied by the number of images."""

    total: Tensor
    box: Tensor
    objectness: Tensor
    classification: Tensor


def ciou(first: Tensor, second: Tensor) -> Tensor:
    """Complete IoU (arXiv 1911.08287) of boxes (n, 4) given as centre x, centre y, width, height: (n,).

    The released formula, but defined for identical boxes, where that one is 0 / 0.
    """
    low1, high1 = first[:, :2] - first[:, 2:] / 2, first[:, :2] + first[:, 2:] / 2
    low2, high2 = second[:, :2] - second[:, 2:] / 2, second[:, :2] + second[:, 2:] / 2
    overlap = (torch.minimum(high1, high2) - torch.maximum(low1, low2)).clamp(min=0).prod(1)
    width1, height1 = first[:, 2], first[:, 3] + EPSILON
    width2, height2 = second[:, 2], second[:, 3] + EPSILON
    union = width1 * height1 + width2 * height2 - overlap + EPSILON
    iou = overlap / union

    enclosing = torch.maximum(high1, high2) - torch.minimum(low1, low2)
    diagonal = enclosing.square().sum(1) + EPSILON
    distance = (second[:, :2] - first[:, :2]).square().sum(1)
    shape = 4 / math.pi**2 * (torch.atan(width2 / height2) - torch.atan(width1 / height1)).square()
    with torch.no_grad():
        weight = shape / (1 + EPSILON - iou + shape).clamp(min=EPSILON)
    return iou - (distance / diagonal + shape * weight)


class DetectionLoss:
    """Loss of raw predictions against targets.

    Args:
        anchors: (levels, a, 2) width and height in pixels.
        strides: pixels per cell of each level.
        classes: number of classes; the classification gain is scaled by classes / 80, and one class has no
            classification loss.
        config: gains and threshold.

    Raises:
        ValueError: for a number of levels the recipe has no balance for.
    """

    def __init__(self, anchors: Tensor, strides: Sequence[int], classes: int, config: LossConfig) -> None:
        if len(strides) not in BALANCE:
            raise ValueError(f"{len(strides)} levels; the recipe balances {sorted(BALANCE)} levels")
        self.anchors = [level / stride for level, stride in zip(anchors, strides, strict=True)]
        self.classes = classes
        self.config = config
        self.balance = BALANCE[len(strides)]

    def __call__(self, predictions: Sequence[Tensor], targets: Tensor) -> LossTerms:
        """Terms for raw predictions [(B, a, rows, columns, 5 + classes)] and targets (n, 6), see `assign`."""
        grids = [(p.shape[2], p.shape[3]) for p in predictions]
        positives = assign(targets, self.anchors, grids, self.config.anchor_threshold)
        box = predictions[0].new_zeros(())
        objectness, classification = box.clone(), box.clone()

        for raw, positive, balance in zip(predictions, positives, self.balance, strict=True):
            logits = raw[..., 4]
            wanted = torch.zeros_like(logits)
            if len(positive.image):
                index = (positive.image, positive.anchor, positive.row, positive.column)
                chosen = raw[index]
                centre = chosen[:, :2].sigmoid() * 2 - 0.5
                size = (chosen[:, 2:4].sigmoid() * 2).square() * positive.size
                overlap = ciou(torch.cat([centre, size], 1), positive.box)
                box = box + (1 - overlap).mean()
                _write_last(wanted, index, overlap.detach().clamp(min=0).to(wanted.dtype))
                if self.classes > 1:
                    labels = F.one_hot(positive.label, self.classes).to(chosen.dtype)
                    classification = classification + F.binary_cross_entropy_with_logits(
                        chosen[:, 5:], labels
                    )
            objectness = objectness + balance * F.binary_cross_entropy_with_logits(logits, wanted)

        scale = 3 / len(predictions)
        box = box * self.config.box * scale
        objectness = objectness * self.config.objectness * scale * (1.4 if len(predictions) >= 4 else 1.0)
        classification = classification * self.config.classification * (self.classes / 80) * scale
        total = (box + objectness + classification) * predictions[0].shape[0]
        return LossTerms(total, box, objectness, classification)


def _write_last(wanted: Tensor, index: tuple[Tensor, ...], values: Tensor) -> None:
    """Write values at index; where a cell is named twice the last one stays, on every device."""
    flat = torch.zeros_like(index[0])
    for size, part in zip(wanted.shape, index, strict=True):
        flat = flat * size + part
    order = torch.arange(1, len(flat) + 1, device=flat.device)
    last = torch.zeros(wanted.numel(), dtype=order.dtype, device=flat.device)
    last.scatter_reduce_(0, flat, order, "amax")
    cells = last.nonzero().squeeze(1)
    wanted.view(-1)[cells] = values[last[cells] - 1]
