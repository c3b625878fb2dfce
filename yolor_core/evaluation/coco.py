"""The official COCO numbers, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolor_core.data.annotations import class_labels, listed_before, negative, never_found
from yolor_core.data.records import area_ranges, size_limits
from yolor_core.data.report import KINDS
from yolor_core.errors import DataError, some_of
from yolor_core.evaluation.detections import Detections
from yolor_core.tasks import COCO_NUMBERS


def evaluate_boxes(annotations: dict[str, Any], detections: Detections) -> dict[str, Any]:
    """Score detections against an annotation file's content.

    Args:
        annotations: the content of a COCO instances file; every image in it counts.
        detections: in the file's own image and category ids.

    Returns:
        {"detection": the twelve numbers by name, as fractions, None where there is no ground truth to score,
        "per_class": {category name, or "name (id)" where several share it: AP or None}, "images": count,
        "detections": count, "size_limits": [side from which an object is medium, large; pixels]}.

    Raises:
        DataError: when a detection names an image or category that the file does not have.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth = _index(annotations)
        _check_ids(truth, detections)
        evaluation = COCOeval(truth, _results(truth, detections), "bbox")
        ranges = area_ranges(annotations)
        evaluation.params.areaRng = ranges.tolist()
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][
        :, :, :, 0, -1
    ]  # IoU, recall, category at area all, 100 detections
    labels = class_labels({key: category["name"] for key, category in truth.cats.items()})
    names = [labels[category] for category in evaluation.params.catIds]
    per_class = {name: _mean(precision[:, :, index]) for index, name in enumerate(names)}
    found = zip(COCO_NUMBERS, evaluation.stats, strict=True)
    scores = {name: None if value < 0 else float(value) for name, value in found}
    return {
        "detection": scores,
        "per_class": per_class,
        "images": len(truth.imgs),
        "detections": len(detections),
        "size_limits": size_limits(ranges),
    }


def truth_notes(content: Mapping[str, Any], arms: Mapping[str, Detections]) -> list[str]:
    """What the annotations do to every score on them, a sentence each, by the rules and in the words of
    `ablate data check`; `content` is that of a COCO file, `arms` are the detections scored on it, by name.

    Scores are those of the COCO API, which never finds an annotation with id 0; what AP is with any other id
    is in that note.
    """
    boxes = [each for each in content["annotations"] if not each.get("iscrowd")]
    if not boxes:
        return [f"there is no true box to score ({len(content['annotations'])} crowd regions)"]
    ids = np.array([each["id"] for each in boxes], np.int64)
    sides = np.array([each["bbox"] for each in boxes], np.float64).reshape(-1, 4)
    named = [each for each in content["images"] if "file_name" in each]
    again = listed_before([each["id"] for each in named], [each["file_name"] for each in named])
    below = negative(sides)
    flat = ids[(sides[:, 2:].min(1) <= 0) & ~below].tolist()
    notes = []
    if never_found(ids).any():
        notes.append(f"the {_words('annotation_zero', ' ')}{_with_another_id(content, arms)}")
    if below.any():
        notes.append(_words("negative", f" (annotations {some_of(ids[below].tolist())}): "))
    if flat:
        notes.append(
            f"true boxes without area (annotations {some_of(flat)}): each is a miss, which no detection can "
            "match"
        )
    if again:
        notes.append(_words("file_twice", f" ({some_of(list(again.values()))}): "))
    names = {each["id"]: each["name"] for each in content["categories"]}
    labels = class_labels(names)
    shared = [label for key, label in labels.items() if label != names[key]]
    if shared:
        notes.append(f"categories that share a name, told apart by id: {some_of(shared)}")
    return notes


def _words(kind: str, between: str) -> str:
    return f"{KINDS[kind].meaning}{between}{KINDS[kind].effect}"


def _with_another_id(content: Mapping[str, Any], arms: Mapping[str, Detections]) -> str:
    """AP of each arm if no annotation had id 0, beside what it is."""
    from yolor_core.evaluation.engine import Truth, match, score  # numba takes a second to import

    truth = Truth.read(content)
    other = replace(truth, found=np.ones_like(truth.found))
    told = ""
    for name, detections in arms.items():
        values = (score(match(each, detections))["detection"]["AP"] for each in (truth, other))
        now, then = ("-" if value is None else f"{100 * value:.2f}" for value in values)
        told += f"; {name} has AP {now}, with any other id {then}"
    return told


def _index(annotations: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = {**annotations, "annotations": [dict(a) for a in annotations["annotations"]]}
    coco.createIndex()
    return coco


def _results(truth: COCO, detections: Detections) -> COCO:
    """Detections as pycocotools' loadRes makes them; that one fails on an empty list."""
    results = COCO()
    boxes = detections.boxes.astype(np.float64)
    scores = detections.scores.astype(np.float64)
    rows = zip(
        detections.image_id.tolist(),
        detections.category_id.tolist(),
        boxes.tolist(),
        scores.tolist(),
        (boxes[:, 2] * boxes[:, 3]).tolist(),
        strict=True,
    )
    results.dataset = {
        "images": truth.dataset["images"],
        "categories": truth.dataset["categories"],
        "annotations": [
            {
                "id": i,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "score": score,
                "area": area,
                "iscrowd": 0,
            }
            for i, (image, category, box, score, area) in enumerate(rows, 1)
        ],
    }
    results.createIndex()
    return results


def _check_ids(truth: COCO, detections: Detections) -> None:
    for kind, found, known in (
        ("image", detections.image_id, truth.imgs),
        ("category", detections.category_id, truth.cats),
    ):
        unknown = np.setdiff1d(found, np.array(sorted(known), dtype=np.int64))
        if len(unknown):
            first = unknown[:5].tolist()
            raise DataError(
                f"{len(unknown)} {kind} ids of the detections are not in the annotations: {first} ..."
            )


def _mean(precision: np.ndarray) -> float | None:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else None
