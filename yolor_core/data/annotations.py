"""Annotation content in COCO's layout, checked and cleaned into arrays, and what is odd about it.

Contradictions that no reading can resolve (duplicate ids, dangling references, NaN, wrong types) are errors
that name the file and the ids. What COCO tools cope with, and what is odd although it can be read, is handled
and counted: see `report.KINDS`. A kind whose evidence is the whole file (corners, shares of the picture) is
told only where the file as a whole shows it; the rules are stated in docs/data-check.md.
"""

from __future__ import annotations

import posixpath
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from yolor_core.data.records import NONE, Content, Identities, identify, read_content
from yolor_core.data.report import DataReport, Note
from yolor_core.errors import DataError, some_of

T = TypeVar("T")
ROUNDING = 0.05  # pixels; COCO's two decimals put boxes this little outside, which is not worth a report


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
    find_odd(read, content["annotations"], labels, report)
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


PER_CLASS = 100  # detections of a class in an image that pycocotools looks at
FEW = 10  # boxes; a file of fewer is no evidence of a habit
LEAVES = 1.05  # of a side: no rounding puts a box this far out
SCALES = (100, 1000)  # coordinates that some tools write whatever the size of the picture
FLAGS = ("ignore", "difficult")
UNSET = (None, 0, "", "0")

Rows = NDArray[np.int64]


def find_odd(
    read: Content, records: Sequence[Mapping[str, Any]], labels: Mapping[int, str], report: DataReport
) -> None:
    """Add to a report what is odd about annotations. records: as in the file; labels: of classes, by id."""
    plain = np.flatnonzero(~read.crowd)
    _files(read, report)
    _flags(read, plain, records, report)
    _boxes(read, plain, report)
    _areas(read, plain, report)
    _repeated(read, plain, report)
    _many(read, plain, labels, report)


def describe(read: Content, row: int) -> str:
    """An annotation, for a message."""
    image = read.image[row]
    box = ", ".join(f"{value:g}" for value in read.boxes[row])
    return f"annotation {read.ids[row]} of image {read.image_ids[image]} ({read.files[image]}): box [{box}]"


def listed_before(ids: Sequence[int], files: Sequence[str]) -> dict[int, str]:
    """The rule of `file_twice`: places of images whose file stands before, and a sentence on each."""
    first: dict[str, int] = {}
    same = [first.setdefault(posixpath.normpath(name), place) for place, name in enumerate(files)]
    return {
        place: f"images {ids[one]} and {ids[place]} are both {files[place]}"
        for place, one in enumerate(same)
        if one != place
    }


def never_found(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The rule of `annotation_zero`, of annotations that are no crowds: which of (n,) ids."""
    return ids == 0


def negative(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The rule of `negative`, of annotations that are no crowds: which of (n, 4) x, y, width, height."""
    return np.any(boxes[:, 2:] < 0, axis=1)


def _files(read: Content, report: DataReport) -> None:
    again = listed_before(read.image_ids.tolist(), read.files)
    report.count_rows("file_twice", np.array(list(again), np.int64), again.__getitem__)


def _flags(read: Content, plain: Rows, records: Sequence[Mapping[str, Any]], report: DataReport) -> None:
    zero = plain[never_found(read.ids[plain])]
    report.count_rows("annotation_zero", zero, lambda row: describe(read, row))
    said = {key: np.array([r.get(key) not in UNSET for r in records], bool) for key in FLAGS}
    flagged = plain[np.logical_or.reduce([said[key][plain] for key in FLAGS])]

    def text(row: int) -> str:
        keys = " and ".join(f"{key!r}" for key in FLAGS if said[key][row])
        return f"{describe(read, row)}: {keys}"

    report.count_rows("ignore", flagged, text)


def _boxes(read: Content, plain: Rows, report: DataReport) -> None:
    """Boxes whose four numbers are not x, y, width and height in pixels."""
    x, y, w, h = read.boxes[plain].T
    width, height = read.sizes[read.image[plain]].T.astype(np.float64)

    def text(place: int) -> str:
        return f"{describe(read, int(plain[place]))} in {width[place]:.0f} x {height[place]:.0f}"

    report.count_rows("negative", np.flatnonzero(negative(read.boxes[plain])), text)
    usual = (w > 0) & (h > 0)
    unit = usual & (np.abs(read.boxes[plain] - 0.5) <= 0.6).all(axis=1) & (np.minimum(width, height) >= 8)
    count = int(usual.sum())
    if unit.any():
        first = f"{unit.sum()} of {count} boxes have all four numbers between 0 and 1"
        report.count_rows("shares", np.flatnonzero(unit), text, first)
        usual &= ~unit  # a few such boxes say nothing of the others
        count = int(usual.sum())
    right, bottom = x + w, y + h
    out = usual & ((right > LEAVES * width + 1) | (bottom > LEAVES * height + 1))
    leaving = int(out.sum())
    evident = leaving >= max(3, 0.01 * count)
    low = usual & (x >= -1) & (y >= -1)
    readings = {
        "corners": low & (w > x) & (h > y) & (w <= width + 1) & (h <= height + 1),
        "centres": usual
        & (np.minimum(x - w / 2, y - h / 2) >= -1)
        & (x + w / 2 <= width + 1)
        & (y + h / 2 <= height + 1),
    }
    for kind, fits in readings.items():
        whole = count >= 3 and fits[usual].mean() >= 0.99
        # A few sources in one file may differ; corners are telling enough to be seen in a part of the boxes.
        part = kind == "corners" and leaving >= FEW and fits[out].mean() >= 0.99
        if evident and fits[out].mean() >= 0.99 and (whole or part):
            beyond = int((usual & ((right > width + ROUNDING) | (bottom > height + ROUNDING))).sum())
            first = f"{beyond} of {count} boxes leave their image; {fits.sum()} fit into it when read so"
            report.count_rows(kind, np.flatnonzero(usual if whole else out), text, first)
            return
    for scale in SCALES:
        inside = count >= FEW and bool((low & (right <= scale + 1) & (bottom <= scale + 1))[usual].all())
        reaches = inside and min(right[usual].max(), bottom[usual].max()) > 0.8 * scale
        if reaches and (evident or min(width.min(), height.min()) >= 2 * scale):
            first = f"all {count} boxes lie between 0 and {scale}, whatever the size of their image"
            report.count_rows("shares", np.flatnonzero(usual), text, first)
            return


def _areas(read: Content, plain: Rows, report: DataReport) -> None:
    areas, (w, h) = read.areas[plain], read.boxes[plain, 2:].T
    box = w * h
    drawn = (w > 0) & (h > 0)
    # A mask is drawn in whole pixels, so that it may be a pixel larger than its box on each side.
    wrong = drawn & (box >= 1) & ((areas < 1) | (areas > 1.01 * (w + 1) * (h + 1)))
    first = ""
    if len(plain) >= FEW and np.ptp(areas) == 0 and drawn.any() and box[drawn].max() > 2 * box[drawn].min():
        wrong = drawn
        first = f"all {len(plain)} areas are {areas[0]:g}"

    def text(place: int) -> str:
        return f"{describe(read, int(plain[place]))}: area {areas[place]:g}"

    report.count_rows("areas", np.flatnonzero(wrong), text, first)


def _repeated(read: Content, plain: Rows, report: DataReport) -> None:
    """Boxes that another annotation of the image and class has, but for noise of floats."""
    box = np.rint(read.boxes[plain] * 1e4)
    keys = np.column_stack([read.image[plain], read.category[plain], box])
    order = np.lexsort(keys.T[::-1])  # stable: the first of equal ones is the first of the file
    again = (np.diff(keys[order], axis=0) == 0).all(axis=1)

    def text(place: int) -> str:
        first = read.ids[plain[order[place]]]
        return f"{describe(read, int(plain[order[place + 1]]))}: as annotation {first}"

    report.count_rows("repeated", np.flatnonzero(again), text)


def _many(read: Content, plain: Rows, labels: Mapping[int, str], report: DataReport) -> None:
    """Images with more objects than pycocotools looks at detections, and what that costs each class."""
    count = np.bincount(read.image[plain], minlength=len(read.files))
    full = np.flatnonzero(count > PER_CLASS)
    if not len(full):
        return
    ids, place = np.unique(read.category[plain], return_inverse=True)
    pairs, boxes = np.unique(read.image[plain] * len(ids) + place.reshape(-1), return_counts=True)
    missed = np.bincount(pairs % len(ids), np.maximum(boxes - PER_CLASS, 0), len(ids)).astype(int)
    lost = np.bincount(pairs // len(ids), np.maximum(boxes - PER_CLASS, 0), len(count)).astype(int)
    every = np.bincount(place.reshape(-1), minlength=len(ids))
    ceilings = [
        f"{labels[int(ids[k])]}: {every[k] - missed[k]} of {every[k]} boxes can be found, recall at most "
        f"{100 * (1 - missed[k] / every[k]):.1f} %"
        for k in np.argsort(-missed / every, kind="stable")
        if missed[k]
    ]
    first = (
        f"classes that cannot reach 100 %: {len(ceilings)}; {'; '.join(ceilings[:3])}"
        if ceilings
        else (f"no class has more than {PER_CLASS} boxes in an image, so that all can be found")
    )

    def text(image: int) -> str:
        name = f"image {read.image_ids[image]} ({read.files[image]})"
        return f"{name}: {count[image]} boxes, {lost[image]} of them beyond {PER_CLASS} of a class"

    report.count_rows("above_100", full, text, first)
