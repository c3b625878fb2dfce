"""Batches of augmented training images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from yolor_core.config import AugmentConfig
from yolor_core.data.augment import training_sample
from yolor_core.data.images import ImageSet
from yolor_core.data.loader import run
from yolor_core.data.mosaic import Labelled
from yolor_core.data.ordering import Draw, epoch_order, generator, kept
from yolor_core.data.report import Note
from yolor_core.data.resize import resize
from yolor_core.errors import DataError


@dataclass
class Batch:
    """images: uint8 (B, 3, size, size) RGB; targets: float32 (n, 6), columns image index in the batch, class,
    centre x, centre y, width, height as fractions of the image; ids: the B image ids."""

    images: torch.Tensor
    targets: torch.Tensor
    ids: tuple[int, ...]


class TrainingBatches:
    """The training images of a run, epoch by epoch.

    The order is keyed by (seed, epoch) and the augmentation of a sample by (seed, epoch, sample index), the
    index being the image's position in the ImageSet. So a batch depends on nothing else: not on workers,
    cache, the step that an epoch is resumed at, or the model.
    """

    def __init__(
        self,
        images: ImageSet,
        size: int,
        batch: int,
        seed: int,
        keep_one_in: int = 1,
        workers: int = 0,
        cache: bool = False,
    ) -> None:
        """`cache` keeps the resized images in memory. Raises DataError when no image is left to train on."""
        self.images, self.size, self.batch, self.seed, self.workers = images, size, batch, seed, workers
        self.positions = kept(images.ids, keep_one_in)
        if not len(self.positions):
            raise DataError(
                f"{images.report.source}: keep_one_in = {keep_one_in} leaves none of {len(images)} images"
            )
        self._cache: dict[int, Labelled] | None = {} if cache else None

    @property
    def steps(self) -> int:
        """Batches of an epoch; the last one may be smaller."""
        return math.ceil(len(self.positions) / self.batch)

    def epoch(self, epoch: int, augment: AugmentConfig, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `start_step` on."""
        if not 0 <= start_step <= self.steps:
            raise ValueError(f"start_step is {start_step}; an epoch has {self.steps} steps")
        if self.workers and self._cache is not None:
            self._fill()  # before the workers start, so that they share it
        build = _Epoch(self, epoch, augment, epoch_order(self.positions, self.seed, epoch))
        return run(build, range(start_step, self.steps), self.workers, self.images.report)

    def fetch(self, index: int, notes: list[Note]) -> Labelled:
        """Image at a position, long side resized to `size`, with its boxes; notes are appended."""
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        sample = self.images.sample(index)
        notes.extend(sample.notes)
        pixels = resize(sample.pixels, self.size, "train")
        height, width = sample.pixels.shape[:2]
        ratio = np.array([pixels.shape[1] / width, pixels.shape[0] / height] * 2, np.float32)
        labelled = Labelled(pixels, sample.boxes * ratio, sample.classes)
        if self._cache is not None:
            self._cache[index] = labelled
        return labelled

    def _fill(self) -> None:
        notes: list[Note] = []
        for index in self.positions:
            self.fetch(int(index), notes)
        self.images.report.add(notes)


@dataclass
class _Epoch:
    """Builds the batches of one epoch; picklable, for the workers."""

    source: TrainingBatches
    number: int
    augment: AugmentConfig
    order: NDArray[np.int64]

    def __call__(self, step: int) -> tuple[Batch, list[Note]]:
        source, notes = self.source, list[Note]()
        members = self.order[step * source.batch : (step + 1) * source.batch]
        stack = np.empty((len(members), source.size, source.size, 3), np.uint8)
        targets = []
        for row, index in enumerate(members.tolist()):
            rng = generator(Draw.SAMPLE, source.seed, self.number, index)
            sample = training_sample(
                rng, lambda i: source.fetch(i, notes), index, source.positions, self.augment, source.size
            )
            stack[row] = sample.pixels
            targets.append(_targets(row, sample, source.size))
        images = torch.from_numpy(np.ascontiguousarray(stack.transpose(0, 3, 1, 2)))
        ids = tuple(source.images.ids[i] for i in members.tolist())
        return Batch(images, torch.from_numpy(np.concatenate(targets)), ids), notes


def _targets(row: int, sample: Labelled, size: int) -> NDArray[np.float32]:
    boxes = sample.boxes
    table = np.empty((len(boxes), 6), np.float32)
    table[:, 0], table[:, 1] = row, sample.classes
    table[:, 2:4] = (boxes[:, :2] + boxes[:, 2:]) / (2 * size)
    table[:, 4:6] = (boxes[:, 2:] - boxes[:, :2]) / size
    return table
