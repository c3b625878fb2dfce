"""The identity of a dataset: a hash of its annotations and pictures. Imports neither torch nor OpenCV until
it must."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from yolor_core.config import CocoConfig, ShapesConfig
from yolor_core.data.layout import annotation_file
from yolor_core.identity import version_of
from yolor_core.runs.directory import cache_folder, write_cache

if TYPE_CHECKING:
    from yolor_core.data.pack.reader import Survey

CACHE_ABOVE = 16 * 2**20  # bytes; smaller files are read faster than a cache is worth
SHAPES = Path(__file__).parent / "shapes"
#: How the annotation file of written shapes begins.
WRITTEN = re.compile(
    rb'\{"info":\{"description":"synthetic shapes","version":"2",'
    rb'"seed":(\d{1,18}),"size":(\d{1,9}),"split":"(train|val)"[,}]'
)
Part = str | list[str]


def data_fingerprint(config: ShapesConfig | CocoConfig) -> str:
    """SHA-256 (hex) over the annotation files of both splits and the content of every picture.

    The same for the shapes drawn on demand and for the same shapes written out, and for a folder and its
    packs. Files are read again only when their size or times changed; what was computed is remembered in the
    user's cache folder (ABLATE_CACHE). Raises DataError when an annotation file or pictures are missing, and
    when packs without their pictures were made of different ones.
    """
    parts: Sequence[Part]
    if isinstance(config, CocoConfig):
        parts = [_split(Path(config.root), split, config.packs) for split in (config.train, config.val)]
    else:
        parts = _shapes(config)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def annotation_fingerprint(config: ShapesConfig | CocoConfig) -> str:
    """What `data_fingerprint` was in version 0.1.0: a hash of the annotation files of both splits alone."""
    if isinstance(config, CocoConfig):
        parts = [file_hash(annotation_file(Path(config.root), split)) for split in (config.train, config.val)]
    else:
        parts = _shapes(config)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _shapes(config: ShapesConfig) -> list[str]:
    """SHA-256 of the annotations of both splits, which decide the pixels too."""
    key = _shapes_key(config)
    remembered = _recall(key)
    parts = remembered.split() if remembered else _draw(config)
    if not remembered:
        _remember(key, " ".join(parts))
    return parts


def _split(root: Path, split: str, packs: str | None) -> Part:
    """SHA-256 of the annotations, and of the SHA-256 of all pictures unless these are the shapes as drawn."""
    # Imported here: these bring OpenCV along, which the built-in shapes need not wait for.
    from yolor_core.data.coco import files_of
    from yolor_core.data.pack.reader import pack_folder, survey
    from yolor_core.data.pictures import digests

    path = annotation_file(root, split)
    annotations, names = file_hash(path), _names(root, split, path)
    found = survey(root, split, pack_folder(root, packs), annotations, names)
    if found.folder is None and found.packs:
        contents = found.packs[0].digests
    else:
        folder = found.folder
        if folder is None or (found.states[:, 0] < 0).any():
            folder = files_of(root, split, names)
        contents = digests(folder, names, found.states, [(p.states, p.digests) for p in found.packs])
    pictures = hashlib.sha256(contents.tobytes()).hexdigest()
    return annotations if _are_drawn(root, split, packs, pictures, found) else [annotations, pictures]


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    state = path.stat()
    key = json.dumps(["file", str(path.resolve()), state.st_size, state.st_mtime_ns])
    remembered = _recall(key) if state.st_size > CACHE_ABOVE else None
    if remembered:
        return remembered
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if state.st_size > CACHE_ABOVE:
        _remember(key, digest)
    return digest


def _names(root: Path, split: str, path: Path) -> Sequence[str]:
    """File names of the pictures, in order; parsing a large annotation file takes minutes and gigabytes."""
    from yolor_core.data.coco import read_annotations

    store = cache_folder() / "names" / f"{file_hash(path)}.json"
    large = path.stat().st_size > CACHE_ABOVE
    try:
        remembered = json.loads(store.read_bytes()) if large else None
    except (OSError, ValueError):
        remembered = None  # no cache, or not ours to repair: it is read again
    if isinstance(remembered, list):
        return [str(name) for name in remembered]
    names = read_annotations(root, split)[1].files
    if large:
        write_cache(store, list(names))
    return names


def written_shapes(config: CocoConfig) -> bool:
    """Whether the annotation files are those of the synthetic shapes, whatever the pictures are."""
    files = (annotation_file(Path(config.root), split) for split in (config.train, config.val))
    return any(WRITTEN.match(_beginning(path)) for path in files)


def _beginning(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(200)


def _are_drawn(root: Path, split: str, packs: str | None, pictures: str, found: Survey) -> bool:
    """Whether the pictures are, pixel by pixel, the shapes that the annotation file says they are."""
    said = WRITTEN.match(_beginning(annotation_file(root, split)))
    if said is None:
        return False
    seed, size, drawn_as = int(said[1]), int(said[2]), said[3].decode()
    try:
        ShapesConfig.model_validate({"seed": seed, "size": size})
    except ValidationError:
        return False
    key = json.dumps(["drawn", pictures, seed, size, drawn_as, *_software()])
    remembered = _recall(key)
    if remembered is None:
        from yolor_core.data.coco import load_coco
        from yolor_core.data.images import resize
        from yolor_core.data.shapes.dataset import render

        images = load_coco(root, split, packs)
        resized = found.folder is None and not any(pack.serves(None, "train") for pack in found.packs)
        about = found.packs[0].description if resized else None

        def is_drawn(index: int) -> bool:
            pixels = render(seed, size, drawn_as, index)
            if about is None or about.size is None or about.purpose is None:
                return bool((images.image(index) == pixels).all())
            there = images.scaled(index, about.size, about.purpose).pixels
            return bool((there == resize(pixels, about.size, about.purpose)).all())

        remembered = "yes" if all(is_drawn(index) for index in range(len(images))) else "no"
        _remember(key, remembered)
    return remembered == "yes"


def _draw(config: ShapesConfig) -> list[str]:
    from yolor_core.data.shapes.dataset import annotations_drawn

    splits = (("train", config.train_images), ("val", config.val_images))
    return [hashlib.sha256(annotations_drawn(config.seed, config.size, s, n)).hexdigest() for s, n in splits]


def _shapes_key(config: ShapesConfig) -> str:
    """Everything that decides the shapes: their parameters, this code, and the libraries that draw them."""
    return json.dumps(["shapes", config.model_dump(mode="json"), *_software()], sort_keys=True)


def _software() -> tuple[str, list[str | None]]:
    sources = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(SHAPES.glob("*.py")))).hexdigest()
    return sources, [version_of("numpy"), version_of("opencv-python-headless"), version_of("opencv-python")]


def _cache_file() -> Path:
    return cache_folder() / "fingerprints.json"


def _recall(key: str) -> str | None:
    try:
        found = json.loads(_cache_file().read_text()).get(key)
    except (OSError, ValueError, AttributeError):
        return None  # no cache, or not ours to repair: it is computed again
    return found if isinstance(found, str) else None


def _remember(key: str, value: str) -> None:
    try:
        known = json.loads(_cache_file().read_text())
        known = known if isinstance(known, dict) else {}
    except (OSError, ValueError):
        known = {}
    write_cache(_cache_file(), {**known, key: value})
