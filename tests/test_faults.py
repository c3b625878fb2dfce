"""Inputs that were once read wrongly, from what is typed to what is printed: one test for each folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def inputs(faults: Path, tmp_path: Path) -> Path:
    """A copy of all of them that commands may write into, with the relations between the folders kept."""
    copy = Path(shutil.copytree(faults, tmp_path / "faults", copy_function=shutil.copyfile))
    for folder in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
        folder.chmod(0o755)  # the originals may be read-only
    return copy
