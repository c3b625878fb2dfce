"""What a model's implicit knowledge is, what it does, and how it folds into convolutions when trained."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yolor_core.config import TasksConfig
from yolor_core.implicit.forms import Form
from yolor_core.implicit.operators import Affine, rebuilt
from yolor_core.implicit.sites import FeatureSite, ImplicitKnowledge, PredictionSite, Site
from yolor_core.models.blocks import ConvAct, ConvBNAct
from yolor_core.models.detector import Detector
from yolor_core.tasks.base import Head, TaskWeights

TOGETHER = 4  # images


@dataclass(frozen=True)
class ImplicitValues:
    """The effective representation g(z) of one site on one level."""

    site: str  # where detection has it, or the name of another task
    level: str
    form: str
    operator: str
    values: np.ndarray  # float32, one-dimensional


@torch.no_grad()
def implicit_values(model: nn.Module) -> list[ImplicitValues]:
    """g(z) of every site and level, as it acts now. Empty for a model without implicit knowledge.

    At FA* the anchors' representations follow one another; at PR* the values are w, h of each anchor.
    """
    records = []
    for knowledge in model.modules():
        if isinstance(knowledge, ImplicitKnowledge):
            for site_name, level, site in knowledge.walk():
                values = site.values().float().cpu().numpy()
                config = site.config
                place = knowledge.task or site_name
                records.append(ImplicitValues(place, level, config.form, config.operator, values))
    return records


def implicit_priors(model: nn.Module) -> dict[str, Tensor]:
    """Name -> raw trained tensor (z, W, Z, c ...) of every implicit representation, detached."""
    return {
        f"{prefix}.{name}": parameter.detach()
        for prefix, module in model.named_modules()
        if isinstance(module, ImplicitKnowledge)
        for name, parameter in module.named_parameters()
    }


def sparse_penalty(model: nn.Module) -> Tensor | None:
    """Sum of the forms' penalties (weight x |c|_1), a scalar with gradient, or None where there is none."""
    terms = [form.penalty() for form in model.modules() if isinstance(form, Form)]
    found = [term for term in terms if term is not None]
    return torch.stack(found).sum() if found else None


@dataclass(frozen=True)
class Effect:
    """Raw predictions of a level, float32 (anchors x outputs,), without and with a site; all others act.

    Channels of a feature map have no common order across seeds, and most of a vector lies where the predictor
    does not look; what it does to the 3 x (5 + classes) outputs of a level is the same quantity in every
    model. Sites and predictors are affine in the features, so the mean effect on many cells is the effect on
    their mean.
    """

    site: str
    level: str
    before: NDArray[np.float32]
    after: NDArray[np.float32]


@torch.no_grad()
def mean_features(model: Detector, images: Tensor) -> dict[str, Tensor]:
    """Mean over images and cells of the map in front of each level's predictor, (1, channels, 1, 1) by level.

    images: uint8 (B, 3, H, W), on any device. The model is used in evaluation mode and left in its own mode.
    """
    weight = next(model.parameters())
    training, sums = model.training, dict[str, Tensor]()
    model.eval()
    try:
        for part in images.split(TOGETHER):
            maps = model.maps(part.to(weight.device, weight.dtype) / 255).head
            for level, x in maps.items():
                total = x.mean((2, 3), keepdim=True).sum(0, keepdim=True)
                sums[level] = sums[level] + total if level in sums else total
    finally:
        model.train(training)
    return {level: total / len(images) for level, total in sums.items()}


@torch.no_grad()
def implicit_effects(model: Detector, features: Mapping[str, Tensor]) -> list[Effect]:
    """The effect of every site of detection on every level; empty without implicit knowledge.

    features: of `mean_features`. `before` has the neutral value in place of g(z): 0 where it is added or
    concatenated, 1 where it multiplies. For + FA the difference is W a (times PR, where that multiplies).
    """
    if not model.config.detection:
        return []
    effects = []
    for name, level, site in model.implicit.walk():
        raw = (model.predict(level, features[level], without) for without in ([site], []))
        effects.append(Effect(name, level, *(y.flatten().float().cpu().numpy() for y in raw)))
    return effects


@torch.no_grad()
def fold(model: Detector) -> Detector:
    """A new detector in evaluation mode that gives the outputs of `model` in evaluation mode (section 4.4).

    Once trained, g(z) does not depend on the image. It is evaluated a last time and becomes part of the
    predictor's weight and bias, so implicit knowledge costs nothing at inference: the folded detector has the
    parameters and FLOPs of the folded baseline. How an operator or a site folds is said by its class.

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
    for level, predictor in folded.predictors().items():
        whole = _fold_predictor(predictor, exact[folded.implicit].at(level))
        setattr(folded, f"predictor_{level.lower()}", whole)
    heads = [cast(Head, head) for head in folded.branches.values()]
    for head in heads:
        head.fold(exact[head.implicit])
    folded.implicit = ImplicitKnowledge(
        (), folded.level_names, folded.backbone.channels, folded.anchors_per_level, folded.outputs
    )
    folded.task = TaskWeights(folded.tasks, TasksConfig())
    branches = tuple(head.branch for head in heads)
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


def _exact(model: Detector) -> dict[ImplicitKnowledge, ImplicitKnowledge]:
    """All implicit knowledge in float64; copied together, because a chain runs from one task to another."""
    found = [module for module in model.modules() if isinstance(module, ImplicitKnowledge)]
    return {ours: exact.double() for ours, exact in zip(found, copy.deepcopy(found), strict=True)}


def _fold_predictor(predictor: nn.Conv2d, sites: Sequence[Site]) -> nn.Conv2d:
    """The predictor of a level together with every site around it, given in the configuration's order.

    Sites in front act on its columns, the nearest one first; sites behind act on its rows, in their order.
    """
    assert predictor.bias is not None
    weight, bias = predictor.weight.double(), predictor.bias.double()
    for site in reversed(sites):
        if isinstance(site, FeatureSite):
            weight, bias = site.fold(weight, bias)
    for site in sites:
        if isinstance(site, PredictionSite):
            weight, bias = site.fold(weight, bias)
    return rebuilt(predictor, weight, bias)
