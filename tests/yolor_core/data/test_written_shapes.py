"""The synthetic dataset written out equals the one drawn on demand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ablations.cli import main
from tests.yolor_core.data.coco_folder import Folder
from yolor_core.config import CocoConfig, ShapesConfig
from yolor_core.data import data_fingerprint, fingerprint, load_images, write_dataset
from yolor_core.data.layout import coco_config
from yolor_core.errors import DataError

SMALL = ShapesConfig(seed=4, train_images=6, val_images=5, size=96)


@pytest.fixture
def written(tmp_path: Path) -> CocoConfig:
    write_dataset(SMALL, tmp_path / "shapes")
    return coco_config(tmp_path / "shapes")


def test_pixels_annotations_and_fingerprints_are_equal(written: CocoConfig) -> None:
    for split in ("train", "val"):
        drawn, read = load_images(SMALL, split), load_images(written, split)
        assert drawn.coco == read.coco
        assert drawn.fingerprint == read.fingerprint
        assert (drawn.ids, drawn.names, drawn.category_ids) == (read.ids, read.names, read.category_ids)
        for index in range(len(drawn)):
            np.testing.assert_array_equal(drawn.image(index), read.image(index))
            np.testing.assert_array_equal(drawn.boxes(index), read.boxes(index))
            np.testing.assert_array_equal(drawn.classes(index), read.classes(index))
    assert data_fingerprint(SMALL) == data_fingerprint(written)


def test_every_parameter_changes_the_fingerprint() -> None:
    changes = {"seed": 5, "train_images": 7, "val_images": 6, "size": 128}
    assert set(changes) | {"kind"} == set(ShapesConfig.model_fields)
    prints = {data_fingerprint(SMALL.model_copy(update={k: v})) for k, v in changes.items()}
    assert len(prints | {data_fingerprint(SMALL)}) == len(changes) + 1


def test_a_changed_annotation_changes_the_fingerprint(written: CocoConfig) -> None:
    before = data_fingerprint(written)
    path = Path(written.root) / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][0] += 1
    path.write_text(json.dumps(content, separators=(",", ":")))
    assert data_fingerprint(written) != before


def test_large_files_are_hashed_once_until_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "CACHE_ABOVE", 3)
    path = tmp_path / "file"
    path.write_bytes(b"first")
    digest = fingerprint.file_hash(path)
    cache = tmp_path / "cache" / "fingerprints.json"
    key = next(iter(json.loads(cache.read_text())))
    cache.write_text(json.dumps({key: "remembered"}))
    assert fingerprint.file_hash(path) == "remembered"
    path.write_bytes(b"second")
    assert fingerprint.file_hash(path) not in ("remembered", digest)
    cache.write_text("[broken")
    assert len(fingerprint.file_hash(path)) == 64


def test_a_remembered_fingerprint_needs_neither_torch_nor_opencv() -> None:
    data_fingerprint(SMALL)
    code = (
        "import sys; from yolor_core.config import ShapesConfig; "
        "from yolor_core.data import data_fingerprint; "
        f"print(data_fingerprint(ShapesConfig(**{SMALL.model_dump()}))); "
        "assert not {'torch', 'cv2', 'PIL'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == data_fingerprint(SMALL)


def test_writing_again_finishes_and_another_dataset_is_refused(written: CocoConfig, tmp_path: Path) -> None:
    root = Path(written.root)
    next((root / "train").iterdir()).unlink()
    write_dataset(SMALL, root)
    assert len(load_images(written, "train")) == SMALL.train_images
    with pytest.raises(DataError, match="belongs to another dataset"):
        write_dataset(SMALL.model_copy(update={"seed": 9}), root)
    assert not list(root.rglob("*.partial"))


def test_data_make_and_check_on_the_command_line(tmp_path: Path) -> None:
    folder = str(tmp_path / "made")
    options = ["--seed", "4", "--train-images", "6", "--val-images", "5", "--size", "96"]
    assert CliRunner().invoke(main, ["data", "make", folder, *options]).exit_code == 0
    assert data_fingerprint(coco_config(Path(folder))) == data_fingerprint(SMALL)
    text = CliRunner().invoke(main, ["data", "check", folder])
    assert text.exit_code == 0, text.output
    assert "train: 6 images" in text.output
    assert "val: 5 images" in text.output
    records = json.loads(CliRunner().invoke(main, ["data", "check", folder, "--val", "val", "--json"]).output)
    assert list(records) == ["val"]
    assert records["val"]["images"] == 5
    assert records["val"]["unreadable"] == {"count": 0, "examples": []}
    victim = next((Path(folder) / "val").iterdir())
    victim.write_bytes(victim.read_bytes()[:100])
    broken = CliRunner().invoke(main, ["data", "check", folder])
    assert broken.exit_code == 1
    assert victim.name in broken.output


def test_wrong_parameters_and_folders_are_one_line_errors(tmp_path: Path) -> None:
    small = CliRunner().invoke(main, ["data", "make", str(tmp_path / "x"), "--size", "3"])
    assert (small.exit_code, "size = 3" in small.output) == (2, True)
    assert not (tmp_path / "x").exists()
    missing = CliRunner().invoke(main, ["data", "check", str(tmp_path / "nowhere")])
    assert (missing.exit_code, "no such folder" in missing.output) == (2, True)
    bare = CliRunner().invoke(main, ["data", "check", str(tmp_path)])
    assert (bare.exit_code, "annotations/instances_<split>.json" in bare.output) == (2, True)


def test_the_splits_of_a_folder_are_found(two_images: Folder, tmp_path: Path) -> None:
    two_images.write()
    found = coco_config(two_images.root)
    assert (found.train, found.val) == ("train", "val")
    two_images.path("val").unlink()
    with pytest.raises(DataError, match="found: train"):
        coco_config(two_images.root)
    with pytest.raises(DataError, match="no such folder"):
        coco_config(tmp_path / "nowhere")
