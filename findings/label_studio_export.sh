#!/usr/bin/env bash
# Label Studio's COCO export counts annotations from 0, so the first true box is never found; tasks labelled twice count twice.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check label-studio-sdk==2.1.2 pycocotools==2.0.11 numpy==2.2.6
cd "$folder"
bin/python - <<'PYTHON'
import contextlib
import io
import json
from pathlib import Path

from label_studio_sdk.converter import Converter
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

interface = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
<Label value="cell"/><Label value="debris"/></RectangleLabels></View>"""


def labelled(person, *boxes):
    """An annotation by a person; boxes x, y, width, height in percent of a picture of 640 x 480."""
    keys = ("x", "y", "width", "height")
    common = {"type": "rectanglelabels", "from_name": "label", "to_name": "image", "image_rotation": 0,
              "original_width": 640, "original_height": 480}
    result = [common | {"id": f"{person}-{n}", "value": dict(zip(keys, box)) | {"rotation": 0, "rectanglelabels": ["cell"]}}
              for n, box in enumerate(boxes)]
    return {"id": person, "completed_by": person, "was_cancelled": False, "result": result}


tasks = [
    {"id": 41, "data": {"image": "/data/a.jpg"}, "annotations": [labelled(1, (10, 10, 20, 20), (50, 50, 10, 10))]},
    {"id": 42, "data": {"image": "/data/empty.jpg"}, "annotations": [labelled(1)]},
    {"id": 43, "data": {"image": "/data/twice.jpg"},
     "annotations": [labelled(1, (10, 20, 30, 40)), labelled(2, (11, 20, 30, 40))]},
]
Path("tasks.json").write_text(json.dumps(tasks))
Converter(interface, project_dir=None, download_resources=False).convert_to_coco(
    "tasks.json", "out", output_image_dir="out/images", is_dir=False
)
exported = json.loads(Path("out/result.json").read_text())
print([(i["id"], i["file_name"], i["width"], i["height"]) for i in exported["images"]])
print("annotation ids", [a["id"] for a in exported["annotations"]])
detections = [{"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
              for a in exported["annotations"]]


def ap(content):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(d) for d in detections]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(100 * evaluation.stats[0], 1)


found = ap(exported)
for annotation in exported["annotations"]:
    annotation["id"] += 1
print("AP of the exported boxes themselves:", found, "- with ids from 1:", ap(exported))
names = [i["file_name"] for i in exported["images"]]
assert len(names) == 4 and names[2] == names[3] and len(set(names)) == 3
assert exported["images"][1]["width"] is None and [a["id"] for a in exported["annotations"]] == [1, 2, 3, 4]
assert ap(exported) == 100.0 and found < 80
PYTHON
