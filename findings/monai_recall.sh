#!/usr/bin/env bash
# MONAI's COCOMetric averages its mean recall over thresholds that its name leaves out: those of iou_list beside those of iou_range.
# Its mean AP keeps to iou_range and is pycocotools'.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check monai==1.6.1 torch==2.11.0 numpy==2.4.6 pycocotools==2.0.11
cd "$folder"
bin/python -W ignore - <<'PYTHON'
import contextlib
import io

import monai
import numpy
from monai.apps.detection.metrics.coco import COCOMetric
from monai.apps.detection.metrics.matching import matching_batch
from monai.data.box_utils import box_iou
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

CLASSES = ("nodule", "mass")


def of_monai(truth, found, **settings):
    """Images of (boxes, classes) and of (boxes, classes, scores): mean AP and mean recall, with their names."""
    metric = COCOMetric(CLASSES, per_class=False, verbose=False, **settings)
    matched = matching_batch(
        iou_fn=box_iou, iou_thresholds=metric.iou_thresholds,
        pred_boxes=[f[0] for f in found], pred_classes=[f[1] for f in found], pred_scores=[f[2] for f in found],
        gt_boxes=[t[0] for t in truth], gt_classes=[t[1] for t in truth],
    )
    values = metric(matched)[0]
    return {name: round(100 * float(value), 1) for name, value in values.items()
            if name.startswith("mA") and name.endswith("MaxDet_100")}


def of_pycocotools(truth, found):
    def entries(images):
        return [
            {"image_id": n, "category_id": int(kind) + 1, "bbox": [*map(float, box[:2]), *map(float, box[2:] - box[:2])], "score": score}
            for n, (boxes, kinds, *scores) in enumerate(images, 1)
            for box, kind, score in zip(boxes, kinds, map(float, scores[0] if scores else numpy.ones(len(boxes))))
        ]

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": n} for n in range(1, len(truth) + 1)],
            "annotations": [{**entry, "id": n, "area": 1000.0, "iscrowd": 0} for n, entry in enumerate(entries(truth), 1)],
            "categories": [{"id": n, "name": name} for n, name in enumerate(CLASSES, 1)],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(entries(found)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return tuple(round(100 * float(evaluation.stats[n]), 1) for n in (0, 8))


# Every object found, with IoU 0.6: the recall is 1 from 0.1 to 0.5, the range of the default.
whole = [(numpy.array([[0.0, 0, 100, 100], [200, 200, 300, 300]]), numpy.array([0, 1]))] * 4
loose = [(boxes * [1, 1, 1, 1] + [0, 0, 0, -40], kinds, numpy.array([0.9, 0.8])) for boxes, kinds in whole]
default = of_monai(whole, loose)
print("all found with IoU 0.6, MONAI as it comes:", default)
assert default == {"mAP_IoU_0.10_0.50_0.05_MaxDet_100": 100.0, "mAR_IoU_0.10_0.50_0.05_MaxDet_100": 90.0}
alone = of_monai(whole, loose, iou_list=(0.1, 0.5))
print("  with iou_list inside the range:", alone)
assert set(alone.values()) == {100.0}

# Boxes by chance, by COCO's thresholds.
generator = numpy.random.default_rng(0)
truth, found = [], []
for _ in range(20):
    sizes = generator.uniform(20, 90, (5, 2))
    corners = generator.uniform(0, 400, (5, 2))
    boxes, kinds = numpy.hstack([corners, corners + sizes]), generator.integers(0, 2, 5)
    truth.append((boxes, kinds))
    found.append((boxes + generator.normal(0, 0.06, (5, 4)) * numpy.tile(sizes, 2), kinds, generator.uniform(0, 1, 5)))
coco = of_pycocotools(truth, found)
ranges = {"iou_range": (0.5, 0.95, 0.05), "max_detection": (1, 10, 100)}
usual, inside = of_monai(truth, found, **ranges), of_monai(truth, found, iou_list=(0.5, 0.75), **ranges)
print(f"boxes by chance: pycocotools' AP and AR {coco}\n  MONAI with the default's iou_list {usual}\n  with 0.5 and 0.75 {inside}")
assert tuple(inside.values()) == coco and usual["mAP_IoU_0.50_0.95_0.05_MaxDet_100"] == coco[0]
assert usual["mAR_IoU_0.50_0.95_0.05_MaxDet_100"] > coco[1] + 2
print("monai", monai.__version__)
PYTHON
