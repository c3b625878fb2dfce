#!/usr/bin/env bash
# polars.read_json cuts the decimals off all boxes of a detections file whose first 100 boxes are whole numbers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check polars==2.1.0 pycocotools==2.0.11 numpy==2.4.6
cd "$folder"
bin/python - <<'PYTHON'
import contextlib
import io
import json
from pathlib import Path

import polars
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# Rounded boxes first, as where one model rounds and another does not; 16-pixel objects, found exactly.
boxes = [[10, 20, 16, 16]] * 100 + [[10.75, 20.75, 16.75, 16.75]] * 100
detections = [{"image_id": n, "category_id": 1, "bbox": box, "score": 0.9} for n, box in enumerate(boxes, 1)]
Path("detections.json").write_text(json.dumps(detections))
truth = {
    "images": [{"id": n, "width": 100, "height": 100} for n in range(1, 201)],
    "categories": [{"id": 1, "name": "cell"}],
    "annotations": [
        {"id": n, "image_id": n, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for n, box in enumerate(boxes, 1)
    ],
}
Path("truth.json").write_text(json.dumps(truth))


def ap(found):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO("truth.json")
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(100 * evaluation.stats[0], 1)


read = polars.read_json("detections.json")
whole = polars.read_json("detections.json", infer_schema_length=None)
print(read.schema["bbox"], read["bbox"][-1].to_list(), "of", boxes[-1])
print("AP of the file", ap(detections), "- read by polars", ap(read.to_dicts()), "- with infer_schema_length=None",
      ap(whole.to_dicts()))
assert read.schema["bbox"] == polars.List(polars.Int64) and read["bbox"][-1].to_list() == [10, 20, 16, 16]
assert ap(detections) == ap(whole.to_dicts()) == 100.0 and ap(read.to_dicts()) < 90
PYTHON
