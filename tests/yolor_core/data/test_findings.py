"""What `ablate data check` says of annotation files that can be read, and that pycocotools scores them so."""

from __future__ import annotations

import contextlib
import copy
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

from tests.yolor_core.data.coco_folder import annotation
from yolor_core.data.annotations import clean
from yolor_core.data.check import sound
from yolor_core.data.report import KINDS, DataReport

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
