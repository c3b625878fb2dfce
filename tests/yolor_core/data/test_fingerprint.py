"""Data are the same where annotations and pictures are, whatever their folder, and then alone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.yolor_core.data.coco_folder import Folder
from tests.yolor_core.data.test_pack import CHANGES, only, pack, rewrite
from yolor_core.config import CocoConfig, ShapesConfig
from yolor_core.data import data_fingerprint, fingerprint, pictures
from yolor_core.data.fingerprint import annotation_fingerprint
from yolor_core.data.shapes.dataset import write_dataset
from yolor_core.errors import DataError


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def of(root: Path) -> str:
    return data_fingerprint(CocoConfig(root=str(root), train="train", val="val"))


@pytest.fixture
def root(two_images: Folder) -> Path:
    """The two images in a folder, all older than a moment."""
    return two_images.root


def test_it_is_the_hash_of_annotations_and_pictures(root: Path) -> None:
    parts = []
    for split in ("train", "val"):
        files = [root / "images" / split / name for name in ("a.png", "b.png")]
        contents = b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)
        parts.append([sha((root / f"annotations/instances_{split}.json").read_bytes()), sha(contents)])
    assert of(root) == sha(json.dumps(parts).encode())
    before = annotation_fingerprint(CocoConfig(root=str(root), train="train", val="val"))
    assert before == sha(json.dumps([annotations for annotations, _ in parts]).encode())


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("packed", [False, True])
def test_another_picture_is_other_data(root: Path, change: str, split: str, packed: bool) -> None:
    if packed:
        pack(root, split)
    before = of(root)
    CHANGES[change](root / "images" / split / "b.png")
    assert of(root) not in (before, fingerprint.data_fingerprint(ShapesConfig()))


def test_equal_data_are_equal_in_every_folder(root: Path, tmp_path: Path) -> None:
    expected = of(root)
    copy = shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    assert of(copy) == expected
    for path in (copy / "images" / "train").iterdir():
        rewrite(path)
    assert of(copy) == expected
    assert of(copy.rename(tmp_path / "renamed")) == expected
    for size, name in ((None, "original"), (40, "resized")):
        only_packs = shutil.copytree(root, tmp_path / name)
        for split in ("train", "val"):
            pack(only_packs, split, size)
        assert of(only_packs) == expected
        only(only_packs)
        assert of(only_packs) == expected


@pytest.mark.parametrize("packs", [None, (), (64,)], ids=["files", "original", "resized"])
def test_written_shapes_are_those_drawn_on_demand_while_their_pictures_are(
    tmp_path: Path, packs: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = ShapesConfig(seed=4, train_images=6, val_images=5, size=96)
    written = tmp_path / "shapes"
    write_dataset(shapes, written)
    assert data_fingerprint(shapes) == annotation_fingerprint(shapes)
    if packs is not None:
        for split in ("train", "val"):
            pack(written, split, *packs)
            shutil.rmtree(written / split)
    for _ in range(2):
        assert of(written) == data_fingerprint(shapes)
    monkeypatch.setenv("ABLATE_CACHE", "/dev/null/nowhere")  # which cannot be written
    assert of(written) == data_fingerprint(shapes)
    if packs is None:
        victim = sorted((written / "val").iterdir())[2]
        victim.write_bytes(sorted((written / "train").iterdir())[0].read_bytes())
        assert of(written) != data_fingerprint(shapes)


def test_pictures_are_read_once_until_they_change(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    actual = pictures._hash

    def counted(path: str) -> bytes | None:
        read.append(Path(path).name)
        return actual(path)

    monkeypatch.setattr(pictures, "_hash", counted)
    monkeypatch.setattr(pictures, "RECENT", 10**15)  # all files are too new to be remembered
    expected = of(root)
    assert of(root) == expected
    assert len(read) == 8
    monkeypatch.setattr(pictures, "RECENT", -(10**12))  # none is
    assert of(root) == expected
    read.clear()
    assert of(root) == expected
    assert not read
    os.utime(root / "images" / "val" / "a.png", (7, 7))
    assert of(root) == expected
    assert read == ["a.png"]
    for store in (Path(os.environ["ABLATE_CACHE"]) / "pictures").glob("*.json"):
        store.write_text('{"files": {"a.png": 3}}')  # damaged
    assert of(root) == expected


def test_names_of_a_large_file_are_parsed_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "CACHE_ABOVE", 3)
    expected = of(root)
    monkeypatch.setattr("yolor_core.data.coco.read_annotations", lambda *_: pytest.fail("parsed again"))
    assert of(root) == expected


def test_missing_pictures_are_named(root: Path) -> None:
    (root / "images" / "val" / "b.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images are missing .*: b.png"):
        of(root)
