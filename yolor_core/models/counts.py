"""Parameters and FLOPs by the rule that reproduces the paper's Table 7 to the last digit.

FLOPs = 2 x (convolution multiply-adds + convolution-bias outputs + 2 x BatchNorm elements); activations,
pooling, resampling, rearrangements and additions are free; a multiplication by implicit knowledge counts one
per number it touches. Constants (g(z) itself) are computed once and cost nothing. The linear layer of the
classification branch counts 2 x its multiply-adds, as thop has it. `count` leaves out what only training
needs, the classifier of identities and the weights of tasks.

torch.utils.flop_counter's figure is taken in the same pass: it counts 2 x multiply-adds of convolutions and
matrix products alone, so it lacks biases, normalisation and the multiplications by implicit knowledge; but
it sees g(z) being evaluated, so the products of its network form are in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from yolor_core.config import ModelConfig
from yolor_core.implicit.sites import ImplicitKnowledge
from yolor_core.models.blocks import ACTIVATIONS, ConvBNAct
from yolor_core.models.build import blank_model
from yolor_core.models.detector import Detector
from yolor_core.tasks.base import added_channels

PAPER_LEVELS = ("P3", "P4", "P5")


@dataclass(frozen=True)
class Counts:
    """Size and cost of one image. "Fused" merges each BatchNorm into the convolution in front of it."""

    parameters: int
    parameters_fused: int
    flops: int
    flops_fused: int
    implicit_flops: dict[str, int]  # level -> multiplications by implicit knowledge, part of the above
    flops_torch: int  # by torch.utils.flop_counter; the same fused and not, as it sees convolutions only

    @property
    def mflops(self) -> float:
        return self.flops / 1e6

    @property
    def mflops_fused(self) -> float:
        return self.flops_fused / 1e6

    @property
    def mflops_paper(self) -> float:
        """As Table 7 prints it: multiplications by implicit knowledge on P3 to P5 only.

        The paper's figure for YOLOv4-P6-light with x iPR leaves out level P6 (8.568 instead of 8.670 more
        than the baseline), likely an oversight. Equal to `mflops` for models that end at P5.
        """
        return (self.flops - self._beyond_p5) / 1e6

    @property
    def mflops_paper_fused(self) -> float:
        """As `mflops_paper`, fused."""
        return (self.flops_fused - self._beyond_p5) / 1e6

    @property
    def mflops_torch(self) -> float:
        return self.flops_torch / 1e6

    @property
    def _beyond_p5(self) -> int:
        return sum(n for level, n in self.implicit_flops.items() if level not in PAPER_LEVELS)


def count(config: ModelConfig | str, size: int | tuple[int, int], classes: int = 80) -> Counts:
    """Counts for images of `size` pixels (a square, or height and width), without allocating weights.

    Raises UnknownNameError for an unknown model and InputError for a size it cannot take.
    """
    return count_detector(blank_model(config, classes), size)


def count_detector(model: Detector, size: int | tuple[int, int]) -> Counts:
    """As `count`, for a detector on the meta device."""
    height, width = (size, size) if isinstance(size, int) else size
    pairs = [m for m in model.modules() if isinstance(m, ConvBNAct)]
    merged = {id(part) for pair in pairs for part in (pair.conv, pair.bn)}
    flops = {"conv": 0, "linear": 0, "bias": 0, "norm": 0, "merged_norm": 0, "merged_bias": 0}

    def observe(module: nn.Module, _: object, output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            flops["linear"] += 2 * output.numel() * module.in_features
        elif isinstance(module, nn.Conv2d):
            flops["conv"] += 2 * output.numel() * module.weight[0].numel()
            flops["bias"] += 2 * output.numel() if module.bias is not None else 0
            flops["merged_bias"] += 2 * output.numel() if id(module) in merged else 0
        else:
            flops["merged_norm" if id(module) in merged else "norm"] += 4 * output.numel()

    observed = [
        module
        for module in model.modules()  # linear layers of implicit knowledge are constants
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)) or added_channels(module) is not None
    ]
    hooks = [module.register_forward_hook(observe) for module in observed]
    try:
        with torch.no_grad(), _shapes_only(model), FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, height, width, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()

    implicit = dict.fromkeys(model.level_names, 0)
    cells = {
        name: (height // stride) * (width // stride)
        for name, stride in zip(model.level_names, model.strides, strict=True)
    }
    for knowledge in model.modules():
        if isinstance(knowledge, ImplicitKnowledge):
            for _, level, site in knowledge.walk():
                if site.operator.multiplies:
                    implicit[level] += site.values().numel() * cells[level]
    shared = flops["conv"] + flops["linear"] + flops["bias"] + flops["norm"] + sum(implicit.values())
    parameters = sum(p.numel() for p in model.parameters())
    return Counts(
        parameters=parameters,
        # weight and bias of the norm become one bias
        parameters_fused=parameters - sum(pair.bn.num_features for pair in pairs),
        flops=shared + flops["merged_norm"],
        flops_fused=shared + flops["merged_bias"],
        implicit_flops=implicit,
        flops_torch=counter.get_total_flops(),
    )


@contextmanager
def _shapes_only(model: nn.Module) -> Iterator[None]:
    """Let elementwise layers pass their input on: it has the right shape, and saves two thirds of the time.

    On the meta device torch works such shapes out operation by operation in Python; hooks still see them.
    """
    layers = [m for m in model.modules() if isinstance(m, (nn.BatchNorm2d, *ACTIVATIONS.values()))]
    for layer in layers:
        layer.__dict__["forward"] = _same
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def _same(x: Tensor) -> Tensor:
    return x
