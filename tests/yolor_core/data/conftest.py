"""Fixtures of the data tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.yolor_core.data.coco_folder import Folder, annotation, picture


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty COCO folder to fill."""
    return Folder(tmp_path / "coco")


@pytest.fixture
def two_images(folder: Folder) -> Folder:
    """A folder with two sound images of three annotations, written."""
    first = folder.add(picture(0), "a.png", (64, 48))
    second = folder.add(picture(1, 40, 60), "b.png", (40, 60))
    folder.content["annotations"] = [
        annotation(101, second, [5, 6, 20, 30], category=7),
        annotation(102, first, [1.5, 2.25, 10, 20]),
        annotation(103, second, [0, 0, 40, 60], category=3),
    ]
    folder.write()
    return folder
