"""What happens to annotation files that are not as they should be.

And that pycocotools scores what `ablate data check` finds odd as it says.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.yolor_core.data.coco_folder import Edit, Folder, annotation, picture
from yolor_core.data import check_dataset, load_images
from yolor_core.data.annotations import check_same_classes, class_labels, clean
from yolor_core.data.check import sound
from yolor_core.data.layout import splits
from yolor_core.data.load import check_before_training
from yolor_core.data.report import KINDS, MOST_EXAMPLES, DataReport
from yolor_core.errors import DataError


def test_boxes_are_grouped_by_image_and_categories_made_contiguous(two_images: Folder) -> None:
    images = load_images(two_images.write(), "train")
    assert images.ids == (11, 22)
    assert images.names == ("cat", "dog")
    assert images.category_ids == (3, 7)
    assert images.sizes.tolist() == [[64, 48], [40, 60]]
    np.testing.assert_array_equal(images.boxes(0), [[1.5, 2.25, 11.5, 22.25]])
    np.testing.assert_array_equal(images.boxes(1), [[5, 6, 25, 36], [0, 0, 40, 60]])
    assert images.classes(1).tolist() == [1, 0]
    assert images.boxes(0).dtype == np.float32
    assert images.classes(0).dtype == np.int64
    with pytest.raises(IndexError):
        images.boxes(2)


def test_categories_are_ordered_by_id_not_by_place_in_the_file(two_images: Folder) -> None:
    two_images.content["categories"] = two_images.content["categories"][::-1]
    images = load_images(two_images.write(), "train")
    assert images.names == ("cat", "dog")
    assert images.classes(1).tolist() == [1, 0]


def test_boxes_partly_outside_are_clipped_and_counted(two_images: Folder) -> None:
    two_images.content["annotations"] = [
        annotation(1, 11, [-5, 40, 20, 30]),
        annotation(2, 11, [60, -3, 10, 10]),
        annotation(3, 11, [0, 0, 64.004, 48]),  # COCO's rounding: cut without a report
    ]
    images = load_images(two_images.write(), "train")
    np.testing.assert_array_equal(images.boxes(0), [[0, 40, 15, 48], [60, 0, 64, 7], [0, 0, 64, 48]])
    assert images.report.count("clipped") == 2
    assert "annotation 1 of image 11" in images.report.findings["clipped"].examples[0]


@pytest.mark.parametrize(
    "box",
    [[10, 10, 0, 5], [10, 10, 5, -2], [-20, 5, 10, 10], [64, 5, 4, 4], [70, 50, 5, 5], [10, 10, 1e-9, 5]],
)
def test_boxes_without_area_inside_are_left_out_and_counted(two_images: Folder, box: list[float]) -> None:
    two_images.content["annotations"].append(annotation(500, 11, box))
    images = load_images(two_images.write(), "train")
    assert len(images.boxes(0)) == 1
    assert images.report.count("dropped") == 1
    assert "annotation 500 of image 11" in images.report.findings["dropped"].examples[0]
    assert images.report.annotations == 4
    assert images.report.boxes == 3
    assert any(a["id"] == 500 for a in images.coco["annotations"])  # the evaluation sees the file as it is


def test_nothing_is_scored_on_annotations_that_changed_since_they_were_read(two_images: Folder) -> None:
    images = load_images(two_images.write(), "val")
    assert len(images.coco["annotations"]) == 3
    two_images.content["annotations"].pop()
    two_images.write()
    with pytest.raises(DataError, match=r"instances_val.json: it has changed since it was read"):
        images.coco  # noqa: B018
    two_images.path("val").unlink()
    with pytest.raises(DataError, match=r"instances_val.json: No such file"):
        images.coco  # noqa: B018


def test_crowds_are_no_targets_but_stay_for_the_evaluation(two_images: Folder) -> None:
    crowd = {"counts": [0, 64 * 48], "size": [48, 64]}
    two_images.content["annotations"].append(annotation(9, 11, [0, 0, 64, 48], iscrowd=1, segmentation=crowd))
    images = load_images(two_images.write(), "train")
    assert len(images.boxes(0)) == 1
    assert images.report.count("crowd") == 1
    reference = COCO()
    reference.dataset = images.coco
    reference.createIndex()
    assert reference.getAnnIds(iscrowd=True) == [9]


def test_a_split_of_crowds_and_boxes_without_area_has_no_box(two_images: Folder) -> None:
    config = two_images.write()
    assert load_images(config, "train").report.without_boxes is None
    two_images.content["annotations"] = [
        annotation(1, 11, [0, 0, 64, 48], iscrowd=1),
        annotation(2, 11, [70, 5, 4, 4]),
    ]
    two_images.write()
    report = check_dataset(config)["train"]
    assert report.without_boxes is not None
    assert "not a single box: 2 annotations, among them 1 crowd regions and 1 boxes" in report.without_boxes
    assert str(two_images.path("train")) in report.without_boxes
    assert not sound(report)


@pytest.mark.parametrize("above", [0, 2**30])  # bytes: a large file is read up to its first box
def test_a_box_is_looked_for_before_training(
    two_images: Folder, monkeypatch: pytest.MonkeyPatch, above: int
) -> None:
    monkeypatch.setattr("yolor_core.data.load.CACHE_ABOVE", above)
    config = two_images.write()
    boxes, path = two_images.content["annotations"], two_images.path("val")
    nothing = [annotation(8, 11, [0, 0, 64, 48], iscrowd=1), annotation(9, 11, [7, 5, 0, 4])]
    for some in (boxes, [*nothing, *boxes]):
        two_images.content["annotations"] = some
        for encoding in ("utf-8", "utf-8-sig", "utf-16"):
            two_images.write()
            path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
            check_before_training(config)
    for some in ([], nothing, nothing[:1]):
        two_images.content["annotations"] = some
        two_images.write()
        with pytest.raises(DataError, match=r"nothing to train on: .*train\.json: not a single box"):
            check_before_training(config)


def test_a_large_file_is_read_up_to_its_first_box(
    two_images: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yolor_core.data.load.CACHE_ABOVE", 0)
    config = two_images.write()
    monkeypatch.setattr("yolor_core.data.coco.read_annotations", None)
    check_before_training(config)


def test_images_without_annotations_are_kept_and_counted(two_images: Folder) -> None:
    two_images.add(picture(3), "empty.png", (64, 48))
    images = load_images(two_images.write(), "train")
    assert len(images) == 3
    assert images.boxes(2).shape == (0, 4)
    assert images.report.count("empty") == 1
    assert "empty.png" in images.report.findings["empty"].examples[0]


def test_what_makes_numbers_wrong_is_warned_of_when_a_training_reads_it(
    two_images: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    load_images(two_images.write(), "train")
    assert not caplog.records
    for each in two_images.content["annotations"]:
        each["area"] = 0
    load_images(two_images.write(), "train")
    (record,) = caplog.records
    assert re.match(r".*instances_train\.json: 3 boxes whose area cannot be .*APS", record.getMessage())


def test_examples_are_bounded_and_counts_are_not(two_images: Folder) -> None:
    two_images.content["annotations"] += [annotation(1000 + k, 11, [1, 1, 0, 0]) for k in range(50)]
    report = load_images(two_images.write(), "train").report
    assert report.count("dropped") == 50
    assert len(report.as_dict()["dropped"]["examples"]) == MOST_EXAMPLES
    assert report.as_dict()["dropped"]["count"] == 50


def test_categories_of_one_name_are_told_apart_by_their_ids(two_images: Folder) -> None:
    same = [category | {"name": "cat"} for category in two_images.content["categories"]]
    two_images.content["categories"] = same
    ids = sorted(category["id"] for category in same)
    images = load_images(two_images.write(), "train")
    assert images.names == tuple(f"cat ({key})" for key in ids)
    assert images.report.count("renamed") == len(ids)
    assert f"category {ids[0]} (cat): 'cat ({ids[0]})'" in images.report.findings["renamed"].examples


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ({1: "a", 2: "b"}, {1: "a", 2: "b"}),
        ({5: "a", 2: "a", 3: "b"}, {5: "a (5)", 2: "a (2)", 3: "b"}),
        (
            {1: "a", 2: "a", 3: "a (1)"},
            {1: "a (1) (1)", 2: "a (2)", 3: "a (1) (3)"},
        ),  # a name that is a label
    ],
)
def test_labels_of_categories_are_unique(names: dict[int, str], labels: dict[int, str]) -> None:
    assert class_labels(names) == labels


def _set(where: str, index: int, key: str, value: Any) -> Edit:
    return lambda content: content[where][index].__setitem__(key, value)


def _delete(where: str, index: int, key: str) -> Edit:
    return lambda content: content[where][index].pop(key)


BAD = {
    "duplicate image id": (_set("images", 1, "id", 11), "duplicate image ids: 11"),
    "duplicate annotation id": (_set("annotations", 1, "id", 101), "duplicate annotation ids: 101"),
    "duplicate category id": (_set("categories", 1, "id", 3), "duplicate category ids: 3"),
    "unknown image": (_set("annotations", 0, "image_id", 999), r"annotation 101 \(image 999\)"),
    "unknown category": (_set("annotations", 0, "category_id", 8), r"annotation 101 \(category 8\)"),
    "NaN": (_set("annotations", 1, "bbox", [1, float("nan"), 3, 4]), "annotation 102: bbox .*nan.*finite"),
    "infinity": (
        _set("annotations", 1, "bbox", [1, 2, float("inf"), 4]),
        "annotation 102: bbox .*inf.*finite",
    ),
    "NaN area": (_set("annotations", 1, "area", float("nan")), "annotation 102: area .*nan"),
    "three numbers": (_set("annotations", 1, "bbox", [1, 2, 3]), "annotation 102: bbox .*four numbers"),
    "text in a box": (_set("annotations", 1, "bbox", [1, 2, "3", 4]), "annotation 102: bbox .*four numbers"),
    "iscrowd 2": (_set("annotations", 1, "iscrowd", 2), "annotation 102: iscrowd is 2; allowed: 0, 1"),
    "no bbox": (_delete("annotations", 2, "bbox"), "annotation 103: key 'bbox' is missing"),
    "no area": (_delete("annotations", 2, "area"), "annotation 103: key 'area' is missing"),
    "no iscrowd": (_delete("annotations", 2, "iscrowd"), "annotation 103: key 'iscrowd' is missing"),
    "no annotation id": (_delete("annotations", 2, "id"), "annotation at place 2: key 'id' is missing"),
    "no width": (_delete("images", 0, "width"), "image 11: key 'width' is missing"),
    "width 0": (_set("images", 0, "width", 0), "image 11: width is 0"),
    "text height": (_set("images", 0, "height", "48"), "image 11: height is '48'; a whole number"),
    "file name 5": (_set("images", 0, "file_name", 5), "image 11: file_name is 5; a text"),
    "text id": (_set("images", 0, "id", "11"), "image .11.: id is '11'; a whole number"),
    "image is a list": (lambda c: c["images"].__setitem__(0, []), "image at place 0 is a list; an object"),
    "text as a category": (_set("annotations", 0, "category_id", "3"), "annotation 101: category_id is '3'"),
    "name 5": (_set("categories", 0, "name", 5), "category 3: name is 5; a text"),
    "name null": (_set("categories", 1, "name", None), "category 7: name is None; a text"),
    "half a letter": (
        _set("categories", 0, "name", "a\ud800"),
        r"category 3: name is 'a\\ud800'; a text of whole",
    ),
    "half a letter in a file": (
        _set("images", 0, "file_name", "\ud800.png"),
        "image 11: file_name is .*whole",
    ),
    "zero byte": (_set("images", 0, "file_name", "a\0.png"), "image 11: file_name is .*no zero byte"),
    "box of 1e308": (
        _set("annotations", 1, "bbox", [0, 0, 1e308, 1]),
        "annotation 102: bbox .*below 1e\\+09",
    ),
    "huge box": (_set("annotations", 1, "bbox", [0, 0, 10**400, 1]), "annotation 102: bbox .*below 1e\\+09"),
    "huge area": (_set("annotations", 1, "area", 10**400), "annotation 102: area is 1000.*below 1e\\+18"),
    "huge width": (_set("images", 0, "width", 2**40), "image 11: width is 1099511627776; allowed: 1 to"),
    "huge image": (lambda c: c["images"][0].update(width=2**20, height=2**20), "image 11: 1048576 x 1048576"),
    "no images": (lambda c: c.pop("images"), "key 'images' is missing"),
    "no annotations": (lambda c: c.pop("annotations"), "key 'annotations' is missing"),
    "images is an object": (lambda c: c.__setitem__("images", {}), "'images' is an object; a list"),
    "empty images": (lambda c: c["images"].clear(), "'images' is empty"),
    "category of 2^63": (_set("categories", 0, "id", 2**63), "category 9223372036854775808: id is"),
    "image of 2^63": (_set("images", 0, "id", 2**63), "image 9223372036854775808: id is"),
    "image below -2^63": (_set("annotations", 0, "image_id", -(2**63) - 1), "annotation 101: image_id is"),
    "empty categories": (lambda c: c.__setitem__("categories", []), "'categories' is empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_contradictions_are_errors_that_name_the_file_and_the_offender(two_images: Folder, case: str) -> None:
    edit, message = BAD[case]
    two_images.content["categories"] = [dict(c) for c in two_images.content["categories"]]
    edit(two_images.content)
    with pytest.raises(DataError, match=message) as raised:
        load_images(two_images.write(), "train")
    assert str(two_images.path()) in str(raised.value)


def test_files_of_annotations_are_read_in_any_encoding_and_gzipped(two_images: Folder) -> None:
    plain = load_images(two_images.write(), "train")
    text = two_images.path().read_text()
    two_images.path().unlink()
    for name, content in (
        ("instances_train.JSON", text.encode("utf-8-sig")),
        ("instances_train.Json.GZ", gzip.compress(text.encode())),
        ("instances_train.json.gz", gzip.compress(text.encode("utf-16"))),
        ("instances_train.json", text.encode("utf-32-be")),  # goes before the others
    ):
        path = two_images.root / "annotations" / name
        path.write_bytes(content)
        images = load_images(two_images.config, "train")
        assert images.ids == plain.ids and images.names == plain.names and images.coco == json.loads(text)
        assert splits(two_images.root) == ["train", "val"]
        if name.endswith("z"):
            path.unlink()
    assert images.report.source == str(two_images.path())


def test_ids_of_64_bits_are_kept(two_images: Folder) -> None:
    shift = 2**62 + 1
    for rows in two_images.content.values():
        for row in rows:
            row |= {key: row[key] + shift for key in ("id", "image_id", "category_id") if key in row}
    images = load_images(two_images.write(), "train")
    assert images.ids == (11 + shift, 22 + shift) and images.category_ids == (3 + shift, 7 + shift)
    assert images.classes(1).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "not JSON: .* line 1"),
        ("", "not JSON: it is empty"),
        ("[1, 2]", "expected an object with images, .*, found a list"),
    ],
)
def test_malformed_json_is_an_error_that_names_the_file(two_images: Folder, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        load_images(two_images.write(text), "val")
    assert str(two_images.path("val")) in str(raised.value)


def test_missing_images_are_found_before_training(two_images: Folder) -> None:
    for k in range(7):
        two_images.add(None, f"gone{k}.jpg", (10, 10))
    with pytest.raises(DataError, match=r"7 of 9 images are missing .*gone0\.jpg, .*gone4\.jpg, \.\.\."):
        load_images(two_images.write(), "train")


def test_missing_files_and_folders_are_named(two_images: Folder) -> None:
    config = two_images.write()
    with pytest.raises(DataError, match=r"instances_test\.json: no such file; splits found: train, val"):
        load_images(config.model_copy(update={"train": "test"}), "train")
    with pytest.raises(DataError, match="no such folder"):
        load_images(config.model_copy(update={"root": str(two_images.root / "nowhere")}), "train")
    (two_images.root / "images" / "val").rename(two_images.root / "elsewhere")
    with pytest.raises(DataError, match="no image folder for split 'val'"):
        load_images(config, "val")


def test_both_folder_layouts_are_read(two_images: Folder) -> None:
    config = two_images.write()
    before = load_images(config, "train").image(0)
    (two_images.root / "images" / "train").rename(two_images.root / "train")
    np.testing.assert_array_equal(load_images(config, "train").image(0), before)


def test_splits_with_other_categories_are_refused_by_the_check_and_named(two_images: Folder) -> None:
    config = two_images.write()
    content = {**two_images.content, "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "fox"}]}
    two_images.path("val").write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r"_val\.json: its classes .*_train\.json: only here: fox; only there: dog"
    ):
        check_dataset(config)


def test_classes_are_matched_by_name_whatever_their_ids(two_images: Folder) -> None:
    two_images.content["annotations"].append(annotation(9, 11, [1, 2, 30, 20], 7))
    plain = load_images(two_images.write(), "train")
    swapped = {"cat": 90, "dog": 2}
    ids = {record["id"]: swapped[record["name"]] for record in two_images.content["categories"]}
    for records, key in (
        (two_images.content["categories"], "id"),
        (two_images.content["annotations"], "category_id"),
    ):
        records[:] = [record | {key: ids[record[key]]} for record in records]
    raw = load_images(two_images.write(), "train")
    images = raw.with_classes(plain.names, "another split")
    assert raw.names == ("dog", "cat") and images.names == ("cat", "dog") == plain.names
    assert images.category_ids == (90, 2) and images.coco == raw.coco
    for index in range(len(images)):
        assert np.array_equal(images.classes(index), plain.classes(index))
        assert np.array_equal(images.identities(index), plain.identities(index))
    assert np.array_equal(images.identity_values, plain.identity_values)
    assert {len(set(images.classes(index).tolist())) for index in range(len(images))} != {1}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (("cat",), "only there: traffic light$"),
        (("cat", "traffic light", "dog"), "only here: dog$"),
        (("Cat ", "traffic-light"), "'Cat ' for 'cat', 'traffic-light' for 'traffic light': the same name"),
        (("ca\uff54", "traffic light"), "only here: ca\uff54; only there: cat; .*the same name"),
        (tuple(f"class {i}" for i in range(20)), "class 7 and 12 more; only there: cat, traffic light$"),
    ],
)
def test_classes_that_differ_are_named_on_both_sides(found: tuple[str, ...], words: str) -> None:
    with pytest.raises(DataError, match=f"val.json: its classes are not those of the run: .*{words}"):
        check_same_classes(found, ("cat", "traffic light"), "val.json", "the run")


Content = dict[str, Any]
USUAL = {"crowd", "clipped", "dropped", "empty"}  # what cleaning counts besides
SIZES = ((640, 480), (480, 640), (500, 375), (1280, 960))


def some(boxes: int = 240, seed: int = 0) -> Content:
    """Forty images of four sizes with boxes inside them, as many of each of two classes."""
    rng = np.random.default_rng(seed)
    images = [
        {"id": k + 1, "file_name": f"{k}.png", "width": SIZES[k % 4][0], "height": SIZES[k % 4][1]}
        for k in range(40)
    ]
    annotations = []
    for k in range(boxes):
        image = images[k % 40]
        low = rng.uniform(0, 0.7, 2) * (image["width"], image["height"])
        size = rng.uniform(0.03, 0.3, 2) * (image["width"], image["height"])
        box = [round(float(v), 2) for v in (*low, *size)]
        area = 0.7 * box[2] * box[3]
        annotations.append(annotation(k + 1, image["id"], box, 3 if k % 2 else 7, area=area))
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }


def report(content: Content) -> DataReport:
    return clean(json.loads(json.dumps(content)), "file.json")[1]


def found(content: Content) -> dict[str, int]:
    told = report(content)
    return {kind: told.count(kind) for kind in KINDS if told.count(kind) and kind not in USUAL}


def boxes(change: Callable[[float, float, float, float, int, int], list[float]], every: int = 1) -> Any:
    """An edit of every so many boxes, given x y w h and the size of the image."""

    def edit(content: Content) -> None:
        sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
        for each in content["annotations"][::every]:
            each["bbox"] = change(*each["bbox"], *sizes[each["image_id"]])

    return edit


def areas(change: Callable[[Content], float], every: int = 1) -> Any:
    def edit(content: Content) -> None:
        for each in content["annotations"][::every]:
            each["area"] = change(each)

    return edit


def repeat(moved: float = 0.0, **more: Any) -> Any:
    def edit(content: Content) -> None:
        for number, each in enumerate(content["annotations"][:6]):
            box = [each["bbox"][0] + moved, *each["bbox"][1:]]
            content["annotations"].append({**each, "id": 1000 + number, "bbox": box, **more})

    return edit


def crowd_an_image(count: int, classes: int) -> Any:
    def edit(content: Content) -> None:
        for k in range(count):
            box = [10 + 12 * (k % 20), 10 + 12 * (k // 20), 10, 10]
            content["annotations"].append(annotation(5000 + k, 4, box, (3, 7)[k % classes]))

    return edit


def rename(name: str) -> Any:
    return lambda content: content["images"][1].update(file_name=name)


def flag(key: str, value: Any) -> Any:
    return lambda content: content["annotations"][5].update({key: value})


def everything(*edits: Any) -> Any:
    return lambda content: [edit(content) for edit in edits]


CASES: dict[str, tuple[Any, dict[str, int]]] = {
    "nothing": (lambda content: None, {}),
    "shares of the picture": (boxes(lambda x, y, w, h, W, H: [x / W, y / H, w / W, h / H]), {"shares": 240}),
    "shares in a part": (boxes(lambda x, y, w, h, W, H: [x / W, y / H, w / W, h / H], 8), {"shares": 30}),
    "corners in shares": (
        boxes(lambda x, y, w, h, W, H: [x / W, y / H, (x + w) / W, (y + h) / H]),
        {"shares": 240},
    ),
    "percent": (
        boxes(lambda x, y, w, h, W, H: [100 * x / W, 100 * y / H, 100 * w / W, 100 * h / H]),
        {"shares": 240, "areas": 240},
    ),
    "of a thousand": (
        boxes(lambda x, y, w, h, W, H: [1000 * x / W, 1000 * y / H, 1000 * w / W, 1000 * h / H]),
        {"shares": 240},
    ),
    "corners": (boxes(lambda x, y, w, h, W, H: [x, y, x + w, y + h]), {"corners": 240}),
    "corners, and a stray pixel": (
        everything(
            boxes(lambda x, y, w, h, W, H: [x, y, x + w, y + h]),
            lambda content: content["annotations"].append(annotation(999, 1, [0, 0, 1, 1], area=1)),
        ),
        {"shares": 1, "corners": 240},
    ),
    "centres": (boxes(lambda x, y, w, h, W, H: [x + w / 2, y + h / 2, w, h]), {"centres": 240}),
    "a little outside": (boxes(lambda x, y, w, h, W, H: [W - w / 2, y, w, h], 40), {}),
    "whole images": (boxes(lambda x, y, w, h, W, H: [0, 0, W, H]), {"repeated": 200}),
    "negative width": (boxes(lambda x, y, w, h, W, H: [x + w, y, -w, h], 60), {"negative": 4}),
    "areas of 0": (areas(lambda each: 0), {"areas": 240}),
    "areas below 0": (areas(lambda each: -4.5, 60), {"areas": 4}),
    "areas in shares": (areas(lambda each: each["area"] / 640 / 480), {"areas": 240}),
    "areas of 1": (areas(lambda each: 1), {"areas": 240}),
    "areas of a larger picture": (areas(lambda each: 4 * each["area"], 10), {"areas": 24}),
    "areas of whole pixels": (areas(lambda each: (each["bbox"][2] + 1) * (each["bbox"][3] + 1)), {}),
    "repeated": (repeat(), {"repeated": 6}),
    "repeated in float's noise": (repeat(1e-6), {"repeated": 6}),
    "repeated as crowds": (repeat(iscrowd=1), {}),
    "two classes in one box": (repeat(category_id=3), {"repeated": 3}),  # every second one is of class 3
    "a file twice": (rename("0.png"), {"file_twice": 1}),
    "a file twice in other words": (rename("./x/../0.png"), {"file_twice": 1}),
    "id 0": (lambda content: content["annotations"][7].update(id=0), {"annotation_zero": 1}),
    "a crowd of id 0": (lambda content: content["annotations"][7].update(id=0, iscrowd=1), {}),
    "ignore": (flag("ignore", 1), {"ignore": 1}),
    "ignore: true": (flag("ignore", True), {"ignore": 1}),
    "difficult": (flag("difficult", 1), {"ignore": 1}),
    "ignore: 0": (flag("ignore", 0), {}),
    "ignore of a crowd": (everything(flag("ignore", 1), flag("iscrowd", 1)), {}),
    "300 objects": (crowd_an_image(300, 1), {"above_100": 1}),
    "120 objects of two classes": (crowd_an_image(120, 2), {"above_100": 1}),
    "94 objects and 6": (crowd_an_image(94, 1), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_an_annotation_file_cannot_answer_is_counted_and_nothing_else(case: str) -> None:
    edit, expected = CASES[case]
    content = some()
    edit(content)
    assert found(content) == expected
    told = report(content)
    for kind in expected:
        assert told.findings[kind].examples and told.as_dict()[kind]["count"] == expected[kind]


@pytest.mark.parametrize("seed", range(5))
def test_a_few_corners_among_boxes_are_found_and_boxes_of_few_images_are_not_taken_for_some(
    seed: int,
) -> None:
    content = some(2400, seed)
    boxes(lambda x, y, w, h, W, H: [x, y, x + w, y + h], 10)(content)
    assert found(content).keys() == {"corners"}
    for count in (1, 2, 3, 5, 20):
        assert found(some(count, seed)) == {}


@pytest.mark.parametrize("side", [64, 100, 512, 640])
@pytest.mark.parametrize("kind", ["corners", "centres"])
def test_corners_and_centres_are_told_from_shares_in_pictures_of_any_size(side: int, kind: str) -> None:
    content = some()
    for each in content["images"]:
        each |= {"width": side, "height": side}
    drawn = np.random.default_rng(1).uniform(0, 1, (240, 4))
    for each, fresh in zip(content["annotations"], drawn, strict=True):
        (x, y), (w, h) = 0.7 * side * fresh[:2], (0.03 + 0.27 * fresh[2:]) * side
        each["bbox"] = [x, y, x + w, y + h] if kind == "corners" else [x + w / 2, y + h / 2, w, h]
        each["area"] = 0.7 * w * h
        if kind == "centres":  # enough of them leave
            each["bbox"][0] = side - w / 2
    assert found(content).keys() == {kind}


def test_only_what_makes_numbers_wrong_is_serious() -> None:
    for case, serious in (("areas of 0", True), ("corners", True), ("300 objects", False), ("id 0", False)):
        content = some()
        CASES[case][0](content)
        assert sound(report(content)) is not serious
    content = some(2400)
    content["annotations"][0]["area"] = 0  # one in 2400
    assert found(content) == {"areas": 1} and sound(report(content))


@pytest.mark.parametrize("name", ["coco128", "coco_multitask"])
def test_nothing_is_found_in_coco(real_data: Path, name: str) -> None:
    for path in (real_data / name / "annotations").glob("instances_*.json"):
        assert found(json.loads(path.read_text())) == {}


def pycocotools(content: Content, perfect: list[Content] | None = None) -> COCOeval:
    """The score of detections that are every box of the file (or of others), as pycocotools gives it."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(content)
        truth.createIndex()
        rows = content["annotations"] if perfect is None else perfect
        keys = ("image_id", "category_id", "bbox")
        detections = [{**{key: each[key] for key in keys}, "score": 0.9} for each in rows]
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(detections)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def recall(evaluation: COCOeval, category: int) -> float:
    """At IoU 0.5, of all sizes, at 100 detections."""
    place = evaluation.params.catIds.index(category)
    return float(evaluation.eval["recall"][0, place, 0, 2])


def test_a_perfect_detector_scores_100_without_findings() -> None:
    assert pycocotools(some()).stats[0] == pytest.approx(1)


def test_the_ceiling_of_images_with_more_than_100_objects_is_that_of_pycocotools() -> None:
    content = some()
    crowd_an_image(300, 1)(content)
    told = report(content).findings["above_100"]
    evaluation = pycocotools(content)
    count = sum(each["category_id"] == 3 for each in content["annotations"])
    beyond = sum(each["category_id"] == 3 and each["image_id"] == 4 for each in content["annotations"]) - 100
    assert recall(evaluation, 3) == pytest.approx((count - beyond) / count)
    assert f"cat: {count - beyond} of {count} boxes can be found" in told.summary
    assert f"recall at most {100 * (count - beyond) / count:.1f} %" in told.summary
    assert evaluation.stats[0] < 1 and evaluation.stats[8] < 1
    content = some()
    crowd_an_image(120, 2)(content)
    assert "all can be found" in report(content).findings["above_100"].summary
    assert pycocotools(content).stats[0] == pytest.approx(1)


def test_an_annotation_with_id_0_is_missed() -> None:
    content = some()
    CASES["id 0"][0](content)
    place = content["annotations"][7]["category_id"]
    assert recall(pycocotools(content), place) == pytest.approx(119 / 120)
    CASES["a crowd of id 0"][0](content)
    assert pycocotools(content).stats[0] == pytest.approx(1)


def test_boxes_of_negative_width_and_repeated_boxes_are_misses() -> None:
    content = some()
    honest = copy.deepcopy(content["annotations"])
    CASES["negative width"][0](content)
    evaluation = pycocotools(content, honest)
    assert sum(120 * recall(evaluation, each) for each in (3, 7)) == pytest.approx(236)
    content = some()
    repeat()(content)
    evaluation = pycocotools(content, honest)
    assert [123 * recall(evaluation, each) for each in (3, 7)] == pytest.approx([120, 120])


def test_areas_decide_what_is_small_and_what_counts_at_all() -> None:
    content = some()
    areas(lambda each: 0)(content)
    small, medium, large = pycocotools(content).stats[3:6]
    assert (small, medium, large) == (pytest.approx(1), -1, -1)
    areas(lambda each: -1, 2)(content)
    missing = [each for each in content["annotations"] if each["area"] == 0]
    assert pycocotools(content, missing).stats[0] == pytest.approx(1)  # the others are not asked for


def test_ignore_changes_no_score() -> None:
    content = some()
    found = content["annotations"][20:]
    before = pycocotools(content, found).stats
    for each in content["annotations"][:20]:
        each["ignore"] = 1
    np.testing.assert_array_equal(pycocotools(content, found).stats, before)
    for each in content["annotations"][:20]:
        each["iscrowd"] = 1
    assert pycocotools(content, found).stats[0] == pytest.approx(1) != before[0]


def test_the_page_has_a_row_for_every_kind() -> None:
    page = (Path(__file__).parents[3] / "docs" / "data-check.md").read_text(encoding="utf-8")
    rows = []
    for kind, (unit, meaning, effect, serious) in KINDS.items():
        share = "no" if serious is None else "any" if serious == 0 else f"from {100 * serious:g} %"
        rows.append(f"| `{kind}` | {unit} | {share} | {meaning} | {effect} |")
    written = [line for line in page.splitlines() if re.match(r"\| `\w+` \| (images|boxes|classes) \|", line)]
    assert written == rows, "the table should be:\n" + "\n".join(rows)
