"""SGD with the recipe's parameter groups."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD

from yolor_core.config import OptimiserConfig
from yolor_core.models import parameter_groups
from yolor_core.models.detector import Predictor
from yolor_core.training.schedule import Settings


def build_optimiser(model: nn.Module, config: OptimiserConfig, weight_decay: float) -> SGD:
    """Groups in the order no_decay (BatchNorm weights, implicit knowledge), decay (convolutions), bias.

    With a `predictor_bias_rate` above 1 the biases of detection's predictors are a fourth, predictor_bias.
    """
    groups = parameter_groups(model)
    decays = {"no_decay": 0.0, "decay": weight_decay, "bias": 0.0}
    if config.predictor_bias_rate > 1:
        own = {id(module.bias) for module in model.modules() if isinstance(module, Predictor)}
        groups["predictor_bias"] = [p for p in groups["bias"] if id(p) in own]
        groups["bias"] = [p for p in groups["bias"] if id(p) not in own]
        decays["predictor_bias"] = 0.0
    return SGD(
        [
            {
                "params": groups[name],
                "name": name,
                "weight_decay": decay,
                "further": config.predictor_bias_rate - 1 if name == "predictor_bias" else 0.0,
            }
            for name, decay in decays.items()
        ],
        lr=config.lr0,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        foreach=True,  # on the CPU too, where `fused` errs if a gradient has other strides than its parameter
    )


def apply_settings(optimiser: SGD, settings: Settings) -> None:
    """Set learning rates and momentum for one iteration."""
    for group in optimiser.param_groups:
        bias = group["name"] in ("bias", "predictor_bias")
        own = settings.bias if bias else settings.weights
        group["lr"] = own + group["further"] * settings.weights
        group["momentum"] = settings.momentum
