"""Parameter groups of the optimiser."""

from __future__ import annotations

from torch import nn

from yolor_core.models.knowledge import ImplicitKnowledge


def parameter_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The authors' three groups, every parameter in exactly one.

    no_decay: BatchNorm weights, every tensor of implicit knowledge (its weights and biases too), learnt
    weights of tasks and anything else; decay: weights of convolutions and linear layers; bias: all other
    biases, BatchNorm's included, which warm up differently.
    """
    implicit = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, ImplicitKnowledge)
        for parameter in module.parameters()
    }
    groups: dict[str, list[nn.Parameter]] = {"no_decay": [], "decay": [], "bias": []}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in implicit:
                groups["no_decay"].append(parameter)
            elif name == "bias":
                groups["bias"].append(parameter)
            elif name == "weight" and isinstance(module, (nn.Conv2d, nn.Linear)):
                groups["decay"].append(parameter)
            else:
                groups["no_decay"].append(parameter)
    return groups
