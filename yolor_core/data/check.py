"""What `ablate data check` looks for: splits that share pictures, copies, findings of every image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from yolor_core.config import CocoConfig, ShapesConfig
from yolor_core.data.annotations import check_same_classes
from yolor_core.data.coco import load_coco
from yolor_core.data.images import ImageSet, Pixels
from yolor_core.data.layout import image_folder
from yolor_core.data.load import load_images
from yolor_core.data.near import Near, everything
from yolor_core.data.report import KINDS, DataReport
from yolor_core.errors import DataError

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

    def add(self, pixels: Pixels | None, look: bool) -> None:
        """The next picture, None for one that cannot be decoded; what it looks like, too, if asked for."""
        self.digests.append(None if pixels is None else _digest(pixels))
        if look:
            self.hashes.append(None if pixels is None else _looks(pixels))

    def name(self, index: int) -> str:
        """An image, for a message."""
        return f"image {self.images.ids[index]} ({self.images.files[index]})"


def find_copies(prints: Mapping[str, Prints], near: Near | None = None) -> None:
    """Add to the report of each split its images that are copies of an earlier one or in another split;
    with `near` those that overlap, too."""
    equal: list[tuple[int, int]] = []
    similar: list[tuple[int, int]] = []
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
        if near is None:
            continue
        equal += [(near.number(split, k), near.number(split, one)) for k, one in twice.items()]
        equal += [(near.number(split, k), near.number(*one)) for k, one in shared.items()]
        index, looks = _table(here, {*twice})
        before = {int(index[k]): int(index[one]) for k, one in _nearest(looks, looks[:, 0], True).items()}
        report.count_rows("near_copies", _rows(before), _pair(here, before), _share(before, here))
        index, looks = _table(here, {*shared})
        alike: dict[int, tuple[str, int]] = {}
        for name in others:
            there, known = _table(prints[name], set())
            for k, one in _nearest(looks, known[:, 0], False).items():
                alike.setdefault(int(index[k]), (name, int(there[one])))
        alike = dict(sorted(alike.items()))
        report.count_rows("near_shared", _rows(alike), _across(here, alike, prints), _share(alike, here))
        similar += [(near.number(split, k), near.number(split, one)) for k, one in before.items()]
        similar += [(near.number(split, k), near.number(*one)) for k, one in alike.items()]
    if near is not None:
        near.find(equal, similar)


def _digest(pixels: Pixels) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).digest()[:16] + bytes(str(pixels.shape), "ascii")


def _looks(pixels: Pixels) -> tuple[int, int] | None:
    from imagehash import phash  # here, for it takes long to load

    small = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    if np.asarray(small).std() < FLAT:
        return None
    both = (small, small.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    one, other = (int.from_bytes(np.packbits(phash(each).hash).tobytes(), "big") for each in both)
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


def check_dataset(config: ShapesConfig | CocoConfig) -> dict[str, DataReport]:
    """Reports of both splits, by split name. Raises DataError for what cannot be read at all."""
    if isinstance(config, CocoConfig):
        return check_splits(Path(config.root), list(dict.fromkeys((config.train, config.val))))
    return check_images({"train": load_images(config, "train"), "val": load_images(config, "val")})


def check_splits(root: Path, splits: Sequence[str]) -> dict[str, DataReport]:
    """Reports of splits of a COCO folder, by name. Raises DataError, too, when their classes differ."""
    return check_images(load_splits(root, splits))


def load_splits(root: Path, splits: Sequence[str], packs: str | Path | None = None) -> dict[str, ImageSet]:
    """Splits to be checked: from their image files, or from packs where there are no image files."""
    loaded = {}
    for split in splits:
        try:
            image_folder(root, split)
        except DataError:
            loaded[split] = load_coco(root, split, packs)
        else:
            loaded[split] = load_coco(root, split, use_packs=False)
    return loaded


def check_images(splits: Mapping[str, ImageSet], near: Near | None = None) -> dict[str, DataReport]:
    """Look at every image of splits of one dataset and compare the splits; the reports then have all counts.

    `near`, of the same splits, has pictures looked for that are alike or overlap, too, and then knows their
    pairs. Raises DataError when classes differ.
    """
    first, *others = splits.values()
    for images in others:
        check_same_classes(images.names, first.names, images.report.source, first.report.source)
    prints = {split: Prints(images) for split, images in splits.items()}
    each = everything if near is None else near.each
    for split, known in prints.items():
        for index in each(f"reading {split}", range(len(known.images))):
            pixels = known.images.inspect(index)
            known.add(pixels, near is not None)
            if near is not None:
                near.add(pixels)
    find_copies(prints, near)
    _compare_classes(splits)
    return {split: images.report for split, images in splits.items()}


def _compare_classes(splits: Mapping[str, ImageSet]) -> None:
    """Add to the reports classes that not all splits have boxes of, where these have any."""
    counts = {
        split: dict(zip(s.names, s.boxes_per_class().tolist(), strict=True)) for split, s in splits.items()
    }
    names = next(iter(splits.values())).names
    unused = [name for name in names if not any(count[name] for count in counts.values())]
    having = {split: count for split, count in counts.items() if any(count.values())}
    for split, images in splits.items():
        if having:
            rows = np.array([k for k, name in enumerate(images.names) if name in unused], np.int64)
            images.report.count_rows("unused", rows, partial(_class, images))
        lacking = {
            k: [other for other, count in having.items() if not count[name]]
            for k, name in enumerate(images.names)
            if counts[split][name]
        }

        def text(row: int, images: ImageSet = images, lacking: dict[int, list[str]] = lacking) -> str:
            boxes = images.boxes_per_class()[row]
            return f"{_class(images, row)}: {boxes} boxes here, none in {', '.join(lacking[row])}"

        rows = np.array([k for k, without in lacking.items() if without], np.int64)
        images.report.count_rows("one_split", rows, text)


def _class(images: ImageSet, row: int) -> str:
    return f"{images.names[row]!r} (id {images.category_ids[row]})"


def sound(report: DataReport) -> bool:
    """Whether there are boxes and nothing serious was found: see `report.KINDS`."""
    return report.without_boxes is None and not any(report.serious(kind) for kind in KINDS)
