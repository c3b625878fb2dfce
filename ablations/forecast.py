"""How long a training still takes, from what its steps and evaluations took so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

EVALUATION_GUESS = 0.5  # of a training step for as many images, until an evaluation was measured


class Forecast:
    """Measures one process: what an earlier attempt took on another machine says nothing about this one.

    Args:
        epochs: of the whole run.
        steps: of an epoch.
        evaluated: epochs, counted from 1, after which the run is evaluated.
        evaluation_steps: validation images in units of the training batch.
        clock: seconds.
    """

    def __init__(
        self,
        epochs: int,
        steps: int,
        evaluated: Collection[int],
        evaluation_steps: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.steps = epochs * steps, steps
        self.evaluated, self.evaluation_steps = set(evaluated), evaluation_steps
        self.clock = clock
        self.done = 0  # steps of the run
        self.finished = 0  # epochs
        self.warm = False
        self.measured = 0  # steps that `training` covers
        self.training = self.evaluating = 0.0  # seconds
        self.evaluations = 0
        self.mark = clock()
        self.evaluation_began: float | None = None

    def start(self, epoch: int, step: int) -> None:
        """The run begins, or goes on, behind `epoch` finished epochs and `step` steps."""
        self.finished, self.done = epoch, epoch * self.steps + step
        self.mark = self.clock()

    def step(self, epoch: int, step: int) -> None:
        """So many steps are done. Those before the first call are left out: they include what starts up."""
        self._train_until(epoch * self.steps + step)
        if not self.warm:
            self.warm, self.measured, self.training = True, 0, 0.0

    def evaluate(self, epoch: int) -> None:
        """An evaluation after `epoch` epochs begins (later calls do nothing)."""
        if self.evaluation_began is None:
            self._train_until(epoch * self.steps)
            self.evaluation_began = self.clock()

    def finish_epoch(self, epoch: int) -> None:
        """So many epochs are finished, the last one evaluated or not."""
        if self.evaluation_began is None:
            self._train_until(epoch * self.steps)
        else:
            self.evaluating += self.clock() - self.evaluation_began
            self.evaluations += 1
            self.evaluation_began = None
            self.mark = self.clock()
        self.finished = epoch

    @property
    def step_seconds(self) -> float | None:
        """Of one training step; None before any was measured."""
        return self.training / self.measured if self.measured else None

    @property
    def remaining(self) -> float | None:
        """Seconds until the run ends; None before anything was measured."""
        step = self.step_seconds
        if step is None:
            return None
        each = step * self.evaluation_steps * EVALUATION_GUESS
        if self.evaluations:
            each = self.evaluating / self.evaluations
        left = each * sum(1 for epoch in self.evaluated if epoch > self.finished)
        if self.evaluation_began is not None:
            left -= min(self.clock() - self.evaluation_began, each)
        return step * (self.total - self.done) + left

    def _train_until(self, done: int) -> None:
        moment = self.clock()
        if done > self.done:
            self.training += moment - self.mark
            self.measured += done - self.done
            self.done = done
        self.mark = moment
