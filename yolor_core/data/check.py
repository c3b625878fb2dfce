"""Check a dataset before it is trained on: read every annotation and decode every image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from yolor_core.config import CocoConfig, ShapesConfig
from yolor_core.data.annotations import check_same_classes
from yolor_core.data.coco import load_coco
from yolor_core.data.images import ImageSet
from yolor_core.data.layout import image_folder
from yolor_core.data.load import load_images
from yolor_core.data.report import KINDS, DataReport
from yolor_core.errors import DataError


def check_dataset(config: ShapesConfig | CocoConfig) -> dict[str, DataReport]:
    """Reports of both splits, by split name. Raises DataError for what cannot be read at all."""
    if isinstance(config, CocoConfig):
        return check_splits(Path(config.root), list(dict.fromkeys((config.train, config.val))))
    return {
        "train": check_images(load_images(config, "train")),
        "val": check_images(load_images(config, "val")),
    }


def check_splits(root: Path, splits: Sequence[str]) -> dict[str, DataReport]:
    """Reports of splits of a COCO folder, by name. Raises DataError, too, when their categories differ."""
    images = load_splits(root, splits)
    check_all_classes(images)
    return {split: check_images(each) for split, each in images.items()}


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


def check_images(images: ImageSet) -> DataReport:
    """Look at every image; the report then has all counts."""
    for index in range(len(images)):
        images.inspect(index)
    return images.report


def sound(report: DataReport) -> bool:
    """Whether there are boxes and nothing serious was found: see `report.KINDS`."""
    return report.without_boxes is None and not any(report.serious(kind) for kind in KINDS)
