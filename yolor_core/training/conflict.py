"""How much tasks that are trained together pull apart: the angle between their gradients (section 5.4)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from yolor_core.training.distributed import Ranks


def measured_steps(steps: int, wanted: int) -> set[int]:
    """`wanted` steps spread evenly over an epoch of `steps`; all where there are fewer."""
    return {int((i + 0.5) * steps / wanted) for i in range(wanted)} if wanted < steps else set(range(steps))


class Conflict:
    """Cosines between the gradients of tasks, over the parameters that both of them train.

    A cosine below 0 means that a step which helps one task hurts the other, to first order. The gradients are
    of the whole batch: `add` is called for each of its parts, then `cosines` once on all ranks.
    """

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.gradients: dict[str, list[Tensor | None]] = {}

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Losses (scalars) by task, of one part of the batch. Their graphs stay usable."""
        for task, loss in losses.items():
            found = torch.autograd.grad(loss, self.parameters, retain_graph=True, allow_unused=True)
            known = self.gradients.get(task)
            if known is None:
                self.gradients[task] = [None if g is None else g.float() for g in found]
                continue
            for index, gradient in enumerate(found):
                before = known[index]
                if gradient is not None:
                    known[index] = gradient.float() if before is None else before + gradient

    def cosines(self, ranks: Ranks) -> dict[str, float]:
        """`conflict/<task>-<other>` for every pair of tasks; pairs without a direction are left out."""
        whole = {task: self._over_ranks(gradients, ranks) for task, gradients in self.gradients.items()}
        result = {}
        for (one, first), (other, second) in itertools.combinations(whole.items(), 2):
            pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
            if not pairs:
                continue
            a, b = (torch.cat([gradient.flatten() for gradient in side]) for side in zip(*pairs, strict=True))
            scale = float(a.norm()) * float(b.norm())
            cosine = float(a @ b) / scale if scale > 0 else float("nan")
            if -2 < cosine < 2:  # neither NaN nor what an overflow leaves
                result[f"conflict/{one}-{other}"] = max(-1.0, min(1.0, cosine))
        return result

    def _over_ranks(self, gradients: list[Tensor | None], ranks: Ranks) -> list[Tensor | None]:
        return [None if g is None else ranks.add_up(g.contiguous()) for g in gradients]
