"""Learning rate, momentum and accumulation by iteration: warm-up, then a cosine per phase."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from yolor_core.config import OptimiserConfig, PhaseConfig


class Settings(NamedTuple):
    """What the optimiser uses in one iteration."""

    weights: float  # learning rate of the decayed and the undecayed weights
    bias: float  # learning rate of the biases
    momentum: float
    accumulate: int  # iterations per optimiser step


class Schedule:
    """The released loop's schedule.

    In the warm-up an epoch has its own factor(e). That of the epoch in which it ends stays to the end of the
    next one, and from there the cosine is one epoch late: factor(e - 1).

    Args:
        config: optimiser settings.
        phases: stretches of training; the epoch count runs on across them.
        steps: iterations per epoch.
        batch: images per iteration, over all ranks.
    """

    def __init__(
        self, config: OptimiserConfig, phases: Sequence[PhaseConfig], steps: int, batch: int
    ) -> None:
        self.config = config
        self.phases = phases
        self.steps = steps
        self.batch = batch
        self.warmup = max(round(config.warmup_epochs * steps), config.warmup_min_iterations)

    @property
    def accumulate(self) -> int:
        """Iterations per optimiser step after the warm-up."""
        return max(round(self.config.nominal_batch / self.batch), 1)

    @property
    def weight_decay(self) -> float:
        """Weight decay scaled to the images that really make one step."""
        return self.config.weight_decay * self.batch * self.accumulate / self.config.nominal_batch

    def phase(self, epoch: int) -> tuple[int, PhaseConfig]:
        """(first epoch, phase) that an epoch, counted from 0, belongs to."""
        start = 0
        for phase in self.phases:
            if epoch < start + phase.epochs:
                return start, phase
            start += phase.epochs
        raise IndexError(f"epoch {epoch} is beyond the last one, {start - 1}")

    def factor(self, epoch: int, schedule_epochs: int) -> float:
        """((1 + cos(pi e / E)) / 2) (1 - lrf) + lrf."""
        cosine = (1 + math.cos(math.pi * epoch / schedule_epochs)) / 2
        return cosine * (1 - self.config.lrf) + self.config.lrf

    def at(self, epoch: int, step: int) -> Settings:
        """Settings of iteration `step` of an epoch, both counted from 0."""
        config = self.config
        schedule_epochs = self.phase(epoch)[1].schedule_epochs
        iteration = epoch * self.steps + step
        if iteration > self.warmup or self.warmup == 0:
            rate = config.lr0 * self.factor(max(epoch - 1, self.warmup // self.steps), schedule_epochs)
            return Settings(rate, rate, config.momentum, self.accumulate)
        share = iteration / self.warmup
        rate = config.lr0 * self.factor(epoch, schedule_epochs)
        wanted = 1 + share * (config.nominal_batch / self.batch - 1)
        return Settings(
            weights=share * rate,
            bias=config.warmup_bias_lr + share * (rate - config.warmup_bias_lr),
            momentum=config.warmup_momentum + share * (config.momentum - config.warmup_momentum),
            accumulate=max(1, round(wanted)),
        )
