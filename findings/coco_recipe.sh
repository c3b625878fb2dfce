#!/usr/bin/env bash
# mean-average-precision by its recipe for COCO's AP ("soft", 101 recalls): boxes are a pixel wider and higher, a crowd is an object
# that was missed, and where several boxes are found, `difficult` is read from the wrong object.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check mean-average-precision==2024.1.5.0 pycocotools==2.0.11 pandas==2.3.3 \
  numpy==2.4.6
cd "$folder"
bin/python -W ignore - <<'PYTHON'
import contextlib
import io

import numpy
from mean_average_precision import MetricBuilder
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def both(images):
    """AP by pycocotools and by the recipe, of images as (true boxes with a flag, found boxes); flags: "", "crowd", "difficult"."""
    metric = MetricBuilder.build_evaluation_metric("map_2d", async_mode=False, num_classes=1)
    annotations, results = [], []
    for n, (true, found) in enumerate(images, 1):
        for (x, y, w, h), flag in true:
            annotations.append({"id": len(annotations) + 1, "image_id": n, "category_id": 1, "bbox": [x, y, w, h], "area": w * h,
                                "iscrowd": int(flag != "")})
        results += [{"image_id": n, "category_id": 1, "bbox": list(box), "score": 0.9} for box in found]
        metric.add(numpy.array([[x, y, x + w, y + h, 0, 0.9] for x, y, w, h in found], float).reshape(-1, 6),
                   numpy.array([[x, y, x + w, y + h, 0, flag == "difficult", flag == "crowd"] for (x, y, w, h), flag in true], float))
    coco = COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        coco.dataset = {"images": [{"id": n} for n in range(1, len(images) + 1)], "annotations": annotations,
                        "categories": [{"id": 1, "name": "cell"}]}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    value = metric.value(iou_thresholds=numpy.arange(0.5, 1.0, 0.05), recall_thresholds=numpy.arange(0.0, 1.01, 0.01), mpolicy="soft")
    return round(100 * float(evaluation.stats[0]), 1), round(100 * float(value["mAP"]), 1)


low = [([([5, 5, side, side], "")], [[5 + 0.15 * side, 5 + 0.15 * side, side, side]]) for side in range(4, 13)]  # IoU 0.57
a, b, c = [5, 5, 20, 20], [40, 5, 20, 20], [70, 5, 20, 20]
seen = {
    "boxes of 4 to 12 pixels found too low": both(low),
    "one of two images has a crowd": both([([(a, "")], [a]), ([(a, "crowd")], [])]),
    "two objects found beside a difficult one": both([([(a, "difficult"), (b, ""), (c, "")], [b, c])]),
}
for name, scores in seen.items():
    print(f"{name}: pycocotools {scores[0]}, the recipe {scores[1]}")
assert seen["boxes of 4 to 12 pixels found too low"][0] == 20.0 and seen["boxes of 4 to 12 pixels found too low"][1] > 24
assert seen["one of two images has a crowd"][0] == 100.0 and seen["one of two images has a crowd"][1] < 60
assert seen["two objects found beside a difficult one"][0] == 100.0 and seen["two objects found beside a difficult one"][1] < 60
PYTHON
