"""Detection: CIoU on positives, objectness on every cell, classification on positives; scored by COCO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from yolor_core.config import EvaluationConfig, LossConfig, TrainConfig
from yolor_core.data.batches import EvaluationBatch
from yolor_core.data.images import ImageSet
from yolor_core.evaluation.coco import evaluate_boxes
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.postprocess import suppress
from yolor_core.models.detector import decode
from yolor_core.tasks.base import TaskModel


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


Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

EPSILON = 1e-9
FOCAL_ALPHA = 0.25  # of the positives; 0.75 of the negatives

# Weight of each level's objectness, by the number of levels (released code).
BALANCE = {3: (4.0, 1.0, 0.4), 4: (4.0, 1.0, 0.4, 0.1), 5: (4.0, 1.0, 0.5, 0.4, 0.1)}


@dataclass
class Wanted:
    """What the predictions of a batch, or of a rank's share of it, should be.

    positives: per level. counts: float (levels, groups), positives by the group of images they are averaged
    with; ranks that share a batch add their counts up. groups: (B,), each image's group. images: those of
    the whole batch.
    """

    positives: list[Positives]
    counts: Tensor
    groups: Tensor
    images: int

    def part(self, begin: int, end: int) -> Wanted:
        """The same for the images [begin, end) of the share; counts stay those of the whole batch."""
        return replace(
            self,
            positives=[level.of_images(begin, end) for level in self.positives],
            groups=self.groups[begin:end],
        )


def ciou(first: Tensor, second: Tensor) -> Tensor:
    """Complete IoU (arXiv 1911.08287) of boxes (n, 4) given as centre x, centre y, width, height: (n,).

    The released formula, but defined for identical boxes, where that one is 0 / 0.
    """
    low1, high1 = first[:, :2] - first[:, 2:] / 2, first[:, :2] + first[:, 2:] / 2
    low2, high2 = second[:, :2] - second[:, 2:] / 2, second[:, :2] + second[:, 2:] / 2
    sides = (torch.minimum(high1, high2) - torch.maximum(low1, low2)).clamp(min=0)
    overlap = sides[:, 0] * sides[:, 1]  # not `prod`, whose backward pass waits for the GPU to count zeros
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
    """Loss of raw predictions against targets; half-precision predictions are computed with in float32.

    Box and classification are means over the positives of `images_per_mean` consecutive images, objectness
    over all cells. Nothing depends on how a batch is shared out: its ranks and parts sum up to its loss.

    Args:
        anchors: (levels, a, 2) width and height in pixels.
        strides: pixels per cell of each level.
        classes: number of classes; the classification gain is scaled by classes / 80, and one class has no
            classification loss.
        config: gains, factors and threshold.

    Raises:
        ValueError: for a number of levels the recipe has no balance for.
    """

    def __init__(self, anchors: Tensor, strides: Sequence[int], classes: int, config: LossConfig) -> None:
        if len(strides) not in BALANCE:
            raise ValueError(f"{len(strides)} levels; the recipe balances {sorted(BALANCE)} levels")
        self.strides = strides
        self.anchors = [level / stride for level, stride in zip(anchors.cpu(), strides, strict=True)]
        self.classes = classes
        self.config = config
        self.balance = BALANCE[len(strides)]

    @classmethod
    def of(cls, model: TaskModel, config: TrainConfig) -> Self:
        return cls(model.anchors, model.strides, model.classes, config.loss)

    def wanted(
        self, targets: Tensor, size: tuple[int, int], images: int, first: int = 0, total: int | None = None
    ) -> Wanted:
        """What predictions for `images` images of `size` (height, width) pixels should be.

        Args:
            targets: (n, 6) on the CPU, see `assign`; the first column counts from 0 within these images.
            first: position of the first image in the whole batch.
            total: images of the whole batch, over all ranks; by default these images are all.
        """
        total = images if total is None else total
        per_group = self.config.images_per_mean or max(total, 1)
        grids = [(size[0] // stride, size[1] // stride) for stride in self.strides]
        positives = assign(targets, self.anchors, grids, self.config.anchor_threshold)
        groups = torch.arange(first, first + images, device=targets.device) // per_group
        counts = targets.new_zeros(len(positives), -(-total // per_group))
        for count, level in zip(counts, positives, strict=True):
            count.index_add_(0, groups[level.image], torch.ones_like(level.image, dtype=counts.dtype))
        return Wanted(positives, counts, groups, total)

    def __call__(self, predictions: Sequence[Tensor], wanted: Wanted) -> dict[str, Tensor]:
        """`loss/box`, `loss/obj` and `loss/cls`: scalars per image, gains applied.

        Args:
            predictions: raw, per level (B, a, rows, columns, 5 + classes).
            wanted: of the same images.
        """
        config, images = self.config, max(wanted.images, 1)
        # An image's share of its group's mean; the last group of a batch may be smaller.
        per_group = torch.full_like(wanted.counts[0], config.images_per_mean or images)
        per_group[-1] = images - per_group[:-1].sum()
        weights = per_group / (wanted.counts.clamp(min=1) * images)

        # The positives of all levels together: the fewer operators, the shorter a step of small maps.
        positives = wanted.positives
        indices = [(level.image, level.anchor, level.row, level.column) for level in positives]
        chosen = _full(torch.cat([raw[index] for raw, index in zip(predictions, indices, strict=True)]))
        share = torch.cat(
            [w[wanted.groups[level.image]] for w, level in zip(weights, positives, strict=True)]
        )
        centre = chosen[:, :2].sigmoid() * 2 - 0.5
        extent = (chosen[:, 2:4].sigmoid() * 2).square() * torch.cat([level.size for level in positives])
        overlap = ciou(torch.cat([centre, extent], 1), torch.cat([level.box for level in positives]))
        box = (share * (1 - overlap)).sum()
        classification = box.new_zeros(())
        if self.classes > 1:
            losses = self._classification(chosen[:, 5:], torch.cat([level.label for level in positives]))
            classification = (share * losses.mean(1)).sum()

        objectness = box.new_zeros(())
        found = overlap.detach().clamp(min=0).split([len(level.image) for level in positives])
        for raw, index, values, balance in zip(predictions, indices, found, self.balance, strict=True):
            logits = _full(raw[..., 4])
            expected = logits.new_zeros(logits.shape)  # contiguous, unlike a compiled or channels-last map
            _write_last(expected, index, values.to(expected.dtype))
            losses = binary_loss(logits, expected, config.objectness_positive_weight, config.focal_gamma)
            objectness = objectness + balance * losses.sum() / (images * logits.shape[1:].numel())

        scale = 3 / len(predictions)
        box = box * config.box * scale
        objectness = objectness * config.objectness * scale * (1.4 if len(predictions) >= 4 else 1.0)
        classification = classification * config.classification * (self.classes / 80) * scale
        return {"loss/box": box, "loss/obj": objectness, "loss/cls": classification}

    def _classification(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Losses (n, classes) of logits (n, classes)."""
        smoothing = self.config.label_smoothing / 2
        expected = torch.full_like(logits, smoothing)
        expected.scatter_(1, labels[:, None], 1 - smoothing)
        return binary_loss(
            logits, expected, self.config.classification_positive_weight, self.config.focal_gamma
        )


def _full(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def binary_loss(logits: Tensor, expected: Tensor, positive_weight: float, gamma: float) -> Tensor:
    """Binary cross-entropy by element; with gamma > 0 the focal loss of arXiv 1708.02002, alpha 0.25."""
    weight = None if positive_weight == 1 else logits.new_full((), positive_weight)
    losses = F.binary_cross_entropy_with_logits(logits, expected, pos_weight=weight, reduction="none")
    if not gamma:
        return losses
    probability = logits.sigmoid()
    agreement = expected * probability + (1 - expected) * (1 - probability)
    alpha = expected * FOCAL_ALPHA + (1 - expected) * (1 - FOCAL_ALPHA)
    # Not below the smallest number: with gamma < 1 the gradient at 0 is infinite, and 0 times that NaN.
    missed = (1 - agreement).clamp(min=torch.finfo(losses.dtype).tiny)
    return losses * alpha * missed**gamma


def _write_last(expected: Tensor, index: tuple[Tensor, ...], values: Tensor) -> None:
    """Write values at index; where a cell is named twice the last one stays, on every device."""
    flat = torch.zeros_like(index[0])
    for size, part in zip(expected.shape, index, strict=True):
        flat = flat * size + part
    cells, order = flat.sort(stable=True)
    last = torch.searchsorted(cells, cells, right=True) - 1  # of the entries that name the same cell
    expected.view(-1)[cells] = values[order[last]]  # they all write the same value


class DetectionCollector:
    """Decodes, suppresses, and maps back to original pixels."""

    def __init__(
        self, strides: Sequence[int], anchors: Tensor, images: ImageSet, config: EvaluationConfig
    ) -> None:
        self.strides, self.anchors, self.images, self.config = strides, anchors, images, config
        self.category_ids, self.image_ids = np.asarray(images.category_ids), np.asarray(images.ids)
        none = (self.image_ids[:0], self.category_ids[:0], np.zeros((0, 4)), np.zeros(0, np.float32))
        self.rows: list[Columns] = [none]

    @classmethod
    def of(cls, model: TaskModel, images: ImageSet, config: EvaluationConfig) -> Self:
        return cls(model.strides, model.anchors, images, config)

    def add(self, batch: EvaluationBatch, predictions: Sequence[Tensor]) -> None:
        """Raw predictions [(B, anchors, rows, columns, 5 + classes)] of a batch."""
        decoded = decode(predictions, self.strides, self.anchors)
        for position, detections in enumerate(suppress(decoded, self.config)):
            index = int(batch.indices[position])
            width, height = self.images.sizes[index]
            boxes = np.asarray(batch.to_original(position, detections.boxes.cpu().numpy()), np.float64)
            boxes = boxes.reshape(-1, 4).clip(0, [width, height, width, height])
            boxes[:, 2:] -= boxes[:, :2]
            self.rows.append(
                (
                    np.full(len(boxes), self.image_ids[index]),
                    self.category_ids[detections.labels.cpu().numpy()],
                    boxes,
                    detections.scores.cpu().numpy(),
                )
            )

    def found(self) -> Detections:
        columns = [np.concatenate(parts) for parts in zip(*self.rows, strict=True)]
        return Detections.build(*columns)

    @staticmethod
    def merge(parts: Sequence[Detections]) -> Detections:
        return Detections.merge(parts)

    @staticmethod
    def score(found: Detections, images: ImageSet) -> dict[str, Any]:
        return evaluate_boxes(images.coco, found)
