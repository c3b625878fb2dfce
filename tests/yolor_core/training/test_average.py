"""The moving average against the closed formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from yolor_core.training.state import MovingAverage


def test_average_follows_the_formula_for_parameters_and_statistics() -> None:
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1))
    nn.init.constant_(model[0].weight, 1.0)
    average = MovingAverage(model, decay=0.9, ramp=3.0)
    expected_weight, expected_mean = 1.0, 0.0
    for update in range(1, 6):
        nn.init.constant_(model[0].weight, float(update))
        model[1].running_mean.fill_(2.0 * update)
        model[1].num_batches_tracked += 1
        average.update(model)
        decay = 0.9 * (1 - math.exp(-update / 3))
        expected_weight = decay * expected_weight + (1 - decay) * update
        expected_mean = decay * expected_mean + (1 - decay) * 2 * update
    assert average.model[0].weight.flatten().tolist() == pytest.approx([expected_weight] * 2)
    assert float(average.model[1].running_mean) == pytest.approx(expected_mean)
    assert int(average.model[1].num_batches_tracked) == 5


def test_average_takes_no_gradient_and_stays_in_evaluation_mode() -> None:
    average = MovingAverage(nn.BatchNorm1d(2).train(), 0.9, 1.0)
    assert not average.model.training
    assert not any(p.requires_grad for p in average.model.parameters())
    assert torch.is_grad_enabled()
