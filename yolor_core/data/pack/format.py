"""The layout of a pack.

    bytes 0-63   header: magic, format version, its own checksum, place and checksum of the description,
                 checksum of the index, number of records, size of the file
    then         records, one per image in the order of the annotation file, each at a multiple of 64 bytes
    then         description: JSON, see `Description`
    last         index: one INDEX entry per record, with the state and the SHA-256 of the file that it was
                 made of (see `pictures.States` and `pictures.Digests`)

All numbers are little-endian, all checksums CRC-32. The header is written last.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from yolor_core.data.images import Purpose
from yolor_core.errors import DataError

MAGIC = b"ABLTPACK"
VERSION = 2
ALIGNMENT = 64
HEADER = struct.Struct("<8sIIQQIIQQ8x")
INDEX = np.dtype([
    ("offset", "<u8"), ("length", "<u8"),
    ("height", "<u4"), ("width", "<u4"), ("crc", "<u4"), ("spare", "<u4"),
    ("state", "<i8", (3,)), ("sha256", "u1", (32,)),
])  # fmt: skip
SUFFIX = ".pack"

Kind = Literal["original", "decoded"]


@dataclass(frozen=True)
class Description:
    """What a pack holds.

    kind: `original`: the bytes of the files; `decoded`: RGB pixels, images larger than `size` resized to it
    as `purpose` does it, smaller ones as they are. annotations: SHA-256 of the annotation file it belongs to.
    folder: image folder relative to the root, which notes name. whole: no image was made smaller. notes:
    (position, kind, detail) of what had to be done to images while they were packed; a record of no length
    stands for an image that is unreadable.
    """

    kind: Kind
    split: str
    annotations: str
    folder: str
    size: int | None = None
    purpose: Purpose | None = None
    whole: bool = True
    notes: tuple[tuple[int, str, str], ...] = ()
    software: str = ""

    def title(self) -> str:
        """In words, as in `decoded, at most 640 pixels, for training`."""
        if self.kind == "original":
            return "original files"
        if self.whole:
            return "decoded, none of them resized"
        return f"decoded, at most {self.size} pixels, for {self.purpose}ing"


@dataclass(frozen=True)
class Header:
    """The fixed part of a pack; the fields have the order of HEADER."""

    description_offset: int
    description_length: int
    description_crc: int
    index_crc: int
    records: int
    file_size: int


def file_name(split: str, size: int | None, purpose: Purpose) -> str:
    """Name of a split's pack: original files without a size, else decoded."""
    return f"{split}.{'original' if size is None else f'{purpose}{size}'}{SUFFIX}"


def write_header(header: Header) -> bytes:
    """The first 64 bytes."""
    values = tuple(asdict(header).values())
    return HEADER.pack(MAGIC, VERSION, zlib.crc32(HEADER.pack(MAGIC, VERSION, 0, *values)), *values)


def read_header(data: bytes) -> Header:
    """The opposite of `write_header`. Raises DataError, saying why, for anything else."""
    if len(data) < HEADER.size:
        raise DataError(f"it has {len(data)} bytes, less than a header")
    magic, version, crc, *values = HEADER.unpack(data[: HEADER.size])
    if magic != MAGIC:
        raise DataError("it is not a pack")
    if version != VERSION:
        less = ", which does not tell the files that it was made of" if version == 1 else ""
        raise DataError(f"it has format {version}{less}; this version reads {VERSION}")
    if zlib.crc32(HEADER.pack(MAGIC, VERSION, 0, *values)) != crc:
        raise DataError("its header is damaged")
    return Header(*values)


def write_description(description: Description) -> bytes:
    """As JSON."""
    return json.dumps(asdict(description), ensure_ascii=True).encode()


def read_description(data: bytes) -> Description:
    """The opposite of `write_description`."""
    content = json.loads(data)
    content["notes"] = tuple((int(p), str(k), str(d)) for p, k, d in content["notes"])
    return Description(**content)
