"""A frozen copy of the code, which is what queued jobs run: editing the checkout does not change them."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slurm.files import replace_json

ROOT = Path(__file__).parent.parent
PACKAGES = ("yolor_core", "ablations", "slurm", "analysis")
KINDS = (".py", ".csv", ".toml", ".json", ".typed", ".html", ".css", ".js")


def freeze(results: Path, origin: Mapping[str, Any], root: Path = ROOT) -> Path:
    """Copy the packages to `<results>/code/<hash of their content>`; the same code is copied once.

    `origin` (the commit) is left in its `snapshot.json`, for there is no checkout to ask.
    """
    files = {path.relative_to(root): path.read_bytes() for path in _sources(root)}
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.as_posix().encode() + b"\0" + hashlib.sha256(files[name]).digest())
    target = results.absolute() / "code" / digest.hexdigest()[:16]
    if (target / "snapshot.json").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=target.parent, prefix=".building-"))
    try:
        for name, content in files.items():
            path = building / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        replace_json(building / "snapshot.json", {"hash": digest.hexdigest(), **origin})
        building.chmod(0o755)
        try:
            os.rename(building, target)
        except OSError:
            if not (target / "snapshot.json").is_file():  # else somebody was quicker; theirs is the same
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _sources(root: Path) -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in KINDS and path.is_file() and "__pycache__" not in path.parts:
                yield path
