"""The files torch.save writes: zip archives since 1.6, a sequence of pickles before.

Both are read without torch.load: the pickle through `inert`, the numbers as bytes whose place and length are
checked against the file before a tensor is made of them.
"""

from __future__ import annotations

import math
import struct
import zipfile
from abc import ABC, abstractmethod
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from yolor_core.errors import WeightsError
from yolor_core.weights.inert import Storage, StoredTensor, unpickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001


class Container(ABC):
    """An opened checkpoint: `graph` is what was saved, with descriptions in place of tensors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.graph: Any = None
        self._last: tuple[Storage | None, bytearray] = (None, bytearray())

    @abstractmethod
    def read(self, storage: Storage) -> bytearray:
        """The bytes of a whole storage. Raises WeightsError when they are not all there."""

    def tensor(self, stored: StoredTensor, name: str) -> Tensor:
        """Read a tensor; on the CPU, contiguous, of the stored type. Raises WeightsError naming it."""
        storage, offset, shape, strides = stored
        numbers = (offset, storage.first, storage.numel, *shape, *strides)
        if len(shape) != len(strides) or any(type(n) is not int or n < 0 for n in numbers):
            raise WeightsError(f"{self.path}: damaged: {name} has shape {shape} and strides {strides}")
        first = storage.first + offset
        last = first + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        count = math.prod(shape)
        if count > storage.numel or (count and last >= storage.numel):
            raise WeightsError(
                f"{self.path}: damaged: {name} of shape {shape} does not fit into the {storage.numel} "
                "numbers stored for it"
            )
        if not count:
            return torch.empty(shape, dtype=storage.dtype)
        whole = storage._replace(first=0)
        if self._last[0] != whole:  # tensors that share a storage follow one another
            inline = storage.data
            self._last = (whole, self.read(storage) if inline is None else self._complete(inline, storage))
        flat = torch.frombuffer(self._last[1], dtype=storage.dtype)
        return flat.as_strided(shape, strides, first).clone(memory_format=torch.contiguous_format)

    def _complete(self, data: bytes, storage: Storage) -> bytearray:
        needed = storage.numel * storage.dtype.itemsize
        if len(data) != needed:
            raise WeightsError(
                f"{self.path}: damaged or truncated: storage {storage.key} has {len(data)} of {needed} bytes"
            )
        return bytearray(data)


class ZipContainer(Container):
    """The format of torch 1.6 and later."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self.archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise WeightsError(f"{path}: damaged or truncated zip archive ({error})") from None
        names = self.archive.namelist()
        pickles = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            found = f"{len(pickles)} files data.pkl" if pickles else "no data.pkl"
            raise WeightsError(f"{path}: a zip archive, but not one of torch.save ({found} in it)")
        self.root = pickles[0].removesuffix("data.pkl")
        if f"{self.root}constants.pkl" in names:
            raise WeightsError(f"{path}: a TorchScript program, which is code; a checkpoint is needed")
        if f"{self.root}byteorder" in names and self._member("byteorder") != b"little":
            raise WeightsError(f"{path}: its numbers are big-endian, which is not supported")
        self.graph, _ = unpickle(BytesIO(self._member("data.pkl")), str(path))

    def _member(self, name: str) -> bytes:
        full = f"{self.root}{name}"
        try:
            info = self.archive.getinfo(full)
            if info.compress_type != zipfile.ZIP_STORED:
                raise WeightsError(f"{self.path}: {full} is compressed, which torch.save never does")
            return self.archive.read(info)
        except WeightsError:
            raise
        except KeyError:
            raise WeightsError(f"{self.path}: damaged: there is no {full} in the archive") from None
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
            why = str(error) or type(error).__name__
            raise WeightsError(f"{self.path}: damaged: {full} cannot be read ({why})") from None

    def read(self, storage: Storage) -> bytearray:
        """The bytes of a whole storage; the archive's checksum is verified."""
        return self._complete(self._member(f"data/{storage.key}"), storage)


class LegacyContainer(Container):
    """The format before torch 1.6: five pickles, then for each storage its length and its numbers."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        label = str(path)
        with path.open("rb") as file:
            magic, _ = unpickle(file, label)
            if magic != LEGACY_MAGIC:
                raise WeightsError(
                    f"{path}: a pickle, but not one of torch.save; convert it where it was made"
                )
            protocol, _ = unpickle(file, label)
            system, _ = unpickle(file, label)
            if protocol != LEGACY_PROTOCOL or not isinstance(system, dict):
                raise WeightsError(f"{path}: damaged: its header is not one of torch.save")
            if not system.get("little_endian", True):
                raise WeightsError(f"{path}: its numbers are big-endian, which is not supported")
            self.graph, storages = unpickle(file, label)
            keys, _ = unpickle(file, label)
            listed = isinstance(keys, list) and all(type(key) in (str, int) for key in keys)
            if not listed or set(storages) - set(map(str, keys)):
                raise WeightsError(f"{path}: damaged: storages are referred to that it does not list")
            self._places = self._find(file, [str(key) for key in keys], storages)

    def _find(self, file: BinaryIO, keys: list[str], storages: dict[str, Storage]) -> dict[str, int]:
        size, places = self.path.stat().st_size, {}
        for number, key in enumerate(keys, 1):
            header = file.read(8)
            if key not in storages:
                raise WeightsError(f"{self.path}: damaged: storage {key} belongs to no tensor")
            end = file.tell() + storages[key].numel * storages[key].dtype.itemsize
            if len(header) < 8 or end > size:
                raise WeightsError(f"{self.path}: truncated in storage {number} of {len(keys)}")
            if struct.unpack("<q", header)[0] != storages[key].numel:
                raise WeightsError(
                    f"{self.path}: damaged: storage {key} has another length than its tensors say"
                )
            places[key] = file.tell()
            file.seek(end)
        return places

    def read(self, storage: Storage) -> bytearray:
        """The bytes of a whole storage."""
        with self.path.open("rb") as file:
            file.seek(self._places[storage.key])
            return self._complete(file.read(storage.numel * storage.dtype.itemsize), storage)
