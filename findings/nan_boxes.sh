#!/usr/bin/env bash
# pycocotools takes a box with a NaN for a hit at every threshold: a detector whose boxes are all NaN has AP 100. faster-coco-eval
# and hotcoco take it for a miss and refuse NaN scores.
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
NAN = float("nan")
boxes = [[10 + n, 20, 20 + n, 24] for n in range(30)]
with open("truth.json", "w") as file:
    json.dump({
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 100, "height": 100} for n in range(1, 31)],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
                        for n, box in enumerate(boxes, 1)],
        "categories": [{"id": 1, "name": "cell"}],
    }, file)


def ap(library, found, score=0.9):
    coco_class, evaluation_class = LIBRARIES[library]
    results = [{"image_id": n, "category_id": 1, "bbox": box, "score": score} for n, box in enumerate(found, 1)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_class("truth.json")
        try:
            evaluation = evaluation_class(truth, truth.loadRes(results), "bbox")
            evaluation.evaluate()
        except ValueError as error:
            return f"ValueError: {str(error)[:60]}"
        evaluation.accumulate()
        evaluation.summarize()
    return round(100 * float(evaluation.stats[0]), 1)


low = [[x, y, w, 0.62 * h] for x, y, w, h in boxes]  # IoU 0.62
some = [[x, y, w, NAN] if n % 2 else [x, y, w, h] for n, (x, y, w, h) in enumerate(low)]
seen = {}
for name, found, score in (("boxes too low", low, 0.9), ("height NaN in every second", some, 0.9),
                           ("NaN only", [[NAN] * 4] * 30, 0.9), ("NaN only, scores too", [[NAN] * 4] * 30, NAN)):
    seen[name] = [ap(library, found, score) for library in LIBRARIES]
    print(f"{name}:", dict(zip(LIBRARIES, seen[name])))
assert seen["boxes too low"] == [30.0, 30.0, 30.0]
assert seen["height NaN in every second"][0] > 40 and seen["height NaN in every second"][1:] == [8.8, 8.8]
assert seen["NaN only"] == [100.0, 0.0, 0.0] and seen["NaN only, scores too"][0] == 100.0
assert all(str(value).startswith("ValueError") for value in seen["NaN only, scores too"][1:])
PYTHON
