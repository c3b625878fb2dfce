"""What every implicit representation does to the raw predictions, in numbers that models can be compared in.

Channels of a feature map have no common order across seeds, and most of a vector lies where the predictor
does not look; what it does to the 3 x (5 + classes) outputs of a level is the same quantity in every model.
Sites and predictors are affine in the features, so the mean effect on many cells is the effect on their mean.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yolor_core.implicit.sites import FeatureSite, Maps, PredictionSite, Site
from yolor_core.models.detector import Detector

TOGETHER = 4  # images


@dataclass(frozen=True)
class Effect:
    """Raw predictions of a level, float32 (anchors x outputs,), without and with a site; all others act."""

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
    return [
        Effect(
            name,
            level,
            *(
                predict(model, level, features[level], out).flatten().float().cpu().numpy()
                for out in ([site], [])
            ),
        )
        for name, level, site in model.implicit.walk()
    ]


def predict(model: Detector, level: str, x: Tensor, without: Collection[Site] = ()) -> Tensor:
    """Raw predictions (B, anchors x outputs, H, W) of a level for its features x (B, channels, H, W).

    Sites that are listed in `without` have the value that changes nothing.
    """
    maps: Maps = (x,)
    sites = model.implicit.at(level)
    for site in sites:
        if isinstance(site, FeatureSite):
            maps = site(maps, neutral=site in without)
    y: Tensor = model.part("predictor", level)(maps)
    for site in sites:
        if isinstance(site, PredictionSite) and site not in without:
            y = site(y)
    return y
