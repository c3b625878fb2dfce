#!/usr/bin/env bash
# V7's COCO export (darwin-py) turns an object in two parts into a crowd of area 0, which no evaluation counts and most loaders skip;
# ids of images and classes are hashes of their names.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check darwin-py==3.6.3 pycocotools==2.0.11 numpy==2.2.6
cd "$folder"
bin/python - <<'PYTHON'
import contextlib
import io
import json
from pathlib import Path
from zlib import crc32

from darwin.exporter import export_annotations, get_exporter
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def polygon(x, y, width, height):
    return [{"x": a, "y": b} for a, b in ((x, y), (x + width, y), (x + width, y + height), (x, y + height))]


def annotation(number, *parts):
    """An animal as one polygon, or as two where a pole stands before it."""
    x, y = min(p[0] for p in parts), min(p[1] for p in parts)
    around = {"x": x, "y": y, "w": max(p[0] + p[2] for p in parts) - x, "h": max(p[1] + p[3] for p in parts) - y}
    return {"id": str(number), "name": "horse", "slot_names": ["0"], "bounding_box": around,
            "polygon": {"paths": [polygon(*part) for part in parts]}}


def labelled(name, *annotations):
    files = [{"file_name": name, "url": ""}]
    slot = {"type": "image", "slot_name": "0", "width": 640, "height": 480, "source_files": files}
    team = {"name": "lab", "slug": "lab"}
    source = {"item_id": name, "dataset": {"name": "horses", "slug": "horses"}, "team": team}
    item = {"name": name, "path": "/", "source_info": source, "slots": [slot]}
    Path("labels", name).with_suffix(".json").write_text(
        json.dumps({"version": "2.0", "item": item, "annotations": list(annotations)})
    )


Path("labels").mkdir()
Path("out").mkdir()
whole, parts = ((10, 10, 40.5, 30),), ((100, 100, 40.5, 30), (160, 100, 20.5, 30.5))
labelled("a.jpg", annotation(1, *whole), annotation(2, *parts))
labelled("b.jpg", annotation(3, *parts))
with contextlib.redirect_stdout(io.StringIO()):
    export_annotations(get_exporter("coco"), [Path("labels")], Path("out"))
exported = json.loads(Path("out/output.json").read_text())
for one in exported["annotations"]:
    print({key: one[key] for key in ("image_id", "category_id", "bbox", "area", "iscrowd")})


def ap(found):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO("out/output.json")
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(100 * evaluation.stats[0], 1)


found = [{key: one[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9} for one in exported["annotations"]]
print("AP of all three horses:", ap(found), "- of the only one in one piece:", ap(found[:1]))
assert [(one["iscrowd"], one["area"]) for one in exported["annotations"]] == [(0, 1215), (1, 0), (1, 0)]
assert exported["annotations"][1]["bbox"] == [100, 100, 81, 31]  # true: 80.5 x 30.5
assert ap(found) == ap(found[:1]) == 100.0
assert [i["id"] for i in exported["images"]] == [crc32(b"/a.jpg"), crc32(b"/b.jpg")]
assert exported["categories"][0]["id"] == crc32(b"horse")
PYTHON
