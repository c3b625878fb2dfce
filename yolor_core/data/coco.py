"""A folder in COCO's layout: where its files are and how they are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolor_core.data.annotations import Annotations, clean
from yolor_core.data.decode import decode
from yolor_core.data.images import ImageSet, Pixels, Reader
from yolor_core.data.layout import annotation_file, image_folder
from yolor_core.data.records import parse, read_bytes
from yolor_core.data.report import DataReport, Note
from yolor_core.errors import DataError


@dataclass(frozen=True)
class FileReader(Reader):
    """Reads images from files; see `decode` for what happens to unusual ones. sizes: int64 (n, 2)."""

    folder: Path
    files: Sequence[str]
    ids: Sequence[int]
    sizes: NDArray[np.int64]

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.folder / self.files[index]

    def __call__(self, index: int) -> tuple[Pixels, list[Note]]:
        width, height = self.sizes[index].tolist()
        return decode(self.path(index), self.ids[index], width, height)


def load_coco(root: Path, split: str, packs: str | Path | None = None, use_packs: bool = True) -> ImageSet:
    """Read, check and clean one split; its packs are used where there are any (see `data.pack`).

    `packs` is the folder of packs, `<root>/packed` by default. Without a usable pack every image file has to
    be there. Raises DataError (see `annotations.clean`), also for missing images.
    """
    # Imported here: what reads packs builds on this module.
    from yolor_core.data.pack.reader import PackedReader, pack_folder, survey

    path, annotations, report, fingerprint = read_annotations(root, split)
    files, ids, sizes = annotations.files, annotations.ids, annotations.sizes
    report.add(_outside(root, split, annotations))
    usable = survey(root, split, pack_folder(root, packs), fingerprint, files).packs if use_packs else ()
    reader: Reader
    if not usable:
        reader = file_reader(root, split, annotations)
    elif any(pack.serves(None, "train") for pack in usable):
        reader = PackedReader(root, split, usable, None, files, ids, sizes)  # files are not read
    else:
        try:
            rest: Reader | None = file_reader(root, split, annotations)
        except DataError:
            rest = None  # the packs may be all that a node has
        reader = PackedReader(root, split, usable, rest, files, ids, sizes)
    # Read again when it is wanted: a train split's content would fill gigabytes if it were kept.
    return ImageSet(annotations, report, reader, partial(_read_again, path, fingerprint), fingerprint)


def read_annotations(root: Path, split: str) -> tuple[Path, Annotations, DataReport, str]:
    """The annotation file of a split, its cleaned content, what was found, and the SHA-256 of its bytes."""
    path = annotation_file(root, split)
    data = path.read_bytes()
    annotations, report = clean(parse(data, path), str(path))
    return path, annotations, report, hashlib.sha256(data).hexdigest()


def _read_again(path: Path, fingerprint: str) -> Any:
    """Content of an annotation file. Raises DataError where it is no longer what it was."""
    data = read_bytes(path)
    if hashlib.sha256(data).hexdigest() != fingerprint:
        raise DataError(
            f"{path}: it has changed since it was read, and nothing is scored on other boxes than were read; "
            "put the file back and start again (a training goes on from its checkpoint), or train anew"
        )
    return parse(data, path)


def file_reader(root: Path, split: str, annotations: Annotations) -> FileReader:
    """Reads the image files of a split. Raises DataError when some are missing."""
    folder = files_of(root, split, annotations.files)
    return FileReader(folder, annotations.files, annotations.ids, annotations.sizes)


def files_of(root: Path, split: str, files: Sequence[str]) -> Path:
    """The image folder of a split. Raises DataError when some of its files are missing."""
    folder = image_folder(root, split)
    missing = _missing(folder, files)
    if missing:
        more = ", ..." if len(missing) > 5 else ""
        raise DataError(
            f"{annotation_file(root, split)}: {len(missing)} of {len(files)} images are missing "
            f"in {folder}: {', '.join(missing[:5])}{more}"
        )
    return folder


def _outside(root: Path, split: str, annotations: Annotations) -> Iterator[Note]:
    """Images whose file names lead out of the dataset's folder."""
    top = os.path.realpath(root)
    folder = root / split if (root / split).is_dir() else root / "images" / split
    for identifier, name in zip(annotations.ids, annotations.files, strict=True):
        if not (os.path.isabs(name) or ".." in name):
            continue
        place = os.path.realpath(os.path.dirname(os.path.join(folder, name)))
        if os.path.commonpath((top, place)) != top:
            yield Note("outside", identifier, f"image {identifier} ({name}): in {place}")


def _missing(folder: Path, files: Sequence[str]) -> list[str]:
    present = set(os.listdir(folder))  # one call instead of one per image; file systems of clusters are slow
    return [name for name in files if name not in present and not os.path.isfile(folder / name)]
