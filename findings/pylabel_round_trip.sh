#!/usr/bin/env bash
# pylabel reads a COCO file and writes it again: every image without boxes writes the annotation before it once more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check pylabel==0.1.55 pandas==2.3.3 pycocotools==2.0.11 numpy==2.4.6
cd "$folder"
bin/python -W ignore - <<'PYTHON'
import contextlib
import io
import json

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pylabel import importer

# Six images, the last two without boxes, as background.
truth = {
    "images": [{"id": n, "file_name": f"{n}.jpg", "width": 100, "height": 80} for n in range(1, 7)],
    "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [10.4, 10.6, 20.5 + n, 20.5], "area": (20.5 + n) * 20.5,
                     "iscrowd": 0} for n in range(1, 5)],
    "categories": [{"id": 1, "name": "cell"}],
}
with open("truth.json", "w") as file:
    json.dump(truth, file)


def ap(content):
    """AP of the true boxes; the annotations' ids are made to begin with 1, since pylabel's begin with 0."""
    found = [{"image_id": a["image_id"], "category_id": 1, "bbox": a["bbox"], "score": 0.9} for a in truth["annotations"]]
    annotations = [a | {"id": n} for n, a in enumerate(content["annotations"], 1)]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = content | {"annotations": annotations}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(100 * evaluation.stats[0], 1)


with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    dataset = importer.ImportCoco("truth.json", path_to_images=".", name="cells")
    dataset.export.ExportToCoco(output_path="written.json")
with open("written.json") as file:
    written = json.load(file)
print("images", [i["id"] for i in written["images"]], "annotations (id, image_id)",
      [(a["id"], a["image_id"]) for a in written["annotations"]])
print("AP of the true boxes:", ap(truth), "- against what pylabel wrote:", ap(written))
assert [i["id"] for i in written["images"]] == [1, 2, 3, 4, 5, 6]
assert [(a["id"], a["image_id"]) for a in written["annotations"]] == [(0, 1), (1, 2), (2, 3), (3, 4), (3, 4), (3, 4)]
assert ap(truth) == 100.0 and ap(written) < 70
PYTHON
