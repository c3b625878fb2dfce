"""Exponential moving average of a model's state."""

from __future__ import annotations

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

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
        self._source: nn.Module | None = None  # of the tensors below, which are looked up once
        self._floats: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._counters: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model`, once per optimiser step. Its tensors must stay the same ones."""
        if self._source is not model:
            self._pair(model)
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / self.ramp))
        torch._foreach_lerp_(*self._floats, 1 - decay)
        for ours, theirs in self._counters:
            ours.copy_(theirs)

    def _pair(self, model: nn.Module) -> None:
        source = model.state_dict()
        pairs = [(value, source[name].detach()) for name, value in self.model.state_dict().items()]
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._floats = ([ours for ours, _ in floats], [theirs for _, theirs in floats])
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]
        self._source = model
