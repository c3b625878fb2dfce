"""From a name or a configuration to a model ready to train.

Every parameter is drawn from its own generator, keyed by (seed, parameter name). Two models that share a
parameter name and a seed share the parameter, bit for bit, whatever else they contain. So a baseline and its
variant differ by the implicit knowledge alone.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from yolor_core.config import ImplicitConfig, ModelConfig, TasksConfig, explain
from yolor_core.errors import ConfigError, UnknownNameError
from yolor_core.implicit.forms import Draws
from yolor_core.implicit.registry import SITES
from yolor_core.implicit.sites import FeatureSite, ImplicitKnowledge, Site
from yolor_core.models.architectures import ARCHITECTURES
from yolor_core.models.detector import Detector
from yolor_core.tasks.base import LEAST_IDENTITIES, added_channels

OBJECTS_PER_IMAGE = 8  # the bias prior expects 8 objects in an image of 640 pixels, at every test size
PRIOR_SIZE = 640


def list_models() -> list[str]:
    """The names that `create_model` accepts, in the order of the table."""
    return list(ARCHITECTURES)


def named_config(name: str) -> ModelConfig:
    """The full-size model a name stands for, its implicit knowledge spelled out.

    `named_config("yolor_csp")` lists + iFA and x iPR; a ModelConfig with `architecture="yolor_csp"` and no
    `implicit` is the bare network, because a configuration means exactly what it lists.
    Raises UnknownNameError.
    """
    if name not in ARCHITECTURES:
        raise UnknownNameError("model", name, ARCHITECTURES)
    implicit = ARCHITECTURES[name].implicit
    return ModelConfig(
        architecture=name, implicit=tuple(ImplicitConfig(site=s, operator=o) for s, o in implicit)
    )


def blank_model(
    config: ModelConfig | str, classes: int = 80, identities: int = 0, weighting: TasksConfig | None = None
) -> Detector:
    """The detector on the meta device, without numbers: a moment's work at any size.

    Raises UnknownNameError.
    """
    if isinstance(config, str):
        config = named_config(config)
    with torch.device("meta"):
        return Detector(ARCHITECTURES[config.architecture], config, classes, identities, weighting)


def create_model(
    config: ModelConfig | str,
    classes: int = 80,
    seed: int | None = 0,
    device: torch.device | str | None = None,
    identities: int = 0,
    weighting: TasksConfig | None = None,
) -> Detector:
    """Build a detector and draw its initial values.

    config: a ModelConfig, taken literally, or a name from `list_models`. seed: None leaves the parameters
    unset, for weights that are loaded next. The global random state is not touched. identities: of the
    training data, for the embedding task. weighting: of the tasks' losses, fixed by default.
    Raises UnknownNameError, ConfigError for a number of classes below 1, for a configuration that contradicts
    itself, and for the embedding task with fewer than 3 identities.
    """
    if type(classes) is not int or classes < 1:
        raise ConfigError(f"classes = {classes!r}: a whole number from 1 is needed")
    if isinstance(config, str):
        config = named_config(config)
    try:  # `model_copy` checks nothing
        config = ModelConfig.model_validate(config.model_dump())
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    if "embedding" in config.tasks and identities < LEAST_IDENTITIES:
        raise ConfigError(
            f"identities = {identities}: the embedding task needs at least {LEAST_IDENTITIES}, because its "
            "softmax is scaled by sqrt(2) ln(identities - 1), which vanishes for 2"
        )
    model = blank_model(config, classes, identities, weighting)
    model.to_empty(device=device or "cpu")
    if seed is None:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
        model.reset_anchors()
    else:
        initialise(model, seed)
    return model


@torch.no_grad()
def initialise(model: Detector, seed: int) -> None:
    """Draw every parameter of a detector, reset BatchNorm statistics and anchors, in place.

    Convolutions as in PyTorch: U(-1/sqrt(fan_in), 1/sqrt(fan_in)); BatchNorm weight 1, bias 0; implicit
    representations by their form (section 4.3). Predictor biases get the prior of `prior_bias` in every
    model: in the released main branch it silently fails for baselines, which would confound comparisons.
    What is to be `folded` is drawn as it would be for learning, and merged into the predictor.
    The layers of branches are drawn as PyTorch's too, their biases included, without a prior.
    """
    draws = Draws(seed)
    for name, module in model.named_modules():
        own = draws.within(name)
        if (added := added_channels(module)) is not None:
            _reset_layer(cast(nn.Conv2d | nn.Linear, module), added, own)
        elif isinstance(module, nn.Conv2d):
            module.weight.copy_(
                own.uniform("weight", module.weight.shape, 1 / math.sqrt(module.weight[0].numel()))
            )
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, Site):
            module.reset(own)
    model.task.reset()
    for predictor, stride in zip(model.predictors().values(), model.strides, strict=False):
        assert predictor.bias is not None
        prior = prior_bias(stride, model.classes).to(predictor.bias)
        predictor.bias.add_(prior.repeat(model.anchors_per_level))
    merged = [part for part in model.config.implicit if part.learning == "folded"]
    front = [part for part in merged if issubclass(SITES[part.site].load(), FeatureSite)]
    for part in (*reversed(front), *(part for part in merged if part not in front)):  # the nearest first
        _merge(model, part, draws)
    model.reset_anchors()


def prior_bias(stride: int, classes: int) -> Tensor:
    """What is added to an anchor's predictor bias, shape (5 + classes,), float32.

    Objectness: log(8 / (640 / stride)^2), the prior odds of an object in a cell. Classes:
    log(0.6 / (classes - 0.99)), odds that make about 0.6 in all; for one class, where that formula would
    give odds of 60, the odds 0.6 / 0.4.
    """
    bias = torch.zeros(5 + classes)
    bias[4] = math.log(OBJECTS_PER_IMAGE / (PRIOR_SIZE / stride) ** 2)
    bias[5:] = math.log(0.6 / (classes - 0.99)) if classes > 1 else math.log(0.6 / 0.4)
    return bias


def _merge(model: Detector, part: ImplicitConfig, draws: Draws) -> None:
    """Draw a representation as it would be for learning, and make it part of every level's predictor."""
    for (level, predictor), channels in zip(model.predictors().items(), model.backbone.channels, strict=True):
        assert predictor.bias is not None
        site = (
            SITES[part.site]
            .load()(channels, model.anchors_per_level, model.outputs, part)
            .to(predictor.weight.device)
        )
        site.reset(draws.within(f"implicit.sites.{part.site}.{level}"))
        weight, bias = site.fold(predictor.weight, predictor.bias)
        predictor.weight.copy_(weight)
        predictor.bias.copy_(bias)


def _reset_layer(layer: nn.Conv2d | nn.Linear, added: int, draws: Draws) -> None:
    """The features' part of a widened layer is the baseline's draw; the constant's part has its own."""
    outputs, inputs, *kernel = layer.weight.shape
    features = inputs - added
    bound = 1 / math.sqrt(features * math.prod(kernel))
    weight = draws.uniform("weight", (outputs, features, *kernel), bound)
    if added:
        constant = draws.uniform("weight.implicit", (outputs, added, *kernel), bound)
        weight = torch.cat((constant, weight), dim=1)
    layer.weight.copy_(weight)
    assert layer.bias is not None
    layer.bias.copy_(draws.uniform("bias", layer.bias.shape, bound))


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
