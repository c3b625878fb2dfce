"""Annotation content in COCO's layout, checked and cleaned into arrays.

Contradictions that no reading can resolve (duplicate ids, dangling references, NaN, wrong types) are errors
that name the file and the ids. What COCO tools cope with is handled and counted: see `report.KINDS`.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from yolor_core.data.findings import ROUNDING, find
from yolor_core.data.records import NONE, Content, Identities, identify, read_content
from yolor_core.data.report import DataReport, Note
from yolor_core.errors import DataError, some_of

T = TypeVar("T")


class _InArrays(Sequence[T]):
    """What both kinds share. Equal to any sequence of equal values."""

    def _one(self, index: int) -> T:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        if isinstance(index, slice):
            return tuple(self._one(i) for i in range(*index.indices(len(self))))
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"{index} of {len(self)}")
        return self._one(position)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as a list, which it may equal

    def __repr__(self) -> str:
        shown = ", ".join(repr(value) for value in self[:3])
        return f"{type(self).__name__}([{shown}{', ...' if len(self) > 3 else ''}], {len(self)} in all)"


class Integers(_InArrays[int]):
    """Whole numbers of 64 bits; elements are plain ints, `np.asarray` gives the array itself."""

    def __init__(self, values: Iterable[int]) -> None:
        self._values = np.array(list(values), np.int64)
        self._values.flags.writeable = False

    def __len__(self) -> int:
        return len(self._values)

    def _one(self, index: int) -> int:
        return int(self._values[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._values, dtype, copy=copy)


class Texts(_InArrays[str]):
    """Texts as UTF-8 bytes, one after the other, and where each begins."""

    def __init__(self, values: Iterable[str]) -> None:
        encoded = [value.encode("utf-8", "surrogatepass") for value in values]
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self._starts = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(e) for e in encoded], out=self._starts[1:])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def _one(self, index: int) -> str:
        data = self._bytes[self._starts[index] : self._starts[index + 1]]
        return data.tobytes().decode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Annotations:
    """Cleaned content of one split. Classes are contiguous; `clean` orders them by the file's category ids.

    boxes: float32 (m, 4), x1 y1 x2 y2 in pixels, inside their image, without crowds; classes: int64 (m,);
    identities: of the same boxes; all sorted by image, image i owning rows starts[i]:starts[i + 1]. ids and
    files are backed by arrays.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    ids: Sequence[int]
    files: Sequence[str]
    sizes: NDArray[np.int64]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    starts: NDArray[np.int64]
    identities: Identities


def clean(content: Any, source: str) -> tuple[Annotations, DataReport]:
    """Check and clean annotation content; `source` names it in messages.

    Raises DataError for missing keys, wrong types, duplicate ids, dangling references and non-finite boxes.
    """
    read = read_content(content, source)
    category_ids = tuple(sorted(read.names))
    report = DataReport(source, images=len(read.files), annotations=len(read.ids))
    labels = class_labels(read.names)
    report.add(
        Note("renamed", key, f"category {key} ({name}): {labels[key]!r}")
        for key, name in read.names.items()
        if labels[key] != name
    )
    annotated = np.bincount(read.image, minlength=len(read.files))
    report.add(
        Note("empty", int(read.image_ids[row]), f"image {read.image_ids[row]} ({read.files[row]})")
        for row in np.flatnonzero(annotated == 0)
    )
    find(read, content["annotations"], labels, report)
    boxes, kept = _trainable(read, report)
    report.boxes = len(kept)
    kept = kept[np.argsort(read.image[kept], kind="stable")]
    classes = np.searchsorted(category_ids, read.category[kept]).astype(np.int64)
    identities = identify(read.identities[kept], classes)
    report.identities, report.identity_source = identities.count, identities.source
    report.identities_once, report.boxes_without_identity = identities.once, identities.without
    cleaned = Annotations(
        names=tuple(labels[identifier] for identifier in category_ids),
        category_ids=category_ids,
        ids=Integers(read.image_ids.tolist()),
        files=Texts(read.files),
        sizes=read.sizes,
        boxes=np.ascontiguousarray(boxes[kept], np.float32),
        classes=classes,
        starts=np.searchsorted(read.image[kept], np.arange(len(read.files) + 1)).astype(np.int64),
        identities=identities,
    )
    return cleaned, report


def class_labels(names: Mapping[int, str]) -> dict[int, str]:
    """What each category is called, by id: its name, or `name (id)` where several have that name."""
    labels = dict(names)
    while twice := {label for label, count in Counter(labels.values()).items() if count > 1}:
        labels = {key: f"{label} ({key})" if label in twice else label for key, label in labels.items()}
    return labels


def check_same_classes(found: Sequence[str], wanted: Sequence[str], where: str, whose: str) -> None:
    """Raises DataError, naming what differs, unless `found` are the names `wanted`, in whatever order.

    `where` says what has the names found, `whose` what has those wanted.
    """
    parts = [
        f"only {place}: {some_of(names)}"
        for place, names in (("here", _without(found, wanted)), ("there", _without(wanted, found)))
        if names
    ]
    if not parts:
        return
    alike = {_letters(name): name for name in _without(wanted, found)}
    pairs = [(name, alike[_letters(name)]) for name in _without(found, wanted) if _letters(name) in alike]
    meant = f"; {some_of([f'{a!r} for {b!r}' for a, b in pairs])}: the same name?" if pairs else ""
    raise DataError(f"{where}: its classes are not those of {whose}: {'; '.join(parts)}{meant}")


def _without(names: Sequence[str], others: Sequence[str]) -> list[str]:
    known = set(others)
    return [name for name in names if name not in known]


def _letters(name: str) -> str:
    """A name without what is often written in another way: case, spaces, hyphens, forms of a letter."""
    return "".join(c for c in unicodedata.normalize("NFKC", name).casefold() if c.isalnum())


def ordered(annotations: Annotations, names: Sequence[str]) -> Annotations:
    """The same with the classes in the order of `names`, which are theirs."""
    order = [annotations.names.index(name) for name in names]
    classes = np.argsort(order)[annotations.classes].astype(np.int64)
    identities = annotations.identities
    if identities.source == "category":
        identities = identify(np.full(len(classes), NONE, np.int64), classes)
    return replace(
        annotations,
        names=tuple(names),
        category_ids=tuple(annotations.category_ids[place] for place in order),
        classes=classes,
        identities=identities,
    )


def _trainable(read: Content, report: DataReport) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """All boxes as x1 y1 x2 y2 clipped to their image (m, 4), and which of them are trained on; the others,
    and what was clipped, are noted."""
    low, size = read.boxes[:, :2], read.boxes[:, 2:]
    extent = read.sizes[read.image]
    boxes = np.hstack([np.maximum(low, 0), np.minimum(low + size, extent)])
    # float32 is what training sees: a sliver that has no area there has none at all
    corners = boxes.astype(np.float32)
    dropped = ((size <= 0) | (corners[:, 2:] <= corners[:, :2])).any(axis=1) & ~read.crowd
    outside = np.maximum(boxes[:, :2] - low, low + size - boxes[:, 2:]).max(axis=1, initial=0)
    clipped = (outside > ROUNDING) & ~dropped & ~read.crowd
    for kind, found in (("crowd", read.crowd), ("clipped", clipped), ("dropped", dropped)):
        for row in np.flatnonzero(found).tolist():
            where = f"annotation {read.ids[row]} of image {read.image_ids[read.image[row]]}"
            within = "" if kind == "crowd" else " in {} x {}".format(*extent[row])
            box = ", ".join(f"{value:g}" for value in read.boxes[row])
            report.add([Note(kind, int(read.ids[row]), f"{where}: box [{box}]{within}")])
    return boxes, np.flatnonzero(~dropped & ~read.crowd)
