"""SGD with the recipe's three parameter groups."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD

from yolor_core.config import OptimiserConfig
from yolor_core.models import parameter_groups
from yolor_core.training.schedule import Settings


def build_optimiser(model: nn.Module, config: OptimiserConfig, weight_decay: float) -> SGD:
    """Groups in the order no_decay (BatchNorm weights, implicit knowledge), decay (convolutions), bias."""
    groups = parameter_groups(model)
    return SGD(
        [
            {"params": groups["no_decay"], "name": "no_decay", "weight_decay": 0.0},
            {"params": groups["decay"], "name": "decay", "weight_decay": weight_decay},
            {"params": groups["bias"], "name": "bias", "weight_decay": 0.0},
        ],
        lr=config.lr0,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        foreach=True,  # on the CPU too, where `fused` errs if a gradient has other strides than its parameter
    )


def apply_settings(optimiser: SGD, settings: Settings) -> None:
    """Set learning rates and momentum for one iteration."""
    for group in optimiser.param_groups:
        group["lr"] = settings.bias if group["name"] == "bias" else settings.weights
        group["momentum"] = settings.momentum
