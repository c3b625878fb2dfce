"""Checking whole packs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from yolor_core.data.images import ImageSet
from yolor_core.data.layout import image_folder
from yolor_core.data.pack.reader import MOST_NAMED, open_pack, pack_files, renewal, require_unchanged
from yolor_core.data.pictures import states
from yolor_core.errors import DataError


@dataclass(frozen=True)
class PackReport:
    """A pack, in words, and what is wrong with it; None where it is sound."""

    path: Path
    title: str
    problem: str | None


def verify_packs(root: Path, split: str, folder: Path, images: ImageSet) -> list[PackReport]:
    """Every pack of a split: header, description, index, annotations, the files that it was made of where
    they are there, and each record's checksum."""
    try:
        files: Path | None = image_folder(root, split)
    except DataError:
        files = None
    return [_verify(path, root, split, files, images) for path in pack_files(folder, split)]


def _verify(path: Path, root: Path, split: str, files: Path | None, images: ImageSet) -> PackReport:
    title = "pack"
    try:
        pack = open_pack(path, images.fingerprint, len(images))
        title = pack.description.title()
        if files is not None:
            require_unchanged(pack, files, images.files, states(files, images.files), remember=False)
    except DataError as error:
        return PackReport(path, title, f"{error}; {renewal(path, root, split)}")
    bad = [images.ids[position] for position in range(len(pack)) if pack.damaged(position)]
    if not bad:
        return PackReport(path, title, None)
    more = ", ..." if len(bad) > MOST_NAMED else ""
    listed = ", ".join(str(i) for i in bad[:MOST_NAMED])
    return PackReport(path, title, f"{path}: {len(bad)} of {len(pack)} images are damaged: {listed}{more}")
