"""Where two runs differ, and the images they differ most in; detections are written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ablations.table import DETECTION
from analysis.comparison import Comparison, Difference, compare_runs
from analysis.errors import NothingToShow
from analysis.figures.pictures import LONGEST, changed, changed_data, photographs, place_labels
from analysis.figures.scores import CLASSES, differences, differences_data
from analysis.figures.style import svg
from tests.ablations.trained import ablate
from yolor_core.config import ShapesConfig
from yolor_core.data.shapes.dataset import load_shapes, write_dataset
from yolor_core.evaluation.detections import Detections

DATA = ShapesConfig(train_images=2, val_images=4, size=64)
SMALL = ("data.train_images=2", "data.val_images=4", "data.size=64")

Row = tuple[int, int, Sequence[float], float]  # image, category, box, score


def write(run: Path, rows: Sequence[Row]) -> None:
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
    Detections.build(*(np.array(column) for column in columns)).write(run / "detections.parquet")


@pytest.fixture
def truth() -> list[dict[str, Any]]:
    return load_shapes(DATA, "val").coco["annotations"]


def alone(truth: list[dict[str, Any]]) -> dict[str, Any]:
    """A true box that no other of its class shares its image with."""
    kinds = [(each["image_id"], each["category_id"]) for each in truth]
    return next(each for each, kind in zip(truth, kinds, strict=True) if kinds.count(kind) == 1)


@pytest.fixture
def pair(fabricate: Callable[..., str], tmp_path: Path, truth: list[dict[str, Any]]) -> tuple[Path, Path]:
    """Run B finds every true box; run A all but those of the first image, where it finds one too high up."""
    runs = [tmp_path / "runs" / fabricate(name, overrides=SMALL) for name in ("csp-fast", "csp-fast.add-fa")]
    rows = [(each["image_id"], each["category_id"], each["bbox"], 0.9) for each in truth]
    first = truth[0]["image_id"]
    write(runs[0], [row for row in rows if row[0] != first] + [(first, rows[0][1], [0, 0, 5, 5], 0.8)])
    write(runs[1], [*rows, (first, rows[0][1], [0, 0, 5, 5], 0.2)])
    return runs[0], runs[1]


def comparison(*classes: Difference, images: tuple[tuple[int, float], ...] = ()) -> Comparison:
    metrics = (
        Difference("AP", 30.0, 32.0, 2.0, (0.5, 3.0), (0.6, 3.1)),
        Difference("APL", None, None),
        Difference("AR1", 10.0, 11.0, 1.0),
    )
    return Comparison(metrics, classes, images, 1000, 50, ())


def test_scores_come_first_then_classes_in_order_and_undefined_ones_not_at_all() -> None:
    classes = (
        Difference("cat", 1.0, 9.0, 8.0, (2.0, 12.0)),
        Difference("dog", 5.0, 4.0, -1.0),
        Difference("cow", None, 3.0),
    )
    data = differences_data(comparison(*classes), "first", "second")
    assert data["name"].tolist() == ["AP", "cat", "dog"]
    assert data["kind"].tolist() == ["score", "class", "class"]
    assert data.loc[0, ["a", "b", "delta", "low", "high"]].tolist() == [30, 32, 2, 0.6, 3.1]
    assert data.loc[1, ["low", "high"]].tolist() == [2, 12]
    assert data.loc[2, ["low", "high"]].isna().all()
    assert set(data["run_a"]) == {"first"} and set(data["run_b"]) == {"second"}


def test_nothing_defined_is_said() -> None:
    with pytest.raises(NothingToShow, match="first and second have no AP"):
        differences_data(Comparison((Difference("AP", None, None),), (), (), 100, 5, ()), "first", "second")


def test_forest_draws_every_difference_with_its_interval_and_value() -> None:
    made = differences(
        differences_data(comparison(Difference("cat", 5.0, 4.0, -1.0, (-2.0, 0.5))), "one", "two")
    )
    left, right = made.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["AP", "cat"]
    assert [text.get_text() for text in right.texts] == ["+2.0", "−1.0"]
    bars = [sorted(line.get_xdata()) for line in right.get_lines() if len(set(line.get_xdata())) == 2]
    assert [0.6, 3.1] in bars and [-2.0, 0.5] in bars
    assert [text.get_text() for text in made.legends[0].get_texts()] == ["A: one", "B: two"]


def test_forest_of_many_classes_shows_those_that_differ_most_and_says_so() -> None:
    many = [Difference(f"class {i}", 0.0, 90.0 - i, 90.0 - i) for i in range(80)]
    made = differences(differences_data(comparison(*many), "one", "two"))
    labels = [label.get_text() for label in made.axes[0].get_yticklabels()]
    assert labels == ["AP", *(f"class {i}" for i in range(CLASSES))]
    assert f"{CLASSES} of 80 classes" in made.legends[0].get_title().get_text()


def test_two_runs_are_compared_by_what_they_left(pair: tuple[Path, Path]) -> None:
    found = compare_runs(*pair, resamples=100)
    data = differences_data(found, *(path.name for path in pair))
    shown = set(data[data["kind"] == "score"]["name"])
    assert set(data["name"]) >= {"AP", "AP50"} and shown <= set(DETECTION)
    ap = data.set_index("name").loc["AP"]
    assert ap["b"] == pytest.approx(100) and 0 < ap["a"] < 100
    assert ap["low"] <= ap["delta"] <= ap["high"]


def test_run_without_detections_is_named(pair: tuple[Path, Path]) -> None:
    (pair[1] / "detections.parquet").unlink()
    with pytest.raises(NothingToShow, match=r"no detections\.parquet"):
        compare_runs(*pair, resamples=100)
    with pytest.raises(NothingToShow, match=f"{pair[1].name} cannot be shown"):
        changed_data(comparison(images=((2, 0.5),)), *pair)


def test_runs_on_other_images_are_not_compared(
    pair: tuple[Path, Path], fabricate: Callable[..., str], tmp_path: Path
) -> None:
    other = (
        tmp_path
        / "runs"
        / fabricate("csp-fast.add-pr", overrides=(*SMALL[:1], "data.val_images=5", SMALL[2]))
    )
    write(other, [])
    with pytest.raises(NothingToShow, match="cannot be compared"):
        compare_runs(pair[0], other, resamples=100)


def test_runs_of_different_profiles_are_named(
    pair: tuple[Path, Path], tmp_path: Path, truth: list[dict[str, Any]]
) -> None:
    """On the same images with a note, on others in the error."""
    path = pair[1] / "run.json"
    record = json.loads(path.read_text())
    record["config"]["science"]["profile"] = "smoke"
    path.write_text(json.dumps(record))
    said = "different profiles: A is a run of mini, B of smoke"
    result = ablate("compare", *pair, "--resamples", "100")
    assert result.exit_code == 0 and f"note: {said}\n" in result.stdout
    record["config"]["data"]["val_images"] = 3
    path.write_text(json.dumps(record))
    write(pair[1], [])
    result = ablate("compare", *pair, "--resamples", "100")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert f"{said}; the arms were scored on different images: 4 and 3" in result.stderr
    assert "profiles" not in ablate("compare", pair[0], pair[0], "--resamples", "100").stdout


def test_runs_are_scored_on_other_annotations_by_names_of_classes_and_files(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    content = load_shapes(DATA, "val").coco
    path = tmp_path / "truth.json"
    new = {each["id"]: 90 - each["id"] for each in content["categories"]}
    other = {
        "info": content["info"],
        "categories": [each | {"id": new[each["id"]]} for each in content["categories"]],
        "images": [each | {"id": 1000 - each["id"]} for each in content["images"]],
        "annotations": [
            each | {"image_id": 1000 - each["image_id"], "category_id": new[each["category_id"]]}
            for each in content["annotations"]
        ],
    }
    path.write_text(json.dumps(other))
    plain, found = (
        json.loads(ablate("compare", *pair, *truth, "--resamples", "100", "--json").stdout)
        for truth in ((), ("--truth", path))
    )
    assert [each["b"] for each in found["metrics"]] == [each["b"] for each in plain["metrics"]]
    assert found["metrics"][0]["a"] == pytest.approx(plain["metrics"][0]["a"])
    assert sorted(each["name"] for each in found["classes"]) == sorted(
        each["name"] for each in plain["classes"]
    )
    gone, boxes = other["images"].pop(1), other["annotations"]
    kept = [each for each in boxes if each["image_id"] != gone["id"]]
    path.write_text(json.dumps(other | {"annotations": kept}))
    refused = ablate("compare", *pair, "--truth", path)
    assert refused.exit_code == 2 and f"lacks images that run {pair[0].name} has" in refused.stderr
    assert gone["file_name"] in refused.stderr
    other["images"].append(gone)
    other["categories"][0]["name"] = "Disc"
    path.write_text(json.dumps(other))
    refused = ablate("compare", *pair, "--truth", path)
    assert refused.exit_code == 2 and "only here: Disc; only there: disc; 'Disc' for 'disc'" in refused.stderr


def test_boxes_of_the_most_changed_image_are_right_or_wrong_for_each_run(
    pair: tuple[Path, Path], truth: list[dict[str, Any]]
) -> None:
    first = truth[0]["image_id"]
    data = changed_data(comparison(images=((first, 0.5), (99, 0.1))), *pair, images=1, score=0.3)
    assert set(data["image"]) == {first} and set(data["part"]) == {0.5}
    boxes = [each for each in truth if each["image_id"] == first]
    by = dict(iter(data.groupby(["model", "kind"])))
    assert not by["A", "truth"]["right"].any() and by["B", "truth"]["right"].all()
    assert by["A", "detection"][["x", "y", "width", "height", "right"]].values.tolist() == [
        [0, 0, 5, 5, False]
    ]
    assert len(by["B", "detection"]) == len(boxes) and by["B", "detection"]["right"].all()
    shown = by["B", "truth"][["x", "y", "width", "height"]].to_numpy(float)
    assert shown == pytest.approx(np.array([each["bbox"] for each in boxes]))


def test_second_detection_of_a_true_box_is_wrong(
    pair: tuple[Path, Path], truth: list[dict[str, Any]]
) -> None:
    one = alone(truth)
    twice = [(one["image_id"], one["category_id"], one["bbox"], score) for score in (0.6, 0.9)]
    write(pair[1], twice)
    data = changed_data(comparison(images=((one["image_id"], 1.0),)), *pair)
    found = data[(data["model"] == "B") & (data["kind"] == "detection")]
    assert dict(zip(found["score"].round(2), found["right"], strict=True)) == {0.9: True, 0.6: False}


def test_detection_of_another_class_is_wrong(pair: tuple[Path, Path], truth: list[dict[str, Any]]) -> None:
    one = alone(truth)
    other = next(
        c["id"] for c in load_shapes(DATA, "val").coco["categories"] if c["id"] != one["category_id"]
    )
    write(pair[1], [(one["image_id"], other, one["bbox"], 0.9)])
    data = changed_data(comparison(images=((one["image_id"], 1.0),)), *pair)
    assert not data[(data["model"] == "B") & (data["kind"] == "detection")]["right"].any()


def test_images_come_in_the_order_of_the_comparison(
    pair: tuple[Path, Path], truth: list[dict[str, Any]]
) -> None:
    ids = list(dict.fromkeys(each["image_id"] for each in truth))[::-1]
    data = changed_data(comparison(images=tuple((i, 1.0) for i in ids)), *pair, images=3)
    assert list(dict.fromkeys(data["image"])) == ids[:3]


def test_equal_runs_have_no_changed_images(pair: tuple[Path, Path]) -> None:
    with pytest.raises(NothingToShow, match="with or without any image"):
        changed_data(comparison(), *pair)


def test_photographs_are_the_images_of_the_run_as_small_as_asked(pair: tuple[Path, Path]) -> None:
    known = load_shapes(DATA, "val")
    image = int(known.ids[2])
    assert np.array_equal(photographs(pair[0], [image])[image], known.image(2))
    assert max(known.image(2).shape) <= LONGEST
    assert max(photographs(pair[0], [image], 20)[image].shape[:2]) == 20


def test_dataset_that_is_gone_is_said(pair: tuple[Path, Path], tmp_path: Path) -> None:
    path = pair[0] / "run.json"
    record = json.loads(path.read_text())
    record["config"]["data"] = {"kind": "coco", "root": str(tmp_path / "gone"), "train": "a", "val": "b"}
    path.write_text(json.dumps(record))
    with pytest.raises(NothingToShow, match=r"images of csp-fast-mini-s0-\w+ are not here"):
        photographs(pair[0], [1])


def test_picture_that_cannot_be_read_is_said(pair: tuple[Path, Path], tmp_path: Path) -> None:
    write_dataset(DATA, tmp_path / "coco")
    path = pair[0] / "run.json"
    record = json.loads(path.read_text())
    record["config"]["data"] = {
        "kind": "coco",
        "root": str(tmp_path / "coco"),
        "train": "train",
        "val": "val",
    }
    path.write_text(json.dumps(record))
    image = int(load_shapes(DATA, "val").ids[0])
    assert photographs(pair[0], [image])[image].shape[2] == 3
    for file in (tmp_path / "coco").rglob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(NothingToShow, match=f"image {image} "):
        photographs(pair[0], [image])


def test_crowds_and_what_lies_in_them_are_neither_right_nor_wrong(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {
        "images": [{"id": 7, "width": 60, "height": 40}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "bbox": [0, 0, 30, 40], "iscrowd": 1},
            {"image_id": 7, "category_id": 3, "bbox": [40, 0, 20, 20], "iscrowd": 0},
        ],
    }
    found = [(7, 1, [0, 0, 10, 10], 0.9), (7, 3, [0, 20, 10, 10], 0.8), (7, 3, [41, 0, 20, 20], 0.7)]
    columns = zip(*found, strict=True)
    detections = Detections.build(*(np.array(column) for column in columns))
    monkeypatch.setattr("analysis.figures.pictures.stored", lambda run: (content, detections))
    data = changed_data(comparison(images=((7, 1.0),)), *pair)
    own = data[data["model"] == "A"]
    shown = list(zip(own["kind"], own["name"], own["right"], strict=True))
    assert shown == [("truth", "dog", True), ("detection", "dog", False), ("detection", "dog", True)]
    assert set(own["image_width"]) == {60} and set(own["image_height"]) == {40}


def drawn(pair: tuple[Path, Path]) -> tuple[Figure, pd.DataFrame]:
    data = changed_data(comparison(images=((2, 0.5),)), *pair)
    return changed(data, photographs(pair[0], data["image"].unique())), data


def test_two_panels_show_truth_right_and_wrong_boxes_in_different_lines(pair: tuple[Path, Path]) -> None:
    made, data = drawn(pair)
    a, b = [axes for axes in made.axes if axes.images]
    assert (a.get_title(), b.get_title()) == ("A, image 2", "B, image 2: +0.50")
    lines = [{patch.get_linestyle() for patch in axes.patches} for axes in (a, b)]
    assert len(lines[0]) == len(lines[1]) == 2 and len(lines[0] | lines[1]) == 3
    assert sum(isinstance(patch, Rectangle) for patch in a.patches) == (data["model"] == "A").sum()
    assert any(text.get_text().startswith("missed: ") for text in a.texts)
    assert all(text.get_text().startswith("✓ ") for text in b.texts)


def test_an_image_in_which_only_one_run_has_boxes_has_two_panels(pair: tuple[Path, Path]) -> None:
    data = changed_data(comparison(images=((2, 0.5),)), *pair)
    made = changed(data[data["model"] == "B"], photographs(pair[0], data["image"].unique()))
    left, right = made.axes[:2]
    assert not left.patches and right.patches
    assert left.get_xlim() == right.get_xlim() and left.images


def test_pictures_in_the_page_are_small(pair: tuple[Path, Path]) -> None:
    text = svg(drawn(pair)[0], "t", "d", "x")
    assert text.count("data:image/jpeg;base64,") == 2 and "image/png" not in text
    assert len(text) < 60_000


def test_labels_stay_in_the_picture_and_off_each_other() -> None:
    box = (40.0, 0.0, 60.0, 20.0)
    found = place_labels([box, box, box], ["first", "second", "third"], (64, 40), letter=3, line=6)
    assert [each.text for each in found] == ["first", "second", "third"]
    for place, one in enumerate(found):
        assert one.left >= 0 and one.top >= 0 and one.right <= 64 and one.bottom <= 40
        for other in found[:place]:
            assert one.top >= other.bottom or other.top >= one.bottom or one.left >= other.right


def test_label_without_a_place_is_left_out() -> None:
    box = (0.0, 0.0, 10.0, 10.0)
    found = place_labels([box] * 5, ["label"] * 5, (20, 14), letter=4, line=6)
    assert 0 < len(found) < 5
