"""Crops of one photograph: found by what they show, told across splits, kept together in groups."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.ablations.trained import ablate
from tests.yolor_core.data.test_copies import write
from yolor_core.data.check import load_splits
from yolor_core.data.convert import Conversion, convert
from yolor_core.data.images import Pixels
from yolor_core.data.near import SHARE, Corners, Match, compare, grey

SIDE = 160


def photograph(seed: int, height: int = 320, width: int = 400) -> Pixels:
    """Grey blots of several sizes, like no other picture's: (height, width)."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(
            rng.normal(0, 20, (height // k + 1, width // k + 1)),
            (width, height),
            interpolation=cv2.INTER_CUBIC,
        )
        for k in (2, 5, 12, 40)
    ]
    return np.clip(128 + np.sum(layers, axis=0), 0, 255).astype(np.uint8)


def crop(image: Pixels, x: int, y: int, side: int = SIDE) -> Pixels:
    return image[y : y + side, x : x + side]


def jpeg(image: Pixels, quality: int) -> Pixels:
    return np.asarray(
        cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 0), np.uint8
    )


def matches(pictures: list[Pixels]) -> dict[tuple[int, int], Match]:
    """Pairs of grey pictures of about one size that are found."""
    corners = Corners(float(np.median([each.size for each in pictures])), len(pictures))
    for each in pictures:
        corners.add(cv2.cvtColor(each, cv2.COLOR_GRAY2RGB).astype(np.uint8))
    found: dict[tuple[int, int], Match] = {}
    for one, other, _, dx, dy in corners.candidates().tolist():
        match = compare(pictures[one], pictures[other], dx, dy)
        if match is not None:
            found.setdefault((one, other), match)
    return found


@pytest.mark.parametrize("quality", [None, 75])
@pytest.mark.parametrize("bright", [1.0, 0.7], ids=["as bright", "darker"])
def test_crops_are_found_from_a_quarter_of_their_pixels_on(quality: int | None, bright: float) -> None:
    """Overlaps of 10, 20, 30, 50 and 90 %, aside, down and both, three photographs each."""
    shifts = [(144, 0), (128, 0), (112, 0), (0, 80), (-8, 8), (-60, -40), (60, -40), (16, 0)]
    pictures, expected = [], {}
    for number, (dx, dy) in enumerate(shifts * 3):
        whole = photograph(number)
        second = (crop(whole, 120 + dx, 80 + dy) * bright).astype(np.uint8)
        pictures += [crop(whole, 120, 80), second if quality is None else jpeg(second, quality)]
        share = (SIDE - abs(dx)) * (SIDE - abs(dy)) / SIDE**2
        if share >= SHARE:
            expected[2 * number, 2 * number + 1] = (pytest.approx(share), -dx, -dy, False, False)
    assert matches(pictures) == expected
    assert len(expected) == 18


def test_pictures_that_share_nothing_are_not_taken_for_crops() -> None:
    """Flat ones, noise on flat ones, one caption on many, and one lattice that many pictures show."""
    rng = np.random.default_rng(1)
    flat = [np.full((SIDE, SIDE), shade, np.uint8) for shade in (0, 90, 90, 255)]
    noisy = [np.clip(90 + rng.normal(0, 3, (SIDE, SIDE)), 0, 255).astype(np.uint8) for _ in range(4)]
    caption = photograph(9)[:24, :48]
    captioned = [each.copy() for each in noisy + [photograph(k)[:SIDE, :SIDE] for k in range(4)]]
    for each in captioned:
        each[-30:-6, 10:58] = caption
    y, x = np.mgrid[:SIDE, :SIDE]
    lattice = 30 * (np.sin(x / 2.5) + np.sin(y / 3.1))
    woven = [
        np.clip(128 + lattice + rng.normal(0, 3, lattice.shape), 0, 255).astype(np.uint8) for _ in range(4)
    ]
    assert matches([*flat, *noisy, *captioned, *woven]) == {}


def test_crops_of_different_sizes_and_halved_pictures() -> None:
    whole = photograph(5, 1400, 1800)
    pictures = [
        whole[:1000, :1300],
        whole[400:1400, 600:1800],
        whole[300:900, 100:700],
        photograph(6, 1000, 1300),
    ]
    found = matches(pictures)
    assert {pair: (match.dx, match.dy) for pair, match in found.items()} == {
        (0, 1): (-600, -400),
        (0, 2): (-100, -300),
    }
    assert found[0, 2].share == 1 and found[0, 1].share == pytest.approx(700 * 600 / (1000 * 1200))


def test_the_same_place_in_another_light_is_told_apart() -> None:
    whole = photograph(3)
    shade = 40 * np.sin(np.mgrid[:SIDE, :SIDE][1] / 40)
    lit = np.clip(crop(whole, 60, 30) * 0.8 + 20 + shade, 0, 255).astype(np.uint8)
    found = matches([crop(whole, 30, 30), lit, crop(whole, 60, 60)])
    assert {pair: match.light for pair, match in found.items()} == {(0, 1): True, (0, 2): False, (1, 2): True}


def folder(root: Path) -> None:
    """Two splits: crops across and within, a mirrored half-size copy, equal pixels."""
    first, second, third = (Image.fromarray(crop(photograph(k), 0, 0, 300)).convert("RGB") for k in range(3))
    write(
        root,
        "train",
        {
            "a.png": first.crop((0, 0, 160, 160)),
            "b.png": second.crop((0, 0, 160, 160)),
            "c.png": second.crop((40, 60, 200, 220)),
            "d.png": third.crop((0, 0, 160, 160)),
            "damaged.png": b"?",
        },
    )
    write(
        root,
        "val",
        {
            "x.png": first.crop((70, 20, 230, 180)),
            "y.png": third.crop((0, 0, 160, 160)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((80, 80)),
            "z.png": Image.fromarray(crop(photograph(7), 0, 0)).convert("RGB"),
            "same.png": second.crop((0, 0, 160, 160)),
        },
    )


def test_what_validation_shares_with_training_is_told_and_grouped(tmp_path: Path) -> None:
    folder(tmp_path)
    out = tmp_path / "groups.json"
    result = ablate("data", "check", tmp_path, "--near", "--groups-out", out)
    assert result.exit_code == 1
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert "3 of 4 images, 75.0 %" in lines
    share = 100 * 90 * 140 / 160**2
    assert f"image 0 (x.png) and image 0 (a.png) of train: {share:.0f} %, shifted by 70, 20" in lines
    assert "image 1 (y.png) and image 3 (d.png) of train: 100 %, mirrored" in lines
    assert f"wrote {out}: 9 images in 5 groups" in lines
    content = json.loads(out.read_text())
    assert content["groups"] == {
        "a.png": 0, "b.png": 1, "c.png": 1, "d.png": 2, "damaged.png": 3,
        "x.png": 0, "y.png": 2, "z.png": 4, "same.png": 1,
    }  # fmt: skip
    pairs = [" ".join(pair["images"]) for pair in content["pairs"]]
    assert pairs == ["a.png x.png", "b.png c.png", "b.png same.png", "c.png same.png", "d.png y.png"]
    assert content["pairs"][0] == {
        "images": ["a.png", "x.png"], "share": 0.4922, "shift": [-70, -20], "mirrored": False, "light": False,
    }  # fmt: skip


def test_json_has_new_keys_and_without_near_nothing_is_looked_for(tmp_path: Path) -> None:
    folder(tmp_path)
    told = {
        near: json.loads(ablate("data", "check", tmp_path, "--json", *["--near"] * near).stdout)
        for near in (False, True)
    }
    assert told[True]["val"]["overlap_shared"]["count"] == 3
    assert told[True]["train"]["overlaps"]["count"] == 1
    assert told[False]["val"]["overlap_shared"] == {"count": 0, "examples": []}
    assert told[False]["val"].keys() == told[True]["val"].keys()


def test_a_split_by_the_groups_that_were_written_has_no_twins(tmp_path: Path) -> None:
    """Six photographs of three crops each; a random split tears them."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "classes.txt").write_text("thing\n")
    for number in range(6):
        whole = photograph(number)
        for place, (x, y) in enumerate(((0, 0), (70, 40), (150, 60))):
            cv2.imwrite(str(source / f"{number}{place}.png"), crop(whole, x, y))
            (source / f"{number}{place}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    groups = tmp_path / "groups.json"
    convert(source, tmp_path / "random", Conversion(val=0.34))
    looked_into = ("data", "check", tmp_path / "random", "--near", "--json", "--groups-out", groups)
    assert json.loads(ablate(*looked_into).stdout)["val"]["overlap_shared"]["count"] > 2
    convert(source, tmp_path / "whole", Conversion(val=0.34, groups=groups))
    result = ablate("data", "check", tmp_path / "whole", "--near", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 0 and told["val"]["overlap_shared"]["count"] == 0
    assert told["val"]["images"] == 6 and told["val"]["overlaps"]["count"] == 4


def test_a_film_is_one_group_without_all_its_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolor_core.data.near.MOST_PAIRS", 3)
    rng, scene = np.random.default_rng(0), crop(photograph(4), 0, 0).astype(float)
    frames = [np.clip(scene + rng.normal(0, 2, scene.shape), 0, 255).astype(np.uint8) for _ in range(16)]
    write(tmp_path, "train", {f"{k}.png": Image.fromarray(f).convert("RGB") for k, f in enumerate(frames)})
    out = tmp_path / "groups.json"
    result = ablate("data", "check", tmp_path, "--near", "--groups-out", out)
    assert "15 of 16 images, 93.8 %" in result.stdout and "16 images in 1 group" in result.stdout
    assert 15 <= len(json.loads(out.read_text())["pairs"]) < 16 * 15 / 2


def test_a_name_of_two_splits_is_told_apart_and_a_file_listed_twice_is_no_pair(tmp_path: Path) -> None:
    pictures = [Image.fromarray(crop(photograph(k), 0, 0)).convert("RGB") for k in range(3)]
    write(tmp_path, "train", {"1.png": pictures[0], "2.png": pictures[1]})
    write(tmp_path, "val", {"1.png": pictures[2]})
    path = tmp_path / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["images"].append({**content["images"][0], "id": 7})
    path.write_text(json.dumps(content))
    out = tmp_path / "groups.json"
    assert "3 groups" in ablate("data", "check", tmp_path, "--near", "--groups-out", out).stdout
    content = json.loads(out.read_text())
    assert content["groups"] == {"train/1.png": 0, "train/2.png": 1, "val/1.png": 2}
    assert content["pairs"] == []


def test_a_file_of_groups_is_not_overwritten_and_mistakes_are_named(tmp_path: Path) -> None:
    folder(tmp_path)
    there = tmp_path / "there.json"
    there.write_text("mine")
    for arguments, message in (
        (("--near", "--groups-out", there), "it exists and is not overwritten"),
        (("--groups-out", tmp_path / "new.json"), "needs --near"),
        (("--near", "--groups-out", tmp_path / "no" / "new.json"), f"there is no folder {tmp_path / 'no'}"),
        (("--near", "--groups-out", ""), "--groups-out is empty"),
    ):
        result = ablate("data", "check", tmp_path, *arguments)
        assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1
    assert there.read_text() == "mine" and not (tmp_path / "new.json").exists()


def test_crops_of_real_photographs_are_found_by_their_pixels(real_data: Path) -> None:
    """NEU-DET: two classes whose known groups are kept whole, and whose pairs have equal pixels."""
    known = json.loads((real_data / "neu_det" / "groups.json").read_text())["groups"]
    folder = real_data / "neu_det"
    files = sorted([*folder.glob("*2017/patches_*.jpg"), *folder.glob("*2017/scratches_*.jpg")])
    names = [path.name for path in files]
    pictures = [grey(np.asarray(Image.open(path).convert("RGB"))) for path in files]
    found = matches(pictures)
    group = {name: {name} for name in names}
    for one, other in found:
        joined = group[names[one]] | group[names[other]]
        group.update(dict.fromkeys(joined, joined))
    members: dict[int, set[str]] = {}
    for name in names:
        members.setdefault(known[name], set()).add(name)
    together = sum(len(each) - 1 for each in members.values())
    kept = sum(len(each) - len({id(group[name]) for name in each}) for each in members.values())
    assert together > 200 and kept >= 0.97 * together
    wrong = 0
    for (one, other), (_, dx, dy, light, _) in found.items():
        a = pictures[one][max(0, -dy) : 200 - max(0, dy), max(0, -dx) : 200 - max(0, dx)]
        b = pictures[other][max(0, dy) : 200 + min(0, dy), max(0, dx) : 200 + min(0, dx)]
        wrong += not light and np.abs(a.astype(float) - b).mean() > 3
    assert len(found) > 300 and wrong <= 0.02 * len(found)


def test_photographs_of_different_places_are_not_taken_for_one(real_data: Path) -> None:
    images = load_splits(real_data / "coco_multitask", ["val2017"])["val2017"]
    pictures = [grey(images.image(k)) for k in range(len(images))]
    assert len(pictures) == 128 and matches(pictures) == {}
