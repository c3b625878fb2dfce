#!/usr/bin/env bash
# True boxes without `area`: pycocotools refuses them, faster-coco-eval takes every object for a small one, hotcoco multiplies.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check pycocotools==2.0.11 faster-coco-eval==1.8.0 hotcoco==1.3.0 numpy==2.2.6
cd "$folder"
bin/python - <<'PYTHON'
import contextlib
import io
import json

import faster_coco_eval
import hotcoco
import pycocotools.coco
import pycocotools.cocoeval

LIBRARIES = {
    "pycocotools": (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
    "hotcoco": (hotcoco.COCO, hotcoco.COCOeval),
}
truth = {
    "images": [{"id": n, "file_name": f"{n}.jpg", "width": 200, "height": 200} for n in range(1, 31)],
    "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [5, 5, side, side], "iscrowd": 0}
                    for n, side in enumerate([16, 64, 128] * 10, 1)],
    "categories": [{"id": 1, "name": "car"}],
}
# Small objects are missed, the rest is found.
found = [{"image_id": a["image_id"], "category_id": 1, "bbox": a["bbox"], "score": 0.9} for a in truth["annotations"]
         if a["bbox"][2] > 16]


def by_size(library, content):
    """AP of all, small, medium and large objects."""
    coco_class, evaluation_class = LIBRARIES[library]
    with open("truth.json", "w") as file:
        json.dump(content, file)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_class("truth.json")
        evaluation = evaluation_class(coco, coco.loadRes([dict(d) for d in found]), "bbox")
        try:
            evaluation.evaluate()
        except KeyError as error:
            return f"KeyError: {error}"
        evaluation.accumulate()
        evaluation.summarize()
    return [round(100 * float(evaluation.stats[n]), 1) for n in (0, 3, 4, 5)]


whole = {**truth, "annotations": [a | {"area": a["bbox"][2] * a["bbox"][3]} for a in truth["annotations"]]}
for library in LIBRARIES:
    print(f"{library}: AP, small, medium, large {by_size(library, whole)}; without areas {by_size(library, truth)}")
    assert by_size(library, whole)[1:] == [0.0, 100.0, 100.0]
assert by_size("pycocotools", truth) == "KeyError: 'area'" and by_size("hotcoco", truth)[1:] == [0.0, 100.0, 100.0]
small, medium, large = by_size("faster-coco-eval", truth)[1:]
assert small > 60 and medium == large == -100
PYTHON
