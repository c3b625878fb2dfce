"""The identity of a dataset: a hash of its annotation content. Imports neither torch nor OpenCV until it
must."""

from __future__ import annotations

import hashlib
import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from yolor_core.config import CocoConfig, ShapesConfig
from yolor_core.data.layout import annotation_file
from yolor_core.data.write import annotation_bytes

CACHE_ABOVE = 16 * 2**20  # bytes; smaller files are hashed faster than a cache is worth
SHAPES = Path(__file__).parent / "shapes"


def data_fingerprint(config: ShapesConfig | CocoConfig) -> str:
    """SHA-256 (hex) over the annotation content of both splits.

    The same for the shapes drawn on demand and for the same shapes written out. Large files are hashed again
    only when their size or time changed; what was computed is remembered in the user's cache folder
    (ABLATE_CACHE). Raises DataError when an annotation file is missing.
    """
    if isinstance(config, CocoConfig):
        parts = [file_hash(annotation_file(Path(config.root), split)) for split in (config.train, config.val)]
    else:
        key = _shapes_key(config)
        remembered = _recall(key)
        parts = remembered.split() if remembered else _draw(config)
        if not remembered:
            _remember(key, " ".join(parts))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


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


def _draw(config: ShapesConfig) -> list[str]:
    from yolor_core.data.shapes.annotations import annotate

    splits = (("train", config.train_images), ("val", config.val_images))
    return [
        hashlib.sha256(annotation_bytes(annotate(config.seed, config.size, s, n))).hexdigest()
        for s, n in splits
    ]


def _shapes_key(config: ShapesConfig) -> str:
    """Everything that decides the shapes: their parameters, this code, and the libraries that draw them."""
    sources = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(SHAPES.glob("*.py")))).hexdigest()
    libraries = [_version("numpy"), _version("opencv-python-headless"), _version("opencv-python")]
    return json.dumps(["shapes", config.model_dump(mode="json"), sources, libraries], sort_keys=True)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cache_file() -> Path:
    folder = os.environ.get("ABLATE_CACHE")
    if folder:
        return Path(folder) / "fingerprints.json"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ablate" / "fingerprints.json"


def _recall(key: str) -> str | None:
    try:
        found = json.loads(_cache_file().read_text()).get(key)
    except (OSError, ValueError, AttributeError):
        return None  # no cache, or not ours to repair: it is computed again
    return found if isinstance(found, str) else None


def _remember(key: str, value: str) -> None:
    path = _cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            known = json.loads(path.read_text())
            known = known if isinstance(known, dict) else {}
        except (OSError, ValueError):
            known = {}
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_text(json.dumps({**known, key: value}))
        os.replace(partial, path)
    except OSError:
        pass  # a read-only home costs time, not correctness
