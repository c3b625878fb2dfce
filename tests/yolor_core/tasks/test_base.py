"""How the losses of several tasks become one."""

from __future__ import annotations

import math

import pytest
import torch

from yolor_core.config import TasksConfig
from yolor_core.tasks.base import TaskWeights

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
