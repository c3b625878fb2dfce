"""Images out of packs: a pack mapped into memory, and the packs of a split that serve what is asked for.

And packs on a node's own disk: copied there once, and used by all processes and jobs of that node.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from yolor_core.config import CocoConfig
from yolor_core.data.decode import Findings, decode_bytes, grey, notes
from yolor_core.data.images import Pixels, Purpose, Reader, resize
from yolor_core.data.layout import image_folder
from yolor_core.data.pack.format import HEADER, INDEX, SUFFIX, Description, read_description, read_header
from yolor_core.data.pictures import Digests, States, digests, states
from yolor_core.data.report import Note
from yolor_core.errors import ConfigError, DataError


class Marks:
    """Marks in anonymous shared memory, which forked processes share. A copy made by pickling starts anew:
    losing a mark costs a second look, nothing else."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._bytes = mmap.mmap(-1, max(count, 1))

    def __contains__(self, position: int) -> bool:
        return self._bytes[position] == 1

    def add(self, position: int) -> None:
        """Set a mark."""
        self._bytes[position] = 1

    def __reduce__(self) -> tuple[type[Marks], tuple[int]]:
        return Marks, (self._count,)


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
        self.__init__(state["path"])  # type: ignore[misc]  # opened anew, as by its caller

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
        index = self._bytes[header.file_size - header.records * INDEX.itemsize :]  # the end of the file
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


log = logging.getLogger(__name__)

FOLDER = "packed"  # below the root, unless said otherwise
MOST_NAMED = 5

DECODED = re.compile(r"(?P<purpose>train|test)(?P<size>\d+)")  # how the name of a decoded pack ends


def pack_folder(root: Path, packs: str | Path | None) -> Path:
    """Where a dataset's packs are: as configured, else ABLATE_PACKS, else `<root>/packed`."""
    chosen = packs or os.environ.get("ABLATE_PACKS")
    return Path(chosen) if chosen else root / FOLDER


def pack_files(folder: Path, split: str) -> list[Path]:
    """Files that may be packs of a split."""
    try:
        found = [p for p in folder.iterdir() if p.suffix == SUFFIX and not p.name.startswith(".")]
    except OSError:
        return []
    # A split's name may have dots: `val` is not asked for by a pack of `val.small`.
    return sorted(p for p in found if p.stem.rpartition(".")[0] == split)


def renewal(path: Path, root: Path, split: str) -> str:
    """What to do about a pack that cannot be used."""
    kind = DECODED.fullmatch(path.stem.rpartition(".")[2])  # a damaged file cannot say itself what it held
    what = f" --decoded {kind['size']} --purpose {kind['purpose']}" if kind else ""
    where = "" if path.parent == root / FOLDER else f" --out {path.parent}"
    command = f"ablate data pack {root} --split {split}{what}{where} --force"
    return f"write it anew with `{command}`, or remove {path}"


@dataclass(frozen=True)
class Survey:
    """What there is of a split: packs that may be used, the folder of its image files (None where not one of
    them is there), and the states of these."""

    packs: tuple[Pack, ...]
    folder: Path | None
    states: States


def survey(root: Path, split: str, folder: Path, annotations: str, names: Sequence[str]) -> Survey:
    """Find the packs of a split that belong to its annotations (a SHA-256) and to the image files that are
    there; others are warned of, once in a process.

    Raises DataError where there are no image files and packs were made of different ones.
    """
    try:
        files: Path | None = image_folder(root, split)
    except DataError:
        files = None
    found = np.full((len(names), 3), -1, np.int64) if files is None else states(files, names)
    if (found[:, 0] < 0).all():
        files = None
    packs = []
    for path in pack_files(folder, split):
        try:
            pack = open_pack(path, annotations, len(names))
            if files is not None:
                require_unchanged(pack, files, names, found)
            packs.append(pack)
        except DataError as error:
            _warn(f"{error}; it is not used: {renewal(path, root, split)}")
    for pack in packs[1:]:
        if files is None and (others := int((pack.digests != packs[0].digests).any(axis=1).sum())):
            raise DataError(
                f"{packs[0].path} and {pack.path}: {others} of {len(names)} images are different pictures, "
                "and there are no image files to tell which are right; remove one of the two"
            )
    return Survey(tuple(packs), files, found)


@cache
def _warn(text: str) -> None:
    log.warning("%s", text)


def require_unchanged(
    pack: Pack, folder: Path, names: Sequence[str], found: States, remember: bool = True
) -> None:
    """Raises DataError, naming the first few, where image files are not those that a pack was made of.

    `found` are their states. A file is read only where its times alone are others, and then once (see
    `pictures.digests`); all files are read with `remember` false.
    """
    missing = found[:, 0] < 0
    changed = ~missing & (found[:, 0] != pack.states[:, 0])
    doubtful = ~missing & ~changed & ((found != pack.states).any(axis=1) | (not remember))
    at = np.flatnonzero(doubtful)
    now = digests(folder, [names[i] for i in at.tolist()], found[at], remember=remember)
    changed[at] = (now != pack.digests[at]).any(axis=1)
    wrong = np.flatnonzero(missing | changed).tolist()
    if wrong:
        listed = ", ".join(
            f"{names[i]} ({'missing' if missing[i] else 'changed'})" for i in wrong[:MOST_NAMED]
        )
        more = ", ..." if len(wrong) > MOST_NAMED else ""
        raise DataError(
            f"{pack.path}: {len(wrong)} of {len(names)} files in {folder} are not those that it was made of: "
            f"{listed}{more}"
        )


def open_pack(path: Path, annotations: str, images: int) -> Pack:
    """A pack. Raises DataError when it is damaged or belongs to other annotations."""
    pack = Pack(path)
    if pack.description.annotations != annotations or len(pack) != images:
        raise DataError(f"{path}: it belongs to other annotations than the annotation file has now")
    return pack


@dataclass(frozen=True)
class PackedReader(Reader):
    """Reads images from packs; `files` is what reads them without, None where there are no image files."""

    root: Path
    split: str
    packs: tuple[Pack, ...]
    files: Reader | None
    names: Sequence[str]
    ids: Sequence[int]
    sizes: NDArray[np.int64]

    def __call__(self, index: int) -> tuple[Pixels, list[Note]]:
        best = self._best(None, "train")
        if best is not None:
            return self._from(best, index)
        self.require(None, "train")
        assert self.files is not None
        return self.files(index)

    def scaled(self, index: int, size: int, purpose: Purpose) -> tuple[Pixels, list[Note]]:
        best = self._best(size, purpose)
        if best is None:
            self.require(size, purpose)
            assert self.files is not None
            return self.files.scaled(index, size, purpose)
        pixels, found = self._from(best, index)
        return resize(pixels, size, purpose), found

    def inspect(self, index: int) -> tuple[Pixels, list[Note]]:
        if self.files is None and self._best(None, "train") is None:
            return self._from(self.packs[0], index)  # noted when it was packed
        return self(index)

    def require(self, size: int | None, purpose: Purpose) -> None:
        """Raises DataError when neither a pack nor image files serve a request."""
        if self.files is None and self._best(size, purpose) is None:
            there = ", ".join(f"{p.path.name} ({p.description.title()})" for p in self.packs)
            wanted = "unresized" if size is None else f"at {size} pixels for {purpose}ing"
            raise DataError(
                f"{self.root}: images of {self.split!r} are needed {wanted}, but there are no image files "
                f"and no pack has them so; packs: {there}. Write one where the image files are: "
                f"`ablate data pack {self.root} --split {self.split}"
                f"{'' if size is None else f' --decoded {size} --purpose {purpose}'}`"
            )

    def _best(self, size: int | None, purpose: Purpose) -> Pack | None:
        """Pixels rather than bytes to decode."""
        serving = [p for p in self.packs if p.serves(size, purpose)]
        return min(serving, key=lambda p: p.description.kind == "original", default=None)

    def _from(self, pack: Pack, index: int) -> tuple[Pixels, list[Note]]:
        path = self.root / pack.description.folder / self.names[index]
        width, height = self.sizes[index].tolist()
        try:
            if pack.description.kind == "original":
                pixels, findings = pack.original(index, width, height)
            else:
                pixels, findings = pack.pixels(index)
        except DamagedRecord:
            raise DataError(
                f"{pack.path}: image {self.ids[index]} ({self.names[index]}) is damaged; "
                f"{renewal(pack.path, self.root, self.split)}"
            ) from None
        return pixels, notes(findings, self.ids[index], path)


def copy_packs(data: CocoConfig, disk: str) -> CocoConfig:
    """Copy the dataset's packs to a folder of the node, unless they are there, and use them from there.

    The first process of a node copies while the others wait. Where there is no room, or there are no packs,
    the shared ones are used and a line says so.

    Args:
        data: a folder in COCO's layout.
        disk: a folder, with variables of the environment, as `$SLURM_TMPDIR`.

    Raises:
        ConfigError: `disk` names a variable that is not set here, or cannot be written.
    """
    target = Path(os.path.expandvars(disk))
    if "$" in str(target):
        raise ConfigError(f"local_disk = {disk!r}: a variable of it is not set on {os.uname().nodename}")
    source = pack_folder(Path(data.root), data.packs)
    packs = [path for split in (data.train, data.val) for path in pack_files(source, split)]
    if not packs:
        print(f"no packs in {source} to copy to {target}; `ablate data pack` writes them", file=sys.stderr)
        return data
    # Packs of two datasets may have the same names.
    folder = target / "ablate-packs" / hashlib.sha256(str(source.absolute()).encode()).hexdigest()[:12]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            missing = [path for path in packs if not _same(path, folder / path.name)]
            needed, free = sum(p.stat().st_size for p in missing), shutil.disk_usage(folder).free
            if needed > free:
                print(f"{folder}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free; using {source}")
                return data
            for path in missing:
                _copy(path, folder / path.name)
    except OSError as error:
        raise ConfigError(f"local_disk = {disk!r}: {error.strerror} ({folder})") from None
    return data.model_copy(update={"packs": str(folder)})


def _same(path: Path, copy: Path) -> bool:
    """By length and time of writing, which the copy keeps."""
    try:
        there, here = path.stat(), copy.stat()
    except FileNotFoundError:
        return False
    return (there.st_size, there.st_mtime_ns) == (here.st_size, here.st_mtime_ns)


def _copy(path: Path, target: Path) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        shutil.copyfile(path, name)
        shutil.copystat(path, name)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
