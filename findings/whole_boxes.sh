#!/usr/bin/env bash
# torchvision's COCO wrapper: boxes written as whole numbers stay whole, so that resizing cuts them, image by image; an image
# without boxes has no entry for boxes at all.
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
import json

import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision import tv_tensors
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

WIDTH, HEIGHT = 128, 96
sides = [7, 9, 11, 13, 17, 21, 25, 33, 41, 49]
true = [[5 + 2 * n, 5, side, side] for n, side in enumerate(sides)]


def loaded(boxes):
    """The boxes after halving, as a training loop gets them."""
    write("boxes.json", boxes)
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = CocoDetection(".", "boxes.json", transforms=v2.Resize((HEIGHT // 2, WIDTH // 2)))
    return [target for _, target in wrap_dataset_for_transforms_v2(dataset, target_keys=("boxes", "labels"))]


def write(name, boxes):
    Image.new("RGB", (WIDTH, HEIGHT)).save("picture.png")
    content = {
        "images": [{"id": n + 1, "file_name": "picture.png", "width": WIDTH, "height": HEIGHT} for n in range(len(boxes) + 1)],
        "annotations": [
            {"id": n + 1, "image_id": n + 1, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for n, box in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    with open(name, "w") as file:
        json.dump(content, file)


def ap(targets):
    """AP of a detector that learned the halved boxes by heart, enlarged again."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO("boxes.json")
        results = []
        for n, target in enumerate(targets[:-1]):
            x1, y1, x2, y2 = (2 * float(v) for v in target["boxes"][0])
            results.append({"image_id": n + 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": 0.9})
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(100 * evaluation.stats[0], 1)


whole = loaded(true)
of_whole = ap(whole)
floats = loaded([[float(v) for v in box] for box in true])
of_floats = ap(floats)
print("first box, halved: whole numbers", whole[0]["boxes"].tolist(), "- the same with a point", floats[0]["boxes"].tolist())
print("AP of the halved boxes themselves: whole numbers", of_whole, "- with a point", of_floats)
mixed = loaded([[5, 5, 7, 7], [5.5, 5, 7, 7]])
print("types in one file:", [target["boxes"].dtype for target in mixed[:2]], "- image without boxes:", mixed[2])
assert whole[0]["boxes"].tolist() == [[2, 2, 6, 6]] and floats[0]["boxes"].tolist() == [[2.5, 2.5, 6, 6]]
assert of_floats == 100.0 and of_whole < 90
assert [target["boxes"].dtype for target in mixed[:2]] == [torch.int64, torch.float32] and "boxes" not in mixed[2]
box = tv_tensors.BoundingBoxes([[10, 10, 25, 25]], format="XYXY", canvas_size=(HEIGHT, WIDTH))
turned = v2.functional.convert_bounding_box_format(box, new_format="CXCYWH")
back = v2.functional.convert_bounding_box_format(turned, new_format="XYXY")
print("to centres and back:", box.tolist(), "->", back.tolist())
assert back.tolist() == [[9, 9, 24, 24]]
PYTHON
