"""Batches of augmented training images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from yolor_core.config import AugmentConfig
from yolor_core.data.augment import training_sample
from yolor_core.data.images import ImageSet
from yolor_core.data.loader import run
from yolor_core.data.mosaic import Labelled, Part
from yolor_core.data.ordering import Draw, epoch_order, generator, kept, share
from yolor_core.data.report import Note
from yolor_core.data.resize import fitted
from yolor_core.errors import DataError


@dataclass
class Batch:
    """A rank's share of a batch (all of it when there is one rank).

    images: uint8 (B, 3, size, size) RGB; targets: float32 (n, 7), columns image index in the share, class,
    centre x, centre y, width, height as fractions of the image, identity (its index in the split, -1 for
    none); ids: the B image ids; first: position of the share's first image in the batch of all ranks; total:
    images of that batch.
    """

    images: torch.Tensor
    targets: torch.Tensor
    ids: tuple[int, ...]
    first: int
    total: int

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from where a GPU can fetch it while it computes."""
        return replace(self, images=self.images.pin_memory(), targets=self.targets.pin_memory())


class TrainingBatches:
    """The training images of a run, epoch by epoch.

    The order is keyed by (seed, epoch) and the augmentation of a sample by (seed, epoch, sample index), the
    index being the image's position in the ImageSet. So a batch depends on nothing else: not on workers,
    cache, the step that an epoch is resumed at, or the model. Nor does it on the ranks: each gets its share
    (see `ordering.share`) of the batch that one process would have.
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
        rank: int = 0,
        ranks: int = 1,
        group: int = 0,
        pin: bool = False,
    ) -> None:
        """`batch` is the size over all ranks; `cache` keeps the resized images in memory; shares are cut at
        multiples of `group` images; `pin` puts batches into page-locked memory, where a GPU is there.

        Raises DataError when no image is left to train on, ValueError for a rank that does not exist.
        """
        self.images, self.size, self.batch, self.seed, self.workers = images, size, batch, seed, workers
        self.rank, self.ranks, self.group, self.pin = rank, ranks, group, pin
        share(batch, rank, ranks, group)  # refuses what is not allowed before any work is done
        self.positions = kept(images.ids, keep_one_in)
        if not len(self.positions):
            raise DataError(
                f"{images.report.source}: keep_one_in = {keep_one_in} leaves none of {len(images)} images"
            )
        images.require(size, "train")
        self._cache: dict[int, Labelled] | None = {} if cache else None

    @property
    def steps(self) -> int:
        """Batches of an epoch, the same for every rank; the last one may be smaller."""
        return math.ceil(len(self.positions) / self.batch)

    def epoch(self, epoch: int, augment: AugmentConfig, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `start_step` on."""
        if not 0 <= start_step <= self.steps:
            raise ValueError(f"start_step is {start_step}; an epoch has {self.steps} steps")
        if self.workers and self._cache is not None:
            self._fill()  # before the workers start, so that they share it
        build = _Epoch(self, epoch, augment, epoch_order(self.positions, self.seed, epoch))
        return run(build, range(start_step, self.steps), self.workers, self.images.report, self.pin)

    def fetch(self, index: int, notes: list[Note]) -> Part:
        """Image at a position, long side resized to `size`, with its boxes; notes are appended on loading."""
        if self._cache is not None:
            return self._cache.get(index) or Deferred(self, index, notes)
        return Deferred(self, index, notes)

    def load(self, index: int, notes: list[Note]) -> Labelled:
        """What `fetch` promises."""
        sample = self.images.scaled(index, self.size, "train")
        notes.extend(sample.notes)
        width, height = self.images.sizes[index].tolist()
        now = fitted(width, height, self.size)
        ratio = np.array([now[0] / width, now[1] / height] * 2, np.float32)
        labelled = Labelled(sample.pixels, sample.boxes * ratio, sample.classes, sample.identities)
        if self._cache is not None:
            self._cache[index] = labelled
        return labelled

    def _fill(self) -> None:
        notes: list[Note] = []
        for index in self.positions:
            self.fetch(int(index), notes).load()
        self.images.report.add(notes)


class Deferred:
    """A training image that is decoded only if it is needed."""

    def __init__(self, source: TrainingBatches, index: int, notes: list[Note]) -> None:
        self._source, self._index, self._notes = source, index, notes
        width, height = source.images.sizes[index].tolist()
        self.width, self.height = fitted(width, height, source.size)

    def load(self) -> Labelled:
        """Its pixels, which must not be written into, and boxes."""
        return self._source.load(self._index, self._notes)


@dataclass
class _Epoch:
    """Builds the batches of one epoch; picklable, for the workers."""

    source: TrainingBatches
    number: int
    augment: AugmentConfig
    order: NDArray[np.int64]

    def __call__(self, step: int) -> tuple[Batch, list[Note]]:
        source, notes = self.source, list[Note]()
        whole = self.order[step * source.batch : (step + 1) * source.batch]
        part = share(len(whole), source.rank, source.ranks, source.group)
        members = whole[part]
        stack = np.empty((len(members), 3, source.size, source.size), np.uint8)
        targets = [np.zeros((0, 7), np.float32)]  # a share may be empty
        for row, index in enumerate(members.tolist()):
            rng = generator(Draw.SAMPLE, source.seed, self.number, index)
            sample = training_sample(
                rng, lambda i: source.fetch(i, notes), index, source.positions, self.augment, source.size
            )
            cv2.split(sample.pixels, list(stack[row]))  # writes the three channels where they belong
            targets.append(_targets(row, sample, source.size))
        ids = tuple(source.images.ids[i] for i in members.tolist())
        table = torch.from_numpy(np.concatenate(targets))
        return Batch(torch.from_numpy(stack), table, ids, part.start, len(whole)), notes


def _targets(row: int, sample: Labelled, size: int) -> NDArray[np.float32]:
    boxes = sample.boxes
    table = np.empty((len(boxes), 7), np.float32)
    table[:, 0], table[:, 1] = row, sample.classes
    table[:, 2:4] = (boxes[:, :2] + boxes[:, 2:]) / (2 * size)
    table[:, 4:6] = (boxes[:, 2:] - boxes[:, :2]) / size
    table[:, 6] = sample.identities
    return table
