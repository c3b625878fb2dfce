"""One split of a dataset: what is annotated, and the pixels on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from yolor_core.data.annotations import Annotations, check_same_classes, ordered
from yolor_core.data.report import DataReport, Note
from yolor_core.errors import DataError

Pixels = NDArray[np.uint8]
Purpose = Literal["train", "test"]
Split = Literal["train", "val"]
GREY = 114  # fills what no image covers

cv2.setNumThreads(0)  # parallelism is the loader's; a pool per worker process would only fight over the cores


def fitted(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height with the long side `size`, the other rounded to at least one pixel."""
    ratio = size / max(width, height)
    return max(round(width * ratio), 1), max(round(height * ratio), 1)


def resize(image: Pixels, size: int, purpose: Purpose) -> Pixels:
    """Scale so that the long side is `size`: bilinear, but by area when a test image shrinks, as released."""
    height, width = image.shape[:2]
    target = fitted(width, height, size)
    if target == (width, height):
        return image
    shrinks = max(target) < max(width, height)
    method = cv2.INTER_AREA if purpose == "test" and shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, target, interpolation=method), np.uint8)


def letterbox(image: Pixels, width: int, height: int) -> tuple[Pixels, int, int]:
    """Centre an image on a grey canvas (height, width, 3); also returns its left and top offset in pixels.

    An odd pixel of padding goes to the right or bottom. Raises ValueError when the image does not fit.
    """
    h, w = image.shape[:2]
    if w > width or h > height:
        raise ValueError(f"an image of {w} x {h} does not fit into {width} x {height}")
    left, top = (width - w) // 2, (height - h) // 2
    canvas = np.full((height, width, 3), GREY, np.uint8)
    canvas[top : top + h, left : left + w] = image
    return canvas, left, top


class Reader(Protocol):
    """Where pixels come from. Must be picklable, must not raise for a bad file, and depend on the index
    only. What it returns may be shared: it must not be written into."""

    def __call__(self, index: int) -> tuple[Pixels, list[Note]]:
        """uint8 RGB (height, width, 3) of image `index`, of its annotated size."""
        ...

    def scaled(self, index: int, size: int, purpose: Purpose) -> tuple[Pixels, list[Note]]:
        """The same with the long side resized to `size` as training or testing does it."""
        pixels, notes = self(index)
        return resize(pixels, size, purpose), notes

    def inspect(self, index: int) -> tuple[Pixels, list[Note]]:
        """The pixels that there are of an image, of whatever size, and what is unusual about it."""
        return self(index)

    def require(self, size: int, purpose: Purpose) -> None:
        """Raises DataError when `scaled` could not serve such requests."""
        return


@dataclass
class Sample:
    """An image with its training targets: boxes float32 (n, 4) x1 y1 x2 y2 in pixels of the annotated image,
    classes and identities int64 (n,)."""

    pixels: Pixels
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    identities: NDArray[np.int64]
    notes: list[Note]


class ImageSet:
    """The images of a split in the order of the annotation file.

    names: class names; category_ids: the file's own ids, by contiguous class; ids: the images' ids;
    sizes: int64 (n, 2), width and height; files: their names; fingerprint: SHA-256 of the annotation content;
    report: what cleaning found, extended when unreadable images are met; identity_source: what tells boxes
    apart, "identity" (the field of the annotations) or "category" (where no box has that field);
    identity_values: int64 (identity_count,), the field's values or the classes that occur, rising.
    """

    def __init__(
        self,
        annotations: Annotations,
        report: DataReport,
        reader: Reader,
        coco: Callable[[], dict[str, Any]],
        fingerprint: str,
    ) -> None:
        self._annotations, self._reader, self._coco = annotations, reader, coco
        self.report, self.fingerprint = report, fingerprint
        self.names, self.category_ids = annotations.names, annotations.category_ids
        self.ids, self.sizes, self.files = annotations.ids, annotations.sizes, annotations.files
        self.identity_source = annotations.identities.source
        self.identity_values = annotations.identities.values
        self.identity_count = annotations.identities.count

    def __len__(self) -> int:
        return len(self.ids)

    def with_classes(self, names: Sequence[str], whose: str) -> ImageSet:
        """The same images with the classes in the order of `names`: classes are matched by name.

        `whose` says in messages what has these names. Raises DataError, naming what differs, where the split
        has other classes.
        """
        check_same_classes(self.names, names, self.report.source, whose)
        if tuple(names) == self.names:
            return self
        annotations = ordered(self._annotations, names)
        return ImageSet(annotations, self.report, self._reader, self._coco, self.fingerprint)

    @property
    def coco(self) -> dict[str, Any]:
        """The annotation content as pycocotools wants it, uncleaned. A fresh copy: pycocotools writes into
        it."""
        return self._coco()

    def image(self, index: int) -> Pixels:
        """uint8 RGB (height, width, 3); grey when the file cannot be decoded, which is warned of and
        counted."""
        pixels, notes = self._reader(index)
        self.report.add(notes)
        return pixels if pixels.flags.writeable else pixels.copy()

    def inspect(self, index: int) -> Pixels | None:
        """Decode an image to count in the report what is unusual about it: its pixels, which must not be
        written into and may be of another size where packs are all there is; None where there are none."""
        pixels, notes = self._reader.inspect(index)
        self.report.add(notes)
        return None if any(note.kind == "unreadable" for note in notes) else pixels

    def boxes_per_class(self) -> NDArray[np.int64]:
        """Number of cleaned boxes of each class, int64 (classes,)."""
        return np.bincount(self._annotations.classes, minlength=len(self.names))

    def boxes(self, index: int) -> NDArray[np.float32]:
        """Cleaned boxes without crowds, float32 (n, 4): x1 y1 x2 y2 in pixels."""
        return self._annotations.boxes[self._rows(index)].copy()

    def classes(self, index: int) -> NDArray[np.int64]:
        """Contiguous classes of `boxes`, int64 (n,)."""
        return self._annotations.classes[self._rows(index)].copy()

    def identities(self, index: int) -> NDArray[np.int64]:
        """Identities of `boxes`, int64 (n,): the place of each in `identity_values`, -1 for none."""
        return self._annotations.identities.index[self._rows(index)].copy()

    def sample(self, index: int) -> Sample:
        """What training sees: an unreadable image has no boxes. Notes are returned, not yet counted."""
        return self._labelled(index, *self._reader(index))

    def scaled(self, index: int, size: int, purpose: Purpose) -> Sample:
        """`sample` with the pixels' long side resized to `size`; boxes are those of the annotated size."""
        return self._labelled(index, *self._reader.scaled(index, size, purpose))

    def require(self, size: int, purpose: Purpose) -> None:
        """Raises DataError when images cannot be had at such a size for such a purpose (see `data.pack`)."""
        self._reader.require(size, purpose)

    def _labelled(self, index: int, pixels: Pixels, notes: list[Note]) -> Sample:
        if any(note.kind == "unreadable" for note in notes):
            none = np.zeros(0, np.int64)
            return Sample(pixels, np.zeros((0, 4), np.float32), none, none.copy(), notes)
        return Sample(pixels, self.boxes(index), self.classes(index), self.identities(index), notes)

    def _rows(self, index: int) -> slice:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return slice(int(self._annotations.starts[index]), int(self._annotations.starts[index + 1]))


def check_identities(train: ImageSet, val: ImageSet) -> None:
    """Raises DataError when embeddings of two splits cannot be compared.

    Both need the same source. Identities of the field must not be in both splits, as is the custom of
    re-identification: the scores are of individuals that training has not seen. Categories are in both.
    """
    sources = {"train": train.identity_source, "val": val.identity_source}
    if len(set(sources.values())) > 1:
        with_field, without = sorted(sources, key=lambda split: sources[split], reverse=True)
        raise DataError(
            f"annotations of {with_field} have the field 'identity', those of {without} do not; an embedding "
            "needs it in both, or in neither (then the category stands in)"
        )
    if train.identity_source == "identity":
        shared = np.intersect1d(train.identity_values, val.identity_values).tolist()
        if shared:
            raise DataError(
                f"{len(shared)} identities are in both train and val: {', '.join(map(str, shared[:5]))}"
                f"{' ...' if len(shared) > 5 else ''}; an embedding is scored on individuals that it was not "
                "trained on, so each may be in one split only"
            )
