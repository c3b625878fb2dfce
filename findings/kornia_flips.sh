#!/usr/bin/env bash
# kornia moves boxes in corners by a pixel when it flips or turns a picture, the same boxes with sides not, and resizes both
# as if pixels were points; torchvision's boxes are where the pixels are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check torch==2.11.0 torchvision==0.26.0 kornia==0.9.0 pycocotools==2.0.11 \
  numpy==2.2.6
cd "$folder"
bin/python -W ignore - <<'PYTHON'
import contextlib
import io

import torch
from kornia import augmentation
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

HEIGHT, WIDTH = 60, 100
x1, y1, x2, y2 = 20, 10, 50, 25
picture = torch.zeros(1, HEIGHT, WIDTH)
picture[:, y1:y2, x1:x2] = 1


def painted(pixels):
    """The corners of what is painted, ends not included."""
    rows, columns = torch.nonzero(pixels.squeeze() > 0.5, as_tuple=True)
    return [float(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


def by_kornia(step, key, box):
    sequence = augmentation.AugmentationSequential(step, data_keys=["input", key])
    pixels, moved = sequence(picture[None], torch.tensor([[box]], dtype=torch.float32))
    x, y, a, b = (round(v, 2) for v in moved.flatten().tolist())
    return painted(pixels), [x, y, a, b] if key == "bbox_xyxy" else [x, y, round(x + a, 2), round(y + b, 2)]


seen = {}
for name, step in {
    "flip": augmentation.RandomHorizontalFlip(p=1.0),
    "turn": augmentation.RandomRotation90((1, 1), p=1.0),
    "halve": augmentation.Resize((HEIGHT // 2, WIDTH // 2), p=1.0),
}.items():
    pixels, corners = by_kornia(step, "bbox_xyxy", [x1, y1, x2, y2])
    _, sides = by_kornia(step, "bbox_xywh", [x1, y1, x2 - x1, y2 - y1])
    seen[name] = pixels, corners, sides
    print(f"{name}: painted {pixels}, corners {corners}, corners from x, y, width, height {sides}")
box = tv_tensors.BoundingBoxes([[x1, y1, x2, y2]], format="XYXY", canvas_size=(HEIGHT, WIDTH))
print("flip by torchvision:", functional.horizontal_flip(box)[0].tolist())
assert seen["flip"] == ([50, 10, 80, 25], [49, 10, 79, 25], [50, 10, 80, 25])
assert seen["turn"] == ([30, 30, 45, 60], [30, 29, 45, 59], [30, 30, 45, 60])
assert seen["halve"][0] == [10, 5, 25, 13]  # 7.5 rows are painted
assert seen["halve"][1] == [9.9, 4.92, 24.75, 12.29] and seen["halve"][2] == [9.9, 4.92, 25.25, 12.8]
assert functional.horizontal_flip(box)[0].tolist() == [50, 10, 80, 25]

# What a pixel is worth: a detector that is right, on true boxes that were flipped as corners.
sizes = [6, 8, 10, 12, 16, 20, 24, 32, 40, 48]
true = [[5.0 + 3 * n, 5.0, 5.0 + 3 * n + size, 5.0 + size] for n, size in enumerate(sizes)]
flip = augmentation.AugmentationSequential(
    augmentation.RandomHorizontalFlip(p=1.0), data_keys=["input", "bbox_xyxy"]
)
_, moved = flip(torch.zeros(1, 1, HEIGHT, WIDTH), torch.tensor([true]))
right = [[WIDTH - c, b, WIDTH - a, d] for a, b, c, d in true]


def ap(truth, found):
    boxes = lambda corners: [corners[0], corners[1], corners[2] - corners[0], corners[3] - corners[1]]
    content = {
        "images": [{"id": n + 1, "width": WIDTH, "height": HEIGHT} for n in range(len(truth))],
        "annotations": [
            {"id": n + 1, "image_id": n + 1, "category_id": 1, "bbox": boxes(c), "iscrowd": 0,
             "area": (c[2] - c[0]) * (c[3] - c[1])} for n, c in enumerate(truth)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    results = [
        {"image_id": n + 1, "category_id": 1, "bbox": boxes(c), "score": 0.9} for n, c in enumerate(found)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(100 * evaluation.stats[0], 1)


scores = ap(right, right), ap(moved[0].tolist(), right)
print("AP of a detector that is right, boxes of 6 to 48 pixels: exact flip", scores[0], "- kornia's corners", scores[1])
assert scores[0] == 100.0 and scores[1] < 90
PYTHON
