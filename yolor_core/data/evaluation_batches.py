"""Batches of letterboxed images for evaluation, and the way back to original pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from yolor_core.data.images import ImageSet
from yolor_core.data.loader import run
from yolor_core.data.ordering import by_aspect, rectangle
from yolor_core.data.report import Note
from yolor_core.data.resize import letterbox

Array = TypeVar("Array", torch.Tensor, NDArray[np.floating])


@dataclass
class EvaluationBatch:
    """images: uint8 (B, 3, H, W) RGB; indices: B positions in the ImageSet; scales (B, 2): pixels here per
    original pixel, in x and y; pads (B, 2): left and top padding in pixels; sizes (B, 2): original width and
    height."""

    images: torch.Tensor
    indices: tuple[int, ...]
    scales: NDArray[np.float64]
    pads: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def to_original(self, index_in_batch: int, boxes: Array) -> Array:
        """Boxes (n, 4) x1 y1 x2 y2 of one image, in original pixels and cut to the original image. Same kind
        out."""
        pad, scale = np.tile(self.pads[index_in_batch], 2), np.tile(self.scales[index_in_batch], 2)
        width, height = (int(v) for v in self.sizes[index_in_batch])
        if isinstance(boxes, torch.Tensor):
            result = (boxes - boxes.new_tensor(pad)) / boxes.new_tensor(scale)
        else:
            result = ((boxes - pad) / scale).astype(boxes.dtype)
        result[:, 0::2] = result[:, 0::2].clip(0, width)
        result[:, 1::2] = result[:, 1::2].clip(0, height)
        return result


class EvaluationBatches:
    """All images of a set once, in a fixed order; of several ranks, each takes every so many-th batch.

    The long side of each image becomes `size`. Rectangular batches take images of similar aspect ratio
    together and pad them to the smallest common shape (see `ordering.rectangle`); otherwise every image is
    padded to a square. Every image gets the same pixels whatever the number of workers; with rectangular
    batches its padding depends on the images it shares a batch with, which is why the batch size is part of
    the evaluation's settings.
    """

    def __init__(
        self,
        images: ImageSet,
        size: int,
        stride: int,
        batch: int,
        rectangular: bool = True,
        pad: float = 0.5,
        workers: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """Rank r of n yields the batches r, r + n, ... of those that one process would have.

        Raises ValueError for a rank that does not exist.
        """
        if not 0 <= rank < ranks:
            raise ValueError(f"rank is {rank}; with {ranks} ranks, 0 to {ranks - 1} are allowed")
        images.require(size, "test")
        self.images, self.size, self.workers = images, size, workers
        order = by_aspect(images.sizes) if rectangular else np.arange(len(images))
        self._members = [order[i : i + batch] for i in range(0, len(order), batch)]
        square = math.ceil(size / stride) * stride
        self._steps = range(rank, len(self._members), ranks)
        self._shapes = [
            rectangle(images.sizes[m], size, stride, pad) if rectangular else (square, square)
            for m in self._members
        ]

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        return run(_Build(self), self._steps, self.workers, self.images.report)

    def build(self, step: int) -> tuple[EvaluationBatch, list[Note]]:
        """Batch number `step` of all ranks' batches, and notes of what its images needed."""
        members, (width, height) = self._members[step], self._shapes[step]
        stack = np.empty((len(members), height, width, 3), np.uint8)
        scales, pads = np.empty((len(members), 2)), np.empty((len(members), 2), np.int64)
        notes: list[Note] = []
        for row, index in enumerate(members.tolist()):
            sample = self.images.scaled(index, self.size, "test")
            notes.extend(sample.notes)
            stack[row], left, top = letterbox(sample.pixels, width, height)
            scales[row] = np.array(sample.pixels.shape[1::-1]) / self.images.sizes[index]
            pads[row] = left, top
        images = torch.from_numpy(np.ascontiguousarray(stack.transpose(0, 3, 1, 2)))
        indices = tuple(members.tolist())
        return EvaluationBatch(images, indices, scales, pads, self.images.sizes[members]), notes


@dataclass
class _Build:
    """Builds the batches; picklable, for the workers."""

    source: EvaluationBatches

    def __call__(self, step: int) -> tuple[EvaluationBatch, list[Note]]:
        return self.source.build(step)
