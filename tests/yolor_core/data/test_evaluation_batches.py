"""Evaluation batches: rectangles, letterboxes, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.yolor_core.data.coco_folder import Folder, annotation, picture
from yolor_core.config import ShapesConfig
from yolor_core.data import EvaluationBatches, ImageSet, load_images
from yolor_core.data.batches import by_aspect, rectangle


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load_images(ShapesConfig(train_images=1, val_images=21, size=100), "val")


@pytest.mark.parametrize("rectangular", [True, False])
@pytest.mark.parametrize("size", [64, 160])
def test_every_image_comes_once_and_boxes_find_the_way_back(
    images: ImageSet, rectangular: bool, size: int
) -> None:
    seen: list[int] = []
    for batch in EvaluationBatches(images, size, 32, 8, rectangular):
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape[2] % 32 == batch.images.shape[3] % 32 == 0
        if not rectangular:
            assert batch.images.shape[2:] == (size, size)
        for row, index in enumerate(batch.indices):
            seen.append(index)
            boxes = images.boxes(index)
            there = boxes * np.tile(batch.scales[row], 2) + np.tile(batch.pads[row], 2)
            back = batch.to_original(row, torch.from_numpy(there))
            np.testing.assert_allclose(back.numpy(), boxes, atol=1e-4)
            np.testing.assert_allclose(batch.to_original(row, there), boxes, atol=1e-4)
            assert there.max() <= max(batch.images.shape[2:])
    assert sorted(seen) == list(range(len(images)))


def test_pixels_lie_where_scales_and_pads_say(folder: Folder) -> None:
    marks = {}
    for k, (width, height) in enumerate([(200, 100), (90, 180), (128, 128)]):
        pixels = np.asarray(picture(k, width, height)) // 2
        x, y = 10 * (k + 3), 12 * (k + 2)
        pixels[y : y + 30, x : x + 40] = 255
        identifier = folder.add(Image.fromarray(pixels), f"{k}.png", (width, height))
        folder.content["annotations"].append(annotation(k, identifier, [x, y, 40, 30]))
        marks[k] = (x, y, x + 40, y + 30)
    images = load_images(folder.write(), "val")
    for batch in EvaluationBatches(images, 96, 32, 2):
        for row, index in enumerate(batch.indices):
            white = batch.images[row, 0].numpy() > 190
            columns, rows = np.flatnonzero(white.any(axis=0)), np.flatnonzero(white.any(axis=1))
            found = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float64)
            np.testing.assert_allclose(batch.to_original(row, found)[0], marks[index], atol=2.1)
            border = batch.images[row, :, 0, 0].tolist()
            assert border == [114, 114, 114]


def test_sides_are_rounded_and_each_axis_has_its_own_scale_and_whole_padding(folder: Folder) -> None:
    """At 192 pixels the height becomes 127.8; the released code takes 127 of it, and 2 x 32.5 of padding."""
    identifier = folder.add(picture(0, 640, 426), "0.png", (640, 426))
    folder.content["annotations"].append(annotation(0, identifier, [0, 0, 640, 426]))
    (batch,) = EvaluationBatches(load_images(folder.write(), "val"), 192, 64, 1)
    assert batch.images.shape[2:] == (192, 256)
    assert (batch.images[0] != 114).any(dim=0).nonzero().amin(dim=0).tolist() == [32, 32]
    np.testing.assert_array_equal(batch.pads, [[32, 32]])
    np.testing.assert_allclose(batch.scales, [[192 / 640, 128 / 426]], rtol=1e-12)


def test_boxes_outside_are_cut_to_the_original_image(images: ImageSet) -> None:
    batch = next(iter(EvaluationBatches(images, 64, 32, 4)))
    width, height = images.sizes[batch.indices[1]]
    cut = batch.to_original(1, torch.tensor([[-50.0, -50, 500, 500]]))
    assert cut.tolist() == [[0, 0, width, height]]
    assert cut.dtype == torch.float32
    assert batch.to_original(0, torch.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize(
    ("sizes", "size", "stride", "pad", "expected"),
    [
        ([(640, 480)], 640, 32, 0.5, (672, 512)),  # ceil(20.5) and ceil(15.5) strides
        ([(640, 480)], 640, 32, 0.0, (640, 480)),
        ([(640, 480), (640, 427)], 640, 32, 0.0, (640, 480)),  # the tallest decides
        ([(480, 640), (427, 640)], 640, 32, 0.0, (480, 640)),
        ([(640, 427), (427, 640)], 640, 64, 0.0, (640, 640)),
        ([(640, 427)], 1280, 64, 0.5, (1344, 896)),
        ([(1000, 10)], 640, 32, 0.0, (640, 32)),
        ([(160, 160)], 160, 32, 0.5, (192, 192)),  # the images of `mini`
    ],
)
def test_rectangles_follow_the_rule(
    sizes, size: int, stride: int, pad: float, expected: tuple[int, int]
) -> None:
    assert rectangle(np.array(sizes), size, stride, pad) == expected


def test_order_is_by_aspect_and_ties_keep_their_place() -> None:
    sizes = np.array([(100, 100), (100, 50), (50, 100), (200, 100), (30, 30)])
    assert by_aspect(sizes).tolist() == [1, 3, 0, 4, 2]


def test_workers_change_nothing(images: ImageSet) -> None:
    alone, helped = (list(EvaluationBatches(images, 96, 32, 4, workers=w)) for w in (0, 2))
    assert len(alone) == len(helped) == len(EvaluationBatches(images, 96, 32, 4))
    for a, b in zip(alone, helped, strict=True):
        assert a.indices == b.indices
        assert torch.equal(a.images, b.images)
        np.testing.assert_array_equal(a.scales, b.scales)
