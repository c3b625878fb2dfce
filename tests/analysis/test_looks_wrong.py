"""Notes on detections that look wrong: each is caused on purpose, and none is made of what is right."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.looks_wrong import order_ranges
from tests.analysis.conftest import Entries, compare_files, two_detectors
from yolor_core.data.annotations import clean
from yolor_core.data.report import KINDS
from yolor_core.evaluation.coco import evaluate_boxes, truth_notes
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.engine import Truth

Files = Callable[..., tuple[str, str, str]]


def content(*arguments: str) -> dict[str, Any]:
    result = compare_files(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def told(*arguments: str) -> list[str]:
    notes: list[str] = content(*arguments)["notes"]
    return notes


def whole(truth: dict[str, Any], a: Entries, b: Entries) -> None:
    """Detections of every true box but a few of every image, so that nothing looks wrong."""
    random = np.random.default_rng(3)
    for arm in (a, b):
        arm[:] = [
            {key: each[key] for key in ("image_id", "category_id")}
            | {
                "bbox": [v + float(random.normal(0, 2)) for v in each["bbox"]],
                "score": float(random.random()),
            }
            for each in truth["annotations"]
        ]


def test_nothing_is_noted_where_nothing_looks_wrong(files: Files) -> None:
    assert told(*files(whole)) == []


def corners(x: float, y: float, w: float, h: float) -> list[float]:
    return [x, y, x + w, y + h]


def centres(x: float, y: float, w: float, h: float) -> list[float]:
    return [x + w / 2, y + h / 2, w, h]


def fractions(*box: float) -> list[float]:
    return [value / 500 for value in box]


def turned(a: float, b: float, c: float, d: float) -> list[float]:
    return [b, a, d, c]


LIKE = "look like "
WHOLE = f"{LIKE}x, y, width, height"
FRACTIONS = "as fractions of the image"


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (corners, f"{LIKE}corners x1, y1, x2, y2"),
        (centres, f"{LIKE}centres with width and height"),
        (turned, f"{WHOLE} with y before x"),
        (fractions, f"{WHOLE} {FRACTIONS}"),
        (
            lambda *box: fractions(*centres(*box)),
            f"{LIKE}centres with width and height {FRACTIONS}",
        ),
        (
            lambda *box: turned(*fractions(*corners(*box))),
            f"{LIKE}corners x1, y1, x2, y2 {FRACTIONS} with y before x",
        ),
        (lambda *box: [v / 4 for v in box], "fit better at 4 times their size"),
        (lambda *box: [v / 2 for v in box], "fit better at 2 times their size"),
        (lambda *box: [2 * v for v in box], "fit better at 0.5 times their size"),
    ],
)
def test_boxes_that_mean_something_else_are_noted_with_the_ap_that_they_would_have(
    files: Files, write: Callable[..., list[float]], words: str
) -> None:
    right = 0.0

    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        nonlocal right
        whole(truth, a, b)
        right = 100 * evaluate_boxes(truth, Detections.from_results(b))["detection"]["AP"]
        for each in b:
            each["bbox"] = write(*each["bbox"])

    notes = told(*files(spoil))
    assert any(note.startswith(f"B: its boxes {words}: AP would be {right:.2f} ") for note in notes)
    assert not any(note.startswith("A:") for note in notes)


@pytest.mark.parametrize(("column", "known"), [("category_id", (1, 2, 3)), ("image_id", range(1, 61))])
def test_ids_that_are_positions_are_noted_or_refused_with_the_ids_there_are(
    files: Files, column: str, known: Sequence[int]
) -> None:
    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        whole(truth, a, b)
        for each in b:
            each[column] -= 1  # counted from 0
        b[:] = [each for each in b if kept or each[column] > 0]

    kept = True
    refused = compare_files(*files(spoil))
    assert refused.exit_code == 2
    assert f"which have {', '.join(map(str, known[:8]))}" in refused.stderr
    kept = False
    assert any(
        f"B: its {column} looks like a position counted from 0" in note for note in told(*files(spoil))
    )


def test_images_without_detections_are_noted_and_can_be_left_out(
    files: Files,
) -> None:
    expected: list[float] = []

    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        whole(truth, a, b)
        a[:] = [each for each in a if each["image_id"] > 5]
        b[:] = [each for each in b if each["image_id"] <= 20]
        for first, last in ((6, 60), (1, 20), (6, 20)):
            part = {
                **truth,
                "images": [each for each in truth["images"] if first <= each["id"] <= last],
                "annotations": [x for x in truth["annotations"] if first <= x["image_id"] <= last],
            }
            for arm in (a, b):
                some = Detections.from_results([each for each in arm if first <= each["image_id"] <= last])
                expected.append(100 * (evaluate_boxes(part, some)["detection"]["AP"] or 0))

    names = files(spoil)
    assert told(*names)[0].startswith("A has detections in 55 of 60 images with true boxes, B in 20 of 60;")
    found = []
    for arm, count in (("a", 55), ("B", 20), ("both", 15)):
        one = content(*names, "--images-of", arm)
        assert one["image_count"] == count
        assert one["notes"][0].startswith(f"scored on {count} of 60 images: those that ")
        found += [one["metrics"][0]["a"], one["metrics"][0]["b"]]
    assert found == pytest.approx(expected)


def test_no_image_in_common_is_one_line(files: Files) -> None:
    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        a[:] = [each for each in a if each["image_id"] <= 20]
        b[:] = [each for each in b if each["image_id"] > 20]

    result = compare_files(*files(spoil), "--images-of", "both")
    assert result.exit_code == 2 and "--images-of both: there is no such image" in result.stderr


def test_the_range_of_all_orders_of_equal_scores_is_found() -> None:
    truth, _, _ = two_detectors(1)
    truth["annotations"] = truth["annotations"][:3]
    for place, each in enumerate(truth["annotations"]):
        each |= {"category_id": 1, "bbox": [10.0 + 200 * place, 10, 100, 100], "area": 10_000}
    moved = [[0, 0], [4, 0], [20, 0], [1000, 0]]  # better and worse copies of true boxes, and one of none
    entries = [
        {"image_id": 1, "category_id": 1, "bbox": [10 + 200 * (i % 3) + x, 10 + y, 100, 100], "score": 0.5}
        for i, (x, y) in enumerate(moved)
    ]
    orders = [
        evaluate_boxes(truth, Detections.from_results(list(order)))["detection"]
        for order in itertools.permutations(entries)
    ]
    ranges = order_ranges(Truth.read(truth), Detections.from_results(entries))
    for name in ("AP", "AP50", "AR1"):
        values = [each[name] for each in orders]
        assert ranges.get(name, (values[0], values[0])) == pytest.approx((min(values), max(values)))
    assert ranges["AP"][0] < ranges["AP"][1]


def test_equal_scores_are_noted_where_the_order_of_rows_matters(
    files: Files,
) -> None:
    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        whole(truth, a, b)
        for each in b:
            each["score"] = 1.0

    names = files(spoil)
    one, orders = told(*names)
    assert one.startswith("B: 240 of its 240 detections have the score 1:")
    assert orders.startswith("B: equal scores in one image and class are taken in the order of the rows;")
    first = content(*names)
    assert first["orders"]["A"] == {}
    entries = json.loads(Path(names[2]).read_text())
    Path(names[2]).write_text(json.dumps(entries[::-1]))
    again = content(*names)
    for name in ("AP", "AR1"):
        low, high = (100 * value for value in first["orders"]["B"][name])
        both = [next(m["b"] for m in each["metrics"] if m["name"] == name) for each in (first, again)]
        assert low <= min(both) < max(both) <= high


def test_detections_that_coco_leaves_out_are_counted(files: Files) -> None:
    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        whole(truth, a, b)
        b += [b[0] | {"score": 0.001 + 0.0001 * i} for i in range(120)]
        cell = [each for each in b if all(each[k] == b[0][k] for k in ("image_id", "category_id"))]
        assert len(cell) - 100 == cut

    cut = 20 + sum(
        all(each[key] == two_detectors()[0]["annotations"][0][key] for key in ("image_id", "category_id"))
        for each in two_detectors()[0]["annotations"]
    )
    assert (
        f"B: {cut} of its detections are not scored: COCO takes the best 100 of an image and class"
        in told(*files(spoil))
    )


@pytest.mark.parametrize("shift", [1, 2])
def test_classes_that_mean_others_are_noted(files: Files, shift: int) -> None:
    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        for each in b:
            each["category_id"] = (each["category_id"] - 1 + shift) % 3 + 1

    (note,) = [note for note in told(*files(spoil)) if "without regard to classes" in note]
    assert note.startswith("B: its boxes fit far better without regard to classes, AP ")
    assert not any("without regard" in note for note in told(*files(lambda truth, a, b: None)))


def test_what_the_annotations_do_to_every_score_is_noted(files: Files) -> None:
    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        whole(truth, a, b)
        truth["annotations"][0]["id"] = 0
        truth["annotations"][7]["bbox"][2] = -5
        truth["annotations"][9]["bbox"][3] = 0
        truth["categories"][2]["name"] = "ant"

    notes = told(*files(spoil))
    assert [note.partition(":")[0] for note in notes[:4]] == [
        "the annotation with id 0 counts as missed even where it is found",
        "boxes of negative width or height (annotations 8)",
        "true boxes without area (annotations 10)",
        "categories that share a name, told apart by id",
    ]

    def without_areas(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        for each in truth["annotations"]:
            each["area"] = 0

    notes = told(*files(without_areas))
    assert any(note.startswith("true boxes: 240 boxes whose area cannot be") for note in notes)
    truth = two_detectors()[0]
    truth["annotations"][0] |= {"id": 0, "iscrowd": 1}  # is ignored, whatever its id
    assert truth_notes(truth, {}) == []


def zero(truth: dict[str, Any]) -> None:
    truth["annotations"][2]["id"] = 0


def negative(truth: dict[str, Any]) -> None:
    for each in truth["annotations"][7:9]:
        each["bbox"][0] += each["bbox"][2]
        each["bbox"][2] *= -1


def twice(truth: dict[str, Any]) -> None:
    truth["images"][5]["file_name"] = "./2.jpg"


@pytest.mark.parametrize(
    ("kind", "spoil", "named"),
    [
        ("annotation_zero", zero, ""),
        ("negative", negative, "(annotations 8, 9)"),
        ("file_twice", twice, "(images 2 and 6 are both ./2.jpg)"),
    ],
)
def test_compare_says_what_data_check_says(files: Files, kind: str, spoil: Callable, named: str) -> None:
    arms: list[Entries] = []

    def change(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        whole(truth, a, b)
        spoil(truth)
        arms.extend((a, b))

    paths = files(change)
    truth = json.loads(Path(paths[0]).read_text())
    found = content(*paths)
    (note,) = [each for each in found["notes"] if KINDS[kind].effect in each]
    assert KINDS[kind].meaning in note and named in note
    assert clean(truth, "truth")[1].count(kind) == 1 + (kind == "negative")
    official = [evaluate_boxes(truth, Detections.from_results(each)) for each in arms]
    for arm, expected in zip("ab", official, strict=True):
        assert found["metrics"][0][arm] == pytest.approx(100 * expected["detection"]["AP"])
    if kind == "annotation_zero":
        truth["annotations"][2]["id"] = 1000  # what is right
        for arm, entries, now in zip("AB", arms, official, strict=True):
            right = evaluate_boxes(truth, Detections.from_results(entries))["detection"]["AP"]
            assert right > now["detection"]["AP"] + 0.005
            said = f"{arm} has AP {100 * now['detection']['AP']:.2f}, with any other id {100 * right:.2f}"
            assert said in note


def test_compare_refuses_an_image_id_given_twice(files: Files) -> None:
    result = compare_files(*files(lambda truth, a, b: truth["images"].append(truth["images"][3])))
    assert result.exit_code == 2 and "1 duplicate image ids: 4" in result.stderr
    assert result.stderr.count("\n") == 1
