"""Over which images BatchNorm takes its statistics: the whole batch on all ranks, or groups of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from yolor_core.training.distributed import Ranks


def synchronise(model: nn.Module, ranks: Ranks) -> nn.Module:
    """Let every BatchNorm2d of a model see all ranks' images (SyncBN); names and tensors stay.

    PyTorch's own where it works, which is on GPUs; on the CPU `SharedBatchNorm2d`.
    """
    if ranks.ranks == 1:
        return model
    if ranks.device.type == "cuda":
        return cast(nn.Module, nn.SyncBatchNorm.convert_sync_batchnorm(model))
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm2d
    return model


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d with the batch statistics of all ranks' images together; shares may differ in size."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same; B may be 0 on some ranks."""
        if not self.training:
            return super().forward(x)
        kind = x.dtype
        x = x.float() if kind in (torch.float16, torch.bfloat16) else x
        count = torch.tensor([x.numel() / x.shape[1]], dtype=torch.float64)
        dist.all_reduce(count)
        total = float(count)
        # In two passes: the square of the mean, taken from the mean of squares, would lose digits.
        mean = _sum_over_ranks(x.sum((0, 2, 3))) / total
        centred = x - mean[:, None, None]
        variance = _sum_over_ranks(centred.square().sum((0, 2, 3))) / total
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            assert self.momentum is not None and self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            unbiased = variance * (total / max(total - 1, 1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(kind)


class _SumOverRanks(torch.autograd.Function):
    """Sum over the ranks; its gradient is the sum over the ranks of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone()
        dist.all_reduce(gradient)
        return gradient


def _sum_over_ranks(values: Tensor) -> Tensor:
    result: Tensor = _SumOverRanks.apply(values)
    return result


class GroupStatistics:
    """Running statistics when a batch is normalised group by group.

    Every group starts from the same running statistics, and the batch moves them to the mean of where its
    groups moved them: the result does not depend on which rank had which group.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = modules = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        self.running = [b for m in modules for b in (m.running_mean, m.running_var) if b is not None]
        self.counters = [m.num_batches_tracked for m in modules if m.num_batches_tracked is not None]

    @contextmanager
    def left_alone(self) -> Iterator[None]:
        """Nothing that runs inside has or changes statistics of a batch."""
        for module in self.modules:
            module.eval()
        try:
            yield
        finally:
            for module in self.modules:
                module.train()

    @torch.no_grad()
    def begin(self) -> None:
        """Before the first group of a batch."""
        self.before = [buffer.clone() for buffer in self.running]
        self.sums = [torch.zeros_like(buffer) for buffer in self.running]
        self.tracked = [counter.clone() for counter in self.counters]

    @torch.no_grad()
    def group_done(self) -> None:
        """After each group's backward pass, which still refers to the buffers."""
        torch._foreach_add_(self.sums, self.running)
        torch._foreach_copy_(self.running, self.before)

    @torch.no_grad()
    def end(self, groups: int, ranks: Ranks) -> None:
        """After the last group; `groups` is their number over all ranks."""
        if ranks.ranks > 1:
            flat = torch.cat([values.flatten() for values in self.sums])
            ranks.add_up(flat)
            parts = flat.split([values.numel() for values in self.sums])
            self.sums = [p.view_as(values) for p, values in zip(parts, self.sums, strict=True)]
        torch._foreach_div_(self.sums, groups)
        torch._foreach_copy_(self.running, self.sums)
        for counter, before in zip(self.counters, self.tracked, strict=True):
            counter.copy_(before + 1)
