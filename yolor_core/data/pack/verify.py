"""Checking whole packs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from yolor_core.data.images import ImageSet
from yolor_core.data.pack.reader import open_pack, pack_files
from yolor_core.errors import DataError

MOST_NAMED = 5


@dataclass(frozen=True)
class PackReport:
    """A pack, in words, and what is wrong with it; None where it is sound."""

    path: Path
    title: str
    problem: str | None


def verify_packs(folder: Path, split: str, images: ImageSet) -> list[PackReport]:
    """Every pack of a split: header, description, index, annotations, and each record's checksum."""
    return [_verify(path, images) for path in pack_files(folder, split)]


def _verify(path: Path, images: ImageSet) -> PackReport:
    try:
        pack = open_pack(path, images.fingerprint, len(images))
    except DataError as error:
        return PackReport(path, "pack", str(error))
    title = pack.description.title()
    bad = [images.ids[position] for position in range(len(pack)) if pack.damaged(position)]
    if not bad:
        return PackReport(path, title, None)
    more = ", ..." if len(bad) > MOST_NAMED else ""
    listed = ", ".join(str(i) for i in bad[:MOST_NAMED])
    return PackReport(path, title, f"{path}: {len(bad)} of {len(pack)} images are damaged: {listed}{more}")
