#!/usr/bin/env bash
# torchvision's masks_to_boxes ends a box at the first corner of its last pixel and so leaves that out; pycocotools does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check torch==2.11.0 torchvision==0.26.0 pycocotools==2.0.11 \
  numpy==2.2.6
cd "$folder"
bin/python -W ignore - <<'PYTHON'
import contextlib
import io

import numpy
import torch
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.ops import box_area, masks_to_boxes

HEIGHT, WIDTH = 64, 96
sizes = [1, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48]
masks = torch.zeros(len(sizes), HEIGHT, WIDTH, dtype=torch.uint8)
for n, size in enumerate(sizes):
    masks[n, 5 : 5 + size, 7 : 7 + size] = 1
boxes = masks_to_boxes(masks)
encoded = [mask.encode(numpy.asfortranarray(one.numpy())) for one in masks]
true = [mask.toBbox(one).tolist() for one in encoded]
print("square of 12 pixels: torchvision", boxes[5].tolist(), "area", float(box_area(boxes)[5]), "- pycocotools", true[5], "area",
      int(mask.area(encoded[5])))
print("one pixel: torchvision", boxes[0].tolist(), "- pycocotools", true[0])


def ap(found, truth):
    content = {
        "images": [{"id": n + 1, "width": WIDTH, "height": HEIGHT} for n in range(len(truth))],
        "annotations": [{"id": n + 1, "image_id": n + 1, "category_id": 1, "bbox": box, "iscrowd": 0, "area": box[2] * box[3]}
                        for n, box in enumerate(truth)],
        "categories": [{"id": 1, "name": "thing"}],
    }
    results = [{"image_id": n + 1, "category_id": 1, "bbox": box, "score": 0.9} for n, box in enumerate(found)]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(100 * evaluation.stats[0], 1)


learned = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in boxes.tolist()]
scores = ap(true[1:], true[1:]), ap(learned[1:], true[1:])
print("AP of a detector that is right, objects of 4 to 48 pixels:", scores[0], "- one that learned torchvision's boxes:", scores[1])
assert boxes[5].tolist() == [7, 5, 18, 16] and true[5] == [7, 5, 12, 12] and int(mask.area(encoded[5])) == 144
assert float(box_area(boxes)[0]) == 0 and true[0] == [7, 5, 1, 1]
assert scores[0] == 100.0 and scores[1] < 80
PYTHON
