#!/usr/bin/env bash
# TIDE's AP at 0.5 is not COCO's: it keeps the best 100 detections of an image over all classes, and a class without true boxes
# counts as AP 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check tidecv==1.0.1 pycocotools==2.0.11 numpy==2.4.6
cd "$folder"
bin/python -W ignore - <<'PYTHON'
import contextlib
import io
import json

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tidecv import TIDE, Data


def both(annotations, found, classes):
    """AP at 0.5 by pycocotools and by TIDE, and TIDE's missed ones; annotations are (image, class, box), found has scores, too."""
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 400, "height": 400} for n in (1, 2)],
        "annotations": [{"id": n, "image_id": image, "category_id": kind, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
                        for n, (image, kind, box) in enumerate(annotations, 1)],
        "categories": [{"id": n, "name": str(n)} for n in classes],
    }
    results = [{"image_id": image, "category_id": kind, "bbox": list(box), "score": score} for image, kind, box, score in found]
    truth, predictions = Data("truth"), Data("predictions", max_dets=100)
    for image, kind, box in annotations:
        truth.add_ground_truth(image, kind, box=list(box))
    for image, kind, box, score in found:
        predictions.add_detection(image, kind, score, box=list(box))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        tide = TIDE()
        run = tide.evaluate(truth, predictions, mode=TIDE.BOX)
    missed = tide.get_main_errors()["predictions"]["Miss"]
    return round(100 * float(evaluation.stats[1]), 1), round(float(run.ap), 1), round(float(missed), 1)


# A crowded image: 80 objects of each of two classes, all found.
crowded = [(1, kind, [20 * (n % 20), 40 * kind + 100 * (n // 20) - 40, 15, 15]) for kind in (1, 2) for n in range(80)]
seen = both(crowded, [(*one, 0.95 if one[1] == 1 else 0.9) for one in crowded], (1, 2))
print("160 objects of two classes, all found: AP50", seen[0], "- TIDE", seen[1], "with", seen[2], "to gain from missed ones")
assert seen[0] == 100.0 and seen[1] < 70 and seen[2] > 30

# A small validation set that lacks the third class, which is detected once.
few = [(image, kind, [60 * kind, 50, 40, 40]) for image in (1, 2) for kind in (1, 2)]
found = [(*one, 0.9) for one in few]
seen = both(few, found, (1, 2, 3))[:2], both(few, [*found, (2, 3, [200, 200, 20, 20], 0.1)], (1, 2, 3))[:2]
print("two of three classes there, all found: AP50 and TIDE", seen[0], "- and one wrong box of the third:", seen[1])
assert seen == ((100.0, 100.0), (100.0, 66.7))
PYTHON
