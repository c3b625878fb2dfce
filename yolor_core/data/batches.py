"""Batches for training and for evaluation, built in this process or in others; they are the same.

And which images are trained on, in which order, and which are evaluated together: all of it deterministic.
"""

from __future__ import annotations

import hashlib
import math
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from yolor_core.config import AugmentConfig
from yolor_core.data.augment import Labelled, Part, training_sample
from yolor_core.data.images import ImageSet, fitted, letterbox
from yolor_core.data.report import DataReport, Note
from yolor_core.errors import DataError, YolorError

T = TypeVar("T")
# A forked worker shares the arrays of annotations and the cached images instead of receiving copies of them.
# (macOS has the method too, but its system libraries do not survive it.)
START_METHOD = "fork" if sys.platform == "linux" else None
Build = Callable[[int], tuple[T, list[Note]]]
"""Builds the batch of a step, and notes of what was found; depends on nothing but the step."""


class Draw(IntEnum):
    """What a random stream of an epoch is for."""

    ORDER = 1
    SAMPLE = 2
    MULTI_SCALE = 3


def generator(draw: Draw, seed: int, epoch: int, sample: int = 0) -> np.random.Generator:
    """Generator keyed by (seed, epoch, sample index): the same numbers for every model, worker and resume."""
    return np.random.default_rng([0xDA7A, int(draw), seed, epoch, sample])


def kept(ids: Sequence[int], keep_one_in: int) -> NDArray[np.int64]:
    """Positions of the images with SHA-1(decimal image id) mod keep_one_in = 0."""
    if keep_one_in == 1:
        return np.arange(len(ids))
    digests = (int(hashlib.sha1(str(i).encode()).hexdigest(), 16) for i in ids)
    return np.array([p for p, digest in enumerate(digests) if digest % keep_one_in == 0], np.int64)


def epoch_order(positions: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """The positions shuffled for an epoch."""
    return generator(Draw.ORDER, seed, epoch).permutation(positions)


def share(count: int, rank: int, ranks: int, group: int = 0) -> slice:
    """The contiguous part of `count` images that a rank works on; the parts of all ranks follow one another.

    Cuts lie at multiples of `group` (0 and 1: anywhere). Parts differ by at most one group, earlier ranks
    having the larger ones; the last group may be short, and a part may be empty. Raises ValueError for a rank
    that does not exist.
    """
    if not 0 <= rank < ranks:
        raise ValueError(f"rank is {rank}; with {ranks} ranks, 0 to {ranks - 1} are allowed")
    if count < 0 or group < 0:
        raise ValueError(f"count is {count} and group is {group}; neither may be negative")
    unit = max(group, 1)
    each, more = divmod(math.ceil(count / unit), ranks)
    cuts = (min((r * each + min(r, more)) * unit, count) for r in (rank, rank + 1))
    return slice(*cuts)


def by_aspect(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions ordered by height / width, equal ratios by position. sizes: (n, 2) width, height."""
    return np.argsort(sizes[:, 1] / sizes[:, 0], kind="stable")


def rectangle(sizes: NDArray[np.int64], size: int, stride: int, pad: float) -> tuple[int, int]:
    """Width and height, multiples of stride, of a batch of images whose long sides become `size`.

    Each side is ceil(ratio * size / stride + pad) * stride, ratio being the largest in the batch of that side
    to its image's long side, as in the released test.
    """
    ratios = (sizes / sizes.max(axis=1, keepdims=True)).max(axis=0)
    w, h = (math.ceil(float(r) * size / stride + pad) * stride for r in ratios)
    return w, h


class _Steps(Dataset[Any], Generic[T]):
    def __init__(self, build: Build[T]) -> None:
        self.build = build

    def __getitem__(self, step: int) -> tuple[T, list[Note]] | YolorError:
        try:
            return self.build(step)
        except YolorError as error:
            return error  # raised by the process that asked, without the traceback of this one


def _unchanged(item: Any) -> Any:
    return item


def _outlive_signals(_: int) -> None:
    """Leave what asks all processes of a run to stop, e.g. SIGTERM from torchrun, to the one that trains.

    It needs its workers until it has saved itself. A second SIGTERM ends a worker: by it torch and
    multiprocessing end those that are left over at exit.
    """
    signal.signal(signal.SIGTERM, lambda number, _: signal.signal(number, signal.SIG_DFL))
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def run(build: Build[T], steps: range, workers: int, report: DataReport, pin: bool = False) -> Iterator[T]:
    """The batches of `steps`, in order. Notes reach the report of this process wherever they were made.

    `pin` moves batches to page-locked memory by their method `pin_memory`, which needs a GPU.
    """
    if workers == 0:
        results: Iterator[tuple[T, list[Note]] | YolorError] = map(build, steps)
    else:
        from yolor_core.data.decode import agrees

        agrees()  # loads the decoder, which workers then inherit instead of loading it each
        # One item is one batch: a step is all that a worker needs to know. (`steps` is a valid sampler.)
        loader: DataLoader[Any] = DataLoader(
            _Steps(build),
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            collate_fn=_unchanged,
            pin_memory=pin,
            multiprocessing_context=START_METHOD,
            generator=torch.Generator(),  # else the loader draws a number from the global generator
            worker_init_fn=_outlive_signals,
        )
        results = iter(loader)
    for result in results:
        if isinstance(result, YolorError):
            raise result
        batch, notes = result
        report.add(notes)
        # Whoever asks for `pin` builds batches that have the method.
        yield batch.pin_memory() if pin and not workers else batch  # type: ignore[attr-defined]


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

    def targets(self, images: ImageSet) -> torch.Tensor:
        """Boxes as a loss takes them, float32 (n, 7): image in the batch, class, centre x and y, width and
        height as fractions of the padded image, -1 for an identity of the training images. No crowds."""
        height, width = self.images.shape[2:]
        parts = []
        for place, index in enumerate(self.indices):
            boxes = images.boxes(index) * np.tile(self.scales[place], 2) + np.tile(self.pads[place], 2)
            centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
            label = images.classes(index)[:, None]
            scale = (width, height)
            columns = [np.full_like(label, place), label, centre / scale, size / scale, -np.ones_like(label)]
            parts.append(np.concatenate(columns, 1))
        return torch.from_numpy(np.concatenate(parts)).float()


class EvaluationBatches:
    """All images of a set once, in a fixed order; of several ranks, each takes every so many-th batch.

    The long side of each image becomes `size`. Rectangular batches take images of similar aspect ratio
    together and pad them to the smallest common shape (see `rectangle`); otherwise every image is
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
        self.all_steps = len(self._members)
        self.steps = range(rank, self.all_steps, ranks)
        self._shapes = [
            rectangle(images.sizes[m], size, stride, pad) if rectangular else (square, square)
            for m in self._members
        ]

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        return run(self.build, self.steps, self.workers, self.images.report)

    def build(self, step: int) -> tuple[EvaluationBatch, list[Note]]:
        """Batch number `step` of all ranks' batches, and notes of what its images needed."""
        batch = self.outline(step)
        count, channels, height, width = batch.images.shape
        stack = np.empty((count, height, width, channels), np.uint8)
        notes: list[Note] = []
        for row, index in enumerate(batch.indices):
            sample = self.images.scaled(index, self.size, "test")
            notes.extend(sample.notes)
            stack[row] = letterbox(sample.pixels, width, height)[0]
        images = torch.from_numpy(np.ascontiguousarray(stack.transpose(0, 3, 1, 2)))
        return replace(batch, images=images), notes

    def outline(self, step: int) -> EvaluationBatch:
        """The same batch before a picture is read: its images have a shape and no pixels (device meta)."""
        members, (width, height) = self._members[step], self._shapes[step]
        sizes = self.images.sizes[members]
        placed = np.array([fitted(w, h, self.size) for w, h in sizes.tolist()])
        images = torch.empty(len(members), 3, height, width, dtype=torch.uint8, device="meta")
        pads = (np.array([width, height]) - placed) // 2
        return EvaluationBatch(images, tuple(members.tolist()), placed / sizes, pads, sizes)


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
    (see `share`) of the batch that one process would have.
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
        multiples of `group` images; `pin` puts batches into page-locked memory, which needs a GPU.

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


EDGES = tuple(2 ** (k / 2) for k in range(23))  # pixels: 1 to 2048 in half octaves
REFERENCE = 16  # images


def summarise(images: ImageSet, size: int) -> dict[str, Any]:
    """Boxes by class and by size, plain values; crowds are left out.

    Boxes are measured in pixels of the image with its long side resized to `size`. `sizes` counts them by
    width and height between `size_edges`, those outside with the nearest.
    """
    classes = len(images.names)
    boxes, holding = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    for index in range(len(images)):
        found = images.classes(index)
        boxes += np.bincount(found, minlength=classes)
        holding[np.unique(found)] += 1
    places = [np.clip(side, EDGES[0], EDGES[-1]) for side in box_sizes(images, size).T]
    counts = np.histogram2d(places[0], places[1], bins=(EDGES, EDGES))[0]
    return {
        "images": len(images),
        "boxes": int(boxes.sum()),
        "boxes_per_class": boxes.tolist(),
        "images_per_class": holding.tolist(),
        "size": size,
        "size_edges": [round(edge, 3) for edge in EDGES],
        "sizes": counts.astype(int).tolist(),
    }


def box_sizes(images: ImageSet, size: int, positions: Iterable[int] | None = None) -> NDArray[np.float64]:
    """Widths and heights (n, 2) in pixels, with the long side of every image resized to `size`; no crowds.

    positions: of the images in the set; all by default.
    """
    sides = [np.zeros((0, 2))]
    for index in range(len(images)) if positions is None else positions:
        corners = images.boxes(int(index))
        sides.append((corners[:, 2:] - corners[:, :2]) * (size / images.sizes[index].max()))
    return np.concatenate(sides)


def reference_images(images: ImageSet, size: int, stride: int) -> torch.Tensor:
    """The first 16 images as an evaluation without rectangles sees them, uint8 (B, 3, side, side)."""
    return EvaluationBatches(images, size, stride, REFERENCE, rectangular=False).build(0)[0].images
