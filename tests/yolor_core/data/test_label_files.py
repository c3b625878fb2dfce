"""Label files of Pascal VOC and YOLO: boxes by each format's rule, and mistakes in a line or object."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.yolor_core.data.label_trees import voc, voc_object, write_tree
from yolor_core.data.label_files import Entry, Form, Heard, Labelled, Reading, read_labels

NAMES = {number: f"class{number}" for number in range(12)}


def read_one(
    tmp_path: Path, form: Form, text: str, reading: Reading | None = None, picture: object = (64, 48)
) -> tuple[Labelled | None, Heard]:
    """What is read of one picture with a label file of such content, and what is heard."""
    label = "a.xml" if form == "voc" else "a.txt"
    root = write_tree(tmp_path, {"a.png": picture, label: text})  # type: ignore[dict-item]
    heard = Heard(root)
    entries = [Entry(root / "a.png", root / label)]
    found = read_labels(form, entries, NAMES if form == "yolo" else {}, reading or Reading(), heard)
    return (found[0] if found else None), heard


@pytest.mark.parametrize(
    ("corners", "by_rule", "zero_based"),
    [
        ((1, 1, 64, 48), (0, 0, 64, 48), (1, 1, 63, 47)),
        ((2, 3, 11, 13), (1, 2, 10, 11), (2, 3, 9, 10)),
        (("12.5", "3.25", "20", "9"), (11.5, 2.25, 8.5, 6.75), (12.5, 3.25, 7.5, 5.75)),
        (("45.70000076293945", 1, 46, 2), (44.700001, 0, 1.299999, 2), (45.700001, 1, 0.299999, 1)),
    ],
)
def test_vocs_corners_count_from_1_with_their_ends_unless_said_otherwise(
    tmp_path: Path, corners: tuple[object, ...], by_rule: tuple[float, ...], zero_based: tuple[float, ...]
) -> None:
    text = voc(voc_object("dog", *corners))  # type: ignore[arg-type]
    for reading, expected in ((Reading(), by_rule), (Reading(zero_based=True), zero_based)):
        found, heard = read_one(tmp_path, "voc", text, reading)
        assert not heard.problems and found is not None
        assert found.objects[0].box == pytest.approx(expected, abs=1e-9)


def test_a_box_of_one_pixel_is_one_by_vocs_rule_and_none_by_the_other(tmp_path: Path) -> None:
    text = voc(voc_object("dog", 7, 9, 7, 9), filename="a.png")
    found, heard = read_one(tmp_path, "voc", text)
    assert found is not None and found.objects[0].box == (6, 8, 1, 1)
    assert heard.notes()[0].startswith("boxes one pixel wide or high: 1, e.g. a.xml: object 1 (dog): xmin 7")
    found, heard = read_one(tmp_path, "voc", text, Reading(zero_based=True))
    assert heard.problems == ["a.xml: object 1 (dog): xmin 7, ymin 9, xmax 7, ymax 9: without area"]


def test_what_a_file_says_of_itself_is_told_and_not_believed(tmp_path: Path) -> None:
    text = voc(filename="b.jpg", size=(640, 480))
    found, heard = read_one(tmp_path, "voc", text)
    assert found is not None and (found.size, found.objects) == ((64, 48), [])
    assert heard.notes() == [
        "<filename> names another picture, and the name of the XML file counts: 1, "
        "e.g. a.xml says 'b.jpg', its picture is a.png",
        "<size> is not that of the picture, which counts (do the boxes fit it?): 1, "
        "e.g. a.xml says 640 x 480, the picture has 64 x 48",
    ]
    for size in (None, (0, 0), ("", "")):
        found, heard = read_one(tmp_path, "voc", voc(filename="a.png", size=size))
        assert found is not None and found.size == (64, 48)
        assert heard.notes() == ["<size> is missing, and the picture's own counts: 1, e.g. a.xml"]


@pytest.mark.parametrize("said", [(64, 48), (48, 64)], ids=["as stored", "upright"])
def test_a_turned_picture_has_the_size_that_training_will_see(tmp_path: Path, said: tuple[int, int]) -> None:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (64, 48)).save(buffer, "PNG", exif=exif)
    found, heard = read_one(tmp_path, "voc", voc(filename="a.png", size=said), picture=buffer.getvalue())
    assert found is not None and found.size == said and not heard.notes()
    found, _ = read_one(tmp_path, "yolo", "", picture=buffer.getvalue())
    assert found is not None and found.size == (48, 64)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<annotation><object>", "not XML: no element found: line 1, column 20"),
        ("", "not XML: no element found: line 1, column 0"),
        ("<html></html>", "<html> is no annotation of Pascal VOC"),
        (voc(voc_object("", 1, 1, 5, 5)), "object 1 (without a <name>)"),
        (voc(voc_object("dog", 1, 1, 5, "")), "object 1 (dog): no ymax in a <bndbox>"),
        (
            voc("<object><name>dog</name><robndbox></robndbox></object>"),
            "no xmin, ymin, xmax, ymax in a <bndbox>; <robndbox> is not read",
        ),
        (voc(voc_object("dog", "left", 1, 5, 5)), "xmin is 'left'; a finite number is needed"),
        (voc(voc_object("dog", 1, 1, "nan", 5)), "xmax is 'nan'; a finite number is needed"),
        (voc(voc_object("dog", 1, 1, 5, "1e999")), "ymax is '1e999'; a finite number is needed"),
        (
            voc(voc_object("cat", 1, 1, 5, 5), voc_object("dog", 9, 1, 5, 5)),
            "object 2 (dog): xmin 9, ymin 1, xmax 5, ymax 5: inverted",
        ),
        (voc(voc_object("dog", 1, 1, 65, 48)), "xmax 65, ymax 48: it leaves its picture of 64 x 48"),
        (voc(voc_object("dog", 66, 1, 70, 48)), "outside its picture of 64 x 48"),
        (
            voc(voc_object("dog", 1, 1, 5, 5, "<difficult>yes</difficult>")),
            "<difficult> is 'yes'; allowed: 0, 1",
        ),
    ],
)
def test_a_mistake_in_an_xml_file_is_named(tmp_path: Path, text: str, problem: str) -> None:
    _, heard = read_one(tmp_path, "voc", text)
    assert len(heard.problems) == 1
    assert heard.problems[0].startswith("a.xml: ") and problem in heard.problems[0]


def test_a_folder_that_contradicts_the_rule_is_told(tmp_path: Path) -> None:
    _, heard = read_one(tmp_path, "voc", voc(voc_object("dog", 0, 5, 20, 20)))
    assert "it leaves its picture" in heard.problems[0]
    assert list(heard.hints) == [
        "VOC counts from 1: if these files count from 0, --zero-based says so; "
        "--clip cuts such boxes to their picture"
    ]
    before = [voc_object("dog", 5, 5, 63, 20)] * 3
    note = "boxes that end one pixel before the last, and none at it (do the files count from 0?): 3"
    assert note in read_one(tmp_path, "voc", voc(*before))[1].notes()
    last = voc_object("dog", 5, 5, 64, 20)
    assert note not in read_one(tmp_path, "voc", voc(*before, last))[1].notes()
    ones = voc(*[voc_object("dog", 1, 5, 20, 20)] * 3)
    notes = read_one(tmp_path, "voc", ones, Reading(zero_based=True))[1].notes()
    assert any(each.startswith("boxes that begin at 1, and none at 0") for each in notes)


@pytest.mark.parametrize(
    ("line", "name", "box"),
    [
        ("0 0.5 0.5 1 1", "class0", (0, 0, 64, 48)),
        ("10 0.25 0.25 0.25 0.125", "class10", (8, 9, 16, 6)),
        ("2.0 .5 .5 0.1953125 0.5", "class2", (25.75, 12, 12.5, 24)),
        ("11 0.0078124 0.5 0.015625 0.5", "class11", (0, 12, 0.999994, 24)),  # six decimals, a little outside
        ("3 0.25 0.5 0.75 0.25 0.5 1", "class3", (16, 12, 32, 36)),  # a triangle
    ],
)
def test_yolos_shares_become_pixels(tmp_path: Path, line: str, name: str, box: tuple[float, ...]) -> None:
    found, heard = read_one(tmp_path, "yolo", f"\n{line}\n\n")
    assert not heard.problems and found is not None
    assert found.objects[0].name == name
    assert found.objects[0].box == pytest.approx(box, abs=1e-4)
    assert bool(heard.notes()) == (len(line.split()) > 5)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("12 0.5 0.5 0.5 0.5", "class 12; allowed: 0 to 11"),
        ("-1 0.5 0.5 0.5 0.5", "class -1; allowed: 0 to 11"),
        ("1.5 0.5 0.5 0.5 0.5", "class 1.5; allowed: 0 to 11"),
        ("dog 0.5 0.5 0.5 0.5", "'dog'; a finite number is needed"),
        ("0 0.5 0.5 nan 0.5", "'nan'; a finite number is needed"),
        (
            "0 0.5 0.5 0.5",
            "4 fields; allowed: 5 (class, centre x and y, width, height), or a class and three",
        ),
        ("0 0.5 0.5 0.5 0.5 0.93", "6 fields; 5 are needed (a sixth is a confidence: are these detections?)"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "8 fields; allowed"),
        ("0 0.5 0.5 0 0.5", "0 0.5 0.5 0 0.5: without area"),
        ("0 0.5 0.5 -0.1 0.5", "without area"),
        ("0 0.9 0.5 0.4 0.5", "it leaves its picture of 64 x 48"),
        ("0 1.5 0.5 0.4 0.5", "outside its picture of 64 x 48"),
    ],
)
def test_a_mistake_in_a_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    _, heard = read_one(tmp_path, "yolo", f"0 0.5 0.5 1 1\n{line}\n")
    assert len(heard.problems) == 1
    assert heard.problems[0].startswith("a.txt: line 2: ") and problem in heard.problems[0]


def test_pixels_in_place_of_shares_are_called_so(tmp_path: Path) -> None:
    _, heard = read_one(tmp_path, "yolo", "0 32 24 10 10")
    assert heard.problems and list(heard.hints) == ["YOLO's numbers are shares of the picture, from 0 to 1"]


def test_boxes_are_cut_where_that_is_asked_for(tmp_path: Path) -> None:
    clip = Reading(clip=True)
    found, heard = read_one(tmp_path, "yolo", "0 0.9 0.5 0.4 0.5", clip)
    assert found is not None and found.objects[0].box == pytest.approx((44.8, 12, 19.2, 24))
    assert heard.notes()[0].startswith("boxes cut to their picture: 1")
    found, heard = read_one(tmp_path, "voc", voc(voc_object("dog", 0, 1, 66, 9)), clip)
    assert found is not None and found.objects[0].box == (0, 0, 64, 9)
    _, heard = read_one(tmp_path, "yolo", "0 1.5 0.5 0.4 0.5", clip)  # nothing is left of it
    assert "outside its picture" in heard.problems[0]


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    found, heard = read_one(tmp_path, "voc", voc(), picture=b"no picture")
    assert found is None
    assert heard.problems == ["a.png: cannot be read: UnidentifiedImageError: not an image of a known kind"]
