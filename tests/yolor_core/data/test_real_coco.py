"""Subsets of COCO itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from yolor_core.config import AugmentConfig, CocoConfig
from yolor_core.data import EvaluationBatches, TrainingBatches, load_images
from yolor_core.data.check import check_splits, sound

SUBSETS = {
    "coco128 train": ("coco128", "train2017", 128, 939, 10),
    "multitask train": ("coco_multitask", "train2017", 130, 1209, 13),
    "multitask val": ("coco_multitask", "val2017", 128, 987, 10),
}


@pytest.mark.parametrize("name", SUBSETS)
def test_counts_and_boxes_equal_those_of_pycocotools(real_data: Path, name: str) -> None:
    folder, split, count, annotations, crowd = SUBSETS[name]
    config = CocoConfig(root=str(real_data / folder), train=split, val=split)
    images = load_images(config, "train")
    report = images.report
    assert (len(images), report.annotations, report.count("crowd")) == (count, annotations, crowd)
    assert len(images.names) == 80
    assert images.category_ids[-1] == 90
    assert report.count("dropped") == report.count("clipped") == 0
    reference = COCO(str(real_data / folder / "annotations" / f"instances_{split}.json"))
    for index, identifier in enumerate(images.ids):
        expected = reference.loadAnns(reference.getAnnIds(identifier, iscrowd=False))
        corners = np.array([a["bbox"] for a in expected]).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        np.testing.assert_allclose(images.boxes(index), corners, atol=0.011)
        found = [images.category_ids[c] for c in images.classes(index)]
        assert found == [a["category_id"] for a in expected]
    assert images.coco == reference.dataset


@pytest.mark.parametrize("name", SUBSETS)
def test_every_image_decodes_to_its_annotated_size(real_data: Path, name: str) -> None:
    folder, split, count, *_ = SUBSETS[name]
    report = check_splits(real_data / folder, [split])[split]
    assert sound(report)
    assert report.images == count


def test_real_images_make_batches(real_data: Path) -> None:
    root = str(real_data / "coco_multitask")
    train, val = (load_images(CocoConfig(root=root), s) for s in ("train", "val"))
    source = TrainingBatches(train, 320, 8, seed=0, keep_one_in=4)
    batch = next(iter(source.epoch(0, AugmentConfig())))
    assert batch.images.shape == (8, 3, 320, 320)
    assert len(batch.targets) > 8
    again = next(iter(source.epoch(0, AugmentConfig())))
    assert torch.equal(batch.images, again.images)
    shapes = [tuple(b.images.shape[2:]) for b in EvaluationBatches(val, 320, 32, 32)]
    assert shapes[0][0] < shapes[0][1]  # the widest images come first
    assert shapes[-1][0] > shapes[-1][1]
