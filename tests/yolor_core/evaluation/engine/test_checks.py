"""What is refused or warned of before anything is scored, and in which words."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from yolor_core.errors import DataError
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.engine import bootstrap, check_detections, check_pair, match, paired_bootstrap


def test_few_images_and_an_empty_arm_are_warned_of(scene) -> None:
    truth, found = scene(13, 49)
    full, empty = match(truth, found), match(truth, Detections.from_results([]))
    assert check_pair(full, full) == ["only 49 images: a bootstrap over fewer than 50 understates the spread"]
    result = paired_bootstrap(full, empty, 10, seed=0)
    assert result.warnings[1:] == ["arm b has no detections"]
    assert (result.resampled_b.metrics["AP"] == 0).all()


def test_arms_of_other_images_categories_or_boxes_are_refused(scene) -> None:
    truth, found = scene(14, 50)
    a = match(truth, found)
    fewer = {**truth, "images": [i for i in truth["images"] if i["id"] != 6]}
    kept = Detections(*(column[found.image_id != 6] for column in dataclasses.astuple(found)))
    more = {**truth, "categories": [*truth["categories"], {"id": 77, "name": "new"}]}
    called = {**truth, "categories": [x | {"name": f"other {x['id']}"} for x in truth["categories"]]}
    crowd = {**truth, "annotations": [{**x, "iscrowd": 1} for x in truth["annotations"]]}
    for b, message in (
        (match(fewer, kept), r"different images: 50 and 49, of which 1 are in one arm only: \[6\]"),
        (match(more, found), r"different categories: 4 and 5, .*\[77\]"),
        (match(called, found), "categories of other names: class 2 and other 2, class 4 and other 4, "),
        (match(crowd, found), "different true boxes"),
    ):
        for call in (lambda b=b: check_pair(a, b), lambda b=b: paired_bootstrap(a, b, 5, 0)):
            with pytest.raises(DataError, match=message):
                call()
    for runs, resamples in (([], 5), ([a], 0)):
        with pytest.raises(DataError, match="cannot bootstrap"):
            bootstrap(runs, resamples, 0)


def changed(found: Detections, column: str, value: object) -> Detections:
    values = getattr(found, column).copy()
    values[3] = value
    return dataclasses.replace(found, **{column: values})


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("image_id", 1000, "image ids are not in the annotations.*row 3: image 1000"),
        ("category_id", 3, "category ids are not in the annotations.*category 3"),
        ("scores", np.nan, r"scores are not in \[0, 1\].*score nan"),
        ("scores", 1.01, "scores are not in"),
        ("scores", -0.1, "scores are not in"),
        ("boxes", [0, 0, np.inf, 1], "boxes are not finite"),
        ("boxes", [np.nan, 0, 1, 1], "boxes are not finite"),
        ("boxes", [0, 0, -1, 1], r"negative width or height.*\[0.0, 0.0, -1.0, 1.0\]"),
    ],
)
def test_detections_that_are_none_are_refused_by_row(scene, column, value, message) -> None:
    truth, found = scene(15, 50, levels=0)
    check_detections(truth, found)
    with pytest.raises(DataError, match=rf"^1 of {len(found)} detections: .*{message}"):
        check_detections(truth, changed(found, column, value))


def test_repeated_rows_are_counted_and_named(scene) -> None:
    truth, found = scene(15, 50, levels=0)
    rows = np.concatenate([np.arange(len(found)), [5, 5, 7]])
    again = Detections(*(column[rows] for column in dataclasses.astuple(found)))
    with pytest.raises(DataError, match=r"^3 of \d+ detections: rows are exact duplicates of another row"):
        check_detections(truth, again)
    with pytest.raises(DataError, match=r"have .* rows"):
        check_detections(truth, dataclasses.replace(found, scores=found.scores[:-1]))
    check_detections(truth, Detections.from_results([]))
