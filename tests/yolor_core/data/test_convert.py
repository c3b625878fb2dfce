"""Folders of Pascal VOC and YOLO become folders in COCO's layout, wholly or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ablations.cli import main
from tests.yolor_core.data.label_trees import SIZE, voc, voc_object, write_tree
from yolor_core.config import AugmentConfig, CocoConfig
from yolor_core.data import TrainingBatches, load_images
from yolor_core.data.convert import Conversion, convert, read_groups
from yolor_core.data.layout import COCO_NAMES
from yolor_core.errors import ConfigError, DataError

DIFFICULT = "<difficult>1</difficult>"
PART = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
TRAPS = {
    "JPEGImages/a.png": SIZE,
    "JPEGImages/b.jpg": (40, 60),
    "JPEGImages/c.png": SIZE,
    "JPEGImages/d.png": SIZE,
    "Annotations/a.xml": voc(
        voc_object("dog", 1, 1, 64, 48), voc_object("cat", 10.5, 3, 20.5, 9, PART), filename="a.bmp"
    ),
    "Annotations/b.xml": voc(size=(60, 40), filename="b.jpg"),
    "Annotations/c.xml": voc(voc_object("cat", 2, 2, 2, 5, DIFFICULT)),
    "Annotations/d.xml": voc(voc_object("dog", 5, 6, 24, 35), voc_object("ant", 1, 2, 3, 4), size=None),
    "ImageSets/Main/train.txt": "b\na\n",
    "ImageSets/Main/val.txt": "d\nc\n",
}
YOLO = {
    "data.yaml": f"train: images/train\nval: images/val\nnames: [{', '.join(f'c{n}' for n in range(12))}]\n",
    "images/train/a.png": SIZE,
    "images/train/b.png": SIZE,
    "images/train/c.png": SIZE,
    "images/val/d.png": SIZE,
    "labels/train/a.txt": "10 0.25 0.25 0.25 0.125\n2 0.5 0.5 0.1953125 0.5\n",
    "labels/train/b.txt": "",
    "labels/val/d.txt": "11 0.25 0.5 0.75 0.25 0.5 1 0.5 1\n1 0.5 0.5 1 1\n",
}  # fmt: skip


def read(folder: Path, split: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "annotations" / f"instances_{split}.json").read_text())
    return content


def boxes(content: dict[str, Any]) -> list[tuple[Any, ...]]:
    """id, image, category and box of every annotation."""
    files = {image["id"]: image["file_name"] for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    return [
        (a["id"], files[a["image_id"]], names[a["category_id"]], *a["bbox"]) for a in content["annotations"]
    ]


def ablate(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    return result.exit_code, result.output


def test_a_voc_folder_with_all_traps(tmp_path: Path) -> None:
    source, target = write_tree(tmp_path / "voc", TRAPS), tmp_path / "coco"
    code, text = ablate("data", "convert", source, target)
    assert code == 0, text
    train, val = read(target, "train"), read(target, "val")
    size = {"width": 64, "height": 48}
    assert train["images"] == [
        {"id": 1, "file_name": "a.png", **size}, {"id": 2, "file_name": "b.jpg", "width": 40, "height": 60}
    ]  # fmt: skip
    assert val["images"] == [{"id": 3, "file_name": "c.png", **size}, {"id": 4, "file_name": "d.png", **size}]
    assert boxes(train) == [
        (1, "a.png", "dog", 0, 0, 64, 48), (2, "a.png", "cat", 9.5, 2, 11, 7)
    ]  # fmt: skip
    assert boxes(val) == [
        (1, "c.png", "cat", 1, 1, 1, 4), (2, "d.png", "dog", 4, 5, 20, 30), (3, "d.png", "ant", 0, 1, 3, 3)
    ]  # fmt: skip
    assert [a["area"] for a in train["annotations"]] == [64 * 48, 77]
    assert not any(a["iscrowd"] for a in train["annotations"] + val["annotations"])
    assert val["annotations"][0]["difficult"] == 1
    names = [{"id": 1, "name": "ant"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "dog"}]
    assert train["categories"] == val["categories"] == names
    for line in (
        "train: 2 images, 2 objects; 1 without objects", "3 classes: ant (1), cat (2), dog (2)",
        "the name of the XML file counts: 1, e.g. Annotations/a.xml says 'a.bmp', its picture is a.png",
        "(do the boxes fit it?): 1, e.g. Annotations/b.xml says 60 x 40, the picture has 40 x 60",
        "<size> is missing, and the picture's own counts: 1", "objects with <part>s, which are left out: 1",
        "objects marked difficult, kept as others are (--difficult crowd has them ignored): 1, e.g. c.png",
        f"wrote {target} (hard links); `ablate data check {target}` checks it",
    ):  # fmt: skip
        assert line in text
    assert (target / "val" / "c.png").samefile(source / "JPEGImages" / "c.png")
    code, text = ablate("data", "check", target)
    assert code == 0 and "1 boxes with `ignore` or `difficult` set" in text


def test_a_yolo_folder_with_all_traps(tmp_path: Path) -> None:
    source, target = write_tree(tmp_path / "yolo", YOLO), tmp_path / "coco"
    code, text = ablate("data", "convert", source, target, "--copy")
    assert code == 0, text
    train, val = read(target, "train"), read(target, "val")
    assert boxes(train) == [
        (1, "a.png", "c10", 8, 9, 16, 6), (2, "a.png", "c2", 25.75, 12, 12.5, 24)
    ]  # fmt: skip
    assert boxes(val) == [(1, "d.png", "c11", 16, 12, 32, 36), (2, "d.png", "c1", 0, 0, 64, 48)]
    assert [image["file_name"] for image in train["images"]] == ["a.png", "b.png", "c.png"]
    assert [a["iscrowd"] for a in val["annotations"]] == [0, 0]
    assert val["categories"] == [{"id": n + 1, "name": f"c{n}"} for n in range(12)]
    images = load_images(CocoConfig(root=str(target), train="train", val="val"), "train")
    assert list(images.names) == [f"c{n}" for n in range(12)]  # number and class of the network are the same
    assert "pictures without a label file, taken for ones without objects: 1, e.g. images/train/c.png" in text
    assert "polygons that became the boxes around them: 1, e.g. labels/val/d.txt: line 1" in text
    assert "(0 hard links, 4 copies)" in text
    assert not (target / "train" / "a.png").samefile(source / "images" / "train" / "a.png")
    assert ablate("data", "check", target)[0] == 0


def test_what_was_converted_makes_batches_to_train_on(tmp_path: Path) -> None:
    convert(write_tree(tmp_path / "voc", TRAPS), tmp_path / "coco", Conversion())
    images = load_images(CocoConfig(root=str(tmp_path / "coco"), train="train", val="val"), "train")
    plain = AugmentConfig(mosaic=0, scale=0)
    (batch,) = TrainingBatches(images, 64, 2, seed=0).epoch(0, plain)
    assert batch.images.shape == (2, 3, 64, 64) and len(batch.targets) == 2


def test_difficult_objects_become_crowds_where_that_is_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "coco"
    convert(write_tree(tmp_path / "voc", TRAPS), target, Conversion(difficult="crowd"))
    assert [a["iscrowd"] for a in read(target, "val")["annotations"]] == [1, 0, 0]
    val = load_images(CocoConfig(root=str(target), train="train", val="val"), "val")
    assert (len(val.boxes(0)), val.report.count("crowd")) == (0, 1)


@pytest.mark.parametrize(
    ("classes", "names", "expected"),
    [
        (None, ("10", "9", "1"), ["1", "9", "10"]),
        (None, ("b", "a", "10"), ["10", "a", "b"]),
        (("dog", "cat", "ant"), ("cat", "dog", "cat"), ["dog", "cat", "ant"]),
    ],
    ids=["numbers", "alphabet", "given"],
)
def test_the_order_of_classes(
    tmp_path: Path, classes: tuple[str, ...] | None, names: tuple[str, ...], expected: list[str]
) -> None:
    objects = [voc_object(name, 1, 1, 9, 9) for name in names]
    files = {"a.png": SIZE, "a.xml": voc(*objects), "b.png": SIZE, "b.xml": voc()}
    source = write_tree(tmp_path / "voc", files)
    convert(source, tmp_path / "coco", Conversion(classes=classes, val=0.5))
    for split in ("train", "val"):
        categories = read(tmp_path / "coco", split)["categories"]
        assert [(c["id"], c["name"]) for c in categories] == list(enumerate(expected, 1))
    with pytest.raises(DataError, match=r"a.xml: object 1: class '\w+'; --classes has zebra"):
        convert(source, tmp_path / "other", Conversion(classes=["zebra"], val=0.5))


def many(count: int, groups: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A folder of pictures in YOLO's form, and groups of them in turn."""
    files: dict[str, Any] = {"classes.txt": "x\n"}
    for number in range(count):
        files |= {f"p{number}.png": SIZE, f"p{number}.txt": "0 0.5 0.5 1 1\n"}
    return files, {"what": "", "groups": {f"p{n}.png": n % groups for n in range(count)}}


def chosen(folder: Path, split: str = "val") -> set[str]:
    return {image["file_name"] for image in read(folder, split)["images"]}


def test_a_split_is_repeatable_and_keeps_groups_whole(tmp_path: Path) -> None:
    files, groups = many(30, 10)
    source = write_tree(tmp_path / "yolo", {**files, "groups.json": json.dumps(groups)})
    by_seed = []
    for seed in (0, 1):
        for name in ("one", "two"):
            convert(source, tmp_path / f"{name}{seed}", Conversion(val=0.3, seed=seed))
        first, second = ((tmp_path / f"{name}{seed}" / "annotations") for name in ("one", "two"))
        for path in first.iterdir():
            assert path.read_bytes() == (second / path.name).read_bytes()
        by_seed.append(chosen(tmp_path / f"one{seed}"))
        assert len(by_seed[-1]) == 9
    assert by_seed[0] != by_seed[1]
    convert(source, tmp_path / "grouped", Conversion(val=0.3, groups=source / "groups.json"))
    val = chosen(tmp_path / "grouped")
    sizes = Counter(groups["groups"][name] for name in val)
    assert len(val) == 9 and set(sizes.values()) == {3}
    assert val.isdisjoint(chosen(tmp_path / "grouped", "train"))
    assert len(chosen(tmp_path / "grouped", "train")) == 21


def test_a_new_split_leaves_the_test_split_as_it_is(tmp_path: Path) -> None:
    files = {**TRAPS, "ImageSets/Main/train.txt": "a\nb\nc\n", "ImageSets/Main/val.txt": "d\n"}
    groups = {"groups": {"a.png": "x", "c.png": "x"}}
    source = write_tree(
        tmp_path / "voc", {**files, "ImageSets/Main/test.txt": "c", "g.json": json.dumps(groups)}
    )
    done = convert(source, tmp_path / "coco", Conversion(val=0.3, groups=source / "g.json"))
    assert chosen(tmp_path / "coco", "test") == {"c.png"}
    assert len(chosen(tmp_path / "coco", "train")) == 2 and len(chosen(tmp_path / "coco")) == 1
    assert any(
        note.startswith("groups that are in the folder's own test split, too: 1") for note in done.notes
    )
    assert any(note.startswith("pictures in no group, split one by one: 2") for note in done.notes)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[]", "key 'groups' with an object of file names and their groups is needed"),
        ('{"groups": {"p0.png": 1.5}}', "p0.png: group is 1.5; a whole number or a text is needed"),
        (
            '{"groups": {"q.png": 1, "p1.png": 1}}',
            "groups.json: 1 of its 2 names are no picture of .*: q.png; remove them, or have",
        ),
        ('{"groups": {"p0.png": 1', "not JSON"),
        (
            json.dumps({"groups": {f"p{n}.png": 1 for n in range(4)}}),
            "none of the 1 groups of 4 pictures is small enough for the 1 for validation",
        ),
    ],
)
def test_groups_of_another_form_are_refused(tmp_path: Path, content: str, problem: str) -> None:
    source = write_tree(tmp_path / "yolo", {**many(4, 2)[0], "groups.json": content})
    with pytest.raises(DataError, match=problem):
        convert(source, tmp_path / "coco", Conversion(val=0.2, groups=source / "groups.json"))


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_splits_of_a_folder_that_tear_a_group_are_refused(tmp_path: Path, prefix: str) -> None:
    groups = {"groups": {prefix + "a.png": 7, "d.png": 7, "c.png": 2, "b.jpg": 3}}
    source = write_tree(tmp_path / "voc", {**TRAPS, "groups.json": json.dumps(groups)})
    with pytest.raises(
        DataError, match=r"group 7: a.png in train and d.png in val: torn .*; --val SHARE splits"
    ):
        convert(source, tmp_path / "coco", Conversion(groups=source / "groups.json"))


@pytest.mark.parametrize(
    ("files", "options", "problem"),
    [
        ({"Annotations/d.xml": "<annotation>"}, (), "Annotations/d.xml: not XML: no element found"),
        ({"JPEGImages/d.png": b"GIF"}, (), "JPEGImages/d.png: cannot be read: UnidentifiedImageError"),
        ({"ImageSets/Main/val.txt": "a\n"}, (), "JPEGImages/a.png: in train and in val; --val SHARE splits"),
        ({"ImageSets/Main/val.txt": "\n"}, (), "no pictures are in val"),
        (
            {"JPEGImages/e.png": SIZE, "ImageSets/Main/val.txt": "e\n"}, (),
            "JPEGImages/e.png: no label file of its name; none of the 1 pictures of its split has one",
        ),
        (
            {"JPEGImages/e.png": SIZE, "ImageSets/Main/val.txt": "c\ne\n"}, (),
            "JPEGImages/e.png: it has no label file; --unlabelled empty takes such pictures for ones without",
        ),
        (
            {"Annotations/a.xml": voc(voc_object("dog", 0, 1, 5, 5), *[voc_object("ox", 9, 1, 5, 5)] * 3)},
            (),
            "voc: 4 problems: Annotations/a.xml: object 1 (dog): xmin 0, ymin 1, xmax 5, ymax 5: it leaves "
            "its picture of 64 x 48; Annotations/a.xml: object 2 (ox): xmin 9, ymin 1, xmax 5, ymax 5: "
            "inverted; Annotations/a.xml: object 3 (ox): xmin 9, ymin 1, xmax 5, ymax 5: inverted; and 1 "
            "more; VOC counts from 1: if these files count from 0, --zero-based says so; --clip cuts such "
            "boxes to their picture",
        ),
        ({}, ("--val", "1"), "--val is 1; a share of the pictures between 0 and 1 is needed, e.g. 0.2"),
        ({}, ("--classes", "dog,cat,dog"), "--classes has 'dog' more than once"),
        ({}, ("--classes", "dog,,cat"), "--classes has an empty name"),
        ({}, ("--groups", "none.json"), "none.json: No such file or directory"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, files: dict[str, Any], options: tuple[str, ...], problem: str
) -> None:
    source = write_tree(tmp_path / "voc", {**TRAPS, **files})
    code, text = ablate("data", "convert", source, tmp_path / "coco", *options)
    assert code == 2 and problem in text, text
    assert text.count("\n") == 1
    assert os.listdir(tmp_path) == ["voc"]


@pytest.mark.parametrize("policy", ["empty", "skip"])
def test_pictures_without_a_label_file_are_kept_or_left_out_as_told(tmp_path: Path, policy: Any) -> None:
    source = write_tree(
        tmp_path / "voc", {**TRAPS, "JPEGImages/e.png": SIZE, "ImageSets/Main/val.txt": "c\ne\n"}
    )
    convert(source, tmp_path / "coco", Conversion(unlabelled=policy))
    assert chosen(tmp_path / "coco") == ({"c.png", "e.png"} if policy == "empty" else {"c.png"})


def test_the_share_for_validation_is_of_the_pictures_that_are_left(tmp_path: Path) -> None:
    files: dict[str, Any] = {f"images/p{number}.png": (8, 8) for number in range(40)}
    files |= {f"labels/p{number}.txt": "0 0.5 0.5 1 1\n" for number in range(0, 40, 4)}
    groups = {"groups": {f"p{number}.png": number for number in range(40)}}
    source = write_tree(tmp_path / "yolo", {**files, "classes.txt": "x\n", "g.json": json.dumps(groups)})
    for seed in range(4):
        how = Conversion(val=0.2, seed=seed, unlabelled="skip", groups=source / "g.json")
        done = convert(source, tmp_path / f"coco{seed}", how)
        assert (len(done.contents["train"]["images"]), len(done.contents["val"]["images"])) == (8, 2)
        assert done.notes[0].startswith("pictures without a label file, left out: 30")
    none = write_tree(tmp_path / "none", {"images/a.png": SIZE, "classes.txt": "x\n"})
    with pytest.raises(DataError, match="no picture has a label file"):
        convert(none, tmp_path / "coco", Conversion(form="yolo", val=0.2, unlabelled="skip"))


def test_options_of_the_other_form_are_refused(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "yolo", YOLO)
    with pytest.raises(ConfigError, match=r"--difficult is for Pascal VOC; .* is in YOLO's form"):
        convert(source, tmp_path / "coco", Conversion(difficult="crowd"))


def test_a_seed_without_a_split_to_make_is_refused(tmp_path: Path) -> None:
    code, text = ablate(
        "data", "convert", write_tree(tmp_path / "voc", TRAPS), tmp_path / "coco", "--seed", "0"
    )
    assert code == 2 and "--seed says which split --val makes" in text


def test_a_target_inside_the_source_is_refused(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "yolo", YOLO)
    before = sorted(source.rglob("*"))
    with pytest.raises(DataError, match=r"yolo/new/coco: it would be inside .*yolo, which is not changed"):
        convert(source, source / "new" / "coco", Conversion())
    assert sorted(source.rglob("*")) == before


def test_same_names_in_two_folders_of_a_split_are_refused(tmp_path: Path) -> None:
    files = {**YOLO, "images/train/sub/a.png": SIZE, "labels/train/sub/a.txt": ""}
    with pytest.raises(
        DataError, match=r"train/sub/a.png: two pictures of one name, the other is images/train/a"
    ):
        convert(write_tree(tmp_path / "yolo", files), tmp_path / "coco", Conversion())


def test_a_target_that_is_there_is_refused_and_not_touched(tmp_path: Path) -> None:
    source, target = write_tree(tmp_path / "voc", TRAPS), tmp_path / "coco"
    target.mkdir()
    code, text = ablate("data", "convert", source, target)
    assert code == 2 and "coco: it is there already; choose another folder" in text
    assert not list(target.iterdir())


def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, link = write_tree(tmp_path / "voc", TRAPS), os.link

    def interrupt(picture: str, target: Path) -> None:
        if target.name == "c.png":
            raise KeyboardInterrupt
        link(picture, target)

    monkeypatch.setattr(os, "link", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "coco", Conversion())
    assert os.listdir(tmp_path) == ["voc"]


def test_pictures_are_copied_where_no_links_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(picture: str, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    source = write_tree(tmp_path / "voc", TRAPS)
    assert convert(source, tmp_path / "coco", Conversion()).linked == 0
    copy = tmp_path / "coco" / "val" / "d.png"
    assert copy.read_bytes() == (source / "JPEGImages" / "d.png").read_bytes()


def test_real_boxes_come_back_through_voc_and_the_whole_groups_with_them(
    real_data: Path, tmp_path: Path
) -> None:
    root = real_data / "neu_det"
    content = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    expected: dict[str, list[tuple[str, list[int]]]] = {}
    source = tmp_path / "NEU-DET"
    for image in content["images"][::20]:
        here = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        stem = Path(image["file_name"]).stem
        expected[image["file_name"]] = [(names[a["category_id"]], a["bbox"]) for a in here]
        objects = [
            voc_object(names[a["category_id"]], x + 1, y + 1, x + w, y + h)
            for a in here
            for x, y, w, h in [a["bbox"]]
        ]
        picture = (root / "val2017" / image["file_name"]).read_bytes()
        xml = voc(*objects, filename=stem, size=(image["width"], image["height"]))
        write_tree(source, {f"ANNOTATIONS/{stem}.xml": xml, f"IMAGES/{image['file_name']}": picture})
    groups = json.loads((root / "groups.json").read_text())["groups"]
    whole = tmp_path / "groups.json"
    whole.write_text(json.dumps({"groups": {name: groups[name] for name in expected}}))
    how = Conversion(val=0.4, groups=whole)
    done = convert(source, tmp_path / "coco", how)
    found: dict[str, list[tuple[str, list[int]]]] = {}
    for split in done.contents.values():
        files = {image["id"]: image["file_name"] for image in split["images"]}
        found |= {name: [] for name in files.values()}
        labels = {category["id"]: category["name"] for category in split["categories"]}
        for a in split["annotations"]:
            found[files[a["image_id"]]].append((labels[a["category_id"]], a["bbox"]))
    assert len(found) == 30 and found == expected
    sides = [{groups[name] for name in chosen(tmp_path / "coco", split)} for split in ("train", "val")]
    assert not sides[0] & sides[1]
    assert np.isclose(len(chosen(tmp_path / "coco")) / 30, 0.4, atol=0.1)
    ablate("data", "check", tmp_path / "coco", "--near", "--groups-out", tmp_path / "written.json")
    assert read_groups(tmp_path / "written.json").keys() == expected.keys()


def test_yolos_labels_of_coco_give_cocos_own_boxes_but_for_crowds(real_data: Path, tmp_path: Path) -> None:
    done = convert(real_data / "coco128", tmp_path / "coco", Conversion(classes=COCO_NAMES, copy=True))
    official = json.loads((real_data / "coco128" / "annotations" / "instances_train2017.json").read_text())
    official["annotations"] = [a for a in official["annotations"] if not a["iscrowd"]]
    both = []
    for content in (done.contents["train"], official):
        by_image: dict[str, list[tuple[Any, ...]]] = {image["file_name"]: [] for image in content["images"]}
        for _, name, *annotation in boxes(content):
            by_image[name].append(tuple(annotation))
        both.append(by_image)
    found, expected = both
    assert found.keys() == expected.keys() and sum(map(len, found.values())) == 929
    for name, objects in expected.items():
        assert len(found[name]) == len(objects)
        for label, *box in objects:
            same = [np.allclose(box, other, rtol=0, atol=1e-3) for own, *other in found[name] if own == label]
            assert any(same), (name, label, box)  # six decimals of a share are 0.0005 pixels


def test_a_folder_in_cocos_layout_is_split_anew_with_all_that_its_files_say(tmp_path: Path) -> None:
    """Masks, crowds, licences and category ids with gaps; both files count images and annotations from 1."""
    files: dict[str, Any] = {}
    everything: dict[str, list[Any]] = {}
    categories = [{"id": 3, "name": "cat"}, {"id": 70, "name": "ant"}]
    for split in ("train2017", "val2017"):
        images, annotations = [], []
        for number in range(1, 7):
            name = f"{split}-{number}.png"
            files[f"{split}/{name}"] = SIZE
            images.append({"id": number, "file_name": name, "width": 64, "height": 48, "license": number})
            said = {"category_id": 70, "bbox": [1.5, 2, 3, 4], "area": number, "iscrowd": number % 2}
            mask = {"segmentation": [[1, 2, 3, 4, 5, number]]}
            everything[name] = [number, {**said, **mask}] if number > 2 else [number]
            annotations += [{"id": number, "image_id": number, **each} for each in everything[name][1:]]
        content = {"licenses": [{"id": 1}], "images": images, "annotations": annotations}
        files[f"annotations/instances_{split}.json"] = json.dumps({**content, "categories": categories})
    groups = {name: name[-5] for name in everything}  # the pictures of one number
    source = write_tree(tmp_path / "old", {**files, "groups.json": json.dumps({"groups": groups})})
    done = convert(source, tmp_path / "new", Conversion(val=0.5, groups=source / "groups.json"))
    found: dict[str, list[Any]] = {}
    for split, content in done.contents.items():
        assert (content["categories"], content["licenses"]) == (categories, [{"id": 1}])
        assert [each["id"] for each in content["annotations"]] == [*range(1, len(content["annotations"]) + 1)]
        for image in content["images"]:
            here = [a for a in content["annotations"] if a["image_id"] == image["id"]]
            known = [{k: v for k, v in a.items() if k not in ("id", "image_id")} for a in here]
            found[image["file_name"]] = [image["license"], *known]
            assert (tmp_path / "new" / split / image["file_name"]).is_file()
    assert found == everything
    assert sorted(image["id"] for c in done.contents.values() for image in c["images"]) == [*range(1, 13)]
    sides = [{groups[name] for name in chosen(tmp_path / "new", split)} for split in ("train", "val")]
    assert [len(side) for side in sides] == [3, 3] and not sides[0] & sides[1]
    # Its own split is kept as it is, and what is not for this form is refused.
    convert(source, tmp_path / "same", Conversion())
    assert chosen(tmp_path / "same") == {name for name in everything if name.startswith("val2017")}
    with pytest.raises(DataError, match=r"group 1: .* torn by the folder's own splits"):
        convert(source, tmp_path / "torn", Conversion(groups=source / "groups.json"))
    with pytest.raises(ConfigError, match=r"--classes is for Pascal VOC and YOLO; .* is in COCO's layout"):
        convert(source, tmp_path / "named", Conversion(classes=["a"]))


def coco_tree(root: Path, said: dict[str, dict[str, Any]]) -> Path:
    """Pictures and annotation files by split: `files` with a box each, and what else the file says."""
    files: dict[str, Any] = {}
    number = 0
    for split, content in said.items():
        images, annotations = [], []
        for name, box in content.pop("files").items():
            number += 1
            files[f"{split}/{name}"] = SIZE
            images.append({"id": number, "file_name": name, "width": 64, "height": 48})
            said_of = {"category_id": 1, "bbox": box, "area": 4, "iscrowd": 0}
            annotations.append({"id": number, "image_id": number, **said_of})
        content |= {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}
        files[f"annotations/instances_{split}.json"] = json.dumps(content)
    return write_tree(root, files)


def test_each_split_keeps_what_its_own_file_says_beside_images_and_annotations(tmp_path: Path) -> None:
    """A split of pictures of two files needs what both say: of four pictures, three come from two files."""

    def folder(name: str, of_train: dict[str, Any], of_val: dict[str, Any]) -> Path:
        files = ({file: [1, 1, 2, 2] for file in pair} for pair in (("a.png", "b.png"), ("c.png", "d.png")))
        said = zip(("train", "val"), (of_train, of_val), files, strict=True)
        return coco_tree(tmp_path / name, {split: {**head, "files": of} for split, head, of in said})

    head = {"info": {"size_limits": [8, 24]}, "licenses": [{"id": 1, "name": "BY"}]}
    source = folder("sizes", {}, head)
    done = convert(source, tmp_path / "kept", Conversion()).contents
    assert (done["val"]["info"], done["val"]["licenses"]) == (head["info"], head["licenses"])
    assert "info" not in done["train"] and "licenses" not in done["train"]
    with pytest.raises(DataError, match=r"val.json: its info.size_limits are not those of instances_train"):
        convert(source, tmp_path / "mixed", Conversion(val=0.25))
    source = folder("licences", {"licenses": [{"id": 1}]}, {"licenses": [{"id": 2}]})
    done = convert(source, tmp_path / "joined", Conversion(val=0.25)).contents
    assert done["train"]["licenses"] == [{"id": 1}, {"id": 2}]
    source = folder("another", {"licenses": [{"id": 1}]}, {"licenses": [{"id": 1, "name": "BY"}]})
    with pytest.raises(DataError, match=r"licence 1 is another one in instances_train.json"):
        convert(source, tmp_path / "one", Conversion(val=0.25))


@pytest.mark.parametrize("options", [{}, {"copy": True}, {"val": 0.5}])
def test_a_file_that_two_images_name_in_two_ways_is_refused(tmp_path: Path, options: Any) -> None:
    files = {"a.png": [1, 1, 5, 5], "./a.png": [9, 9, 9, 9]}
    source = coco_tree(
        tmp_path / "old", {"train": {"files": files}, "val": {"files": {"b.png": [1, 1, 2, 2]}}}
    )
    with pytest.raises(DataError, match=r"a.png is the file of two images"):
        convert(source, tmp_path / "new", Conversion(**options))
    assert not (tmp_path / "new").exists()


def test_a_number_that_json_has_not_is_an_error_in_one_line(tmp_path: Path) -> None:
    said = {split: {"files": {f"{split}.png": [1, 1, 2, 2]}} for split in ("train", "val")}
    source = coco_tree(tmp_path / "old", said)
    path = source / "annotations" / "instances_val.json"
    path.write_text(path.read_text().replace('"area": 4', '"area": 4, "score": NaN'))
    code, text = ablate("data", "convert", source, tmp_path / "new")
    assert code == 2 and "an annotation holds a number that JSON has not" in text
    assert sorted(each.name for each in tmp_path.iterdir()) == ["old"]


@pytest.mark.parametrize(
    ("files", "keys"),
    [  # as `data check --near --groups-out` names pictures in folders of a split, and those of one name
        (("s/a.png", "s/c.png", "b.png"), ("s/a.png", "s/c.png", "b.png")),
        (("a.png", "c.png", "a.png"), ("train2017/a.png", "train2017/c.png", "val2017/a.png")),
        (("a.png", "c.png", "a.png"), ("train/a.png", "c.png", "val/a.png")),
    ],
)
def test_groups_name_pictures_as_the_annotations_do(
    tmp_path: Path, files: tuple[str, str, str], keys: tuple[str, str, str]
) -> None:
    said = {
        "train2017": {"files": {files[0]: [1, 1, 2, 2], files[1]: [1, 1, 2, 2]}},
        "val2017": {"files": {files[2]: [1, 1, 2, 2]}},
    }
    source = coco_tree(tmp_path / "old", said)
    (tmp_path / "g.json").write_text(json.dumps({"groups": dict(zip(keys, (0, 0, 1), strict=True))}))
    convert(source, tmp_path / "new", Conversion(groups=tmp_path / "g.json"))
    torn = dict(zip(keys, (0, 1, 0), strict=True))
    (tmp_path / "torn.json").write_text(json.dumps({"groups": torn}))
    with pytest.raises(DataError, match=r"group 0: .* torn by the folder's own splits"):
        convert(source, tmp_path / "other", Conversion(groups=tmp_path / "torn.json"))


def names(*words: str) -> str:
    return f"train: images/train\nval: images/val\nnames: [{', '.join(words)}]\n"


TWELVE = [f"c{n}" for n in range(12)]


@pytest.mark.parametrize(
    ("files", "options", "problem"),
    [
        ({"data.yaml": names("c0", "c1", *TWELVE[:10])}, (), "names: the name c0 is given twice"),
        (
            {"data.yaml": "train: images/train\nval: images/val\nnames: {0: a, 00: b}\n"},
            (),
            "the number 0 is given twice",
        ),
        (
            {},
            ("--classes", ",".join(reversed(TWELVE))),
            "--classes has the folder's own names in another order",
        ),
        ({"images/train/a.jpg": SIZE}, (), "its label file is that of images/train/a.jpg, too"),
        (
            {"data.yaml": f"{names(*TWELVE)}test: images/test\n", "images/test/e.png": SIZE},
            (),
            "none of the 1 pictures of its split has one; --unlabelled empty takes",
        ),
        ({"labels/val/d.txt": "1_1 0.5 0.5 1 1\n"}, (), "'1_1'; a finite number is needed"),
    ],
)
def test_what_would_make_one_class_or_picture_of_two_is_refused(
    tmp_path: Path, files: dict[str, Any], options: tuple[str, ...], problem: str
) -> None:
    source = write_tree(tmp_path / "yolo", {**YOLO, **files})
    code, text = ablate("data", "convert", source, tmp_path / "coco", *options)
    assert code == 2 and problem in text, text
    assert not (tmp_path / "coco").exists()


@pytest.mark.parametrize("written", ["{root}/images/train/a.png", "images/train/../train/a.png", "link.png"])
def test_a_picture_in_two_splits_is_found_however_its_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    lists = {"train.txt": "images/train/a.png\n", "val.txt": f"{written.format(root=tmp_path / 'yolo')}\n"}
    config = {
        "data.yaml": "train: train.txt\nval: val.txt\nnames: [c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10]\n"
    }
    source = write_tree(tmp_path / "yolo", {**YOLO, **lists, **config})
    (source / "link.png").symlink_to("images/train/a.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="in train and in val"):
        convert(Path("yolo"), Path("coco"), Conversion())


def test_labels_of_a_file_under_two_paths_are_not_lost(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "yolo", {**YOLO, "labels/val/e.txt": YOLO["labels/train/a.txt"]})
    (source / "images/val/e.png").symlink_to("../train/a.png")
    done = convert(source, tmp_path / "coco", Conversion(val=0.3))
    assert sum(len(content["images"]) for content in done.contents.values()) == 4
    assert done.notes == [
        "pictures that are the file of another, taken once: 1, e.g. images/val/e.png",
        *done.notes[1:],
    ]
    (source / "labels/val/e.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    problem = r"images/val/e.png: the same file as images/train/a.png, with other labels; remove one of them"
    with pytest.raises(DataError, match=problem):
        convert(source, tmp_path / "other", Conversion(val=0.3))
    with pytest.raises(DataError, match=r"images/val/e.png: in train and in val$"):
        convert(source, tmp_path / "other", Conversion())


def test_no_picture_is_said_to_be_left_out_that_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"data.yaml": f"path: {tmp_path / 'yolo'}\n{names(*TWELVE)}"}
    write_tree(tmp_path / "yolo", {**YOLO, **config})
    monkeypatch.chdir(tmp_path)
    assert not [
        note for note in convert(Path("yolo"), Path("coco"), Conversion()).notes if "left out" in note
    ]


def test_groups_of_names_in_two_splits_are_kept_whole_in_a_new_split(tmp_path: Path) -> None:
    """Keys `split/name`, as `data check --near` writes them where two splits share a file name."""
    files: dict[str, Any] = {"classes.txt": "x\n"}
    for number in range(12):
        split = "test" if number < 2 else "train"
        files |= {f"images/{split}/p{number}.png": SIZE, f"labels/{split}/p{number}.txt": "0 0.5 0.5 1 1\n"}
    files |= {"images/train/p0.png": (48, 64), "labels/train/p0.txt": "0 0.5 0.5 1 1\n"}
    groups = {"train/p0.png": 0, "test/p0.png": 9} | {f"train/p{n}.png": n % 3 for n in range(2, 12)}
    source = write_tree(tmp_path / "yolo", {**files, "g.json": json.dumps({"groups": groups})})
    convert(source, tmp_path / "coco", Conversion(val=0.4, groups=source / "g.json"))
    of_train = {key.partition("/")[2]: group for key, group in groups.items() if key.startswith("train")}
    train, val = ({of_train[name] for name in chosen(tmp_path / "coco", split)} for split in ("train", "val"))
    assert train | val == {0, 1, 2} and not train & val


def test_clipping_does_not_hide_that_files_count_from_0(tmp_path: Path) -> None:
    files = {**TRAPS, "Annotations/d.xml": voc(voc_object("dog", 0, 6, 24, 35))}
    code, text = ablate("data", "convert", write_tree(tmp_path / "voc", files), tmp_path / "coco", "--clip")
    assert code == 0 and "boxes that begin at 0, where VOC begins at 1" in text and "--zero-based" in text


def test_an_unlabelled_test_split_is_taken_or_left_out_as_told(tmp_path: Path) -> None:
    more = {"data.yaml": f"{names(*TWELVE)}test: images/test\n", "images/test/e.png": SIZE}
    source = write_tree(tmp_path / "yolo", {**YOLO, **more})
    convert(source, tmp_path / "empty", Conversion(unlabelled="empty"))
    assert chosen(tmp_path / "empty", "test") == {"e.png"}
    convert(source, tmp_path / "skip", Conversion(unlabelled="skip"))
    assert sorted(path.name for path in (tmp_path / "skip").iterdir()) == ["annotations", "train", "val"]


def test_voc_folders_of_splits_below_images_and_annotations(tmp_path: Path) -> None:
    files: dict[str, Any] = {}
    for name, split in (("a", "train"), ("b", "val")):
        files |= {
            f"images/{split}/{name}.png": SIZE,
            f"annotations/{split}/{name}.xml": voc(voc_object("cat", 1, 1, 9, 9)),
        }
    source = write_tree(tmp_path / "VOCdevkit" / "VOC2007", files)
    convert(source, tmp_path / "coco", Conversion())
    assert (chosen(tmp_path / "coco", "train"), chosen(tmp_path / "coco")) == ({"a.png"}, {"b.png"})


def test_the_folder_above_a_voc_folder_is_refused_with_a_hint(tmp_path: Path) -> None:
    write_tree(tmp_path / "VOCdevkit" / "VOC2007", TRAPS)
    with pytest.raises(DataError, match=r"no Annotations are there; give .*VOC2007"):
        convert(tmp_path / "VOCdevkit", tmp_path / "coco", Conversion())
