"""Comparing two models: on real reference files, from the command line, and what it refuses."""

from __future__ import annotations

import copy
import gzip
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from ablations.cli import main
from analysis.comparison import compare
from analysis.looks_wrong import order_ranges
from yolor_core.evaluation.coco import COCO_NUMBERS, evaluate_boxes, truth_notes
from yolor_core.evaluation.detections import SIDES, Detections
from yolor_core.evaluation.engine import Truth, match

Entries = list[dict[str, Any]]


def dataset(images: int = 60, seed: int = 0) -> tuple[dict[str, Any], Entries, Entries]:
    """Annotations, and what two detectors found: the second misses less."""
    random = np.random.default_rng(seed)
    boxes: list[dict[str, Any]] = []
    found: tuple[Entries, Entries] = ([], [])
    for image in range(1, images + 1):
        for _ in range(4):
            corner, side = random.uniform(0, 300, 2), random.uniform(8, 150, 2)
            category = int(random.integers(1, 4))
            box = [*map(float, corner), *map(float, side)]
            about = {"image_id": image, "category_id": category}
            boxes.append(about | {"id": len(boxes) + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
            for arm, (chance, spread) in enumerate(((0.5, 6.0), (0.8, 4.0))):
                if random.random() < chance:
                    moved = [float(v) for v in np.array(box) + random.normal(0, spread, 4)]
                    moved[2:] = [max(v, 1.0) for v in moved[2:]]
                    found[arm].append(about | {"bbox": moved, "score": float(random.uniform(0.3, 1))})
    names = [{"id": i, "name": name} for i, name in enumerate(("ant", "bee", "cat"), 1)]
    pictures = [{"id": i, "width": 500, "height": 500, "file_name": f"{i}.jpg"} for i in range(1, images + 1)]
    return {"images": pictures, "annotations": boxes, "categories": names}, *found


def test_scores_are_pycocotools_and_the_better_model_is_significantly_better() -> None:
    truth, first, second = dataset()
    a, b = (Detections.from_results(entries) for entries in (first, second))
    found = compare(match(truth, a), match(truth, b), 500)
    references = [evaluate_boxes(copy.deepcopy(truth), arm) for arm in (a, b)]
    for each in found.metrics:
        expected = [r["detection"][each.name] for r in references]
        assert [each.a, each.b] == pytest.approx([100 * v for v in expected])
    assert [each.name for each in found.metrics] == list(COCO_NUMBERS)
    ap = found.metrics[0]
    assert ap.delta is not None and ap.percentile is not None and ap.bca is not None
    assert ap.percentile[0] > 0 and ap.bca[0] > 0
    assert ap.percentile[0] < ap.delta < ap.percentile[1]
    assert {each.name for each in found.classes} == {"ant", "bee", "cat"}
    sizes = [abs(each.delta or 0) for each in found.classes]
    assert sizes == sorted(sizes, reverse=True)


def test_an_images_part_is_the_difference_less_that_without_the_image() -> None:
    truth, first, second = dataset(30, 1)
    a, b = (Detections.from_results(entries) for entries in (first, second))
    found = compare(match(truth, a), match(truth, b), 100)
    image, part = found.images[0]
    rest = {
        **truth,
        "images": [i for i in truth["images"] if i["id"] != image],
        "annotations": [x for x in truth["annotations"] if x["image_id"] != image],
    }
    without = []
    for entries in (first, second):
        kept = Detections.from_results([e for e in entries if e["image_id"] != image])
        without.append(100 * evaluate_boxes(copy.deepcopy(rest), kept)["detection"]["AP"])
    delta = found.metrics[0].delta
    assert delta is not None
    assert part == pytest.approx(delta - (without[1] - without[0]))
    assert any("only 30 images" in warning for warning in found.warnings)


def test_a_model_does_not_differ_from_itself() -> None:
    truth, first, _ = dataset(20)
    arm = match(truth, Detections.from_results(first))
    found = compare(arm, arm, 100)
    assert all(each.delta in (None, 0.0) for each in (*found.metrics, *found.classes))
    assert all(each.percentile in (None, (0.0, 0.0)) for each in found.metrics)
    assert found.images == ()


def test_rows_that_are_equal_but_for_the_order_of_sums_read_the_same() -> None:
    truth, _, _ = dataset(50)
    per_class = {1: [10.0, 10.0, 40.0, 40.0], 2: [80.0, 10.0, 40.0, 40.0], 3: [150.0, 10.0, 40.0, 40.0]}
    boxes = [
        {"image_id": image["id"], "category_id": category, "bbox": box}
        for image in truth["images"]
        for category, box in per_class.items()
    ]
    truth["annotations"] = [b | {"id": i, "area": 1600.0, "iscrowd": 0} for i, b in enumerate(boxes, 1)]
    scored = [b | {"score": 0.9} for b in boxes]
    kept = [b for b in scored if b["category_id"] == 1]
    near = [b | {"bbox": [b["bbox"][0] + 5.0, *b["bbox"][1:]]} for b in scored]  # overlap 35/45: AP 60
    for other in (kept, near):
        arms = [match(truth, Detections.from_results(some)) for some in (scored, other)]
        found = compare(*arms, 200)
        rows = [each for each in found.metrics if each.name in ("AP", "APM", "AR1", "AR100", "ARM")]
        assert {round(each.delta or 0, 6) for each in rows} == {-66.666667 if other is kept else -40.0}
        assert [(each.percentile, each.bca) for each in rows] == [(None, None)] * 5
        assert found.images == ()  # no image changes the difference but by rounding


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., tuple[str, str, str]]:
    """Write annotations and two files of detections; `spoil` may change them before."""

    def write(
        spoil: Callable[[dict[str, Any], Entries, Entries], None] | None = None,
    ) -> tuple[str, str, str]:
        content = dataset()
        if spoil is not None:
            spoil(*content)
        paths = [tmp_path / name for name in ("truth.json", "a.json", "b.json")]
        for path, value in zip(paths, content, strict=True):
            path.write_text(json.dumps(value))
        return str(paths[0]), str(paths[1]), str(paths[2])

    return write


def run(truth: str, a: str, b: str, *more: str) -> Result:
    return CliRunner().invoke(main, ["compare", a, b, "--truth", truth, "--resamples", "100", *more])


def test_files_of_any_project_are_compared(files: Callable[..., tuple[str, str, str]]) -> None:
    names = files()
    result = run(*names)
    assert result.exit_code == 0, result.output
    assert "training noise is not in them" in result.stdout
    found = json.loads(run(*names, "--json").stdout)
    assert [m["name"] for m in found["metrics"]] == list(COCO_NUMBERS)
    assert run(*names).stdout == result.stdout  # seeded


def unknown_image(truth: dict[str, Any], a: Entries, b: Entries) -> None:
    a[3]["image_id"] = 999


def unknown_category(truth: dict[str, Any], a: Entries, b: Entries) -> None:
    b[0]["category_id"] = 77


def not_a_number(truth: dict[str, Any], a: Entries, b: Entries) -> None:
    a[0]["score"] = float("nan")


def a_percentage(truth: dict[str, Any], a: Entries, b: Entries) -> None:
    b[0]["score"] = 87.0


def twice(truth: dict[str, Any], a: Entries, b: Entries) -> None:
    a.append(dict(a[5]))


def no_box(truth: dict[str, Any], a: Entries, b: Entries) -> None:
    del a[2]["bbox"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (unknown_image, "image ids are not in the annotations"),
        (unknown_category, "category ids are not in the annotations"),
        (not_a_number, "scores are not in [0, 1]"),
        (a_percentage, "scores are not in [0, 1]"),
        (twice, "exact duplicates"),
        (no_box, "result 2: key 'bbox' is missing"),
    ],
)
def test_detections_that_would_give_a_wrong_number_are_refused(
    files: Callable[..., tuple[str, str, str]], spoil: Callable[..., None], words: str
) -> None:
    result = run(*files(spoil))
    assert result.exit_code == 2 and words in result.stderr
    assert result.stdout == ""


def test_files_need_the_annotations_they_are_scored_on(
    files: Callable[..., tuple[str, str, str]], tmp_path: Path
) -> None:
    truth, a, b = files()
    alone = CliRunner().invoke(main, ["compare", a, b])
    assert alone.exit_code == 2 and "--truth" in alone.stderr
    assert "not JSON" in run(truth, a, str(_write(tmp_path / "c.json", "{"))).stderr
    assert "a list of detections is needed" in run(truth, a, str(_write(tmp_path / "c.json", "{}"))).stderr
    assert "No such file" in run(truth, a, str(tmp_path / "none.json")).stderr


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_reference_detections_of_the_coco_api_are_compared_with_a_worse_copy(real_data: Path) -> None:
    folder = real_data / "eval" / "cocoapi_val2014_100"
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    entries = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    worse = [e for i, e in enumerate(entries) if i % 3]
    a, b = (Detections.from_results(some) for some in (worse, entries))
    found = compare(match(truth, a), match(truth, b), 300)
    reference = evaluate_boxes(truth, b)["detection"]
    assert [m.b for m in found.metrics] == pytest.approx([100 * reference[m.name] for m in found.metrics])
    ap = found.metrics[0]
    assert ap.percentile is not None and ap.percentile[0] > 0


def told(*arguments: str) -> list[str]:
    """The notes, which stand above the table as they do in JSON."""
    result, content = run(*arguments), json.loads(run(*arguments, "--json").stdout)
    assert result.exit_code == 0, result.output
    above = result.stdout.partition("95 % (percentile)")[0]
    assert [line.removeprefix("note: ") for line in above.splitlines()[2:-2]] == content["notes"]
    found: list[str] = content["notes"]
    return found


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


def test_nothing_is_noted_where_nothing_looks_wrong(files: Callable[..., tuple[str, str, str]]) -> None:
    assert told(*files(whole)) == []


def corners(x: float, y: float, w: float, h: float) -> list[float]:
    return [x, y, x + w, y + h]


def centres(x: float, y: float, w: float, h: float) -> list[float]:
    return [x + w / 2, y + h / 2, w, h]


def fractions(*box: float) -> list[float]:
    return [value / 500 for value in box]


def turned(a: float, b: float, c: float, d: float) -> list[float]:
    return [b, a, d, c]


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (corners, "corners x1, y1, x2, y2"),
        (centres, "centres with width and height"),
        (turned, "x, y, width, height with y before x"),
        (fractions, "x, y, width, height as fractions of the image"),
        (lambda *box: fractions(*centres(*box)), "centres with width and height as fractions of the image"),
        (
            lambda *box: turned(*fractions(*corners(*box))),
            "corners x1, y1, x2, y2 as fractions of the image with y before x",
        ),
    ],
)
def test_boxes_that_mean_something_else_are_noted_with_the_ap_that_they_would_have(
    files: Callable[..., tuple[str, str, str]], write: Callable[..., list[float]], words: str
) -> None:
    right = 0.0

    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        nonlocal right
        whole(truth, a, b)
        right = 100 * evaluate_boxes(truth, Detections.from_results(b))["detection"]["AP"]
        for each in b:
            each["bbox"] = write(*each["bbox"])

    notes = told(*files(spoil))
    assert any(note.startswith(f"B: its boxes look like {words}: AP would be {right:.2f} ") for note in notes)
    assert not any(note.startswith("A:") for note in notes)


@pytest.mark.parametrize(("column", "known"), [("category_id", (1, 2, 3)), ("image_id", range(1, 61))])
def test_ids_that_are_positions_are_noted_or_refused_with_the_ids_there_are(
    files: Callable[..., tuple[str, str, str]], column: str, known: Sequence[int]
) -> None:
    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        whole(truth, a, b)
        for each in b:
            each[column] -= 1  # counted from 0
        b[:] = [each for each in b if kept or each[column] > 0]

    kept = True
    refused = run(*files(spoil))
    assert refused.exit_code == 2
    assert f"which have {', '.join(map(str, known[:8]))}" in refused.stderr
    kept = False
    assert any(
        f"B: its {column} looks like a position counted from 0" in note for note in told(*files(spoil))
    )


def test_images_without_detections_are_noted_and_can_be_left_out(
    files: Callable[..., tuple[str, str, str]],
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
        content = json.loads(run(*names, "--images-of", arm, "--json").stdout)
        assert content["image_count"] == count
        assert content["notes"][0].startswith(f"scored on {count} of 60 images: those that ")
        found += [content["metrics"][0]["a"], content["metrics"][0]["b"]]
    assert found == pytest.approx(expected)


def test_no_image_in_common_is_one_line(files: Callable[..., tuple[str, str, str]]) -> None:
    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        a[:] = [each for each in a if each["image_id"] <= 20]
        b[:] = [each for each in b if each["image_id"] > 20]

    result = run(*files(spoil), "--images-of", "both")
    assert result.exit_code == 2 and "--images-of both: there is no such image" in result.stderr


def test_the_range_of_all_orders_of_equal_scores_is_found() -> None:
    truth, _, _ = dataset(1)
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
    files: Callable[..., tuple[str, str, str]],
) -> None:
    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        whole(truth, a, b)
        for each in b:
            each["score"] = 1.0

    names = files(spoil)
    one, orders = told(*names)
    assert one.startswith("B: 240 of its 240 detections have the score 1:")
    assert orders.startswith("B: equal scores in one image and class are taken in the order of the rows;")
    content = json.loads(run(*names, "--json").stdout)
    assert content["orders"]["A"] == {}
    entries = json.loads(Path(names[2]).read_text())
    Path(names[2]).write_text(json.dumps(entries[::-1]))
    again = json.loads(run(*names, "--json").stdout)
    for name in ("AP", "AR1"):
        low, high = (100 * value for value in content["orders"]["B"][name])
        both = [next(m["b"] for m in each["metrics"] if m["name"] == name) for each in (content, again)]
        assert low <= min(both) < max(both) <= high


def test_detections_that_coco_leaves_out_are_counted(files: Callable[..., tuple[str, str, str]]) -> None:
    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        whole(truth, a, b)
        b += [b[0] | {"score": 0.001 + 0.0001 * i} for i in range(120)]
        cell = [each for each in b if all(each[k] == b[0][k] for k in ("image_id", "category_id"))]
        assert len(cell) - 100 == cut

    cut = 20 + sum(
        all(each[key] == dataset()[0]["annotations"][0][key] for key in ("image_id", "category_id"))
        for each in dataset()[0]["annotations"]
    )
    assert (
        f"B: {cut} of its detections are not scored: COCO takes the best 100 of an image and class"
        in told(*files(spoil))
    )


@pytest.mark.parametrize("factor", [0.25, 0.5, 2.0])
def test_boxes_of_another_size_of_picture_are_noted(
    files: Callable[..., tuple[str, str, str]], factor: float
) -> None:
    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        for each in b:
            each["bbox"] = [factor * v for v in each["bbox"]]

    clean = Detections.from_results(dataset()[2])
    ap = 100 * evaluate_boxes(dataset()[0], clean)["detection"]["AP"]
    (note,) = [note for note in told(*files(spoil)) if "times their size" in note]
    assert note.startswith(
        f"B: its boxes fit better at {1 / factor:g} times their size: AP would be {ap:.2f}"
    )


@pytest.mark.parametrize("shift", [1, 2])
def test_classes_that_mean_others_are_noted(files: Callable[..., tuple[str, str, str]], shift: int) -> None:
    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        for each in b:
            each["category_id"] = (each["category_id"] - 1 + shift) % 3 + 1

    (note,) = [note for note in told(*files(spoil)) if "without regard to classes" in note]
    assert note.startswith("B: its boxes fit far better without regard to classes, AP ")
    assert not any("without regard" in note for note in told(*files(lambda truth, a, b: None)))


def test_what_the_annotations_do_to_every_score_is_noted(files: Callable[..., tuple[str, str, str]]) -> None:
    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        whole(truth, a, b)
        truth["annotations"][0]["id"] = 0
        truth["annotations"][7]["bbox"][2] = -5
        truth["annotations"][9]["bbox"][3] = 0
        truth["categories"][2]["name"] = "ant"

    notes = told(*files(spoil))
    assert [note.partition(":")[0] for note in notes[:3]] == [
        "the annotation with id 0 counts as missed even where it is found",
        "true boxes without area (annotations 8, 10)",
        "categories that share a name, told apart by id",
    ]

    def without_areas(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        for each in truth["annotations"]:
            each["area"] = 0

    notes = told(*files(without_areas))
    assert any(note.startswith("true boxes: 240 boxes whose area cannot be") for note in notes)
    truth = dataset()[0]
    truth["annotations"][0] |= {"id": 0, "iscrowd": 1}  # is ignored, whatever its id
    assert truth_notes(truth) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_id", 6.9), ("image_id", True), ("image_id", "6"), ("image_id", 2**70), ("image_id", None),
        ("category_id", 1.5), ("category_id", 2**63), ("bbox", [1, 2, 3]), ("bbox", [1, 2, 3, None]),
        ("bbox", None), ("score", "0.5"), ("score", True),
    ],
)  # fmt: skip
def test_values_that_would_be_cast_into_others_are_refused(
    files: Callable[..., tuple[str, str, str]], field: str, value: object
) -> None:
    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        a[4][field] = value

    result = run(*files(spoil))
    assert result.exit_code == 2 and f"result 4: {field} is" in result.stderr, result.output


@pytest.mark.parametrize("content", ["[1]", "[null]", '["a"]'])
def test_entries_that_are_no_objects_are_refused(
    files: Callable[..., tuple[str, str, str]], tmp_path: Path, content: str
) -> None:
    truth, a, _ = files()
    result = run(truth, a, str(_write(tmp_path / "odd.json", content)))
    assert result.exit_code == 2 and "result 0 is" in result.stderr


@pytest.mark.parametrize("missing", ["annotations", "images", "categories"])
def test_annotations_without_their_lists_are_refused(
    files: Callable[..., tuple[str, str, str]], missing: str
) -> None:
    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        del truth[missing]

    result = run(*files(spoil))
    assert result.exit_code == 2 and f"key {missing!r} is missing" in result.stderr


def test_where_few_resamples_have_such_boxes_there_is_no_interval() -> None:
    truth, first, second = dataset(60)
    truth["annotations"] = [x for x in truth["annotations"] if x["area"] <= 96**2]
    big = {"image_id": 3, "category_id": 1, "bbox": [10.0, 10.0, 300.0, 300.0]}
    truth["annotations"].append(big | {"id": 9999, "area": 90_000.0, "iscrowd": 0})
    arms = [match(truth, Detections.from_results(some)) for some in (first, [*second, big | {"score": 0.9}])]
    found = {each.name: each for each in compare(*arms, 200).metrics}
    assert found["APL"].delta is not None and found["APL"].percentile is None
    assert found["AP"].percentile is not None


@pytest.mark.parametrize("shift", [2**31, 2**53 + 1, 2**62, -(2**63)])
def test_ids_of_64_bits_are_scored_as_pycocotools_does(
    files: Callable[..., tuple[str, str, str]], tmp_path: Path, shift: int
) -> None:
    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        for rows in (*truth.values(), a, b):
            for row in rows:
                row |= {key: row[key] + shift for key in ("id", "image_id", "category_id") if key in row}

    names = files(spoil)
    truth, entries = (json.loads(Path(name).read_text()) for name in names[:2])
    reference = evaluate_boxes(truth, Detections.from_results(entries))["detection"]
    found = json.loads(run(*names, "--json").stdout)
    assert [m["a"] for m in found["metrics"]] == pytest.approx(
        [100 * reference[m["name"]] for m in found["metrics"]]
    )
    assert {image for image, _ in found["images"]} <= {each["id"] for each in truth["images"]}
    table = tmp_path / "a.parquet"
    Detections.from_results(entries).write(table)
    assert json.loads(run(names[0], str(table), names[2], "--json").stdout)["metrics"] == found["metrics"]


@pytest.mark.parametrize(
    ("encoding", "ending"),
    [
        ("utf-8-sig", "json"),
        ("utf-16", "JSON"),
        ("utf-16-le", "txt"),
        ("utf-32", "json"),
        ("gzip", "json.gz"),
    ],
)
def test_files_of_any_encoding_and_name_are_read(
    files: Callable[..., tuple[str, str, str]], encoding: str, ending: str
) -> None:
    plain = files()
    others = [f"{name.removesuffix('.json')}-other.{ending}" for name in plain]
    for name, other in zip(plain, others, strict=True):
        text = Path(name).read_text()
        coded = gzip.compress(text.encode()) if encoding == "gzip" else text.encode(encoding)
        Path(other).write_bytes(coded)
    assert (
        json.loads(run(*others, "--json").stdout)["metrics"]
        == (json.loads(run(*plain, "--json").stdout)["metrics"])
    )


ENTRY = b'[{"image_id": 1, "category_id": 1, "bbox": [1, %b, 3, 4], "score": %b}]'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON: it is empty"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "it is an HTML or XML page"),
        (b"PK\x03\x04rest", "it is a ZIP archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS"),
        (b"\x1f\x8bno", "not JSON"),
        (b"PAR1rest", "cannot be read"),
        (b"[" * 10**5, "nested too deeply"),
        (b"[" + b"1" * 5000 + b"]", "4300 digits"),
        (b'{"annotations": [], "info": {}}', "holds dict with 'annotations', 'info'; a list of detections"),
        (ENTRY % (b"2", b"1" + 400 * b"0"), "result 0: score is 1000"),
        (ENTRY % (b"1e308", b"1"), "result 0: bbox is [1, 1e+308, 3, 4]; finite numbers below 1e+09"),
    ],
)  # fmt: skip
def test_a_file_that_holds_something_else_is_named_and_never_taken_for_a_run(
    files: Callable[..., tuple[str, str, str]], tmp_path: Path, content: bytes, words: str
) -> None:
    truth, a, _ = files()
    other = tmp_path / "detections"
    other.write_bytes(content)
    result = run(truth, a, str(other))
    assert result.exit_code == 2 and str(other) in result.stderr and words in result.stderr, result.output
    assert result.stderr.count("\n") == 1


def test_a_folder_that_is_no_run_is_called_so(
    files: Callable[..., tuple[str, str, str]], tmp_path: Path
) -> None:
    truth, a, _ = files()
    assert "is a folder without run.json" in run(truth, a, str(tmp_path)).stderr
    assert f"{tmp_path}: Is a directory" in run(str(tmp_path), a, a).stderr
    assert "expected an object with images" in run(a, a, a).stderr


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("image_id", ["1"], "column image_id is string"),
        ("image_id", [1.5], "column image_id is double"),
        ("category_id", [None], "column category_id is null with 1 gaps"),
        ("score", ["0.5"], "column score is string"),
    ],
)
def test_tables_with_columns_of_another_kind_are_refused(
    files: Callable[..., tuple[str, str, str]], tmp_path: Path, column: str, values: list[Any], words: str
) -> None:
    truth, a, _ = files()
    columns = {"image_id": [1], "category_id": [1], "score": [0.5]} | {side: [1.0] for side in SIDES}
    pq.write_table(pa.table(columns | {column: values}), tmp_path / "b.PARQUET")
    result = run(truth, a, str(tmp_path / "b.PARQUET"))
    assert result.exit_code == 2 and words in result.stderr and "run it anew" not in result.stderr
