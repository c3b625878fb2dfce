"""How losses of several tasks become one; the branches' losses against sums by hand, whole and in shares."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from yolor_core.config import BranchConfig, ModelConfig, TasksConfig
from yolor_core.errors import DataError
from yolor_core.models import Detector, create_model
from yolor_core.tasks.base import TaskWeights
from yolor_core.tasks.classification import ClassificationLoss
from yolor_core.tasks.detection import assign
from yolor_core.tasks.embedding import EmbeddingHead, IdentityLoss

LOSSES = {"detection": 0.7, "embedding": 4.0}


def losses() -> dict[str, torch.Tensor]:
    return {task: torch.tensor(value, dtype=torch.float64) for task, value in LOSSES.items()}


def learnt(**options: float) -> TaskWeights:
    weights = TaskWeights(list(LOSSES), TasksConfig(weighting="uncertainty", **options)).double()
    weights.reset()
    return weights


def test_fixed_weights_have_no_parameters_and_multiply() -> None:
    weights = TaskWeights(list(LOSSES), TasksConfig(detection=2.0, embedding=0.25))
    assert not list(weights.parameters())
    assert weights.combine(losses()).item() == pytest.approx(2.0 * 0.7 + 0.25 * 4.0)
    assert weights.combine(losses(), share=0.1).item() == weights.combine(losses()).item()
    assert weights.factors() == {"detection": 2.0, "embedding": 0.25}


def test_a_single_task_of_weight_one_keeps_its_loss_bit_for_bit() -> None:
    weights = TaskWeights(["detection"], TasksConfig())
    value = torch.tensor(0.123456789)
    assert torch.equal(weights.combine({"detection": value}), value)


def test_learnt_weights_follow_the_formula_and_start_as_configured() -> None:
    weights = learnt(initial_detection=-1.0, initial_embedding=0.5)
    expected = (math.exp(1.0) * 0.7 - 1.0 + math.exp(-0.5) * 4.0 + 0.5) / 2
    assert weights.combine(losses()).item() == pytest.approx(expected)
    assert [name for name, _ in weights.named_parameters()] == list(LOSSES)
    assert weights.factors() == pytest.approx(
        {"detection": math.exp(1.0) / 2, "embedding": math.exp(-0.5) / 2}
    )
    start = dict(learnt().named_parameters())
    assert start["detection"].item() == pytest.approx(-1.85)
    assert start["embedding"].item() == pytest.approx(-1.05)


def test_learnt_weights_settle_where_the_noise_equals_the_loss() -> None:
    """d/ds (exp(-s) L + s) = 0 at s = ln L."""
    weights = learnt(initial_detection=math.log(0.7), initial_embedding=math.log(4.0))
    weights.combine(losses()).backward()
    for parameter in weights.parameters():
        assert parameter.grad is not None
        assert parameter.grad.item() == pytest.approx(0.0, abs=1e-12)


def test_shares_of_the_common_term_add_up() -> None:
    weights = learnt()
    parts = [({task: value * part for task, value in losses().items()}, part) for part in (0.5, 0.3, 0.2)]
    whole = weights.combine(losses())
    whole.backward()
    expected = [p.grad.clone() for p in weights.parameters() if p.grad is not None]
    weights.zero_grad()
    value = torch.stack([weights.combine(part, share) for part, share in parts]).sum()
    value.backward()
    assert value.item() == pytest.approx(whole.item())
    found = [p.grad for p in weights.parameters()]
    torch.testing.assert_close(found, expected)


CLASSES, IDENTITIES = 4, 5
SIZE = (96, 64)


def embedder() -> Detector:
    config = ModelConfig(
        architecture="yolov4_csp_fast",
        width=0.0625,
        depth=0.33,
        detection=False,
        branches=(BranchConfig(task="embedding"),),
    )
    return create_model(config, CLASSES, seed=2, identities=IDENTITIES).double()


def identity_loss(model: Detector) -> IdentityLoss:
    head = model.branches["embedding"]
    assert isinstance(head, EmbeddingHead)
    return IdentityLoss(head, model.anchors, model.strides, 4.0)


def boxes(images: int = 6, count: int = 40, seed: int = 0) -> Tensor:
    """(n, 7) targets; the last image has none, and some have no identity."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(images - 1, (count,), generator=generator).sort().values
    label = torch.randint(CLASSES, (count,), generator=generator)
    centre = torch.rand(count, 2, generator=generator)
    size = 0.05 + 0.9 * torch.rand(count, 2, generator=generator) ** 2
    identity = torch.randint(-1, IDENTITIES, (count,), generator=generator)
    return torch.cat([image[:, None], label[:, None], centre, size, identity[:, None]], 1).double()


def maps(model: Detector, images: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    dimension = model.branches["embedding"].dimension
    shapes = [(images, dimension, SIZE[0] // s, SIZE[1] // s) for s in model.strides]
    drawn = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [values.requires_grad_() for values in drawn]


def test_classification_loss_is_the_mean_cross_entropy_over_images_and_classes() -> None:
    targets, loss = boxes(), ClassificationLoss(CLASSES)
    logits = torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(1)).double()
    expected = 0.0
    for image, label in itertools.product(range(6), range(CLASSES)):
        shown = any(int(t[0]) == image and int(t[1]) == label for t in targets)
        p = 1 / (1 + math.exp(-float(logits[image, label])))
        expected -= math.log(p if shown else 1 - p) / (6 * CLASSES)
    terms = loss(logits, loss.wanted(targets, SIZE, 6))
    assert list(terms) == ["loss/tag"]
    assert float(terms["loss/tag"]) == pytest.approx(expected, rel=1e-12)


def test_images_without_labels_show_no_class() -> None:
    loss = ClassificationLoss(CLASSES)
    wanted = loss.wanted(torch.zeros(0, 7), SIZE, 3)
    assert wanted.truth.tolist() == [[0.0] * CLASSES] * 3
    logits = torch.zeros(3, CLASSES, requires_grad=True)
    value = loss(logits, wanted)["loss/tag"]
    assert value.item() == pytest.approx(math.log(2))
    value.backward()
    assert (logits.grad > 0).all()  # type: ignore[operator]


def by_hand(model: Detector, predictions: list[Tensor], targets: Tensor) -> float:
    """The identity loss, one cell after the other."""
    head = model.branches["embedding"]
    weight, bias = (p.detach().numpy() for p in (head.classifier.weight, head.classifier.bias))
    grids = [(SIZE[0] // s, SIZE[1] // s) for s in model.strides]
    anchors = [level / stride for level, stride in zip(model.anchors, model.strides, strict=True)]
    total = 0.0
    for x, positives in zip(predictions, assign(targets, anchors, grids, 4.0), strict=True):
        owner: dict[tuple[int, int, int], int] = {}
        for image, row, column, target in zip(
            positives.image, positives.row, positives.column, positives.target, strict=True
        ):
            cell, identity = (int(image), int(row), int(column)), int(targets[target, 6])
            if identity >= 0:
                owner[cell] = max(owner.get(cell, -1), identity)
        losses = []
        for (image, row, column), identity in owner.items():  # type: ignore[assignment]
            e = x[image, :, row, column].detach().numpy()
            logits = weight @ (math.sqrt(2) * math.log(IDENTITIES - 1) * e / np.linalg.norm(e)) + bias
            losses.append(math.log(np.exp(logits).sum()) - logits[identity])
        total += sum(losses) / max(len(losses), 1)
    return total


def test_identity_loss_equals_a_loop_over_cells() -> None:
    model, targets = embedder(), boxes()
    predictions, loss = maps(model), identity_loss(model)
    wanted = loss.wanted(targets, SIZE, 6)
    assert all(count > 0 for count in wanted.counts)
    terms = loss(predictions, wanted)
    assert list(terms) == ["loss/id"]
    assert terms["loss/id"].item() == pytest.approx(by_hand(model, predictions, targets), rel=1e-6)


def test_boxes_that_share_a_cell_leave_it_to_the_largest_identity_and_unknown_ones_are_ignored() -> None:
    model = embedder()
    same = [0.0, 0, 0.52, 0.52, 0.3, 0.3]
    order = [[*same, identity] for identity in (1.0, 3.0, -1.0, 2.0)]
    wanted = identity_loss(model).wanted(torch.tensor(order), SIZE, 1)
    found = [cells.identity.tolist() for cells in wanted.cells]
    assert sum(map(len, found)) > 0
    assert set(itertools.chain(*found)) == {3}
    for cells in wanted.cells:
        places = list(zip(cells.image.tolist(), cells.row.tolist(), cells.column.tolist(), strict=True))
        assert len(set(places)) == len(places)


@pytest.mark.parametrize("targets", [torch.zeros(0, 7), boxes(count=8)], ids=["no box", "identities -1"])
def test_a_batch_without_identities_costs_nothing_and_keeps_every_gradient(targets: Tensor) -> None:
    model = embedder()
    targets = targets.double()
    targets[:, 6] = -1
    predictions, loss = maps(model), identity_loss(model)
    value = loss(predictions, loss.wanted(targets, SIZE, 6))["loss/id"]
    assert value.item() == 0
    value.backward()
    leaves = [*predictions, *model.branches["embedding"].classifier.parameters()]
    assert all(leaf.grad is not None and leaf.grad.eq(0).all() for leaf in leaves)


def test_targets_without_identities_are_named() -> None:
    with pytest.raises(DataError, match="6 columns have no identities"):
        identity_loss(embedder()).wanted(torch.zeros(1, 6), SIZE, 1)


def test_half_precision_predictions_are_computed_with_in_float32() -> None:
    model = embedder().float()
    targets, loss, tags = boxes().float(), identity_loss(model), ClassificationLoss(CLASSES)
    halves = [x.detach().bfloat16() for x in maps(model)]
    wanted = loss.wanted(targets, SIZE, 6)
    exact = loss([x.float() for x in halves], wanted)["loss/id"]
    assert torch.equal(loss(halves, wanted)["loss/id"], exact)
    logits = torch.randn(6, CLASSES).bfloat16()
    of_classes = tags.wanted(targets, SIZE, 6)
    assert torch.equal(tags(logits, of_classes)["loss/tag"], tags(logits.float(), of_classes)["loss/tag"])


def shared(loss: Any, predictions: Any, targets: Tensor, shares: list[tuple[int, int]], part: int) -> float:
    """The loss as ranks with these shares of the images, each cut into parts, sum it up."""
    total = shares[-1][1]
    held = []
    for begin, end in shares:
        mine = targets[(targets[:, 0] >= begin) & (targets[:, 0] < end)].clone()
        mine[:, 0] -= begin
        held.append(loss.wanted(mine, SIZE, end - begin, begin, total))
    counts = torch.stack([wanted.counts for wanted in held]).sum(0)
    value = 0.0
    for (begin, end), wanted in zip(shares, held, strict=True):
        wanted.counts.copy_(counts)
        for low in range(0, end - begin, part):
            high = min(low + part, end - begin)
            chosen = slice(begin + low, begin + high)
            cut = [x[chosen] for x in predictions] if isinstance(predictions, list) else predictions[chosen]
            value += sum(float(term) for term in loss(cut, wanted.part(low, high)).values())
    return value


@pytest.mark.parametrize("shares", [[(0, 6)], [(0, 3), (3, 6)], [(0, 1), (1, 5), (5, 6)], [(0, 6), (6, 6)]])
@pytest.mark.parametrize("part", [1, 4, 6])
@pytest.mark.parametrize("task", ["classification", "embedding"])
@torch.no_grad()
def test_ranks_and_parts_sum_up_to_the_loss_of_the_batch(
    task: str, shares: list[tuple[int, int]], part: int
) -> None:
    model, targets = embedder(), boxes()
    loss: Any = ClassificationLoss(CLASSES) if task == "classification" else identity_loss(model)
    predictions: Any = maps(model)
    if task == "classification":
        predictions = torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(1)).double()
    whole = sum(float(term) for term in loss(predictions, loss.wanted(targets, SIZE, 6)).values())
    assert whole > 0
    assert shared(loss, predictions, targets, shares, part) == pytest.approx(whole, rel=1e-12)
