"""Reading a pack: mapped into memory, checked, shared by all processes of a node."""

from __future__ import annotations

import mmap
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolor_core.data.decode import Findings, decode_bytes, grey
from yolor_core.data.images import Pixels, Purpose
from yolor_core.data.marks import Marks
from yolor_core.data.pack.format import HEADER, INDEX, Description, read_description, read_header
from yolor_core.data.pictures import Digests, States
from yolor_core.errors import DataError


class DamagedRecord(Exception):
    """The bytes of a record do not have its checksum; to be caught by who knows the image's name."""


class Pack:
    """An open pack. Picklable: another process maps the file anew when it first reads.

    Header, description and index are verified on opening, records on reading: original files each time
    (decoding takes a hundred times longer), pixels once by whichever process of a loader comes first.
    """

    def __init__(self, path: Path) -> None:
        """Raises DataError, naming the file and what is wrong, unless this is an undamaged pack."""
        self.path = path
        try:
            self._open()
        except OSError as error:
            raise DataError(f"{path}: it cannot be read: {error.strerror or error}") from None
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    def __len__(self) -> int:
        return len(self.index)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def _open(self) -> None:
        with self.path.open("rb") as file:
            header = read_header(file.read(HEADER.size))
            size = file.seek(0, 2)
            if size != header.file_size:
                raise DataError(f"it has {size} bytes instead of {header.file_size}")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes = memoryview(self._map)
        begin, end = header.description_offset, header.description_offset + header.description_length
        if zlib.crc32(self._bytes[begin:end]) != header.description_crc:
            raise DataError("its description is damaged")
        self.description: Description = read_description(bytes(self._bytes[begin:end]))
        index = self._bytes[header.index_offset :]
        if zlib.crc32(index) != header.index_crc:
            raise DataError("its index is damaged")
        self.index: NDArray[np.void] = np.frombuffer(index, INDEX)
        self.states: States = np.ascontiguousarray(self.index["state"])
        self.digests: Digests = np.ascontiguousarray(self.index["sha256"])
        self._verified = Marks(header.records)
        self._notes: dict[int, Findings] = {}
        for position, kind, detail in self.description.notes:
            self._notes.setdefault(position, []).append((kind, detail))

    def serves(self, size: int | None, purpose: Purpose) -> bool:
        """Whether every image can be had with the long side `size` for a purpose (None: unresized).

        Images that were not made smaller serve every request.
        """
        about = self.description
        return about.kind == "original" or about.whole or (about.size, about.purpose) == (size, purpose)

    def original(self, position: int, width: int, height: int) -> tuple[Pixels, Findings]:
        """Image of a pack of original files, decoded to its annotated size. Raises DamagedRecord."""
        record = self.index[position]
        if not int(record["length"]):
            return grey(width, height), self._notes[position]
        if self.damaged(position):
            raise DamagedRecord
        return decode_bytes(bytes(self._data(position)), width, height)

    def pixels(self, position: int) -> tuple[Pixels, Findings]:
        """Image of a decoded pack as stored, uint8 RGB (height, width, 3), a view that cannot be written to.

        Raises DamagedRecord.
        """
        record = self.index[position]
        width, height = int(record["width"]), int(record["height"])
        found = self._notes.get(position, [])
        if not int(record["length"]):
            return grey(width, height), found
        if position not in self._verified:
            if self.damaged(position):
                raise DamagedRecord
            self._verified.add(position)
        return np.frombuffer(self._data(position), np.uint8).reshape(height, width, 3), found

    def damaged(self, position: int) -> bool:
        """Whether a record does not have its checksum."""
        return zlib.crc32(self._data(position)) != int(self.index[position]["crc"])

    def _data(self, position: int) -> memoryview:
        offset, length = int(self.index[position]["offset"]), int(self.index[position]["length"])
        return self._bytes[offset : offset + length]
