"""From a data configuration to images, and whether they have boxes to train on."""

from __future__ import annotations

import json
import logging
import mmap
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolor_core.config import CocoConfig, ShapesConfig
from yolor_core.data.fingerprint import CACHE_ABOVE
from yolor_core.data.images import ImageSet, Split
from yolor_core.data.layout import annotation_file
from yolor_core.data.report import KINDS, DataReport
from yolor_core.errors import DataError

log = logging.getLogger(__name__)

SEPARATOR = re.compile(r"[\s,]*")  # between two records of a JSON list


def load_images(config: ShapesConfig | CocoConfig, split: Split) -> ImageSet:
    """The images of a split; what makes numbers wrong in its annotations is warned of.

    Raises DataError for a dataset that cannot be used as it is.
    """
    if split not in ("train", "val"):
        raise ValueError(f"split is {split!r}; allowed: train, val")
    if isinstance(config, ShapesConfig):
        from yolor_core.data.shapes.dataset import load_shapes  # each kind of data brings its own code

        return load_shapes(config, split)
    from yolor_core.data.coco import load_coco

    images = load_coco(Path(config.root), config.train if split == "train" else config.val, config.packs)
    for kind, (_, meaning, effect, _) in KINDS.items():
        if images.report.serious(kind):
            log.warning("%s: %d %s: %s", images.report.source, images.report.count(kind), meaning, effect)
    return images


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
    from yolor_core.data.coco import read_annotations

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
            place = SEPARATOR.match(text, place).end()  # type: ignore[union-attr]  # nothing matches, too
    except (ValueError, RecursionError):
        pass  # cut there, or no list of objects: it is read as a whole
    return False


def _counts(record: Any) -> bool:
    """Whether an annotation has an area on the right side of its image's corner, and is no crowd."""
    box = record.get("bbox") if isinstance(record, dict) else None
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, int | float) for v in box):
        return False
    return record.get("iscrowd") == 0 and min(box[2:]) > 0 and min(box[0] + box[2], box[1] + box[3]) > 0
