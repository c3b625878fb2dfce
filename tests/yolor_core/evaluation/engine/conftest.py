"""Made-up truth and detections that reach the corners of the protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yolor_core.evaluation.detections import Detections

Scene = tuple[dict[str, Any], Detections]
SIDES = [0, 1, 8, 31, 32, 33, 64, 95, 96, 97, 200]  # 32² and 96² separate the areas
AREAS = [0, 1023.999, 1024, 1024.001, 9215.999, 9216, 9216.001, 2e10]


def make_scene(seed: int, images: int = 6, boxes: int = 5, detections: int = 12, levels: int = 7) -> Scene:
    """Boxes on a coarse grid, so that overlaps tie and meet thresholds; `levels` scores, so that those tie.

    With `levels` 0 no two detections of an image have the same score. Category 9 has no true box, category 5
    crowds only, about every fifth image is empty on one side or on both.
    """
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(1, images + 1) * 3)
    annotations: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for image in ids.tolist():
        true = []
        for _ in range(rng.integers(0, boxes + 1) * (rng.random() < 0.8)):
            box = [*rng.integers(0, 60, 2).tolist(), *rng.choice(SIDES, 2).tolist()]
            category = int(rng.choice([2, 4, 5]))
            area = box[2] * box[3] if rng.random() < 0.7 else float(rng.choice(AREAS))
            crowd = int(category == 5 or rng.random() < 0.2)
            true.append((category, box))
            fields = {"image_id": image, "category_id": category, "bbox": box, "area": area}
            annotations.append({**fields, "iscrowd": crowd})
        count = int(rng.integers(0, detections + 1)) * (rng.random() < 0.8)
        order = rng.permutation(count)
        for i in range(count):
            category, box = int(rng.choice([2, 4, 5, 9])), [*rng.integers(0, 60, 2), *rng.choice(SIDES, 2)]
            if true and rng.random() < 0.8:
                category, box = true[rng.integers(len(true))]
                moved = rng.integers(-4, 5, 4) * rng.choice([0, 1, 2.5])
                box = [*(np.array(box[:2]) + moved[:2]), *np.maximum(np.array(box[2:]) + moved[2:], 0)]
            score = rng.integers(0, levels + 1) / levels if levels else (order[i] + 1) / (count + 1)
            rows.append({"image_id": image, "category_id": category, "bbox": box, "score": score})
    rng.shuffle(annotations)  # type: ignore[arg-type]
    rng.shuffle(rows)  # type: ignore[arg-type]
    truth = {
        "images": [{"id": image} for image in ids.tolist()],
        "categories": [{"id": k, "name": f"class {k}"} for k in (9, 2, 4, 5)],
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations, 1)],
    }
    return truth, Detections.from_results(rows)


@pytest.fixture(scope="session")
def scene() -> Callable[..., Scene]:
    """`make_scene`."""
    return make_scene


@pytest.fixture(params=["cocoapi_val2014_100", "padilla_coco_sample"])
def real_scene(request: pytest.FixtureRequest, real_data: Path) -> Scene:
    """Real images with published scores: with crowds and polygon areas, and without."""
    files = {
        "cocoapi_val2014_100": (
            "instances_val2014_100.json",
            "instances_val2014_fakebbox100_results.json",
        ),
        "padilla_coco_sample": ("sampled_gts_bbox_area.json", "sampled_bbox_results_list.json"),
    }
    folder = real_data / "eval" / request.param
    truth, found = (json.loads((folder / name).read_text()) for name in files[request.param])
    return truth, Detections.from_results(found)
