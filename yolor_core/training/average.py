"""Exponential moving average of a model's state."""

from __future__ import annotations

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


class MovingAverage(Generic[Model]):
    """EMA of all floating-point state, BatchNorm statistics too; integer buffers are copied.

    The decay rises with the number of updates: d = decay * (1 - exp(-updates / ramp)).
    """

    def __init__(self, model: Model, decay: float, ramp: float) -> None:
        self.model = copy.deepcopy(model)
        self.model.eval().requires_grad_(False)
        self.decay = decay
        self.ramp = ramp
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model`, once per optimiser step."""
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / self.ramp))
        source = model.state_dict()
        averaged, fresh = [], []
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                averaged.append(value)
                fresh.append(source[name].detach())
            else:
                value.copy_(source[name])
        torch._foreach_lerp_(averaged, fresh, 1 - decay)
