"""manifest.json: how a published folder was made, and the hash and size of each of its files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ablations.plan import MAKER, MANIFEST
from ablations.profiles import profile_named
from ablations.registry import as_overrides, select_tables
from analysis.statistics.blocks import MARGIN
from yolor_core.errors import RunError, YolorError
from yolor_core.runs.directory import read_json, write_json

Files = Mapping[str, Mapping[str, Any]]  # path in the folder -> sha256 and bytes


class PublishError(YolorError):
    """A study that cannot be published as it was asked for, or a folder that is not a published one."""


@dataclass(frozen=True)
class Made:
    """What a published folder was made from: enough to make its tables again."""

    profile: str
    tables: tuple[str, ...]
    seeds: tuple[int, ...] | None = None  # None: all there were
    overrides: tuple[str, ...] = ()
    mixed: bool = False
    margin: float = MARGIN  # AP; see `analysis.statistics.blocks.outcome`
    every: int = 1  # of implicit values and effects the first, the last and each so many-th epoch
    grid: int = 0  # pixels, for the boxes no score depends on; see `analysis.published.detections`
    commit: str | None = None  # of the code that published; the runs' own are in provenance.csv
    dirty: bool | None = None
    sources: str | None = None  # hash of that code, see `code_hash`


def code_hash() -> str:
    """SHA-256 (hex) over what texts and figures are made by: the modules and the paper's cells."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[2]
    for package in ("ablations", "analysis", "yolor_core"):
        for path in sorted((root / package).rglob("*")):
            if path.suffix in {".py", ".csv"} and path.is_file():
                digest.update(path.relative_to(root).as_posix().encode() + b"\0")
                digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def contents(folder: Path) -> dict[str, dict[str, Any]]:
    """Hash and size of each file below a folder but the manifest, by its path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST:
            data = path.read_bytes()
            found[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    return found


def write_manifest(folder: Path, made: Made) -> Files:
    """Write the manifest of a filled folder; returns its files."""
    files = contents(folder)
    size = sum(int(each["bytes"]) for each in files.values())
    described = {"made by": MAKER, "made from": asdict(made), "bytes": size, "files": files}
    write_json(folder / MANIFEST, described)
    return files


def read_manifest(folder: Path) -> tuple[Made, Files]:
    """How a folder was made, and its files as they were. Raises PublishError for what is no such folder."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise PublishError(f"there is no folder {folder}; name one that `{MAKER}` has written")
    try:
        content = read_json(path)
    except RunError as error:
        raise PublishError(str(error).split(". Remove the file, or")[0]) from None
    if content is None or content.get("made by") != MAKER:
        raise PublishError(f"{folder} was not made by `{MAKER}`: its {MANIFEST} is missing or says otherwise")
    try:
        known: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in content["made from"].items()}
        made, files = Made(**known), {str(name): dict(each) for name, each in content["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PublishError(f"{path} lacks or misnames a field: {error}") from None
    try:
        for (
            name
        ) in made.tables:  # a Python file would be run: a folder from elsewhere must not choose what is
            if re.search(r"[/\\]|\.py$", name):
                raise PublishError(f"table {name!r} is a file; only tables with a name are published")
        if not 0 < made.margin <= 100:
            raise PublishError(f"a margin of {made.margin}")
        profile_named(made.profile)
        select_tables(made.tables)
        as_overrides(made.overrides)
    except (YolorError, TypeError, AttributeError) as error:
        raise PublishError(f"{path} names what this version of the code has not: {error}") from None
    return made, files
