"""`ablate data pack`, and what `ablate data check` says about packs."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from ablations.cli import main
from yolor_core.config import CocoConfig, ShapesConfig
from yolor_core.data import load_images
from yolor_core.data.shapes.dataset import write_dataset
from yolor_core.errors import DataError


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small dataset on disk."""
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ABLATE_PACKS", raising=False)
    write_dataset(ShapesConfig(train_images=6, val_images=4, size=96), tmp_path / "shapes")
    return tmp_path / "shapes"


def ablate(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    return result.exit_code, result.output


def test_the_estimate_is_printed_and_nothing_written(shapes: Path) -> None:
    code, text = ablate("data", "pack", shapes, "--decoded", "64", "--estimate")
    assert code == 0
    assert "train.train64.pack: 6 images, decoded, at most 64 pixels, for training, about 0.0" in text
    assert "val.test64.pack: 4 images, decoded, at most 64 pixels, for testing" in text
    assert not (shapes / "packed").exists()


@pytest.mark.parametrize("options", [[], ["--decoded", "64"]], ids=["original", "decoded"])
def test_packs_are_written_found_right_and_checked(shapes: Path, options: list[str]) -> None:
    code, text = ablate("data", "pack", shapes, *options)
    assert code == 0, text
    assert text.count("wrote ") == 2
    written = sorted((shapes / "packed").iterdir())
    times = [path.stat().st_mtime_ns for path in written]
    code, text = ablate("data", "pack", shapes, *options)
    assert code == 0
    assert text.count("is there and belongs") == 2
    assert [path.stat().st_mtime_ns for path in written] == times
    code, text = ablate("data", "pack", shapes, *options, "--force")
    assert text.count("wrote ") == 2
    code, text = ablate("data", "check", shapes)
    assert code == 0
    assert text.count("): sound") == 2
    shutil.rmtree(shapes / "train")
    code, text = ablate("data", "check", shapes, "--train", "train")
    assert code == 0, text  # from the pack alone
    assert "train: 6 images" in text


def test_pictures_that_cannot_be_decoded_are_named_and_too_many_are_exit_code_1(shapes: Path) -> None:
    for path in sorted((shapes / "val").iterdir())[:2]:
        path.write_bytes(b"no picture")
    code, output = ablate("data", "pack", shapes, "--split", "val", "--decoded", "96")
    assert code == 1 and "2 of 4 images cannot be decoded: " in output and path.name in output
    annotations = shapes / "annotations" / "instances_val.json"
    (annotations.parent / "instances_val.json.gz").write_bytes(gzip.compress(b"{}"))
    said = ablate("data", "check", shapes)[1]
    assert "instances_val.json.gz is not read: instances_val.json is there too" in said


def test_one_split_goes_to_a_chosen_place(shapes: Path, tmp_path: Path) -> None:
    code, _ = ablate("data", "pack", shapes, "--split", "val", "--out", tmp_path / "there")
    assert code == 0
    assert [p.name for p in (tmp_path / "there").iterdir()] == ["val.original.pack"]


def test_damage_is_reported_and_other_content_not_overwritten_without_force(shapes: Path) -> None:
    ablate("data", "pack", shapes, "--split", "train")
    target = shapes / "packed" / "train.original.pack"
    data = bytearray(target.read_bytes())
    data[500] ^= 255
    target.chmod(0o644)
    target.write_bytes(data)
    code, text = ablate("data", "check", shapes)
    assert code == 1
    assert "1 of 6 images are damaged" in text
    code, text = ablate("data", "check", shapes, "--json")
    assert code == 1
    (found,) = json.loads(text)["train"]["packs"]
    assert "damaged" in found["problem"]
    target.write_bytes(b"something else")
    code, text = ablate("data", "pack", shapes, "--split", "train")
    assert code != 0
    assert "--force writes it anew" in text
    assert target.read_bytes() == b"something else"
    code, text = ablate("data", "pack", shapes, "--split", "train", "--force")
    assert code == 0
    assert ablate("data", "check", shapes)[0] == 0


@pytest.mark.parametrize("elsewhere", [False, True], ids=["usual place", "another place"])
def test_the_command_that_is_advised_for_a_damaged_pack_mends_it(shapes: Path, elsewhere: bool) -> None:
    out = shapes.parent / "packs" if elsewhere else shapes / "packed"
    ablate("data", "pack", shapes, "--split", "train", "--decoded", "64", "--out", out)
    target = out / "train.train64.pack"
    sound = target.read_bytes()
    target.chmod(0o644)
    target.write_bytes(sound[:900] + bytes([sound[900] ^ 255]) + sound[901:])
    config = CocoConfig(root=str(shapes), train="train", val="val", packs=str(out))
    images = load_images(config, "train")
    with pytest.raises(DataError, match="is damaged; write it anew with `ablate ") as raised:
        [images.scaled(index, 64, "train") for index in range(6)]
    (command,) = re.findall(r"`ablate ([^`]+)`", str(raised.value))
    code, text = ablate(*shlex.split(command))
    assert code == 0, text
    assert target.read_bytes() == sound
    assert [path.name for path in out.iterdir()] == [target.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--decoded", "5"], "--decoded is 5; at least 32"),
        (["--purpose", "test"], "--purpose test is for decoded packs"),
        (["--split", "nothing"], "splits found: train, val"),
        (["--out", " "], "--out is empty"),
    ],
)
def test_mistakes_are_named(shapes: Path, arguments: list[str], message: str) -> None:
    code, text = ablate("data", "pack", shapes, *arguments)
    assert code != 0
    assert message in text


@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
def test_file_names_that_lead_outside_the_folder_are_found(
    shapes: Path, tmp_path: Path, absolute: bool
) -> None:
    path = shapes / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    for image in content["images"][:2]:
        name = f"val/{image['file_name']}"
        image["file_name"] = str(shapes / name) if absolute else f"../../{shapes.name}/{name}"
    path.write_text(json.dumps(content))
    code, text = ablate("data", "check", shapes)
    assert (code, "outside" in text) == (0, False)  # they lead back into it
    copy = shutil.copytree(shapes, tmp_path / "copy")
    code, text = ablate("data", "check", copy)
    assert code == 0
    assert "2 images whose file names lead outside the folder" in text
    assert f"in {(shapes / 'val').resolve()}" in text
