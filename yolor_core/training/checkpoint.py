"""Checkpoints that survive a crash at any moment: two generations, checksummed, loaded as tensors only."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from yolor_core.errors import RunError
from yolor_core.runs.directory import RunDirectory
from yolor_core.runs.files import write_atomically


def save_checkpoint(run: RunDirectory, content: dict[str, Any]) -> None:
    """Write checkpoint.pt; the one before becomes checkpoint.previous.pt.

    checkpoint.sha256, in the format of sha256sum, is written before the files move and then lists every
    whole file, so that a crash at any moment leaves one that can be trusted. A damaged checkpoint.pt is
    overwritten instead of pushing out the whole one before it.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    listed = _listed(run)
    whole = {path: digest for path in _files(run) if (digest := _digest(path)) in listed}
    pending = run.path / ".checkpoint.pending"
    write_atomically(pending, lambda file: file.write(data))
    lines = [f"{hashlib.sha256(data).hexdigest()}  {run.checkpoint.name}\n"]
    lines += [f"{digest}  {run.previous_checkpoint.name}\n" for digest in whole.values()]
    write_atomically(run.checksums, lambda file: file.write("".join(lines).encode()))
    if run.checkpoint in whole:
        os.replace(run.checkpoint, run.previous_checkpoint)
    os.replace(pending, run.checkpoint)


def load_checkpoint(run: RunDirectory) -> dict[str, Any] | None:
    """The newest whole checkpoint of a run, or None where there is none.

    A damaged file is passed over with a warning.

    Raises:
        RunError: when there are checkpoints and none is whole.
    """
    damaged: list[Path] = []
    for path in _files(run):
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() in _listed(run):
            if damaged:
                warnings.warn(f"{damaged[0]} is damaged; going on from the older {path.name}", stacklevel=2)
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        damaged.append(path)
    if damaged:
        names = ", ".join(str(path) for path in damaged)
        raise RunError(
            f"no whole checkpoint: {names} do not match {run.checksums.name}; delete them to start anew"
        )
    return None


def drop_checkpoints(run: RunDirectory, keep_last: bool) -> None:
    """Remove the checkpoints of a finished run, all or all but the last."""
    run.previous_checkpoint.unlink(missing_ok=True)
    if not keep_last:
        run.checkpoint.unlink(missing_ok=True)
        run.checksums.unlink(missing_ok=True)


def _files(run: RunDirectory) -> list[Path]:
    return [path for path in (run.checkpoint, run.previous_checkpoint) if path.exists()]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(run: RunDirectory) -> list[str]:
    if not run.checksums.exists():
        return []
    return [line.split()[0] for line in run.checksums.read_text().splitlines() if line.strip()]
