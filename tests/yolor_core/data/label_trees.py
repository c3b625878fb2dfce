"""Small folders of Pascal VOC and of YOLO written for a test."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

SIZE = (64, 48)


def write_tree(root: Path, files: Mapping[str, str | bytes | tuple[int, int]]) -> Path:
    """Write files by path below `root`: texts, bytes, or pictures of a width and height."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            Image.new("L", content, zlib.crc32(name.encode()) % 256).save(path)
    return root


def voc(*objects: str, filename: str = "", size: tuple[Any, Any] | None = SIZE) -> str:
    """The XML file of a picture with objects of `voc_object`."""
    said = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation><filename>{filename}</filename>{said}{''.join(objects)}</annotation>"


def voc_object(name: str, x1: object, y1: object, x2: object, y2: object, more: str = "") -> str:
    """An object with its corners as they are written; xmax first, as the order of elements is free."""
    box = f"<bndbox><xmax>{x2}</xmax><ymax>{y2}</ymax><xmin>{x1}</xmin><ymin>{y1}</ymin></bndbox>"
    return f"<object><name>{name}</name>{more}{box}</object>"
