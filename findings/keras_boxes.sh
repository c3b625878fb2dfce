#!/usr/bin/env bash
# Keras' RandomCrop moves boxes down by what the picture moves left and the other way round, and RandomShear's boxes are right in
# square pictures only; MixUp gives a picture the boxes of two and the labels of one. Flips, zooms and shifts are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check keras==3.15.1 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1 \
  pycocotools==2.0.11
cd "$folder"
KERAS_BACKEND=jax JAX_PLATFORMS=cpu bin/python -W ignore - <<'PYTHON'
import contextlib
import io

import keras
import numpy
from keras import layers
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

COUNT = 24
generator = numpy.random.default_rng(0)


def pictures(height, width):
    """Black pictures with a white rectangle each, and its box."""
    boxes = []
    for _ in range(COUNT):
        size = generator.integers(20, 60, 2)
        corner = generator.integers([width // 4, height // 4], [3 * width // 4 - size[0], 3 * height // 4 - size[1]])
        boxes.append([*corner, *(corner + size)])
    images = numpy.zeros((COUNT, height, width, 3), "float32")
    for image, (left, top, right, bottom) in zip(images, boxes):
        image[top:bottom, left:right] = 1
    return images, numpy.array(boxes, "float32")[:, None]


def white(image):
    """The box of the white pixels, None without any."""
    rows, columns = numpy.nonzero(image[..., 0] > 0.5)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else None


def ap(truth, found):
    def entry(n, box):
        left, top, right, bottom = map(float, box)
        return {"image_id": n, "category_id": 1, "bbox": [left, top, right - left, bottom - top]}

    annotations = [{**entry(n, box), "id": n, "area": 1000.0, "iscrowd": 0} for n, box in enumerate(truth, 1)]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": [{"id": n} for n in range(1, len(truth) + 1)], "annotations": annotations,
                        "categories": [{"id": 1, "name": "white"}]}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([{**entry(n, b), "score": 0.9} for n, b in enumerate(found, 1)]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(100 * float(evaluation.stats[0]), 1)


def score(layer, height, width):
    """AP of the white pixels' boxes against those that the layer returns; the labels of boxes without a white pixel."""
    truth, found, gone = [], [], []
    for image, box in zip(*pictures(height, width)):
        out = layer({"images": image[None], "bounding_boxes": {"boxes": box[None], "labels": numpy.ones((1, 1), "float32")}},
                    training=True)
        seen, returned = white(numpy.asarray(out["images"][0])), numpy.asarray(out["bounding_boxes"]["boxes"][0, 0])
        if seen is None:
            gone.append(int(out["bounding_boxes"]["labels"][0, 0]))
        else:
            truth.append(returned)
            found.append(seen)
    return ap(truth, found), gone


common = {"bounding_box_format": "xyxy"}
black = {**common, "fill_mode": "constant"}
seen = {}
for name, layer, height, width in [
    ("a flip", layers.RandomFlip(seed=0, **common), 240, 400),
    ("a zoom by 10 to 30 %", layers.RandomZoom((0.1, 0.3), seed=0, **black), 240, 400),
    ("a shift by up to 20 %", layers.RandomTranslation(0.2, 0.2, seed=0, **black), 240, 400),
    ("the middle 200 x 200", layers.CenterCrop(200, 200, **common), 400, 400),
    ("a random 300 x 300", layers.RandomCrop(300, 300, seed=0, **common), 400, 400),
    ("a random 100 x 100", layers.RandomCrop(100, 100, seed=0, **common), 400, 400),
    ("a random 600 x 600, larger than the picture", layers.RandomCrop(600, 600, seed=0, **common), 400, 400),
    ("a shear by 10 to 20 %", layers.RandomShear((0.1, 0.2), (0.0, 0.0), seed=0, **black), 400, 400),
    ("a shear by 10 to 20 %", layers.RandomShear((0.1, 0.2), (0.0, 0.0), seed=0, **black), 240, 400),
    ("a shift by up to 90 %", layers.RandomTranslation(0.9, 0.9, seed=0, **black), 240, 400),
]:
    seen[name, width, height] = score(layer, height, width)
    value, gone = seen[name, width, height]
    print(f"{name} of {width} x {height}: AP {value}" + (f" - labels of boxes out of the picture: {set(gone)}" if gone else ""))
right = [value[0] for (name, _, _), value in seen.items() if name.startswith(("a flip", "a zoom", "a shift", "the middle"))]
assert min(right) > 85, right
assert seen["a random 300 x 300", 400, 400][0] < 20 and seen["a random 600 x 600, larger than the picture", 400, 400][0] < 1
assert seen["a shear by 10 to 20 %", 400, 400][0] > 95 and seen["a shear by 10 to 20 %", 400, 240][0] < 40
assert set(seen["a random 100 x 100", 400, 400][1]) == {1} and set(seen["a shift by up to 90 %", 400, 240][1]) == {-1}

# Numbers without chance: a shear of 0.2 moves the 20 rows of this rectangle by 8 to 12 pixels; its box by 16 to 24.
image = numpy.zeros((1, 100, 200, 3), "float32")
image[0, 40:60, 80:120] = 1
batch = {"images": image, "bounding_boxes": {"boxes": numpy.array([[[80.0, 40, 120, 60]]], "float32"), "labels": numpy.ones((1, 1))}}
out = layers.RandomShear((0.2, 0.2), (0.0, 0.0), seed=0, **black)(batch, training=True)
pixels, box = white(numpy.asarray(out["images"][0])), numpy.asarray(out["bounding_boxes"]["boxes"][0, 0])
print(f"keras {keras.__version__}: white pixels", [int(v) for v in pixels], "- box", box.round(2).tolist())
assert pixels == [88, 40, 132, 60] and numpy.allclose(box, [96, 40, 144, 60], atol=0.01)

# Four pictures of two boxes each: every mixed one has four boxes, but the labels have become those of eight pictures.
boxes = numpy.tile(numpy.array([4.0, 4, 20, 20], "float32"), (4, 2, 1))
labels = numpy.repeat(numpy.arange(4.0), 2).reshape(4, 2)
out = layers.MixUp(seed=3, **common)({"images": numpy.zeros((4, 32, 32, 3), "float32"),
                                      "bounding_boxes": {"boxes": boxes, "labels": labels}}, training=True)["bounding_boxes"]
print("mixed: boxes of shape", out["boxes"].shape, "- labels", out["labels"].shape)
assert out["boxes"].shape == (4, 4, 4) and out["labels"].shape == (8, 2)
PYTHON
