"""From a data configuration to images."""

from __future__ import annotations

import copy
import hashlib
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from yolor_core.config import CocoConfig, ShapesConfig
from yolor_core.data.annotations import clean
from yolor_core.data.coco import load_coco
from yolor_core.data.images import ImageSet, Pixels, Reader
from yolor_core.data.report import KINDS, Note
from yolor_core.data.shapes.dataset import annotate, annotation_bytes
from yolor_core.data.shapes.render import render

log = logging.getLogger(__name__)

Split = Literal["train", "val"]


def load_images(config: ShapesConfig | CocoConfig, split: Split) -> ImageSet:
    """The images of a split; what makes numbers wrong in its annotations is warned of.

    Raises DataError for a dataset that cannot be used as it is.
    """
    if split not in ("train", "val"):
        raise ValueError(f"split is {split!r}; allowed: train, val")
    if isinstance(config, ShapesConfig):
        return load_shapes(config, split)
    images = load_coco(Path(config.root), config.train if split == "train" else config.val, config.packs)
    for kind, (_, meaning, effect, _) in KINDS.items():
        if images.report.serious(kind):
            log.warning("%s: %d %s: %s", images.report.source, images.report.count(kind), meaning, effect)
    return images


@dataclass(frozen=True)
class ShapesReader(Reader):
    """Draws images on demand."""

    seed: int
    size: int
    split: Split

    def __call__(self, index: int) -> tuple[Pixels, list[Note]]:
        return render(self.seed, self.size, self.split, index), []


def load_shapes(config: ShapesConfig, split: Split) -> ImageSet:
    """A split of the synthetic dataset, equal to what `write_dataset` writes."""
    images = config.train_images if split == "train" else config.val_images
    content = annotate(config.seed, config.size, split, images)
    annotations, report = clean(content, f"shapes, seed {config.seed}, {split}")
    fingerprint = hashlib.sha256(annotation_bytes(content)).hexdigest()
    reader = ShapesReader(config.seed, config.size, split)
    return ImageSet(annotations, report, reader, partial(copy.deepcopy, content), fingerprint)
