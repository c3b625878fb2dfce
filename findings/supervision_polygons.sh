#!/usr/bin/env bash
# supervision writes a COCO file for YOLO or Pascal VOC: where objects have polygons, boxes come from the polygons' pixels, not from the
# file, and an object in two parts becomes two.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check supervision==0.31.2 pycocotools==2.0.11 numpy==2.2.6
cd "$folder"
bin/python -W ignore - <<'PYTHON'
import contextlib
import io
import json
from pathlib import Path

import supervision
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NUMBER, WIDTH, HEIGHT = 20, 128, 96
true = [[10.4 + 0.3 * n, 12.6 + 0.7 * n, 6.5 + 1.37 * n, 8.6 + 1.53 * n] for n in range(NUMBER)]  # sides of 6 to 38 pixels
Path("images").mkdir()
for n in range(NUMBER):
    Image.new("RGB", (WIDTH, HEIGHT)).save(f"images/{n:02}.png")


def polygon(x, y, w, h):
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def converted(boxes, polygons, to):
    """Boxes of each image after the COCO file was written for YOLO or Pascal VOC and read again."""
    annotations = [{"id": n + 1, "image_id": n + 1, "category_id": 1, "bbox": box, "iscrowd": 0, "area": box[2] * box[3]}
                   | ({"segmentation": parts} if parts else {}) for n, (box, parts) in enumerate(zip(boxes, polygons))]
    images = [{"id": n + 1, "file_name": f"{n:02}.png", "width": WIDTH, "height": HEIGHT} for n in range(len(boxes))]
    Path("coco.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}))
    dataset = supervision.DetectionDataset.from_coco("images", "coco.json")
    if to == "YOLO":
        dataset.as_yolo(annotations_directory_path=to, data_yaml_path="data.yaml")
        read = supervision.DetectionDataset.from_yolo("images", to, "data.yaml")
    else:
        dataset.as_pascal_voc(annotations_directory_path=to)
        read = supervision.DetectionDataset.from_pascal_voc("images", to)
    found = {Path(path).name: detections.xyxy.tolist() for path, _, detections in read}
    return [[[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in found[image["file_name"]]] for image in images]


def ap(found):
    content = {
        "images": [{"id": n + 1, "width": WIDTH, "height": HEIGHT} for n in range(NUMBER)],
        "annotations": [{"id": n + 1, "image_id": n + 1, "category_id": 1, "bbox": box, "iscrowd": 0, "area": box[2] * box[3]}
                        for n, box in enumerate(true)],
        "categories": [{"id": 1, "name": "cell"}],
    }
    results = [{"image_id": n + 1, "category_id": 1, "bbox": box, "score": 0.9} for n, boxes in enumerate(found) for box in boxes]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(100 * float(evaluation.stats[0]), 1)


scores = {}
for to in ("YOLO", "VOC"):
    plain = converted(true, [None] * NUMBER, to)
    drawn = converted(true, [[polygon(*box)] for box in true], to)
    scores[to] = ap(plain), ap(drawn)
    print(f"{to}: {true[0]} becomes {[round(v, 2) for v in plain[0][0]]}, with a polygon {[round(v, 2) for v in drawn[0][0]]};",
          "AP of the boxes", scores[to][0], "- with polygons", scores[to][1])
    parts = [polygon(10, 10, 20, 30), polygon(40, 10, 20, 30)]  # a car behind a pole
    halves = converted([[10, 10, 50, 30]], [parts], to)[0]
    print(f"{to}: one object in two parts becomes {[[round(v) for v in box] for box in halves]}")
    assert len(halves) == 2
assert scores["YOLO"][0] == 100.0 and scores["YOLO"][1] < 95 and scores["VOC"][1] < 80 < scores["VOC"][0] < 95
PYTHON
