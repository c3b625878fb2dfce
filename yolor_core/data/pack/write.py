"""Plan, write and verify packs."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import PIL

from yolor_core.data.coco import FileReader, file_reader, read_annotations
from yolor_core.data.decode import Findings, decode_bytes, unreadable
from yolor_core.data.images import ImageSet, Purpose, fitted, resize
from yolor_core.data.layout import image_folder
from yolor_core.data.pack.format import (
    ALIGNMENT,
    HEADER,
    INDEX,
    Description,
    Header,
    file_name,
    write_description,
    write_header,
)
from yolor_core.data.pack.reader import MOST_NAMED, open_pack, pack_files, renewal, require_unchanged
from yolor_core.data.pictures import recent, states
from yolor_core.errors import DataError
from yolor_core.runs.directory import umask

Progress = Callable[[int], object]
"""Told how many images were written since it was last called."""

SLACK = 4096  # bytes for the description; notes of odd images come on top, some hundred bytes each


def estimate(reader: FileReader, size: int | None) -> int:
    """Bytes that a pack will have: of the original files, or of pixels at `size`."""
    total = HEADER.size + SLACK + len(reader.files) * INDEX.itemsize
    if size is None:
        lengths = [_length(reader.path(i)) for i in range(len(reader.files))]
    else:
        lengths = [3 * w * h for w, h in (stored(w, h, size) for w, h in reader.sizes.tolist())]
    return total + sum(_aligned(length) for length in lengths)


def stored(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height that an image is stored with: resized to `size`, but never enlarged."""
    return fitted(width, height, size) if max(width, height) > size else (width, height)


def whole(reader: FileReader, size: int | None) -> bool:
    """Whether no image is made smaller."""
    return size is None or bool((reader.sizes <= size).all())


def check_space(folder: Path, needed: int) -> None:
    """Raises DataError, naming both numbers, when a folder's disk has less space than needed."""
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise no_space(folder, needed, free)


def no_space(folder: Path, needed: int, free: int) -> DataError:
    """The error for a full disk."""
    return DataError(
        f"{folder}: {needed} bytes ({gigabytes(needed)}) are needed and {free} ({gigabytes(free)}) are free; "
        "choose another place with --out, a smaller --decoded size, or pack the original files"
    )


def gigabytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


def write_pack(target: Path, reader: FileReader, about: Description, progress: Progress) -> Description:
    """Write a pack in place of `target`, which is replaced in one step when all is done; returns what it
    holds.

    A failure leaves nothing behind; what a killed process left is removed by the next call. Raises DataError
    when the folder cannot be written to or its disk is too small.
    """
    needed = estimate(reader, about.size)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        check_space(target.parent, needed)
        # Not by `write_atomically`: the lock has to last until the file is in place.
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # tells others that this one is not left over
                about = _write(file, reader, about, progress)
                file.flush()
                os.fsync(file.fileno())
                os.chmod(name, 0o444 & ~umask())
                os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(target.parent, needed, shutil.disk_usage(target.parent).free) from None
        raise DataError(
            f"{target} cannot be written: {error.strerror or error}; choose another place with --out"
        ) from None
    return about


def _write(file: BinaryIO, reader: FileReader, about: Description, progress: Progress) -> Description:
    index = np.zeros(len(reader.files), INDEX)
    found = states(reader.folder, reader.files)
    found[recent(found), 2] = 0  # their state may not show the next change
    notes: list[tuple[int, str, str]] = []
    file.write(bytes(HEADER.size))
    for position, (width, height) in enumerate(reader.sizes.tolist()):
        try:
            content: bytes | OSError = reader.path(position).read_bytes()
        except OSError as error:
            content = error
        data, width, height, findings = _record(content, width, height, about)
        offset = _aligned(file.tell())
        file.write(bytes(offset - file.tell()))
        file.write(data)
        digest = bytes(32) if isinstance(content, OSError) else hashlib.sha256(content).digest()
        index[position] = (
            *(offset, len(data), height, width, zlib.crc32(data), 0),
            *(found[position], np.frombuffer(digest, np.uint8)),
        )
        notes.extend((position, kind, detail) for kind, detail in findings)
        progress(1)
    software = f"Pillow {PIL.__version__}, OpenCV {cv2.__version__}"
    about = replace(about, whole=whole(reader, about.size), notes=tuple(notes), software=software)
    description, table = write_description(about), index.tobytes()
    header = Header(
        file.tell(),
        len(description),
        zlib.crc32(description),
        zlib.crc32(table),
        len(index),
        file.tell() + len(description) + len(table),
    )
    file.write(description)
    file.write(table)
    file.seek(0)
    file.write(write_header(header))
    return about


def _record(
    data: bytes | OSError, width: int, height: int, about: Description
) -> tuple[bytes | memoryview, int, int, Findings]:
    """What is stored for a file's bytes, and width, height and findings; nothing where it is unreadable."""
    if isinstance(data, OSError):
        return b"", width, height, unreadable(data, width, height)[1]
    if about.kind == "original":
        # An empty file is unreadable like a missing one; anything else says for itself what it is.
        return data, width, height, [] if data else decode_bytes(data, width, height)[1]
    assert about.size is not None
    assert about.purpose is not None
    pixels, findings = decode_bytes(data, width, height)
    if any(kind == "unreadable" for kind, _ in findings):
        return b"", width, height, findings
    if max(width, height) > about.size:
        pixels = resize(pixels, about.size, about.purpose)
    height, width = pixels.shape[:2]
    return np.ascontiguousarray(pixels).reshape(-1).data, width, height, findings


def _remove_leftovers(target: Path) -> None:
    """Temporary files of writers that were killed: nobody holds a lock on them any more."""
    for path in target.parent.glob(f".{target.name}.*.tmp"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # it will be noted as unreadable


SMALLEST = 32  # pixels, as for training


@dataclass(frozen=True)
class Plan:
    """A pack to write: from which files, where to, and its estimated size in bytes."""

    target: Path
    reader: FileReader
    about: Description
    bytes: int


def plan_pack(root: Path, split: str, size: int | None, purpose: Purpose | None, folder: Path) -> Plan:
    """The pack of a split of the COCO folder `root`: of original files, or decoded at `size` pixels.

    Raises DataError when the annotations cannot be used, image files are missing, or the size is too small.
    """
    if size is not None and size < SMALLEST:
        raise DataError(f"--decoded is {size}; at least {SMALLEST} pixels are needed")
    if size is None and purpose is not None:
        raise DataError(f"--purpose {purpose} is for decoded packs; add --decoded SIZE or leave it out")
    _, annotations, _, fingerprint = read_annotations(root, split)
    reader = file_reader(root, split, annotations)
    # By its name a split is tested on or trained on.
    use = purpose or ("test" if split.startswith(("val", "test")) else "train")
    about = Description(
        kind="original" if size is None else "decoded",
        split=split,
        annotations=fingerprint,
        folder=str(reader.folder.relative_to(root)),
        size=size,
        purpose=None if size is None else use,
        whole=whole(reader, size),
    )
    return Plan(folder / file_name(split, size, use), reader, about, estimate(reader, size))


def is_right(plan: Plan) -> bool:
    """Whether the pack is there already. Raises DataError when something else has its place, or one of files
    that have changed."""
    if not plan.target.exists():
        return False
    try:
        files = plan.reader.files
        pack = open_pack(plan.target, plan.about.annotations, len(files))
        require_unchanged(pack, plan.reader.folder, files, states(plan.reader.folder, files))
    except DataError as error:
        raise DataError(f"{error}; --force writes it anew") from None
    return True


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
