"""Assignment, loss, gradients and CIoU against the released code's figures, and their edge cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from yolor_core.config import LossConfig
from yolor_core.training.assignment import assign
from yolor_core.training.loss import DetectionLoss, ciou

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
    terms = DetectionLoss(anchors, strides, 80, LossConfig())(raw, torch.tensor(reference["targets"]))

    parts = [terms.box, terms.objectness, terms.classification]
    found = [float(x.detach()) for x in (*parts, sum(parts))]
    assert found == pytest.approx(facts["lbox_lobj_lcls_total"], rel=2e-6)
    assert float(terms.total.detach()) == pytest.approx(facts["loss_times_batch"], rel=2e-6)

    terms.total.backward()
    for level, prediction in enumerate(raw):
        assert prediction.grad is not None
        assert float(prediction.grad.abs().sum()) == pytest.approx(facts["grad_abs_sum"][level], rel=1e-5)


def test_gradient_samples_equal_the_released_code(reference: dict) -> None:
    for facts in reference["heads"].values():
        strides = [int(s) for s in facts["strides"]]
        anchors = torch.tensor(facts["anchors_in_cells"]) * torch.tensor(strides)[:, None, None]
        raw = predictions(facts["size"], strides)
        DetectionLoss(anchors, strides, 80, LossConfig())(
            raw, torch.tensor(reference["targets"])
        ).total.backward()
        for level, samples in enumerate(facts["grad_samples"]):
            assert raw[level].grad is not None
            found = sample_like(raw[level].grad.flatten(), len(samples))
            assert found == pytest.approx(samples, rel=1e-4, abs=1e-9)


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
    terms = DetectionLoss(anchors, [8, 16, 32], 80, LossConfig())(raw, torch.zeros(0, 6))
    terms.total.backward()
    assert float(terms.box) == float(terms.classification) == 0
    assert raw[0].grad is not None and bool((raw[0].grad[..., :4] == 0).all())


def test_the_last_of_two_targets_in_one_cell_gives_the_objectness() -> None:
    from yolor_core.training.loss import _write_last

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
    terms = DetectionLoss(torch.ones(3, 3, 2) * 20, [8, 16, 32], 1, LossConfig())(raw, targets)
    assert float(terms.classification) == 0 and float(terms.box.detach()) > 0
