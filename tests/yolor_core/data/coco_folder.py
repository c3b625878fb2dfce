"""Small COCO folders written for a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from yolor_core.config import CocoConfig

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]


def annotation(identifier: int, image: int, box: list[Any], category: int = 3, **more: Any) -> dict[str, Any]:
    """One annotation with the keys that COCO's have."""
    record = {"id": identifier, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0}
    return {**record, "area": 100.0, **more}


def picture(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """A smooth RGB picture, which survives JPEG well."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


Edit = Callable[[dict[str, Any]], object]


class Folder:
    """Writes images and annotations of the splits `train` and `val`, which are the same."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = CocoConfig(root=str(root), train="train", val="val")
        categories = [dict(category) for category in CATEGORIES]
        self.content: dict[str, Any] = {"categories": categories, "images": [], "annotations": []}
        for split in ("train", "val"):
            (root / "images" / split).mkdir(parents=True)
        (root / "annotations").mkdir()

    def add(self, image: Image.Image | bytes | None, name: str, size: tuple[int, int], **save: Any) -> int:
        """Write an image (None: leave the file out) and list it with a width and height; returns its id."""
        for split in ("train", "val"):
            path = self.root / "images" / split / name
            if isinstance(image, bytes):
                path.write_bytes(image)
            elif image is not None:
                image.save(path, **save)
        identifier = 11 * (len(self.content["images"]) + 1)
        width, height = size
        record = {"id": identifier, "file_name": name, "width": width, "height": height}
        self.content["images"].append(record)
        return identifier

    def path(self, split: str = "train") -> Path:
        """The annotation file."""
        return self.root / "annotations" / f"instances_{split}.json"

    def write(self, text: str | None = None) -> CocoConfig:
        """Write the annotation files: the content, or any text."""
        for split in ("train", "val"):
            self.path(split).write_text(json.dumps(self.content) if text is None else text)
        return self.config
