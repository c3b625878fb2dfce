"""The detector that is run: BatchNorm and implicit knowledge merged into convolutions (section 4.4).

Once trained, g(z) does not depend on the image. It is evaluated a last time and becomes part of the
predictor's weight and bias, so implicit knowledge costs nothing at inference: the folded detector has the
parameters and FLOPs of the folded baseline. How an operator or a site folds is said by its class.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from yolor_core.config import TasksConfig
from yolor_core.implicit.operators import Affine, rebuilt
from yolor_core.implicit.sites import FeatureSite, PredictionSite
from yolor_core.models.blocks import ConvAct, ConvBNAct
from yolor_core.models.detector import Detector
from yolor_core.models.knowledge import ImplicitKnowledge
from yolor_core.models.predictor import Predictor
from yolor_core.tasks.base import Head, TaskWeights


@torch.no_grad()
def fold(model: Detector) -> Detector:
    """A new detector in evaluation mode that gives the outputs of `model` in evaluation mode.

    Each BatchNorm directly behind a convolution is merged into it; the BatchNorm of a concatenation stays
    (yaml flavour). Every implicit representation in front of a predictor or behind it is merged into the
    predictor. Branches fold as `Head.fold` of their class says: additions and concatenations in front of the
    padded convolution of the embedding stay, as plain vectors. The classifier of identities and the weights
    of the tasks, which only training needs, are dropped. Worked out in float64, stored in the model's own
    type; `model` is left as it is. A folded detector folds to an equal copy of itself.

    Raises FoldingError for an operator that does not say how it folds.
    """
    folded = copy.deepcopy(model)
    for parent in list(folded.modules()):
        for name, child in parent.named_children():
            if isinstance(child, ConvBNAct):
                setattr(parent, name, ConvAct(merge_norm(child.conv, child.bn), child.act))
    exact = _exact(folded)
    if folded.config.detection:
        for level in folded.level_names:
            setattr(
                folded, f"predictor_{level.lower()}", _fold_predictor(folded, exact[folded.implicit], level)
            )
    for head in _heads(folded):
        head.fold(exact[head.implicit])
    folded.implicit = ImplicitKnowledge(
        (), folded.level_names, folded.backbone.channels, folded.anchors_per_level, folded.outputs
    )
    folded.task = TaskWeights(folded.tasks, TasksConfig())
    branches = tuple(head.branch for head in _heads(folded))
    folded.config = folded.config.model_copy(update={"implicit": (), "branches": branches})
    folded.folded = True
    return folded.eval()


def merge_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution with bias that equals norm(conv(x)) in evaluation mode.

    With w, b, mean, var of the norm: W' = W w / sqrt(var + eps), b' = b + (bias - mean) w / sqrt(var + eps).
    """
    assert norm.running_mean is not None and norm.running_var is not None
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = norm.weight.double() / torch.sqrt(variance + norm.eps)
    affine = Affine(scale=scale, shift=norm.bias.double() - mean * scale)
    weight = conv.weight.double()
    bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.double()
    return rebuilt(conv, *affine.into_previous(weight, bias))


def _heads(model: Detector) -> list[Head]:
    return [cast(Head, head) for head in model.branches.values()]


def _exact(model: Detector) -> dict[ImplicitKnowledge, ImplicitKnowledge]:
    """All implicit knowledge in float64; copied together, because a chain runs from one task to another."""
    found = [module for module in model.modules() if isinstance(module, ImplicitKnowledge)]
    return {ours: exact.double() for ours, exact in zip(found, copy.deepcopy(found), strict=True)}


def _fold_predictor(model: Detector, implicit: ImplicitKnowledge, level: str) -> Predictor:
    """The predictor of a level together with every site around it.

    Sites in front act on its columns, the nearest one first; sites behind act on its rows, in their order.
    """
    predictor: Predictor = model.part("predictor", level)
    assert predictor.bias is not None
    weight, bias = predictor.weight.double(), predictor.bias.double()
    sites = implicit.at(level)
    for site in reversed(sites):
        if isinstance(site, FeatureSite):
            weight, bias = site.fold(weight, bias)
    for site in sites:
        if isinstance(site, PredictionSite):
            weight, bias = site.fold(weight, bias)
    return _predictor_of(predictor, weight, bias)


def _predictor_of(like: Predictor, weight: Tensor, bias: Tensor) -> Predictor:
    with torch.device("meta"):
        new = Predictor(weight.shape[1], 0, like.anchors, like.outputs)
    new.weight, new.bias = (nn.Parameter(values.to(like.weight)) for values in (weight, bias))
    return new
