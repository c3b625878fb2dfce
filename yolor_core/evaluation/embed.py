"""Embeddings that a model gives to the ground-truth boxes of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yolor_core.config import EvaluationConfig
from yolor_core.data import ImageSet
from yolor_core.data.evaluation_batches import EvaluationBatch
from yolor_core.evaluation.embedding import score_embeddings
from yolor_core.models import Detector


class BoxEmbeddings(NamedTuple):
    """Embeddings of boxes, in the order of the split: image by image, each image's as `ImageSet.boxes`."""

    position: NDArray[np.int64]  # (n,) of the image in its ImageSet
    identity: NDArray[np.int64]  # (n,) index in the split, -1 for none
    embedding: NDArray[np.float32]  # (n, D)


def cells(
    boxes: NDArray[np.floating],
    anchors: NDArray[np.floating],
    strides: Sequence[int],
    grids: Sequence[tuple[int, int]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Level, row and column of the cell whose embedding stands for a box, each (n,). Ours.

    The level is that of the anchor which fits the box best, by the measure of the assignment: the larger of
    the ratios of the widths and of the heights, each taken so that it is at least 1; of equal ones the finest
    level. The cell is the one that holds the box's centre.

    Args:
        boxes: (n, 4) x1, y1, x2, y2 in pixels of the network's input, with an area.
        anchors: (levels, a, 2) width and height in pixels.
        strides: pixels per cell of each level.
        grids: rows and columns of each level.
    """
    boxes = boxes.astype(np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    ratio = sides[:, None, None] / anchors.astype(np.float64)  # (n, levels, a, 2)
    level = np.maximum(ratio, 1 / ratio).max(3).min(2).argmin(1)
    stride = np.asarray(strides)[level]
    last = np.asarray(grids).reshape(-1, 2)[level] - 1
    column, row = ((boxes[:, axis] + boxes[:, axis + 2]) / 2 // stride for axis in (0, 1))
    inside = (side.astype(np.int64).clip(0, limit) for side, limit in zip((row, column), last.T, strict=True))
    return level, *inside


class EmbeddingCollector:
    """Takes, for every ground-truth box without crowds, the embedding of its cell."""

    def __init__(self, strides: Sequence[int], anchors: Tensor, images: ImageSet) -> None:
        self.strides, self.anchors, self.images = strides, anchors.cpu().double().numpy(), images
        self.parts: list[BoxEmbeddings] = []

    @classmethod
    def of(cls, model: Detector, images: ImageSet, config: EvaluationConfig) -> Self:
        """A collector that has seen no batch."""
        return cls(model.strides, model.anchors, images)

    def add(self, batch: EvaluationBatch, predictions: Sequence[Tensor]) -> None:
        """Embeddings [(B, D, rows, columns)] of all cells of a batch, finest level first."""
        boxes = [self.images.boxes(index) for index in batch.indices]
        counts = [len(each) for each in boxes]
        image = np.repeat(np.arange(len(boxes)), counts)
        scale, pad = np.tile(batch.scales[image], 2), np.tile(batch.pads[image], 2)
        placed = np.concatenate(boxes) * scale + pad
        grids = [(level.shape[2], level.shape[3]) for level in predictions]
        level, row, column = cells(placed, self.anchors, self.strides, grids)
        embedding = np.empty((len(image), predictions[0].shape[1]), np.float32)
        for index, maps in enumerate(predictions):
            here = level == index
            where = (torch.from_numpy(values[here]).to(maps.device) for values in (image, row, column))
            at, y, x = where
            embedding[here] = maps[at, :, y, x].float().cpu().numpy()
        position = np.repeat(np.array(batch.indices, np.int64), counts)
        identity = np.concatenate([self.images.identities(index) for index in batch.indices])
        self.parts.append(BoxEmbeddings(position, identity, embedding))

    def found(self) -> BoxEmbeddings:
        """All embeddings so far."""
        return self.merge(self.parts)

    @staticmethod
    def merge(parts: Sequence[BoxEmbeddings]) -> BoxEmbeddings:
        """Embeddings of the boxes of disjoint sets of images together."""
        parts = [part for part in parts if len(part.position)]  # a rank without images knows no dimension
        if not parts:
            return BoxEmbeddings(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 0), np.float32))
        position, identity, embedding = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        order = position.argsort(kind="stable")
        return BoxEmbeddings(position[order], identity[order], embedding[order])

    @staticmethod
    def score(found: BoxEmbeddings, images: ImageSet) -> dict[str, Any]:
        """See `score_embeddings`."""
        image_ids = np.asarray(images.ids)[found.position]
        return {"embedding": score_embeddings(found.embedding, found.identity, image_ids)}
