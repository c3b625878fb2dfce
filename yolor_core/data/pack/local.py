"""Packs on a node's own disk: copied there once, and used by all processes and jobs of that node."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

from yolor_core.config import CocoConfig
from yolor_core.data.pack.reader import pack_files, pack_folder
from yolor_core.errors import ConfigError


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
