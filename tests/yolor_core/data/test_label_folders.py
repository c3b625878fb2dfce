"""Folders of Pascal VOC and YOLO in the layouts that are about: their pictures, splits and class names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.yolor_core.data.label_trees import SIZE, voc, write_tree
from yolor_core.data.label_folders import EVERY, Layout, find_layout, names_of
from yolor_core.errors import DataError

Files = Mapping[str, str | bytes | tuple[int, int]]
BOX = "0 0.5 0.5 1 1\n"


def splits(layout: Layout) -> dict[str, list[tuple[str, bool]]]:
    """By split, the names of pictures and whether they have a label."""
    return {s: [(e.picture.name, e.label is not None) for e in es] for s, es in layout.splits.items()}


VOC: dict[str, tuple[Files, dict[str, list[tuple[str, bool]]]]] = {
    "BCCD": (
        {
            "JPEGImages/b_0.jpg": SIZE, "JPEGImages/b_1.jpg": SIZE, "JPEGImages/b_2.jpg": SIZE,
            "Annotations/b_0.xml": voc(), "Annotations/b_1.xml": voc(), "Annotations/b_2.xml": voc(),
            "ImageSets/Main/train.txt": "b_2\n", "ImageSets/Main/val.txt": "b_0\n\n",
            "ImageSets/Main/trainval.txt": "b_0\nb_2\n", "ImageSets/Main/test.txt": "b_1.jpg",
            "ImageSets/Main/RBC_train.txt": "b_2  1\n",
        },
        {"train": [("b_2.jpg", True)], "val": [("b_0.jpg", True)], "test": [("b_1.jpg", True)]},
    ),
    "VOC 2007": (
        {
            "JPEGImages/1.jpg": SIZE, "JPEGImages/2.jpg": SIZE, "SegmentationClass/1.png": SIZE,
            "Annotations/1.xml": voc(), "Annotations/2.xml": voc(), "ImageSets/Main/trainval.txt": "1\n2\n",
        },
        {"train": [("1.jpg", True), ("2.jpg", True)]},
    ),
    "NEU-DET": (
        {
            "IMAGES/crazing_1.jpg": SIZE, "IMAGES/patches_1.jpg": SIZE, "readme.txt": "",
            "ANNOTATIONS/crazing_1.xml": voc(), "ANNOTATIONS/patches_1.xml": voc(),
        },
        {EVERY: [("crazing_1.jpg", True), ("patches_1.jpg", True)]},
    ),
    "NEU-DET, split": (
        {
            "train/images/crazing/c_1.jpg": SIZE, "train/annotations/c_1.xml": voc(),
            "validation/images/patches/p_1.jpg": SIZE, "validation/annotations/p_1.xml": voc(),
        },
        {"train": [("c_1.jpg", True)], "val": [("p_1.jpg", True)]},
    ),
    "beside each other": (
        {
            "a.jpg": SIZE, "a.xml": voc(), "sub/b.png": SIZE, "sub/b.xml": voc(), "sub/c.png": SIZE,
            "__MACOSX/._a.jpg": b"", "__MACOSX/a.xml": "", "sub/._b.xml": b"\0",
        },
        {EVERY: [("a.jpg", True), ("b.png", True), ("c.png", False)]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", VOC)
def test_layouts_of_pascal_voc(tmp_path: Path, form: str) -> None:
    files, expected = VOC[form]
    layout = find_layout(write_tree(tmp_path, files), None, None)
    assert (layout.form, splits(layout)) == ("voc", expected)


YOLO: dict[str, tuple[Files, str, dict[str, list[tuple[str, bool]]]]] = {
    "Ultralytics": (
        {
            "data.yaml": "path: ../elsewhere\ntrain: images/train\nval:\n- images/val\ntest: # none\n"
            "names:\n  1: no\n  0: '010'\n",
            "images/train/a.jpg": SIZE, "labels/train/a.txt": BOX, "images/train/b.jpg": SIZE,
            "images/val/c.jpg": SIZE, "labels/val/c.txt": "", "labels/train.cache": b"\0",
        },
        "",
        {"train": [("a.jpg", True), ("b.jpg", False)], "val": [("c.jpg", True)]},
    ),
    "Roboflow": (
        {
            "data.yaml": "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['010', no]\n",
            "train/images/a.jpg": SIZE, "train/labels/a.txt": BOX, "README.dataset.txt": "words",
            "valid/images/c.jpg": SIZE, "valid/labels/c.txt": BOX,
        },
        "",
        {"train": [("a.jpg", True)], "val": [("c.jpg", True)]},
    ),
    "lists": (
        {
            "coco.yaml": "path: .\ntrain: train.txt\nval: val.txt\nnames: {0: '010', 1: no}\n",
            "train.txt": "./images/a.jpg\n", "val.txt": "images/b.jpg",
            "images/a.jpg": SIZE, "labels/a.txt": BOX, "images/b.jpg": SIZE, "labels/b.txt": BOX,
        },
        "",
        {"train": [("a.jpg", True)], "val": [("b.jpg", True)]},
    ),
    "Darknet": (
        {
            "data/obj.data": "classes= 2\ntrain  = data/train.txt\nvalid  = data/test.txt\n"
            "names = data/obj.names\nbackup = backup/\n",
            "data/obj.names": "010\nno\n\n", "data/train.txt": "data/obj/a.jpg\n",
            "data/test.txt": "data/obj/b.jpg\n", "data/obj/a.jpg": SIZE, "data/obj/a.txt": BOX,
            "data/obj/b.jpg": SIZE, "data/obj/b.txt": BOX,
        },
        "data/obj.data",
        {"train": [("a.jpg", True)], "val": [("b.jpg", True)]},
    ),
    "COCO128": (
        {
            "classes.txt": "010\nno\n", "images/train2017/a.jpg": SIZE, "labels/train2017/a.txt": BOX,
            "images/val2017/b.jpg": SIZE, "labels/val2017/b.txt": BOX,
        },
        "",
        {"train": [("a.jpg", True)], "val": [("b.jpg", True)]},
    ),
    "labelImg": (
        {"a.jpg": SIZE, "a.txt": BOX, "b.jpg": SIZE, "b.txt": "", "classes.txt": "010\nno\n"},
        "",
        {EVERY: [("a.jpg", True), ("b.jpg", True)]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", YOLO)
def test_layouts_of_yolo_and_their_names(tmp_path: Path, form: str) -> None:
    files, file, expected = YOLO[form]
    layout = find_layout(write_tree(tmp_path, files) / file, None, None)
    assert (layout.form, splits(layout)) == ("yolo", expected)
    assert layout.names == {0: "010", 1: "no"}
    assert not layout.heard.notes()


def test_other_names_beside_a_configuration_are_told(tmp_path: Path) -> None:
    files = YOLO["Roboflow"][0]
    for text, notes in (("no\n010\n", 1), ("010\nno\n", 0), ("010\n\nno\n", 0)):
        root = write_tree(tmp_path, {**files, "train/labels/classes.txt": text})
        layout = find_layout(root, None, None)
        assert layout.names == {0: "010", 1: "no"}
        what = "files with other class names than data.yaml, or in another order, not read: 1"
        assert layout.heard.notes() == [f"{what}, e.g. train/labels/classes.txt"][:notes]


BOTH: Files = {"images/a.jpg": SIZE, "labels/a.txt": BOX, "Annotations/a.xml": voc(), "classes.txt": "x\n"}


def test_a_folder_of_two_forms_is_read_as_told(tmp_path: Path) -> None:
    write_tree(tmp_path, BOTH)
    with pytest.raises(DataError, match="XML files as Pascal VOC and labels as YOLO; say --from voc or yolo"):
        find_layout(tmp_path, None, None)
    assert find_layout(tmp_path, "voc", None).splits[EVERY][0].label == tmp_path / "Annotations/a.xml"
    assert find_layout(tmp_path, "yolo", None).splits[EVERY][0].label == tmp_path / "labels/a.txt"


IMAGES: Files = {"images/train/a.jpg": SIZE, "labels/train/a.txt": BOX}


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"a.jpg": SIZE}, "nor label files, as of YOLO, nor annotations/instances_<split>.json"),
        ({"a.xml": voc(), "b.jpg": SIZE}, "a.xml: no picture of that name in "),
        ({"x/a.jpg": SIZE, "y/a.png": SIZE, "a.xml": voc()}, "y/a.png: two pictures of one name, the other"),
        ({"x/a.xml": voc(), "y/a.xml": voc(), "a.jpg": SIZE}, "y/a.xml: two XML files of one name"),
        ({"Annotations/x.txt": "", "a.jpg": SIZE, "b.xml": voc()}, "Annotations: no XML files are there"),
        (
            {**VOC["NEU-DET"][0], "ImageSets/Main/val.txt": "crazing_1\ncrazing_2\n"},
            "ImageSets/Main/val.txt: line 2: crazing_2: there is no such picture",
        ),
        (
            {**VOC["NEU-DET"][0], "ImageSets/Main/val.txt": "crazing_1\ncrazing_1.jpg\n"},
            "line 2: crazing_1.jpg is listed twice",
        ),
        (
            {**VOC["NEU-DET"][0], "ImageSets/val.txt": "b\n", "ANNOTATIONS/b.xml": voc()},
            "line 1: b: its XML file has no picture",
        ),
        (IMAGES, "no class names; one is needed: names in data.yaml, classes.txt, *.names, or --classes"),
        ({**IMAGES, "classes.txt": "a\n", "x.names": "b\n"}, "several differ"),
        ({**IMAGES, "classes.txt": "a\n\nb\n"}, "classes.txt: line 2: empty; a class name a line is needed"),
        ({**IMAGES, "data.yaml": "names: [a, b]\nnc: 3\n"}, "3 classes are said, and 2 names are in"),
        ({**IMAGES, "data.yaml": "names: {0: a, 0: b}\n"}, "not YAML: key 0 is given twice"),
        ({**IMAGES, "data.yaml": "names: {one: a}\n"}, "names: one: a; a number from 0 and a name"),
        ({**IMAGES, "data.yaml": "names: [a\n"}, "not YAML: while parsing a flow sequence"),
        ({**IMAGES, "data.yaml": "- a\n"}, "keys such as train, val and names are needed"),
        ({**IMAGES, "data.yaml": "train: images/tain\nnames: [a]"}, "images/tain: no such folder or list"),
        ({**IMAGES, "data.yaml": "train: t.txt\nnames: [a]", "t.txt": "x.jpg"}, "t.txt: line 1: x.jpg: "),
        ({**IMAGES, "data.yaml": "kpt_shape: [17, 3]\nnames: [a]"}, "labels of key points are not read"),
        ({**IMAGES, "a.yaml": "names: [a]", "b.yml": "names: [a]"}, "describe the data: a.yaml, b.yml"),
        (
            {**IMAGES, "classes.txt": "a", "labels/train/b.txt": BOX},
            "labels/train/b.txt: no picture of that name is there",
        ),
        (
            {**IMAGES, "classes.txt": "a", "images/train2017/b.jpg": SIZE},
            "train and train2017 would both be train; move one away",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_one_line(tmp_path: Path, files: Files, problem: str) -> None:
    with pytest.raises(DataError) as raised:
        find_layout(write_tree(tmp_path, files), None, None)
    assert problem in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path)) and "\n" not in str(raised.value)


def test_names_are_given_in_a_file_or_between_commas(tmp_path: Path) -> None:
    write_tree(tmp_path, {"x.list": "a\nb c\n"})
    assert names_of(str(tmp_path / "x.list")) == names_of("a, b c") == ["a", "b c"]
    with pytest.raises(DataError, match=r"none\.txt: No such file or directory"):
        names_of("none.txt")


def test_a_picture_that_a_list_repeats_is_told_and_taken_once(tmp_path: Path) -> None:
    files = {**YOLO["lists"][0], "train.txt": "images/a.jpg\n./images/a.jpg\n"}
    layout = find_layout(write_tree(tmp_path, files), None, None)
    assert splits(layout)["train"] == [("a.jpg", True)]
    assert layout.heard.notes() == ["pictures listed again, taken once: 1, e.g. images/a.jpg"]


def test_pictures_that_no_split_has_are_told(tmp_path: Path) -> None:
    files = {**VOC["BCCD"][0], "JPEGImages/b_3.jpg": SIZE, "Annotations/b_3.xml": voc()}
    assert find_layout(write_tree(tmp_path / "voc", files), None, None).heard.notes() == [
        "pictures in no split of the folder, left out: 1, e.g. JPEGImages/b_3.jpg"
    ]
    files = {**YOLO["Ultralytics"][0], "images/extra/d.jpg": SIZE}
    assert find_layout(write_tree(tmp_path / "yolo", files), None, None).heard.notes() == [
        "pictures in no split of the folder, left out: 1, e.g. images/extra/d.jpg"
    ]
