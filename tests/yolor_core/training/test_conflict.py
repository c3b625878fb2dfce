"""Cosines between task gradients, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from yolor_core.training.distributed import Place, Ranks
from yolor_core.training.step import Conflict, measured_steps

ALONE = Ranks(Place(), torch.device("cpu"))


def shared(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


def test_opposed_orthogonal_and_agreeing_tasks() -> None:
    trunk = [shared(1.0, 2.0), shared(3.0)]
    conflict = Conflict(trunk)
    conflict.add(
        {
            "detection": trunk[0].sum() + trunk[1].sum(),  # gradient 1 1 | 1
            "classification": -2 * (trunk[0].sum() + trunk[1].sum()),  # -2 -2 | -2
            "embedding": trunk[0][0] - trunk[0][1] + 0 * trunk[1].sum(),  # 1 -1 | 0
        }
    )
    found = conflict.cosines(ALONE)
    assert found["conflict/detection-classification"] == pytest.approx(-1)
    assert found["conflict/detection-embedding"] == pytest.approx(0, abs=1e-7)
    assert found["conflict/classification-embedding"] == pytest.approx(0, abs=1e-7)


def test_only_parameters_that_both_tasks_train_count() -> None:
    both, first, second = shared(1.0, 1.0), shared(1.0), shared(1.0)
    conflict = Conflict([both, first, second])
    conflict.add({"a": both[0] * 3 + 100 * first.sum(), "b": both.sum() - 100 * second.sum()})
    assert conflict.cosines(ALONE) == {"conflict/a-b": pytest.approx(1 / math.sqrt(2))}


def test_parts_of_a_batch_add_up_before_the_angle_is_taken() -> None:
    trunk = [shared(0.0, 0.0)]
    parts = Conflict(trunk)
    parts.add({"a": trunk[0][0] * 5, "b": trunk[0][0] * 1})
    parts.add({"a": trunk[0][1] * 5 - trunk[0][0] * 5, "b": trunk[0][1] * 1})
    # a: (0, 5); b: (1, 1)
    assert parts.cosines(ALONE) == {"conflict/a-b": pytest.approx(1 / math.sqrt(2))}


def test_a_task_without_a_gradient_has_no_angle() -> None:
    trunk = [shared(1.0)]
    conflict = Conflict(trunk)
    conflict.add({"a": trunk[0].sum() * 0, "b": trunk[0].sum()})
    assert conflict.cosines(ALONE) == {}


@pytest.mark.parametrize(
    ("steps", "wanted", "expected"), [(80, 4, {10, 30, 50, 70}), (3, 4, {0, 1, 2}), (5, 1, {2})]
)
def test_steps_are_spread_over_the_epoch(steps: int, wanted: int, expected: set[int]) -> None:
    assert measured_steps(steps, wanted) == expected
