"""Identities: from the annotations to the targets of a batch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ablations.cli import main
from tests.yolor_core.data.coco_folder import Folder, annotation
from yolor_core.config import AugmentConfig, ShapesConfig
from yolor_core.data import ImageSet, TrainingBatches, load_images
from yolor_core.data.annotations import clean
from yolor_core.data.images import check_identities
from yolor_core.errors import DataError

TURNED = {"degrees": 10.0, "shear": 5.0, "perspective": 0.0005, "flip_vertical": 0.5}
AUGMENTS = {
    "mosaic of four, mixup": AugmentConfig(mixup=0.5),
    "mosaic of nine": AugmentConfig(mosaic_images=9),
    "turned": AugmentConfig(mixup=0.3, **TURNED),
    "single": AugmentConfig(mosaic=0, **TURNED),
}


def with_identities(folder: Folder, *identities: Any) -> Folder:
    """The field of the annotations, in the order of the file; `...` leaves it out."""
    for record, value in zip(folder.content["annotations"], identities, strict=True):
        if value is not ...:
            record["identity"] = value
    return folder


LARGE = 2**62 + 1  # more than a float holds exactly


@pytest.mark.parametrize(
    ("given", "source", "values", "found", "without"),
    [
        ((LARGE, 40, 7), "identity", [7, 40, LARGE], ([1], [2, 0]), 0),  # in the order of the boxes
        ((None, 5, ...), "identity", [5], ([0], [-1, -1]), 2),  # unknown where others are known
        ((None, None, ...), "category", [0, 1], ([0], [1, 0]), 0),
    ],
)
def test_the_field_becomes_an_index_in_the_order_of_its_values(
    two_images: Folder, given: tuple[Any, ...], source: str, values: list[int], found: Any, without: int
) -> None:
    with_identities(two_images, *given)
    more = {"identity": 8} if source == "identity" else {}
    region = {"counts": [0, 3072], "size": [48, 64]}
    two_images.content["annotations"] += [  # a crowd and a box without area have none to count
        annotation(900, 11, [0, 0, 64, 48], iscrowd=1, segmentation=region, **more),
        annotation(901, 11, [0, 0, 0, 4], **more),
    ]
    config = two_images.write()
    images = load_images(config, "train")
    assert (images.identity_source, images.identity_values.tolist()) == (source, values)
    assert images.identity_count == len(values) and images.report.boxes_without_identity == without
    assert tuple(images.identities(index).tolist() for index in range(2)) == found
    assert images.identities(1).dtype == np.int64
    (two_images.root / "images" / "train" / "b.png").write_bytes(b"no image")
    assert load_images(config, "train").sample(1).identities.tolist() == []


def test_without_the_field_the_category_stands_in(two_images: Folder) -> None:
    images = load_images(two_images.write(), "train")
    assert (images.identity_source, images.identity_count) == ("category", 2)
    assert [images.identities(i).tolist() for i in range(2)] == [images.classes(i).tolist() for i in range(2)]


def test_categories_that_do_not_occur_are_no_identities(two_images: Folder) -> None:
    two_images.content["categories"] = [{"id": 1, "name": "ape"}, *two_images.content["categories"]]
    images = load_images(two_images.write(), "train")
    assert images.classes(1).tolist() == [2, 1]
    assert (images.identity_count, images.identities(1).tolist()) == (2, [1, 0])


@pytest.mark.parametrize("value", ["7", 7.0, True, [7], -1, 2**63, {}])
def test_another_value_is_refused_naming_file_and_annotation(two_images: Folder, value: Any) -> None:
    config = with_identities(two_images, 1, 2, value).write()
    with pytest.raises(DataError, match=r"instances_train.json: annotation 103: identity is .*and null"):
        load_images(config, "train")


def test_the_report_counts_identities_and_those_of_a_single_box(two_images: Folder) -> None:
    two_images.content["annotations"] += [
        annotation(104, 11, [0, 0, 9, 9]),
        annotation(105, 11, [0, 0, 8, 8]),
    ]
    report = load_images(with_identities(two_images, 3, 4, 3, 6, None).write(), "train").report
    expected = {"count": 3, "source": "identity", "once": 2, "boxes_without": 1}
    assert report.as_dict()["identities"] == expected


def test_the_check_of_a_dataset_tells_where_identities_come_from(two_images: Folder) -> None:
    two_images.write()
    found = CliRunner().invoke(main, ["data", "check", str(two_images.root), "--train", "train"])
    assert "no field 'identity': categories (2) stand in as identities" in found.output
    with_identities(two_images, 1, 1, None).write()
    found = CliRunner().invoke(main, ["data", "check", str(two_images.root), "--train", "train"])
    assert "1 identity, 0 of them of a single box; 1 box without one" in found.output


def test_an_image_set_without_boxes_has_no_identities() -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [],
    }
    identities = clean(content, "nothing")[0].identities
    assert (identities.count, identities.once, identities.index.tolist()) == (0, 0, [])


@pytest.fixture(scope="module")
def shapes() -> dict[str, ImageSet]:
    """The default splits."""
    return {split: load_images(ShapesConfig(), split) for split in ("train", "val")}


@pytest.mark.parametrize("augment", AUGMENTS.values(), ids=list(AUGMENTS))
@pytest.mark.parametrize("options", [{}, {"cache": True}, {"workers": 1}], ids=str)
def test_every_target_carries_the_identity_of_its_box(
    augment: AugmentConfig, options: dict[str, Any]
) -> None:
    """Each box of this dataset has an identity that says which class it is of."""
    images = load_images(ShapesConfig(train_images=24), "train")
    class_of = np.full(images.identity_count, -1)
    for index in range(len(images)):
        class_of[images.identities(index)] = images.classes(index)
    seen = set()
    for batch in TrainingBatches(images, 96, 8, seed=0, **options).epoch(0, augment):
        identity = batch.targets[:, 6].numpy().astype(int)
        np.testing.assert_array_equal(class_of[identity], batch.targets[:, 1].numpy())
        seen |= set(identity.tolist())
    assert len(seen) > images.identity_count / 2


def test_identities_of_the_shapes_recur_in_several_images_of_one_split(shapes: dict[str, ImageSet]) -> None:
    """What retrieval needs: of every identity, boxes in images other than the query's."""
    for images in shapes.values():
        assert images.identity_source == "identity"
        found = Counter(i for index in range(len(images)) for i in set(images.identities(index).tolist()))
        assert set(found) == set(range(images.identity_count))  # none is unknown
        assert min(found.values()) >= 5
        assert images.report.identities_once == 0
    train, val = (set(shapes[split].identity_values.tolist()) for split in ("train", "val"))
    assert not train & val
    assert (len(train), len(val)) == (159, 59)
    check_identities(shapes["train"], shapes["val"])


def test_identities_in_both_splits_are_refused(two_images: Folder) -> None:
    config = with_identities(two_images, 3, 4, 3).write()
    with pytest.raises(DataError, match="2 identities are in both train and val: 3, 4;"):
        check_identities(load_images(config, "train"), load_images(config, "val"))


def test_categories_are_in_both_splits(two_images: Folder) -> None:
    config = two_images.write()
    check_identities(load_images(config, "train"), load_images(config, "val"))


def test_a_field_in_one_split_only_is_refused(two_images: Folder, shapes: dict[str, ImageSet]) -> None:
    without = load_images(two_images.write(), "val")
    with pytest.raises(
        DataError, match="annotations of train have the field 'identity', those of val do not"
    ):
        check_identities(shapes["train"], without)
    with pytest.raises(
        DataError, match="annotations of val have the field 'identity', those of train do not"
    ):
        check_identities(without, shapes["val"])
