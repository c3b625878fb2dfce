"""Several processes (ranks) that train one model together, each on its share of every batch.

Who they are is read from the environment, which `torchrun` or SLURM's `srun` has set. Every method of `Ranks`
has to be called by all ranks at the same point; alone, they cost nothing.

submitit's `TorchDistributedEnvironment` knows jobs of submitit alone, not a plain `srun` or `torchrun`, and
takes node names that the network need not know.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from yolor_core.device import exchange_backend, is_gpu
from yolor_core.errors import ConfigError, RankLostError, RunError, summary

T = TypeVar("T")
FAILURE = "failure"  # key under which a rank that fails tells the others why
FIRST_PORT, PORTS = 20000, 20000  # where ranks of a SLURM step meet, chosen by the job's number


@dataclass(frozen=True)
class Place:
    """Which of how many ranks this process is, and which one on its machine."""

    rank: int = 0
    ranks: int = 1
    local: int = 0


def place(environment: Mapping[str, str] | None = None) -> Place:
    """The place that `torchrun` (RANK ...) or `srun` (SLURM_PROCID ...) has given this process.

    A batch script of SLURM itself is no rank: only a step has SLURM_STEP_NUM_TASKS. Raises ConfigError for
    numbers that contradict each other.
    """
    environment = os.environ if environment is None else environment
    if "RANK" in environment and "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in environment:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    else:
        return Place()
    values = [environment.get(name, "0") for name in names]
    try:
        found = Place(*map(int, values))
    except ValueError:
        found = Place(-1)
    if not 0 <= found.rank < found.ranks or found.local < 0:
        given = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        raise ConfigError(f"{given}: a rank is a whole number from 0 and smaller than the number of ranks")
    return found


@dataclass(frozen=True)
class Ranks:
    """The ranks of a run, seen from one of them."""

    place: Place
    device: torch.device
    store: Any = None  # torch.distributed.Store; None for a process that exchanges nothing

    @property
    def rank(self) -> int:
        """Number of this rank."""
        return self.place.rank

    @property
    def ranks(self) -> int:
        """How many there are."""
        return self.place.ranks

    @property
    def alone(self) -> bool:
        """Whether there is nobody to exchange anything with."""
        return self.store is None

    @property
    def main(self) -> bool:
        """Whether this one writes files and speaks."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether one of the ranks says True."""
        if self.alone:
            return flag
        votes = torch.tensor([float(flag)])
        dist.all_reduce(votes)
        return bool(votes.item())

    def add_up(self, values: Tensor) -> Tensor:
        """Sum over the ranks, in place; a tensor of the run's device or of the CPU."""
        if not self.alone:
            dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """The picklable values of all ranks, by rank."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.ranks
        dist.all_gather_object(values, value)
        return values

    def lead(self, function: Callable[[], T]) -> T:
        """Let rank 0 call the function; all ranks return what it returns.

        Its exception is raised on rank 0 as it is, and on the others as a RunError that quotes it.
        """
        if self.alone:
            return function()
        answer: list[Any] = [None, None]
        if self.main:
            try:
                answer[0] = function()
            except BaseException as error:
                dist.broadcast_object_list([None, summary(error)])
                raise
        dist.broadcast_object_list(answer)
        if answer[1] is not None:
            raise RankLostError(f"rank 0 failed: {answer[1]}")
        return answer[0]

    def report(self, error: BaseException) -> BaseException:
        """What to raise instead of an error: another rank's failure where that is the cause of this one.

        A rank that fails first tells the others, whose next exchange with it breaks.
        """
        if self.store is None:
            return error
        with suppress(Exception):  # rank 0 keeps the store: it may be what has died
            if self.store.check([FAILURE]):
                rank, reason = self.store.get(FAILURE).decode().split(" ", 1)
                return error if int(rank) == self.rank else RankLostError(f"rank {rank} failed: {reason}")
            if not _broken_exchange(error):
                self.store.set(FAILURE, f"{self.rank} {summary(error)}")
                return error
        if _broken_exchange(error):
            return RankLostError(f"another rank died or does not answer ({summary(error)}); its log says why")
        return error


@contextmanager
def joined(device: torch.device, timeout: float, group_of_one: bool = False) -> Iterator[Ranks]:
    """Meet the other ranks of this run; they part at the end.

    Args:
        device: this rank's; tensors on it are exchanged by NCCL, others by gloo.
        timeout: seconds after which waiting for another rank is an error.
        group_of_one: a single process exchanges with itself, so that one GPU can try what several do.

    Raises:
        RunError: when the ranks do not find each other.
    """
    here = place()
    if here.ranks == 1 and not group_of_one:
        yield Ranks(here, device)
        return
    limit = timedelta(seconds=timeout)
    try:
        store = _meet(here, limit)
        dist.init_process_group(
            exchange_backend(device), store=store, rank=here.rank, world_size=here.ranks, timeout=limit,
            device_id=device if is_gpu(device) else None,
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        if here.ranks == 1:
            raise RankLostError(f"a group of one process cannot be made: {summary(error)}") from error
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RankLostError(
            f"rank {here.rank} of {here.ranks} did not find the others at {where}: {summary(error)}"
        ) from error
    try:
        yield Ranks(here, device, PrefixStore("ablate", store))
    except BaseException:
        if not is_gpu(device):  # the others wait for this rank; NCCL's would not part without them
            dist.destroy_process_group()
        raise
    dist.barrier()  # rank 0 keeps the store, which the others need until they have left
    dist.destroy_process_group()


def _meet(here: Place, limit: timedelta) -> Any:
    """The store of all ranks."""
    if here.ranks == 1:
        return dist.HashStore()  # type: ignore[attr-defined]
    _meet_where_slurm_says()
    return next(iter(rendezvous("env://", here.rank, here.ranks, timeout=limit)))[0]


def _meet_where_slurm_says() -> None:
    """Set MASTER_ADDR and MASTER_PORT from the variables of a SLURM step; torchrun sets them itself."""
    environment = os.environ
    if "MASTER_ADDR" not in environment:
        environment["MASTER_ADDR"] = _first_host(environment)
    if "MASTER_PORT" not in environment:
        # A restarted job's step has a higher number, which must not lead to the next job's port.
        number = int(environment.get("SLURM_JOB_ID", 0)) * 7 + int(environment.get("SLURM_STEP_ID", 0)) % 7
        environment["MASTER_PORT"] = str(FIRST_PORT + number % PORTS)


def _first_host(environment: Mapping[str, str]) -> str:
    """The address of the first node of a step."""
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST", "")
    if "[" not in nodes:
        return _address(nodes.split(",")[0] or "127.0.0.1")
    try:  # node[3-5,9] is for SLURM itself to read
        return _address(_scontrol("hostnames", nodes).split()[0])
    except (OSError, subprocess.SubprocessError, IndexError):
        address = environment.get("SLURM_LAUNCH_NODE_IPADDR")
        if address:
            return address
        raise RunError(
            f"SLURM_STEP_NODELIST={nodes}: scontrol cannot expand it; set MASTER_ADDR to the first node"
        ) from None


def _address(node: str) -> str:
    """A node's name, or its address by SLURM's own list where the network does not know the name."""
    try:
        socket.getaddrinfo(node, None)
    except OSError:
        with suppress(OSError, subprocess.SubprocessError):
            found = re.search(r"NodeAddr=(\S+)", _scontrol("node", node))
            return found[1] if found else node
    return node


def _scontrol(*words: str) -> str:
    command = ["scontrol", "show", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout


def _broken_exchange(error: BaseException) -> bool:
    """Whether an error is what an exchange raises when the other side is gone."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        sign in text for sign in ("gloo", "NCCL", "Connection", "Timed out", "timed out", "Broken pipe")
    )


def synchronise(model: nn.Module, ranks: Ranks) -> nn.Module:
    """Let every BatchNorm2d of a model see all ranks' images (SyncBN); names and tensors stay.

    On GPUs `SyncBatchNorm`, on the CPU, where PyTorch's does not work, `SharedBatchNorm2d`.
    """
    if ranks.alone:
        return model
    if is_gpu(ranks.device):
        model = cast(nn.Module, nn.SyncBatchNorm.convert_sync_batchnorm(model))
        for module in model.modules():
            if type(module) is nn.SyncBatchNorm:
                module.__class__ = SyncBatchNorm
        return model
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm2d
    return model


class SyncBatchNorm(nn.SyncBatchNorm):
    """PyTorch's, for ranks of which some have no images.

    Of images in half precision it exchanges statistics in float32, but a rank without images would exchange
    zeros in the type of its input (torch 2.11, torch/nn/modules/_functions.py).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same; B may be 0 on some ranks."""
        return super().forward(x if x.numel() else x.float()).to(x.dtype)


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
        if not ranks.alone:
            flat = torch.cat([values.flatten() for values in self.sums])
            ranks.add_up(flat)
            parts = flat.split([values.numel() for values in self.sums])
            self.sums = [p.view_as(values) for p, values in zip(parts, self.sums, strict=True)]
        torch._foreach_div_(self.sums, groups)
        torch._foreach_copy_(self.running, self.sums)
        for counter, before in zip(self.counters, self.tracked, strict=True):
            counter.copy_(before + 1)
