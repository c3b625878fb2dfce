"""From the losses of several tasks to one: fixed weights, or weights learnt from the losses themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from yolor_core.config import TasksConfig


class TaskWeights(nn.Module):
    """Weights of a model's tasks. It has parameters only where they are learnt, one s named as each task.

    fixed: sum of w L. uncertainty: sum of (exp(-s) L + s) / 2, with s the logarithm of the task's noise
    variance (arXiv 1705.07115, in the form of arXiv 1909.12605).
    """

    def __init__(self, tasks: Sequence[str], config: TasksConfig) -> None:
        super().__init__()
        self.tasks, self.config = tuple(tasks), config
        self.learnt = config.weighting == "uncertainty"
        if self.learnt:
            for task in self.tasks:
                self.register_parameter(task, nn.Parameter(torch.empty(())))

    def combine(self, losses: Mapping[str, Tensor], share: float = 1.0) -> Tensor:
        """The loss to minimise, from the scalar loss of every task by name.

        share: of the terms s / 2, which belong to the batch as a whole. Parts and ranks that share a batch
        give shares that add up to 1, and their results add up to the batch's.
        """
        return torch.stack([self._weighted(task, losses[task], share) for task in self.tasks]).sum()

    def _weighted(self, task: str, loss: Tensor, share: float) -> Tensor:
        if not self.learnt:
            return loss * self.config.weight(task)
        s = self.get_parameter(task)
        return (torch.exp(-s) * loss + share * s) / 2

    @torch.no_grad()
    def factors(self) -> dict[str, float]:
        """What the loss of each task is multiplied by now: w, or exp(-s) / 2."""
        if not self.learnt:
            return {task: self.config.weight(task) for task in self.tasks}
        return {task: float(torch.exp(-self.get_parameter(task)) / 2) for task in self.tasks}

    @torch.no_grad()
    def reset(self) -> None:
        """Set every s to its configured start."""
        if self.learnt:
            for task in self.tasks:
                self.get_parameter(task).fill_(self.config.initial(task))
