"""Write the synthetic dataset out as an ordinary COCO folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from yolor_core.config import ShapesConfig
from yolor_core.errors import DataError


def annotation_bytes(content: dict[str, Any]) -> bytes:
    """The bytes of an annotation file, the same drawn on demand and read from disk."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def write_dataset(config: ShapesConfig, folder: Path) -> None:
    """Write `train/`, `val/` (PNG, lossless) and `annotations/instances_{train,val}.json`.

    The annotation files are written last, so that an interrupted call leaves nothing that looks complete; a
    second call finishes it. Raises DataError when the folder holds another dataset.
    """
    from PIL import Image

    from yolor_core.data.shapes.annotations import annotate
    from yolor_core.data.shapes.render import render

    contents = {}
    for split, images in (("train", config.train_images), ("val", config.val_images)):
        contents[split] = annotate(config.seed, config.size, split, images)
        target = folder / "annotations" / f"instances_{split}.json"
        if target.exists() and target.read_bytes() != annotation_bytes(contents[split]):
            raise DataError(f"{target} belongs to another dataset; choose an empty folder")
    for split, content in contents.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        for index, record in enumerate(content["images"]):
            pixels = render(config.seed, config.size, split, index)
            target = folder / split / record["file_name"]
            partial = target.with_suffix(".partial")
            Image.fromarray(pixels).save(partial, format="PNG", compress_level=1)
            os.replace(partial, target)
    (folder / "annotations").mkdir(exist_ok=True)
    for split, content in contents.items():
        target = folder / "annotations" / f"instances_{split}.json"
        partial = target.with_suffix(".partial")
        partial.write_bytes(annotation_bytes(content))
        os.replace(partial, target)
