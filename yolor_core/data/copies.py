"""The same picture twice: equal pixels always, and on demand pictures that look alike."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from yolor_core.data.images import ImageSet, Pixels
from yolor_core.errors import ConfigError

SIDE = 32  # pixels that imagehash's `phash` reduces a picture to
NEAR = 8  # of 64 bits; what this finds and what it finds wrongly is measured in docs/data-check.md
FLAT = 2.0  # of 255: a picture whose grey values spread less has no look of its own
BLOCK = 2**22  # pairs of pictures compared at a time

Hashes = NDArray[np.uint64]


@dataclass
class Prints:
    """What the pictures of a split are known by, in order; nothing of those that cannot be decoded.

    digests: of their pixels; hashes: of their looks and those of their mirror images.
    """

    images: ImageSet
    digests: list[bytes | None] = field(default_factory=list)
    hashes: list[tuple[int, int] | None] = field(default_factory=list)

    def add(self, pixels: Pixels | None, library: ModuleType | None) -> None:
        """The next picture, None for one that cannot be decoded; with a library its look, too."""
        self.digests.append(None if pixels is None else _digest(pixels))
        if library is not None:
            self.hashes.append(None if pixels is None else _looks(pixels, library))

    def name(self, index: int) -> str:
        """An image, for a message."""
        return f"image {self.images.ids[index]} ({self.images.files[index]})"


def hash_library() -> ModuleType:
    """The package imagehash. Raises ConfigError where it is not installed."""
    try:
        import imagehash
    except ImportError:
        raise ConfigError("near copies are found by the package imagehash: `pip install imagehash`") from None
    return imagehash


def find_copies(prints: Mapping[str, Prints]) -> None:
    """Add to the report of each split its images that are copies of an earlier one or in another split."""
    first = {split: _first(each) for split, each in prints.items()}
    for split, here in prints.items():
        report, own = here.images.report, first[split]
        twice = {k: own[d] for k, d in enumerate(here.digests) if d is not None and own[d] != k}
        listed = {k: one for k, one in twice.items() if here.images.files[k] != here.images.files[one]}
        report.count_rows("copies", _rows(listed), _pair(here, listed))
        others = {name: first[name] for name in prints if name != split}
        shared = {
            k: next((name, there[d]) for name, there in others.items() if d in there)
            for k, d in enumerate(here.digests)
            if d is not None and any(d in there for there in others.values())
        }
        report.count_rows("shared", _rows(shared), _across(here, shared, prints), _share(shared, here))
        if not here.hashes:
            continue
        index, looks = _table(here, {*twice})
        near = {int(index[k]): int(index[one]) for k, one in _nearest(looks, looks[:, 0], True).items()}
        report.count_rows("near_copies", _rows(near), _pair(here, near), _share(near, here))
        index, looks = _table(here, {*shared})
        alike: dict[int, tuple[str, int]] = {}
        for name in others:
            there, known = _table(prints[name], set())
            for k, one in _nearest(looks, known[:, 0], False).items():
                alike.setdefault(int(index[k]), (name, int(there[one])))
        alike = dict(sorted(alike.items()))
        report.count_rows("near_shared", _rows(alike), _across(here, alike, prints), _share(alike, here))


def _digest(pixels: Pixels) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).digest()[:16] + bytes(str(pixels.shape), "ascii")


def _looks(pixels: Pixels, library: ModuleType) -> tuple[int, int] | None:
    small = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    if np.asarray(small).std() < FLAT:
        return None
    both = (small, small.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    one, other = (int.from_bytes(np.packbits(library.phash(each).hash).tobytes(), "big") for each in both)
    return one, other


def _first(prints: Prints) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for index, digest in enumerate(prints.digests):
        if digest is not None:
            found.setdefault(digest, index)
    return found


def _table(prints: Prints, without: set[int]) -> tuple[NDArray[np.int64], Hashes]:
    """(n,) images that have a look of their own, but for some, and their hashes (n, 2)."""
    kept = [(k, pair) for k, pair in enumerate(prints.hashes) if pair is not None and k not in without]
    index = np.array([k for k, _ in kept], np.int64)
    return index, np.array([pair for _, pair in kept], np.uint64).reshape(-1, 2)


def _nearest(looks: Hashes, known: Hashes, earlier: bool) -> dict[int, int]:
    """Rows of `looks` (n, 2) that come near one of `known` (m,), with the nearest: for each, one of those
    before it where `earlier`. Blocks of pairs are compared at once."""
    found, step = {}, max(1, BLOCK // max(1, len(known)))
    for begin in range(0, len(looks) if len(known) else 0, step):
        rows = looks[begin : begin + step]
        others = known[: begin + len(rows)] if earlier else known
        bits = np.bitwise_count(rows[:, :1] ^ others)
        np.minimum(bits, np.bitwise_count(rows[:, 1:] ^ others), out=bits)
        if earlier:
            bits[:, begin:][np.triu_indices(len(rows))] = 255
        for row in np.flatnonzero(bits.min(axis=1) <= NEAR):
            found[begin + int(row)] = int(bits[row].argmin())
    return found


def _rows(found: Mapping[int, object]) -> NDArray[np.int64]:
    return np.array(list(found), np.int64)


def _share(found: Mapping[int, object], prints: Prints) -> str:
    count, every = len(found), len(prints.images)
    return f"{count} of {every} images, {100 * count / every:.1f} %"


def _pair(prints: Prints, found: Mapping[int, int]) -> Callable[[int], str]:
    return lambda index: f"{prints.name(index)} and {prints.name(found[index])}"


def _across(
    here: Prints, found: Mapping[int, tuple[str, int]], prints: Mapping[str, Prints]
) -> Callable[[int], str]:
    def text(index: int) -> str:
        split, other = found[index]
        return f"{here.name(index)} and {prints[split].name(other)} of {split}"

    return text
