"""Check a dataset before it is trained on: read every annotation and decode every image."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from yolor_core.config import CocoConfig, ShapesConfig
from yolor_core.data.annotations import check_same_classes
from yolor_core.data.coco import load_coco, read_annotations
from yolor_core.data.copies import Prints, find_copies, hash_library
from yolor_core.data.fingerprint import CACHE_ABOVE
from yolor_core.data.images import ImageSet
from yolor_core.data.layout import annotation_file, image_folder
from yolor_core.data.load import load_images
from yolor_core.data.report import KINDS, DataReport
from yolor_core.errors import DataError

SEPARATOR = re.compile(r"[\s,]*")


def check_dataset(config: ShapesConfig | CocoConfig) -> dict[str, DataReport]:
    """Reports of both splits, by split name. Raises DataError for what cannot be read at all."""
    if isinstance(config, CocoConfig):
        return check_splits(Path(config.root), list(dict.fromkeys((config.train, config.val))))
    return check_images({"train": load_images(config, "train"), "val": load_images(config, "val")})


def check_splits(root: Path, splits: Sequence[str]) -> dict[str, DataReport]:
    """Reports of splits of a COCO folder, by name. Raises DataError, too, when their classes differ."""
    return check_images(load_splits(root, splits))


def check_all_classes(images: Mapping[str, ImageSet]) -> None:
    """Raises DataError, naming what differs, when splits do not have classes of the same names."""
    first, *others = images.values()
    for each in others:
        check_same_classes(each.names, first.names, each.report.source, first.report.source)


def load_splits(root: Path, splits: Sequence[str], packs: str | Path | None = None) -> dict[str, ImageSet]:
    """Splits to be checked: from their image files, or from packs where there are no image files."""
    loaded = {}
    for split in splits:
        try:
            image_folder(root, split)
        except DataError:
            loaded[split] = load_coco(root, split, packs)
        else:
            loaded[split] = load_coco(root, split, use_packs=False)
    return loaded


def check_images(splits: Mapping[str, ImageSet], near: bool = False) -> dict[str, DataReport]:
    """Look at every image of splits of one dataset and compare the splits; the reports then have all counts.

    `near` looks for pictures that are alike, too: see `copies`. Raises DataError when classes differ, and
    ConfigError where `near` needs a package that is missing.
    """
    check_all_classes(splits)
    library = hash_library() if near else None
    prints = {split: Prints(images) for split, images in splits.items()}
    for each in prints.values():
        for index in range(len(each.images)):
            each.add(each.images.inspect(index), library)
    find_copies(prints)
    _compare_classes(splits)
    return {split: images.report for split, images in splits.items()}


def _compare_classes(splits: Mapping[str, ImageSet]) -> None:
    """Add to the reports classes that not all splits have boxes of, where these have any."""
    counts = {
        split: dict(zip(s.names, s.boxes_per_class().tolist(), strict=True)) for split, s in splits.items()
    }
    names = next(iter(splits.values())).names
    unused = [name for name in names if not any(count[name] for count in counts.values())]
    having = {split: count for split, count in counts.items() if any(count.values())}
    for split, images in splits.items():
        if having:
            rows = np.array([k for k, name in enumerate(images.names) if name in unused], np.int64)
            images.report.count_rows("unused", rows, partial(_class, images))
        lacking = {
            k: [other for other, count in having.items() if not count[name]]
            for k, name in enumerate(images.names)
            if counts[split][name]
        }

        def text(row: int, images: ImageSet = images, lacking: dict[int, list[str]] = lacking) -> str:
            boxes = images.boxes_per_class()[row]
            return f"{_class(images, row)}: {boxes} boxes here, none in {', '.join(lacking[row])}"

        rows = np.array([k for k, without in lacking.items() if without], np.int64)
        images.report.count_rows("one_split", rows, text)


def _class(images: ImageSet, row: int) -> str:
    return f"{images.names[row]!r} (id {images.category_ids[row]})"


def check_boxes(reports: Mapping[str, DataReport]) -> None:
    """Raises DataError, naming the split and its file, when a split has no box to train on or to find.

    `reports` are by split: "train", and others that a model is scored on.
    """
    for split, report in reports.items():
        if report.without_boxes is not None:
            use = "train on" if split == "train" else "score"
            raise DataError(f"{split} has nothing to {use}: {report.without_boxes}")


def check_before_training(config: CocoConfig) -> None:
    """`check_boxes` of the annotation files alone; a large one is read up to its first box.

    Raises DataError, too, for a file that cannot be read.
    """
    for use, split in (("train", config.train), ("val", config.val)):
        path = annotation_file(Path(config.root), split)
        if path.stat().st_size <= CACHE_ABOVE or not _box_at_once(path):
            check_boxes({use: read_annotations(Path(config.root), split)[2]})


def _box_at_once(path: Path, most: int = 2**20) -> bool:
    """Whether there is a box among the first `most` bytes of annotations; False where that is not seen."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = re.search(rb'"annotations"\s*:\s*\[\s*', content)
        text = content[start.end() : start.end() + most].decode("utf-8", "replace") if start else ""
    decoder, place = json.JSONDecoder(), 0
    try:
        while text:
            record, place = decoder.raw_decode(text, place)
            if _counts(record):
                return True
            place = SEPARATOR.match(text, place).end()  # type: ignore[union-attr]
    except (ValueError, RecursionError):
        pass  # cut there, or no list of objects: it is read as a whole
    return False


def _counts(record: Any) -> bool:
    """Whether an annotation has an area on the right side of its image's corner, and is no crowd."""
    box = record.get("bbox") if isinstance(record, dict) else None
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, int | float) for v in box):
        return False
    return record.get("iscrowd") == 0 and min(box[2:]) > 0 and min(box[0] + box[2], box[1] + box[3]) > 0


def sound(report: DataReport) -> bool:
    """Whether there are boxes and nothing serious was found: see `report.KINDS`."""
    return report.without_boxes is None and not any(report.serious(kind) for kind in KINDS)
