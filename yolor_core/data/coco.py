"""A folder in COCO's layout: where its files are and how they are read."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolor_core.data.annotations import clean
from yolor_core.data.decode import Pixels, decode
from yolor_core.data.images import ImageSet
from yolor_core.data.layout import annotation_file, image_folder
from yolor_core.data.report import Note
from yolor_core.errors import DataError


def parse(data: bytes, path: Path) -> Any:
    """JSON content of a file. Raises DataError naming the file and the place of the mistake."""
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from None


@dataclass(frozen=True)
class FileReader:
    """Reads images from files; see `decode` for what happens to unusual ones."""

    folder: Path
    files: tuple[str, ...]
    ids: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]

    def __call__(self, index: int) -> tuple[Pixels, list[Note]]:
        width, height = self.sizes[index]
        return decode(self.folder / self.files[index], self.ids[index], width, height)


@dataclass(frozen=True)
class AnnotationFile:
    """Reads the content again when it is wanted: a train split's would fill gigabytes if it were kept."""

    path: Path

    def __call__(self) -> dict[str, Any]:
        content: dict[str, Any] = parse(self.path.read_bytes(), self.path)
        return content


def load_coco(root: Path, split: str) -> ImageSet:
    """Read, check and clean one split. Raises DataError (see `annotations.clean`), also for missing
    images."""
    path = annotation_file(root, split)
    data = path.read_bytes()
    annotations, report = clean(parse(data, path), str(path))
    folder = image_folder(root, split)
    missing = _missing(folder, annotations.files)
    if missing:
        more = ", ..." if len(missing) > 5 else ""
        raise DataError(
            f"{path}: {len(missing)} of {len(annotations.files)} images are missing in {folder}: "
            f"{', '.join(missing[:5])}{more}"
        )
    sizes = tuple((int(w), int(h)) for w, h in annotations.sizes)
    reader = FileReader(folder, annotations.files, annotations.ids, sizes)
    return ImageSet(annotations, report, reader, AnnotationFile(path), hashlib.sha256(data).hexdigest())


def _missing(folder: Path, files: tuple[str, ...]) -> list[str]:
    present = set(os.listdir(folder))  # one call instead of one per image; file systems of clusters are slow
    return [name for name in files if name not in present and not (folder / name).is_file()]
