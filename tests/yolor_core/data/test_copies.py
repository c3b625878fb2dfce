"""The same picture twice, within a split and across splits."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.ablations.trained import ablate
from tests.yolor_core.data.coco_folder import CATEGORIES, annotation
from yolor_core.data.check import NEAR, _nearest, check_splits, sound
from yolor_core.data.report import DataReport

Change = Callable[[Image.Image], Image.Image]


def noisy(seed: int, width: int = 96, height: int = 72) -> Image.Image:
    """A picture with structure at several scales, like no other."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((width, height)), float
        )
        for n in (3, 6, 12)
    ]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


def write(root: Path, split: str, pictures: dict[str, Image.Image | bytes]) -> None:
    (root / split).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for number, (name, picture) in enumerate(pictures.items()):
        width, height = picture.size if isinstance(picture, Image.Image) else (96, 72)
        if isinstance(picture, bytes):
            (root / split / name).write_bytes(picture)
        else:
            picture.save(root / split / name)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        annotations.append(annotation(number + 1, number, [5, 5, 20, 10]))
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES[:1]}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def counts(report: DataReport) -> dict[str, int]:
    kinds = ("copies", "shared", "near_copies", "near_shared")
    return {kind: report.count(kind) for kind in kinds if report.count(kind)}


def test_equal_pixels_are_found_however_they_are_stored(tmp_path: Path) -> None:
    """By name, size of file and kind of file they differ."""
    pictures = {f"{k}.png": noisy(k) for k in range(12)}
    write(tmp_path, "train", {**pictures, "again.bmp": noisy(3), "damaged.png": b"?", "bad.png": b"!"})
    write(
        tmp_path,
        "val",
        {"x.tif": noisy(5), "y.png": noisy(6), "z.png": noisy(99), "damaged.png": b"?"},
    )
    reports = check_splits(tmp_path, ["train", "val"])
    assert counts(reports["train"]) == {"copies": 1, "shared": 2}
    assert counts(reports["val"]) == {"shared": 2}
    finding = reports["val"].findings["shared"]
    assert finding.summary == "2 of 4 images, 50.0 %"
    assert finding.examples == [
        "image 0 (x.tif) and image 5 (5.png) of train",
        "image 1 (y.png) and image 6 (6.png) of train",
    ]
    assert reports["train"].findings["copies"].examples == ["image 12 (again.bmp) and image 3 (3.png)"]
    assert reports["val"].serious("shared")


def test_one_picture_shared_among_many_is_a_note(tmp_path: Path) -> None:
    write(tmp_path, "train", {f"{k}.png": noisy(k, 24, 18) for k in range(120)})
    write(tmp_path, "val", {f"{k}.png": noisy(k, 24, 18) for k in range(119, 239)})
    reports = check_splits(tmp_path, ["train", "val"])
    assert counts(reports["val"]) == {"shared": 1} and sound(reports["val"])


def test_a_file_listed_twice_is_no_copy_and_a_split_alone_shares_nothing(tmp_path: Path) -> None:
    write(tmp_path, "train", {f"{k}.png": noisy(k) for k in range(3)})
    path = tmp_path / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["images"].append({**content["images"][0], "id": 7})
    path.write_text(json.dumps(content))
    report = check_splits(tmp_path, ["train"])["train"]
    assert counts(report) == {} and report.count("file_twice") == 1


def test_copies_are_found_in_packs_without_image_files(tmp_path: Path) -> None:
    write(tmp_path, "train", {f"{k}.png": noisy(k) for k in range(4)})
    write(tmp_path, "val", {"a.png": noisy(1), "b.png": noisy(9)})
    assert ablate("data", "pack", tmp_path).exit_code == 0
    for split in ("train", "val"):
        shutil.rmtree(tmp_path / split)
    assert counts(check_splits(tmp_path, ["train", "val"])["val"]) == {"shared": 1}


def test_classes_of_one_split_and_of_none_are_told(tmp_path: Path) -> None:
    for split, categories in (("train", (1, 1, 2)), ("val", (1, 3, 3))):
        write(tmp_path, split, {f"{split}{k}.png": noisy(k + 10 * (split == "val")) for k in range(3)})
        path = tmp_path / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        content["categories"] = [{"id": k, "name": f"c{k}"} for k in (1, 2, 3, 4)]
        for each, category in zip(content["annotations"], categories, strict=True):
            each["category_id"] = category
        path.write_text(json.dumps(content))
    reports = check_splits(tmp_path, ["train", "val"])
    assert reports["train"].findings["one_split"].examples == ["'c2' (id 2): 1 boxes here, none in val"]
    assert reports["val"].findings["one_split"].examples == ["'c3' (id 3): 2 boxes here, none in train"]
    assert reports["train"].findings["unused"].examples == ["'c4' (id 4)"]
    assert check_splits(tmp_path, ["val"])["val"].count("one_split") == 0


def test_pairs_that_differ_in_few_bits_are_those_of_a_plain_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolor_core.data.check.BLOCK", 1000)
    rng = np.random.default_rng(0)
    known = rng.integers(0, 2**64, 300, dtype=np.uint64)
    looks = np.stack([known, rng.integers(0, 2**64, 300, dtype=np.uint64)], axis=1)
    for row in range(100, 200):
        flips = rng.choice(64, row // 10 - 5, replace=False)
        looks[row, row % 2] = known[row - 100] ^ np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64))
    looks[:100] = rng.integers(0, 2**64, (100, 2), dtype=np.uint64)

    def distance(one: int, other: int) -> int:
        return min((int(looks[one, k]) ^ int(known[other])).bit_count() for k in (0, 1))

    for earlier in (False, True):
        expected = {}
        for one in range(300):
            pairs = [(distance(one, other), other) for other in range(one if earlier else 300)]
            if pairs and min(pairs)[0] <= NEAR:
                expected[one] = min(pairs)[1]
        assert _nearest(looks, known, earlier) == expected
        assert len(expected) > 30


CHANGES: dict[str, Change] = {
    "JPEG": lambda image: _encoded(image, "JPEG", quality=75),
    "WebP": lambda image: _encoded(image, "WEBP", quality=60),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "mirrored JPEG": lambda image: _encoded(
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "JPEG", quality=75
    ),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "cut by 1 %": lambda image: image.crop(
        (round(0.01 * image.width), round(0.01 * image.height), *image.size)
    ),
}


def _encoded(image: Image.Image, kind: str, **options: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize("change", CHANGES)
def test_changed_photographs_are_found_and_different_ones_are_not(
    real_data: Path, tmp_path: Path, change: str
) -> None:
    files = sorted((real_data / "neu_det" / "train2017").glob("*_[12]?.jpg"))
    files += sorted((real_data / "coco128" / "images").glob("*/*.jpg"))[:20]
    pictures = [Image.open(path).convert("RGB") for path in files]
    write(tmp_path, "train", {f"{k}.bmp": each for k, each in enumerate(pictures[::2])})
    changed = [CHANGES[change](each) for each in pictures[::4]]
    write(tmp_path, "val", {f"{k}.bmp": each for k, each in enumerate([*changed, *pictures[1::2]])})
    result = ablate("data", "check", tmp_path, "--near", "--json")
    finding = json.loads(result.stdout)["val"]["near_shared"]
    assert len(changed) > 15 and result.exit_code == 1
    assert finding["count"] == len(changed)
    for number, text in enumerate(finding["examples"]):
        assert text == f"image {number} ({number}.bmp) and image {2 * number} ({2 * number}.bmp) of train"


def test_pictures_without_a_look_of_their_own_are_not_near(tmp_path: Path) -> None:
    flat = [Image.new("RGB", (64, 48), (shade, shade, shade)) for shade in (0, 1, 128, 255)]
    write(tmp_path, "train", {f"{k}.png": each for k, each in enumerate(flat)})
    write(tmp_path, "val", {"a.png": Image.new("RGB", (64, 48), (40, 40, 40)), "b.png": noisy(1)})
    result = ablate("data", "check", tmp_path, "--near", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 0
    assert [told[split][kind]["count"] for split in told for kind in ("near_copies", "near_shared")] == [
        0
    ] * 4
