"""The synthetic dataset."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolor_core.config import ShapesConfig
from yolor_core.data import load_images
from yolor_core.data.records import area_ranges
from yolor_core.data.shapes.dataset import BACKGROUND_SATURATION, annotate, render
from yolor_core.data.shapes.scene import CLASSES, TONES, identities, lay_out

DEFAULT = ShapesConfig()


@pytest.fixture(scope="module")
def contents() -> dict[str, dict[str, Any]]:
    """Annotation content of both default splits."""
    sizes = {"train": DEFAULT.train_images, "val": DEFAULT.val_images}
    return {split: annotate(DEFAULT.seed, DEFAULT.size, split, n) for split, n in sizes.items()}


def _load(content: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    return coco


def _objects(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [a for a in content["annotations"] if not a["iscrowd"]]


def test_an_image_depends_on_seed_and_index_alone() -> None:
    few, many = annotate(0, 160, "val", 3), annotate(0, 160, "val", 6)
    assert many["images"][:3] == few["images"]
    assert many["annotations"][: len(few["annotations"])] == few["annotations"]
    first, again = render(0, 160, "val", 2), render(0, 160, "val", 2)
    np.testing.assert_array_equal(first, again)
    other = {
        "seed": render(1, 160, "val", 2),
        "split": render(0, 160, "train", 2),
        "index": render(0, 160, "val", 3),
    }
    for name, image in other.items():
        assert image.shape != first.shape or (image != first).any(), name


def test_ids_are_unique_over_both_splits(contents: dict[str, dict[str, Any]]) -> None:
    for key in ("images", "annotations"):
        ids = [record["id"] for content in contents.values() for record in content[key]]
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("split", ["train", "val"])
def test_objects_of_all_sizes_classes_and_crowds_are_there(
    contents: dict[str, dict[str, Any]], split: str
) -> None:
    objects = _objects(contents[split])
    areas = np.array([a["area"] for a in objects])
    assert contents[split]["info"]["size_limits"] == [6.4, 19.2]  # 32 and 96 of 640
    (_, _), (_, medium), (_, large), _ = area_ranges(contents[split])
    small, large = (areas < medium).mean(), (areas > large).mean()
    assert 0.03 < small < 0.08
    assert 0.6 < large < 0.8
    shares = Counter(a["category_id"] for a in objects)
    for shape in CLASSES:
        assert shares[shape.category_id] / len(objects) == pytest.approx(shape.frequency, abs=0.04)
    assert max(shares.values()) > 2 * min(shares.values())
    assert any(a["iscrowd"] for a in contents[split]["annotations"])
    per_image = Counter(a["image_id"] for a in objects)
    assert 5 < np.mean(list(per_image.values())) < 8
    assert max(per_image.values()) >= 6
    ratios = {round(i["width"] / i["height"], 2) for i in contents[split]["images"]}
    assert min(ratios) < 0.8
    assert max(ratios) > 1.3
    assert all(max(i["width"], i["height"]) == DEFAULT.size for i in contents[split]["images"])


def test_looks_are_disjoint_between_the_splits(contents: dict[str, dict[str, Any]]) -> None:
    looks: dict[str, set[Any]] = {}
    for split, content in contents.items():
        members = [person for group in identities(0, split) for person in group]
        looks[split] = {(p.class_index, p.hue, p.tone, p.texture) for p in members}
        assert len(looks[split]) == len(members)
        assert {a["identity"] for a in _objects(content)} <= {p.id for p in members}
    assert not looks["train"] & looks["val"]


def test_image_labels_are_the_categories_present(contents: dict[str, dict[str, Any]]) -> None:
    for content in contents.values():
        present: dict[int, set[int]] = {}
        for a in content["annotations"]:
            present.setdefault(a["image_id"], set()).add(a["category_id"])
        for image in content["images"]:
            assert image["labels"] == sorted(present[image["id"]])


def test_segmentations_agree_with_boxes_and_areas(contents: dict[str, dict[str, Any]]) -> None:
    coco = _load(contents["val"])
    overlaps, apart = [], []
    for a in coco.dataset["annotations"]:
        mask = coco.annToMask(a)
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        x, y, w, h = a["bbox"]
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        apart.append(np.abs(np.array(found) - [x, y, x + w, y + h]).max())
        overlaps.append(min(mask.sum(), a["area"]) / max(mask.sum(), a["area"]))
        if a["iscrowd"]:
            assert mask.sum() == a["area"]
        assert min(w, h) >= 0.022 * DEFAULT.size or a["iscrowd"]
        image = coco.imgs[a["image_id"]]
        assert 0 <= x < x + w <= image["width"]
        assert 0 <= y < y + h <= image["height"]
    assert np.max(apart) <= 2  # a polygon can lose a tip that is one pixel wide
    assert np.mean(np.array(apart) > 1) < 0.005
    assert np.mean(overlaps) > 0.97
    assert np.min(overlaps) > 0.75  # polygons of the smallest objects are coarse


def test_boxes_are_of_the_visible_part_and_mostly_hidden_objects_are_left_out() -> None:
    hidden = 0
    for index in range(200):
        scene = lay_out(0, 160, "train", index)
        taken = np.zeros((scene.height, scene.width), bool)
        for visible in scene.visible:
            h, w = visible.mask.shape
            window = taken[visible.y : visible.y + h, visible.x : visible.x + w]
            assert not (window & visible.mask).any()  # no pixel belongs to two objects
            window |= visible.mask
            if not visible.crowd:
                share = visible.mask.sum() / visible.things[0].area
                assert share >= 0.25
                hidden += share < 0.8
    assert hidden > 15  # occlusion is real


def test_pycocotools_scores_perfect_detections_as_perfect(contents: dict[str, dict[str, Any]]) -> None:
    coco = _load(contents["val"])
    results = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in _objects(contents["val"])
    ]
    evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
    evaluation.params.areaRng = area_ranges(contents["val"]).tolist()
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[:6] == pytest.approx(1.0)  # small, medium and large objects are all there


def test_crowds_are_run_lengths_of_several_tiny_things(contents: dict[str, dict[str, Any]]) -> None:
    crowds = [a for c in contents.values() for a in c["annotations"] if a["iscrowd"]]
    for crowd in crowds:
        assert crowd["identity"] is None
        packed = masks.frPyObjects(crowd["segmentation"], *crowd["segmentation"]["size"])
        assert masks.toBbox(packed).tolist() == crowd["bbox"]
        assert masks.area(packed) == crowd["area"]


def test_objects_stand_out_from_the_background_by_saturation() -> None:
    assert min(saturation for saturation, _ in TONES) > BACKGROUND_SATURATION


def test_pixels_show_each_object_in_the_colours_of_its_identity() -> None:
    for index in range(20):
        scene, image = lay_out(3, 160, "val", index), render(3, 160, "val", index)
        assert image.shape == (scene.height, scene.width, 3)
        for visible in scene.visible:
            if visible.crowd or visible.mask.sum() < 200:
                continue
            h, w = visible.mask.shape
            pixels = image[visible.y : visible.y + h, visible.x : visible.x + w][visible.mask].astype(float)
            main, second = visible.things[0].identity.colours
            axis = main - second
            share = np.clip((pixels - second) @ axis / (axis @ axis), 0, 1)[:, None]
            distance = np.linalg.norm(pixels - (second + share * axis), axis=1)
            assert np.median(distance) < 15


@pytest.mark.parametrize("size", [64, 320])
def test_other_image_sizes_work(size: int) -> None:
    images = load_images(ShapesConfig(size=size, train_images=1, val_images=12), "val")
    assert images.report.boxes > 12
    for index in range(len(images)):
        assert images.image(index).shape[:2] == tuple(images.sizes[index][::-1])
        assert max(images.sizes[index]) == size
