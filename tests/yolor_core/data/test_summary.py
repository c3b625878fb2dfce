"""The numbers about a dataset that lie beside a run, and the images that effects are measured on."""

from __future__ import annotations

import numpy as np

from yolor_core.config import ShapesConfig
from yolor_core.data import load_images
from yolor_core.data.batches import REFERENCE, box_sizes, reference_images, summarise

IMAGES = load_images(ShapesConfig(train_images=2, val_images=30, size=160), "val")


def test_boxes_are_counted_by_class_and_size() -> None:
    found = summarise(IMAGES, 320)
    content = IMAGES.coco
    boxes = [a for a in content["annotations"] if not a.get("iscrowd")]
    place = {category: index for index, category in enumerate(IMAGES.category_ids)}
    classes = [place[a["category_id"]] for a in boxes]
    assert found["images"] == 30 and found["boxes"] == len(boxes) == np.sum(found["sizes"])
    assert found["boxes_per_class"] == np.bincount(classes, minlength=len(IMAGES.names)).tolist()
    holding = {(a["image_id"], a["category_id"]) for a in boxes}
    assert found["images_per_class"] == [
        sum(c == category for _, c in holding) for category in IMAGES.category_ids
    ]
    edges = found["size_edges"]
    wide = sum(edges[10] <= a["bbox"][2] * 2 < edges[11] for a in boxes)  # 32 to 45 pixels at twice the size
    assert wide == np.sum(found["sizes"], axis=1)[10] > 0


def test_reference_images_are_the_first_of_the_split() -> None:
    images = reference_images(IMAGES, 160, 32)
    assert images.shape == (REFERENCE, 3, 160, 160)
    pixels = IMAGES.image(3)
    height, width = pixels.shape[:2]
    top, left = (160 - height) // 2, (160 - width) // 2
    inside = images[3].numpy()[:, top : top + height, left : left + width]
    np.testing.assert_array_equal(inside, pixels.transpose(2, 0, 1))


def test_sizes_are_those_of_the_resized_images() -> None:
    images = load_images(ShapesConfig(train_images=5, val_images=1, size=96), "train")
    expected = [
        (box[2:] - box[:2]) * (64 / max(images.sizes[index]))
        for index in (1, 4)
        for box in images.boxes(index)
    ]
    np.testing.assert_allclose(box_sizes(images, 64, [1, 4]), expected, rtol=1e-6)
    assert len(box_sizes(images, 64)) == images.report.boxes
