"""Several ranks together see exactly the batches that one process sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yolor_core.config import AugmentConfig, ShapesConfig
from yolor_core.data import Batch, EvaluationBatches, ImageSet, TrainingBatches, load_images
from yolor_core.data.batches import share

AUGMENT = AugmentConfig(scale=0.5, translate=0.1, mixup=0.3)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load_images(ShapesConfig(train_images=22, val_images=11, size=64), "train")


@pytest.mark.parametrize("group", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_shares_are_contiguous_even_and_cut_between_groups(ranks: int, group: int) -> None:
    unit = max(group, 1)
    for count in range(30):
        parts = [share(count, rank, ranks, group) for rank in range(ranks)]
        assert [i for part in parts for i in range(count)[part]] == list(range(count))
        assert all(part.start % unit == 0 or part.start == count for part in parts)
        groups = [-(-(part.stop - part.start) // unit) for part in parts]
        assert max(groups) - min(groups) <= 1
        assert groups == sorted(groups, reverse=True)


def _joined(parts: list[Batch]) -> Batch:
    """One batch out of the shares, the image index of the targets made global."""
    moved = [p.targets + torch.tensor([p.first, 0, 0, 0, 0, 0, 0]) for p in parts]
    ids = tuple(i for p in parts for i in p.ids)
    return Batch(torch.cat([p.images for p in parts]), torch.cat(moved), ids, 0, len(ids))


@pytest.mark.parametrize(
    ("ranks", "group", "workers"),
    [(1, 0, 0), (2, 0, 0), (3, 0, 0), (8, 0, 0), (2, 4, 0), (3, 3, 0), (8, 4, 0), (2, 0, 2), (3, 3, 1)],
)
def test_the_shares_of_all_ranks_are_the_batch_of_one_process(
    images: ImageSet, ranks: int, group: int, workers: int
) -> None:
    expected = list(TrainingBatches(images, 32, 8, seed=3).epoch(1, AUGMENT))
    assert [b.total for b in expected] == [8, 8, 6]  # the last batch is uneven for most of the ranks
    sources = [
        TrainingBatches(images, 32, 8, seed=3, rank=r, ranks=ranks, group=group, workers=workers)
        for r in range(ranks)
    ]
    assert {s.steps for s in sources} == {3}
    shared = [list(s.epoch(1, AUGMENT)) for s in sources]
    for step, whole in enumerate(expected):
        parts = [of_rank[step] for of_rank in shared]
        for part in parts:
            assert part.total == whole.total
            assert set(part.targets[:, 0].tolist()) <= set(range(len(part.ids)))
        joined = _joined(parts)
        assert joined.ids == whole.ids
        assert torch.equal(joined.images, whole.images)
        assert torch.equal(joined.targets, whole.targets)


def test_a_rank_without_images_gets_an_empty_share(images: ImageSet) -> None:
    source = TrainingBatches(images, 32, 8, seed=3, rank=2, ranks=4, group=4)
    for batch in source.epoch(0, AUGMENT):
        assert batch.images.shape == (0, 3, 32, 32)
        assert batch.images.dtype == torch.uint8
        assert batch.targets.shape == (0, 7)
        assert batch.targets.dtype == torch.float32
        assert batch.ids == ()
        assert batch.first == batch.total


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_ranks_take_turns_at_the_evaluation_batches(images: ImageSet, ranks: int) -> None:
    expected = list(EvaluationBatches(images, 64, 32, 4))
    sources = [EvaluationBatches(images, 64, 32, 4, rank=r, ranks=ranks) for r in range(ranks)]
    assert sum(len(s) for s in sources) == len(expected) == 6
    found = {}
    for rank, source in enumerate(sources):
        batches = list(source)
        assert len(batches) == len(source)
        found.update({rank + ranks * k: batch for k, batch in enumerate(batches)})
    for step, whole in enumerate(expected):
        assert found[step].indices == whole.indices
        assert torch.equal(found[step].images, whole.images)
        np.testing.assert_array_equal(found[step].pads, whole.pads)


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_that_does_not_exist_is_refused(images: ImageSet, rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank is {rank}; with 2 ranks, 0 to 1"):
        TrainingBatches(images, 32, 8, seed=0, rank=rank, ranks=2)
    with pytest.raises(ValueError, match=f"rank is {rank}; with 2 ranks, 0 to 1"):
        EvaluationBatches(images, 32, 32, 8, rank=rank, ranks=2)
