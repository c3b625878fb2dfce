#!/usr/bin/env bash
# sahi reads a COCO file and writes it again: crowds become objects, ids are counted anew, areas are cut to whole pixels.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check sahi==0.12.8 pycocotools==2.0.11 numpy==2.2.6
cd "$folder"
bin/python - <<'PYTHON'
import contextlib
import copy
import io
import json

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sahi.utils.coco import Coco

boxes = {105: [10.4, 10.6, 20.5, 20.5], 107: [50.25, 50.75, 3.5, 3.5]}
truth = {
    "images": [{"id": n, "file_name": f"{n}.jpg", "width": 100, "height": 100} for n in (7, 9)],
    "annotations": [
        {"id": n, "image_id": 7, "category_id": 3, "bbox": box, "area": 0.7 * box[2] * box[3], "iscrowd": 0}
        for n, box in boxes.items()
    ],
    "categories": [{"id": 3, "name": "person"}],
}
crowd = {"id": 109, "image_id": 9, "category_id": 3, "bbox": [0, 0, 60, 60], "area": 2000, "iscrowd": 1}
truth["annotations"].append(crowd)
detections = [
    {"image_id": a["image_id"], "category_id": 3, "bbox": a["bbox"], "score": 0.9}
    for a in truth["annotations"] if not a["iscrowd"]
]
detections += [{"image_id": 9, "category_id": 3, "bbox": [x, 0, 20, 60], "score": 0.95} for x in (0, 20, 40)]
with contextlib.redirect_stderr(io.StringIO()):
    written = Coco.from_coco_dict_or_path(copy.deepcopy(truth)).json
print(json.dumps(written["annotations"]))


def ap(content, found):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(100 * evaluation.stats[0], 1)


number = {old["id"]: new["id"] for old, new in zip(truth["images"], written["images"])}
moved = [{**d, "image_id": number[d["image_id"]]} for d in detections]
print("image ids", number, "- AP of the true boxes:", ap(truth, detections), "- against what sahi wrote:",
      ap(written, moved))
assert number == {7: 1, 9: 2} and [a["id"] for a in written["annotations"]] == [1, 2, 3]
assert [a["iscrowd"] for a in written["annotations"]] == [0, 0, 0]
assert [a["area"] for a in written["annotations"]] == [420, 12, 3600]
assert ap(truth, detections) == 100.0 and ap(written, moved) < 50
PYTHON
