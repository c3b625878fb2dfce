"""What is odd about an annotation file although it can be read: kinds of `report.KINDS`, with their number.

A kind whose evidence is the whole file (corners, shares of the picture) is told only where the file as a
whole shows it; the rules are stated in docs/data-check.md.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolor_core.data.records import Content
from yolor_core.data.report import DataReport

ROUNDING = 0.05  # pixels; COCO's two decimals put boxes this little outside, which is not worth a report
PER_CLASS = 100  # detections of a class in an image that pycocotools looks at
FEW = 10  # boxes; a file of fewer is no evidence of a habit
LEAVES = 1.05  # of a side: no rounding puts a box this far out
SCALES = (100, 1000)  # coordinates that some tools write whatever the size of the picture
FLAGS = ("ignore", "difficult")
UNSET = (None, 0, "", "0")

Rows = NDArray[np.int64]


def find(
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
