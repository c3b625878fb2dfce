"""Initial values: every parameter drawn from its own generator keyed by (seed, parameter name).

Two models that share a parameter name and a seed share the parameter, bit for bit, whatever else they
contain. So a baseline and its variant differ by the implicit knowledge alone.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from yolor_core.config import ImplicitConfig
from yolor_core.implicit.forms import Draws
from yolor_core.implicit.registry import SITES
from yolor_core.implicit.sites import Site
from yolor_core.models.detector import Detector
from yolor_core.models.predictor import Predictor
from yolor_core.tasks.base import BranchConv, BranchLinear

OBJECTS_PER_IMAGE = 8  # the bias prior expects 8 objects in an image of 640 pixels, at every test size
PRIOR_SIZE = 640


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
        if isinstance(module, (Predictor, BranchConv, BranchLinear)):
            _reset_layer(module, own)
        elif isinstance(module, nn.Conv2d):
            module.weight.copy_(own.uniform("weight", module.weight.shape, _bound(module.weight[0].numel())))
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, Site):
            module.reset(own)
    model.task.reset()
    levels = model.level_names if model.config.detection else ()
    for level, stride in zip(levels, model.strides, strict=False):
        predictor: Predictor = model.part("predictor", level)
        assert predictor.bias is not None
        prior = prior_bias(stride, model.classes).to(predictor.bias)
        predictor.bias.add_(prior.repeat(model.anchors_per_level))
    for part in reversed(model.config.implicit):
        if part.learning == "folded":
            _merge(model, part, draws)
    model.reset_anchors()


def prior_bias(stride: int, classes: int) -> torch.Tensor:
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
    for level, channels in zip(model.level_names, model.backbone.channels, strict=True):
        predictor: Predictor = model.part("predictor", level)
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


def _bound(fan_in: int) -> float:
    return 1 / math.sqrt(fan_in)


def _reset_layer(layer: Predictor | BranchConv | BranchLinear, draws: Draws) -> None:
    """The features' part of a widened layer is the baseline's draw; the constant's part has its own."""
    outputs, inputs, *kernel = layer.weight.shape
    features = inputs - layer.added
    bound = _bound(features * math.prod(kernel))
    weight = draws.uniform("weight", (outputs, features, *kernel), bound)
    if layer.added:
        constant = draws.uniform("weight.implicit", (outputs, layer.added, *kernel), bound)
        weight = torch.cat((constant, weight), dim=1)
    layer.weight.copy_(weight)
    assert layer.bias is not None
    layer.bias.copy_(draws.uniform("bias", layer.bias.shape, bound))
