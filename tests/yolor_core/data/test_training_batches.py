"""Training batches depend on seed, epoch and sample index, and on nothing else."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from yolor_core.config import AugmentConfig, ShapesConfig
from yolor_core.data import Batch, ImageSet, TrainingBatches, load_images
from yolor_core.errors import DataError

AUGMENT = AugmentConfig(scale=0.5, translate=0.1, mixup=0.3)
STILL = AugmentConfig(mosaic=0, scale=0, hsv_h=0, hsv_s=0, hsv_v=0, flip_horizontal=0)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load_images(ShapesConfig(train_images=22, val_images=1, size=96), "train")


def batches(
    images: ImageSet, epoch: int = 0, start: int = 0, augment: AugmentConfig = AUGMENT, **options
) -> list[Batch]:
    return list(TrainingBatches(images, 64, 8, **{"seed": 3, **options}).epoch(epoch, augment, start))


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        a.ids == b.ids and torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets)
        for a, b in zip(first, second, strict=True)
    )


def test_batches_have_the_promised_form(images: ImageSet) -> None:
    source = TrainingBatches(images, 64, 8, seed=0)
    found = list(source.epoch(0, AUGMENT))
    assert source.steps == len(found) == 3
    assert [len(b.ids) for b in found] == [8, 8, 6]
    assert sorted(i for b in found for i in b.ids) == sorted(images.ids)
    for batch in found:
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (len(batch.ids), 3, 64, 64)
        assert batch.images.is_contiguous()
        assert batch.targets.dtype == torch.float32
        assert batch.targets.shape[1] == 7
        index, classes, boxes = batch.targets[:, 0], batch.targets[:, 1], batch.targets[:, 2:6]
        assert set(index.tolist()) <= set(range(len(batch.ids)))
        assert set(classes.tolist()) <= set(range(5))
        assert (boxes[:, 2:] > 2 / 64).all()
        assert (boxes[:, :2] - boxes[:, 2:] / 2 >= -1e-6).all()
        assert (boxes[:, :2] + boxes[:, 2:] / 2 <= 1 + 1e-6).all()


def test_unaugmented_targets_are_the_boxes_of_the_images(images: ImageSet) -> None:
    for batch in batches(images, augment=STILL):
        for row, identifier in enumerate(batch.ids):
            index = images.ids.index(identifier)
            width, height = images.sizes[index]
            ratio = 64 / 96
            top, left = (64 - round(height * ratio)) // 2, (64 - round(width * ratio)) // 2
            found = batch.targets[batch.targets[:, 0] == row].numpy()
            xy, wh = found[:, 2:4] * 64, found[:, 4:6] * 64
            back = (np.concatenate([xy - wh / 2, xy + wh / 2], axis=1) - [left, top, left, top]) / ratio
            np.testing.assert_allclose(back, images.boxes(index), atol=0.7)  # a side rounds to whole pixels
            np.testing.assert_array_equal(found[:, 1], images.classes(index))
            np.testing.assert_array_equal(found[:, 6], images.identities(index))


@pytest.mark.parametrize("options", [{"workers": 2}, {"cache": True}, {"workers": 2, "cache": True}])
def test_workers_and_cache_change_nothing(images: ImageSet, options: dict[str, int]) -> None:
    assert equal(batches(images, epoch=1), batches(images, epoch=1, **options))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_resumed_in_the_middle_continues_exactly(images: ImageSet, workers: int) -> None:
    assert equal(batches(images)[2:], batches(images, start=2, workers=workers))
    assert batches(images, start=3) == []
    with pytest.raises(ValueError, match="start_step is 4"):
        batches(images, start=4)


def test_epochs_do_not_depend_on_each_other(images: ImageSet) -> None:
    source = TrainingBatches(images, 64, 8, seed=3)
    list(source.epoch(0, AUGMENT))
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  the global state must not matter
    assert equal(list(source.epoch(4, AUGMENT)), batches(images, epoch=4))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_random_state_is_left_alone(images: ImageSet, workers: int) -> None:
    before = torch.get_rng_state()
    batches(images, workers=workers)
    assert torch.equal(before, torch.get_rng_state())


def test_seed_and_epoch_change_order_and_augmentation(images: ImageSet) -> None:
    reference = batches(images)
    for other in (batches(images, epoch=1), batches(images, seed=4)):
        assert [b.ids for b in other] != [b.ids for b in reference]
        mine = {i: b.images[row] for b in reference for row, i in enumerate(b.ids)}
        same = [torch.equal(mine[i], b.images[row]) for b in other for row, i in enumerate(b.ids)]
        assert not any(same)


def test_a_sample_does_not_depend_on_the_batch_size(images: ImageSet) -> None:
    large = next(iter(TrainingBatches(images, 64, 22, seed=3).epoch(0, AUGMENT)))
    joined = batches(images)
    assert large.ids == tuple(i for b in joined for i in b.ids)
    assert torch.equal(large.images, torch.cat([b.images for b in joined]))


def test_one_image_in_four_is_chosen_by_the_hash_of_its_id(images: ImageSet) -> None:
    expected = {i for i in images.ids if int(hashlib.sha1(str(i).encode()).hexdigest(), 16) % 4 == 0}
    source = TrainingBatches(images, 64, 4, seed=0, keep_one_in=4)
    asked: set[int] = set()
    original = source.fetch
    source.fetch = lambda index, notes: (asked.add(images.ids[index]), original(index, notes))[1]  # type: ignore[method-assign,func-returns-value]
    for epoch in range(8):
        assert {i for b in source.epoch(epoch, AUGMENT) for i in b.ids} == expected
    assert asked == expected  # the other images of a mosaic come from the same subset
    with pytest.raises(DataError, match="keep_one_in = 1000003 leaves none of 22 images"):
        TrainingBatches(images, 64, 4, seed=0, keep_one_in=1_000_003)


def test_batches_are_the_same_in_another_process(images: ImageSet) -> None:
    code = (
        "import hashlib; from yolor_core.config import AugmentConfig, ShapesConfig;"
        "from yolor_core.data import TrainingBatches, load_images;"
        "s = load_images(ShapesConfig(train_images=22, val_images=1, size=96), 'train');"
        f"a = AugmentConfig.model_validate_json('{AUGMENT.model_dump_json()}');"
        "d = [b.images.numpy().tobytes() for b in TrainingBatches(s, 64, 8, seed=3).epoch(2, a)];"
        "print(hashlib.sha256(b''.join(d)).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    mine = hashlib.sha256(b"".join(b.images.numpy().tobytes() for b in batches(images, epoch=2)))
    assert other.stdout.strip() == mine.hexdigest()
