"""Assignment, loss, gradients and CIoU against the released code's figures, and their edge cases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from yolor_core.config import LossConfig
from yolor_core.tasks.detection import DetectionLoss, Wanted, _write_last, assign, binary_loss, ciou

MASK = np.uint64(0xFFFFFFFFFFFFFFFF)


def hashed(index: np.ndarray, k: int) -> np.ndarray:
    """The reference filling: u(i, k) in [0, 1) by splitmix64."""
    with np.errstate(over="ignore"):
        z = index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = z + np.uint64(((k + 1) * 0xBF58476D1CE4E5B9) % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Terms(NamedTuple):
    total: torch.Tensor  # times the images, as in the released code
    box: torch.Tensor
    objectness: torch.Tensor
    classification: torch.Tensor


class Loss(DetectionLoss):
    def terms(self, raw: Sequence[torch.Tensor], targets: torch.Tensor | Wanted) -> Terms:
        """Of a whole batch with targets (n, 6), or of a part that `wanted` has made."""
        if isinstance(targets, torch.Tensor):
            size = tuple(side * self.strides[0] for side in raw[0].shape[2:4])
            targets = self.wanted(targets, size, len(raw[0]))
        box, objectness, classification = self(raw, targets).values()
        total = (box + objectness + classification) * targets.images
        return Terms(total, box, objectness, classification)


def predictions(size: int, strides: list[int]) -> list[torch.Tensor]:
    """The reference's raw predictions: 3 * s(i, 1000 + level)."""
    raw = []
    for level, stride in enumerate(strides):
        shape = (2, 3, size // stride, size // stride, 85)
        values = 3 * (2 * hashed(np.arange(np.prod(shape)), 1000 + level) - 1)
        raw.append(torch.tensor(values.reshape(shape), dtype=torch.float32, requires_grad=True))
    return raw


@pytest.fixture
def reference(golden: Path) -> dict:
    return json.loads((golden / "loss_golden.json").read_text())


@pytest.mark.parametrize("head", ["P5", "P6"])
def test_assignment_equals_the_released_code(reference: dict, head: str) -> None:
    facts = reference["heads"][head]
    grids = [(facts["size"] // int(s),) * 2 for s in facts["strides"]]
    anchors = [torch.tensor(level) for level in facts["anchors_in_cells"]]
    positives = assign(torch.tensor(reference["targets"]), anchors, grids, 4.0)

    assert [len(p.image) for p in positives] == facts["n_pos"]
    for level, p in enumerate(positives):
        torch.testing.assert_close(p.box.sum(0), torch.tensor(facts["tbox_sum"][level]), rtol=1e-5, atol=1e-4)
        assert int(p.label.sum()) == facts["tcls_sum"][level]
        assert [int(x.sum()) for x in (p.image, p.anchor, p.row, p.column)] == facts["index_sum"][level]
        columns = (p.image, p.anchor, p.row, p.column, p.label, *p.box.unbind(1))
        rows = torch.stack([c.double() for c in columns], 1)[: len(facts["first_rows"][level])]
        expected = torch.tensor(facts["first_rows"][level], dtype=torch.float64).reshape(rows.shape)
        torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", ["P5", "P6"])
def test_loss_and_gradients_equal_the_released_code(reference: dict, head: str) -> None:
    facts = reference["heads"][head]
    strides = [int(s) for s in facts["strides"]]
    anchors = torch.tensor(facts["anchors_in_cells"]) * torch.tensor(strides)[:, None, None]
    raw = predictions(facts["size"], strides)
    terms = Loss(anchors, strides, 80, LossConfig()).terms(raw, torch.tensor(reference["targets"]))

    parts = [terms.box, terms.objectness, terms.classification]
    found = [float(x.detach()) for x in (*parts, sum(parts))]
    assert found == pytest.approx(facts["lbox_lobj_lcls_total"], rel=2e-6)
    assert float(terms.total.detach()) == pytest.approx(facts["loss_times_batch"], rel=2e-6)

    terms.total.backward()
    for level, prediction in enumerate(raw):
        assert prediction.grad is not None
        assert float(prediction.grad.abs().sum()) == pytest.approx(facts["grad_abs_sum"][level], rel=1e-5)
        samples = facts["grad_samples"][level]
        assert sample_like(prediction.grad.flatten(), len(samples)) == pytest.approx(
            samples, rel=1e-4, abs=1e-9
        )


def sample_like(values: torch.Tensor, count: int) -> list[float]:
    """Evenly spread samples, first and last included, as the reference took them."""
    return values[np.linspace(0, len(values) - 1, count).astype(int)].tolist()


def test_ciou_equals_the_released_values(reference: dict) -> None:
    facts = reference["ciou"]
    found = ciou(torch.tensor(facts["box1_xywh"]), torch.tensor(facts["box2_xywh"]))
    torch.testing.assert_close(found, torch.tensor(facts["ciou"]), rtol=1e-6, atol=1e-6)


def test_ciou_equals_torchvision_up_to_the_epsilons() -> None:
    from torchvision.ops import box_convert, complete_box_iou

    generator = torch.Generator().manual_seed(0)
    first = torch.rand(200, 4, generator=generator) * 10 + 1
    second = torch.rand(200, 4, generator=generator) * 10 + 1
    expected = complete_box_iou(*(box_convert(b, "cxcywh", "xyxy") for b in (first, second))).diagonal()
    torch.testing.assert_close(ciou(first, second), expected, rtol=1e-4, atol=1e-5)


def test_identical_boxes_have_ciou_one_and_a_finite_gradient() -> None:
    box = torch.tensor([[10.0, 12.0, 5.0, 8.0], [0.5, 0.5, 1e-3, 1e-3]], requires_grad=True)
    value = ciou(box, box.detach().clone())
    value.sum().backward()
    assert torch.allclose(value, torch.ones(2), atol=1e-3)
    assert box.grad is not None and bool(torch.isfinite(box.grad).all())


def test_a_batch_without_boxes_trains_objectness_only() -> None:
    raw = predictions(128, [8, 16, 32])
    anchors = torch.ones(3, 3, 2) * 20
    terms = Loss(anchors, [8, 16, 32], 80, LossConfig()).terms(raw, torch.zeros(0, 6))
    terms.total.backward()
    assert float(terms.box) == float(terms.classification) == 0
    assert raw[0].grad is not None and bool((raw[0].grad[..., :4] == 0).all())


def test_the_last_of_two_targets_in_one_cell_gives_the_objectness() -> None:
    index = tuple(torch.tensor([0, 1, 0, 1, 0]) for _ in range(2))
    wanted = torch.zeros(2, 2)
    _write_last(wanted, index, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]))
    assert wanted.flatten().tolist() == pytest.approx([0.5, 0.0, 0.0, 0.4])


def test_boxes_on_the_border_stay_inside_the_grid() -> None:
    targets = torch.tensor([[0, 1, 1.0, 1.0, 0.2, 0.2], [0, 2, 0.0, 0.0, 0.2, 0.2]])
    (positive,) = assign(targets, [torch.tensor([[2.0, 2.0]])], [(10, 10)], 4.0)
    assert positive.row.min() >= 0 and positive.row.max() <= 9
    assert positive.column.min() >= 0 and positive.column.max() <= 9


def test_one_class_has_no_classification_loss() -> None:
    raw = [p[..., :6] for p in predictions(128, [8, 16, 32])]
    targets = torch.tensor([[0, 0, 0.5, 0.5, 0.2, 0.2]])
    terms = Loss(torch.ones(3, 3, 2) * 20, [8, 16, 32], 1, LossConfig()).terms(raw, targets)
    assert float(terms.classification) == 0 and float(terms.box.detach()) > 0


def scene(images: int = 6) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Predictions of some images, targets of all but one of them, anchors."""
    rng = np.random.default_rng(1)
    raw = [torch.tensor(rng.normal(size=(images, 3, 64 // s, 64 // s, 9))) for s in (8, 16, 32)]
    rows = [
        [image, rng.integers(4), *rng.uniform(0.2, 0.8, 2), *rng.uniform(0.1, 0.5, 2)]
        for image in range(images - 1)
        for _ in range(3)
    ]
    anchors = (
        torch.tensor([[8.0, 8], [16, 12], [12, 24]])[None] * torch.tensor([1.0, 1.6, 2.4])[:, None, None]
    )
    return (
        [p.requires_grad_() for p in raw],
        torch.tensor(np.array(rows), dtype=torch.float64),
        anchors.double(),
    )


def test_a_batch_in_parts_sums_up_to_the_whole() -> None:
    raw, targets, anchors = scene()
    loss = Loss(anchors, [8, 16, 32], 4, LossConfig())
    whole = loss.terms(raw, targets)
    first, second = (targets[targets[:, 0] < 4], targets[targets[:, 0] >= 4] - torch.eye(6)[0] * 4)
    shares = [loss.wanted(first, (64, 64), 4, 0, 6), loss.wanted(second, (64, 64), 2, 4, 6)]
    counts = shares[0].counts + shares[1].counts
    for share in shares:
        share.counts = counts
    parts = [loss.terms([p[:4] for p in raw], shares[0]), loss.terms([p[4:] for p in raw], shares[1])]
    for name in whole._fields:
        torch.testing.assert_close(sum(getattr(p, name) for p in parts), getattr(whole, name))
    in_one_share = loss.wanted(targets, (64, 64), 6)
    again = [loss.terms([p[a:b] for p in raw], in_one_share.part(a, b)) for a, b in ((0, 1), (1, 6))]
    torch.testing.assert_close(sum(t.total for t in again), whole.total)


def test_means_over_groups_are_the_losses_of_the_groups_weighted_by_their_images() -> None:
    raw, targets, anchors = scene()
    grouped = Loss(anchors, [8, 16, 32], 4, LossConfig(images_per_mean=4)).terms(raw, targets)
    plain = Loss(anchors, [8, 16, 32], 4, LossConfig())
    expected = 0.0
    for begin, end in ((0, 4), (4, 6)):  # what two GPUs with 4 and 2 images compute for themselves
        mine = targets[(targets[:, 0] >= begin) & (targets[:, 0] < end)] - torch.eye(6)[0] * begin
        expected = expected + plain.terms([p[begin:end] for p in raw], mine).total
    torch.testing.assert_close(grouped.total, expected)
    assert not torch.isclose(grouped.total, plain.terms(raw, targets).total)


def test_the_focal_factor_equals_torchvisions_focal_loss() -> None:
    from torchvision.ops import sigmoid_focal_loss

    logits = torch.linspace(-6, 6, 50, dtype=torch.float64)
    expected = (torch.arange(50) % 2).double()
    found = binary_loss(logits, expected, 1.0, 1.5)
    torch.testing.assert_close(found, sigmoid_focal_loss(logits, expected, alpha=0.25, gamma=1.5))
    certain = torch.tensor([-200.0, -18.0, 0.0, 20.0], requires_grad=True)
    binary_loss(certain, torch.tensor([0.0, 0.0, 0.0, 1.0]), 1.0, 0.5).sum().backward()
    assert certain.grad is not None and certain.grad.isfinite().all()
    plain = binary_loss(logits, expected, 1.0, 0.0)
    torch.testing.assert_close(
        plain, -(expected * logits.sigmoid().log() + (1 - expected) * (-logits).sigmoid().log())
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("objectness_positive_weight", 2.0),
        ("classification_positive_weight", 3.0),
        ("label_smoothing", 0.1),
        ("focal_gamma", 1.5),
    ],
)
def test_factors_of_the_loss_act_on_their_term(field: str, value: float) -> None:
    raw, targets, anchors = scene()
    plain = Loss(anchors, [8, 16, 32], 4, LossConfig()).terms(raw, targets)
    config = LossConfig.model_validate({field: value})
    other = Loss(anchors, [8, 16, 32], 4, config).terms(raw, targets)
    changed = {
        name for name in plain._fields[1:] if not torch.isclose(getattr(plain, name), getattr(other, name))
    }
    assert (
        changed
        == {
            "objectness_positive_weight": {"objectness"},
            "classification_positive_weight": {"classification"},
            "label_smoothing": {"classification"},
            "focal_gamma": {"objectness", "classification"},
        }[field]
    )


def test_label_smoothing_is_that_of_cross_entropy_with_softened_targets() -> None:
    loss = Loss(torch.ones(3, 3, 2), [8, 16, 32], 4, LossConfig(label_smoothing=0.2))
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.1]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, torch.tensor([[0.1, 0.1, 0.9, 0.1]]), reduction="none"
    )
    torch.testing.assert_close(loss._classification(logits, torch.tensor([2])), expected)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_predictions_are_computed_with_in_float32(kind: torch.dtype) -> None:
    raw, targets, anchors = scene()
    loss = Loss(anchors.float(), [8, 16, 32], 4, LossConfig())
    half = [p.detach().to(kind) for p in raw]
    terms = loss.terms(half, targets.float())
    assert terms.total.dtype == torch.float32
    torch.testing.assert_close(terms.total, loss.terms([p.float() for p in half], targets.float()).total)
