"""`ablate detect` and the pictures it draws."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ablations.commands.evaluate import targets
from tests.ablations.trained import ablate, train
from yolor_core.config import EvaluationConfig
from yolor_core.data.layout import COCO_NAMES
from yolor_core.evaluation.detect import Found, detect_picture, draw, glyph, lettering, read_picture
from yolor_core.models import create_model
from yolor_core.weights import export_weights


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("results"))


def picture(path: Path, width: int, height: int) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return path


def test_folder_with_an_unreadable_image(run: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    picture(folder / "a.png", 101, 37)
    picture(folder / "b.bmp", 20, 90)
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("not looked at")
    result = ablate("detect", folder, "--run", run, "--out", out, "--confidence", "0.0001")
    assert result.exit_code == 1
    assert "broken.jpg: cannot be read as an image" in result.output
    assert sorted(p.name for p in out.iterdir()) == ["a-detected.png", "b-detected.png"]
    assert read_picture(out / "a-detected.png").shape == (37, 101, 3)
    assert not np.array_equal(read_picture(out / "a-detected.png"), read_picture(folder / "a.png"))
    assert {p.name for p in folder.iterdir()} == {"a.png", "b.bmp", "broken.jpg", "notes.txt"}


def test_json_has_names_scores_and_boxes_inside_the_picture(run: Path, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 101, 37)
    options = ("--out", tmp_path / "out", "--confidence", "0.0001", "--max-detections", "7", "--json")
    result = ablate("detect", path, "--run", run, *options)
    assert result.exit_code == 0, result.output
    (record,) = json.loads(result.output)
    names = json.loads((run / "evaluation.json").read_text())["per_class"]
    assert len(record["detections"]) == 7
    scores = [d["score"] for d in record["detections"]]
    assert scores == sorted(scores, reverse=True)
    assert scores != [round(score, 6) for score in scores]  # with the digits that give the float32 back
    for detection in record["detections"]:
        x1, y1, x2, y2 = detection["box"]
        assert detection["name"] in names
        assert 0 <= x1 <= x2 <= 101 and 0 <= y1 <= y2 <= 37


def test_weights_of_80_classes_speak_coco(tmp_path: Path) -> None:
    export_weights(create_model("yolor-ssss-s2d"), tmp_path / "w.pt", "authors")
    path = picture(tmp_path / "a.jpg", 64, 64)
    options = ("--size", "64", "--confidence", "0", "--max-detections", "3", "--out", tmp_path / "out")
    result = ablate("detect", path, "--model", "yolor-ssss-s2d", "--weights", tmp_path / "w.pt", *options)
    assert result.exit_code == 0, result.output
    assert any(name in result.output for name in COCO_NAMES)
    assert (tmp_path / "out" / "a-detected.jpg").exists()


def test_nothing_to_look_at(run: Path, tmp_path: Path) -> None:
    result = ablate("detect", tmp_path, "--run", run)
    assert result.exit_code == 2 and "no images in this folder" in result.output
    result = ablate("detect", tmp_path / "none.jpg", "--run", run, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "none.jpg: no such file" in result.output


def test_what_is_missing_is_said_before_pytorch_is_imported(run: Path, tmp_path: Path) -> None:
    there = picture(tmp_path / "a.png", 20, 20)
    for arguments, said in (
        (("detect", tmp_path / "none.jpg", "--run", run), "none.jpg: no such file"),
        (("detect", there, "--run", tmp_path / "none"), "none is not a run directory"),
        (("detect", there, "--run", run, "--confidence", "7"), "confidence = 7.0"),
        (
            ("detect", there, "--model", "yolor-p6", "--weights", tmp_path / "none.pt"),
            "none.pt: no such file",
        ),
        (("evaluate", "--model", "yolor-p66", "--weights", there), "unknown model 'yolor-p66'"),
        (("speed", "yolor-p66"), "unknown model 'yolor-p66'"),
    ):
        words = [str(each) for each in arguments]
        code = f"import sys; sys.argv[1:] = {words}; from ablations.cli import main; import atexit; "
        code += "atexit.register(lambda: print('torch' in sys.modules)); main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode in (1, 2)
        assert said in done.stderr and done.stderr.count("\n") == 1
        assert done.stdout == "False\n"


def test_one_picture_never_costs_the_others(run: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("x" * 245 + ".jpg", "x" * 245 + ".png", "é" * 123 + ".jpg", "last.png"):
        picture(folder / name, 40, 30)
    os.link(folder / "last.png", os.fsencode(folder) + b"/no\xff text.png")
    (out / "occupied-detected.png").mkdir(parents=True)
    picture(folder / "occupied.png", 40, 30)
    picture(folder / "thin.png", 1, 900)
    huge = bytearray((folder / "last.png").read_bytes())
    huge[16:24] = struct.pack(">II", 20_000, 20_000)
    huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
    (folder / "huge.png").write_bytes(huge)
    (folder / "gone.jpg").symlink_to("nowhere")
    result = ablate("detect", folder, "--run", run, "--out", out, "--confidence", "0.0001")
    assert result.exit_code == 1
    assert "gone.jpg: no such file" in result.stderr
    assert "huge.png: cannot be read" in result.stderr and "ABLATE_MAX_PIXELS=N" in result.stderr
    assert "occupied-detected.png cannot be written" in result.stderr
    assert result.stderr.count("\n") == 3
    drawn = sorted(os.fsencode(path.name) for path in out.iterdir() if path.is_file())
    assert [name[:4] for name in drawn] == [b"last", b"no t", b"thin", b"xxxx", b"xxxx", "éé".encode()]
    assert {len(name) for name in drawn[3:]} == {255}


def test_every_kind_of_picture_in_a_folder_and_what_is_left_out(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "inner").mkdir(parents=True)
    suffixes = [".avif", ".jp2", ".ppm", ".tga", ".ico", ".JPG", ".jfif", ".tif", ".gif", ".webp", ".qoi"]
    for suffix in suffixes:
        kind = "JPEG" if suffix == ".jfif" else None
        Image.open(picture(tmp_path / "a.png", 40, 30)).save(folder / f"{suffix[1:]}{suffix}", kind)
    for name in ("a.txt", "b.txt", "notes", ".hidden"):
        (folder / name).touch()
    result = ablate("detect", folder, "--run", run, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    assert {Path(record["image"]).suffix for record in json.loads(result.stdout)} == set(suffixes)
    left = "4 left out that are no images by their names: 2 .txt, 1 of folders, 1 without a suffix"
    assert result.stderr == f"{folder}: {left}\n"


def test_names_are_legible_in_every_script() -> None:
    for name, shown in (
        ("cell", "cell"), ("célula", "célula"), ("клетка", "клетка"), ("خلية", "خلية"), ("细胞", "class 7"),
        ("เซลล์", "class 7"), ("red 细", "class 7"),
    ):  # fmt: skip
        label, font = lettering(name, 7, 20)
        assert label == shown
        drawn = [glyph(font, letter) for letter in set(label) - {" "}]
        assert len(set(drawn)) == len(drawn)  # none is the box that stands for a missing letter
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(np.zeros((60, 80, 3), np.uint8), [Found(0, 0.5, (10.0, 20.0, 60.0, 50.0))], ["细胞"])


def test_images_of_one_name_do_not_overwrite_each_other() -> None:
    paths = [Path("a/x.jpg"), Path("b/x.jpg"), Path("c/x.webp"), Path("d/x.png")]
    names = [p.name for p in targets(paths, Path("out"))]
    assert names == ["x-detected.jpg", "x-detected-2.jpg", "x-detected.png", "x-detected-2.png"]


class OneBox(nn.Module):
    """A detector that sees one object of class 2, as large as a cell, in a given cell of its only level."""

    tasks = ("detection",)
    strides = (32,)
    anchors = torch.full((1, 1, 2), 32.0)

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.row, self.column, self.shape = row, column, ()

    def forward(self, images: Tensor) -> list[Tensor]:
        self.shape = tuple(images.shape)
        raw = torch.full((1, 1, images.shape[2] // 32, images.shape[3] // 32, 8), -20.0)
        raw[0, 0, self.row, self.column, :4] = 0
        raw[0, 0, self.row, self.column, [4, 7]] = 20
        return [raw]


def test_boxes_return_to_the_pixels_of_the_picture() -> None:
    """100 x 200 at size 128 becomes 64 x 128, where cell (1, 2) covers x 64 to 96 and y 32 to 64."""
    model = OneBox(1, 2)
    config = EvaluationConfig(size=128, confidence=0.4)
    pixels = np.zeros((100, 200, 3), np.uint8)
    (found,) = detect_picture(model, pixels, config, torch.device("cpu"))  # type: ignore[arg-type]
    assert model.shape == (1, 3, 64, 128)
    assert found.label == 2
    np.testing.assert_allclose(found.box, np.array([64, 32, 96, 64]) * 200 / 128, atol=1e-3)
    # 70 x 140 at size 140 is padded to 96 x 160: 13 rows above, 10 columns to the left
    (found,) = detect_picture(
        model,
        np.zeros((70, 140, 3), np.uint8),
        EvaluationConfig(size=140, confidence=0.4),
        torch.device("cpu"),
    )  # type: ignore[arg-type]
    np.testing.assert_allclose(found.box, [54, 19, 86, 51], atol=1e-3)


def test_drawing_marks_the_box_and_leaves_the_original() -> None:
    pixels = np.full((120, 160, 3), 50, np.uint8)
    image = np.array(draw(pixels, [Found(0, 0.75, (30.0, 40.0, 90.0, 100.0))], ["thing"]))
    assert (pixels == 50).all()
    changed = (image != 50).any(axis=2)
    assert changed[70, 30] and changed[70, 90] and changed[40, 60] and changed[100, 60]
    assert not changed[50:90, 40:80].any()
    assert changed[25:40, 30:60].mean() > 0.5  # the name above the box
    edge = draw(
        pixels, [Found(0, 0.75, (0.0, 0.0, 160.0, 120.0))], ["a name longer than the picture is wide"]
    )
    assert edge.size == (160, 120)


def test_pictures_are_turned_upright_and_brought_to_8_bits(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").shape == (40, 20, 3)
    Image.fromarray(np.full((5, 6), 65535, np.uint16)).save(tmp_path / "deep.png")
    assert (read_picture(tmp_path / "deep.png") == 255).all()
