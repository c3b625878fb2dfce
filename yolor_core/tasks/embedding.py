"""Feature embedding (JDE, section 5.4): one embedding for every cell of every level.

`jde` follows arXiv 1909.12605, `fairmot` the head of arXiv 2004.01888; where the paper's own branch sits is
not known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yolor_core.config import BranchConfig, ImplicitConfig
from yolor_core.implicit.folding import rebuilt
from yolor_core.implicit.sites import Site
from yolor_core.models.knowledge import ImplicitKnowledge
from yolor_core.models.scaling import scaled_channels
from yolor_core.tasks.head import Head, TrunkMaps, TrunkShape
from yolor_core.tasks.layers import BranchConv, BranchLinear

DIMENSIONS = {"jde": 512, "fairmot": 128}
FAIRMOT_CHANNELS = 256
LEAST_IDENTITIES = 3


class EmbeddingPredictor(nn.Module):
    """The embedding of a level: a 3x3 convolution; in FairMOT's variant a ReLU and a 1x1 convolution more."""

    def __init__(self, features: int, added: int, dimension: int, hidden: int) -> None:
        super().__init__()
        self.conv: nn.Conv2d = BranchConv(features, added, hidden or dimension, 3)
        self.project = BranchConv(hidden, 0, dimension, 1) if hidden else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, features + added, H, W) -> (B, dimension, H, W)."""
        y: Tensor = self.conv(x)
        return y if self.project is None else self.project(F.relu(y))


class EmbeddingHead(Head):
    """Per level: neck's map -> implicit knowledge -> `EmbeddingPredictor`; beside it the classifier.

    The classifier tells identities apart in training: one linear layer for all levels. Without identities
    there is none.
    """

    def __init__(
        self,
        branch: BranchConfig,
        trunk: TrunkShape,
        classes: int,
        identities: int,
        previous: Mapping[str, Site],
    ) -> None:
        super().__init__(branch, trunk, classes, identities, previous)
        self.level_names = trunk.level_names
        self.dimension = scaled_channels(branch.dimension or DIMENSIONS[branch.variant], trunk.width)
        hidden = scaled_channels(FAIRMOT_CHANNELS, trunk.width) if branch.variant == "fairmot" else 0
        configs = (branch.implicit,) if branch.implicit else ()
        self.implicit = ImplicitKnowledge(
            configs, trunk.level_names, trunk.neck, 1, self.dimension, branch.task, previous
        )
        self.predictors = nn.ModuleDict(
            {
                level: EmbeddingPredictor(channels, added, self.dimension, hidden)
                for level, channels, added in zip(
                    trunk.level_names, trunk.neck, self.implicit.added, strict=True
                )
            }
        )
        self.identities = identities
        self.classifier = BranchLinear(self.dimension, 0, identities) if identities else None

    def forward(self, maps: TrunkMaps) -> list[Tensor]:
        """Embeddings (B, dimension, H / stride, W / stride) per level, not normalised."""
        found = []
        for level in self.level_names:
            (x,) = self.implicit.before(maps.neck[level], level)
            found.append(self.predictors[level](x))
        return found

    def identity_logits(self, embeddings: Tensor) -> Tensor:
        """Embeddings (n, dimension) -> logits (n, identities).

        Embeddings are scaled to the length sqrt(2) ln(identities - 1) before the classifier, so that its
        softmax can become as sharp as that many identities need (arXiv 1909.12605's code).
        """
        assert self.classifier is not None
        scale = math.sqrt(2) * math.log(self.identities - 1)
        logits: Tensor = self.classifier(scale * F.normalize(embeddings, dim=1))
        return logits

    def fold(self, exact: ImplicitKnowledge) -> None:
        """Multiplication folds into the convolution. Addition and concatenation do not, and stay.

        The convolution pads with zeros behind the operator, so at the border no single bias is right. What
        stays is g(z) itself, as a vector: the form and its prior are evaluated a last time.
        """
        self.classifier, self.identities = None, 0
        if self.branch.implicit is None:
            return
        g: dict[str, Tensor] = {}
        for level in self.level_names:
            predictor = cast(EmbeddingPredictor, self.predictors[level])
            (site,) = exact.feature_sites(level)
            if not site.operator.affine(site.values()).keeps_zero:
                g[level] = site.values()
                continue
            assert predictor.conv.bias is not None
            weight, bias = predictor.conv.weight.double(), predictor.conv.bias.double()
            predictor.conv = rebuilt(predictor.conv, *site.fold(weight, bias))
        implicit = self.branch.implicit
        kept = ImplicitConfig(site=implicit.site, operator=implicit.operator) if g else None
        self.branch = self.branch.model_copy(update={"implicit": kept})
        convs = [cast(EmbeddingPredictor, self.predictors[level]).conv for level in self.level_names]
        features = [conv.in_channels - added for conv, added in zip(convs, self.implicit.added, strict=True)]
        with torch.device(convs[0].weight.device):
            self.implicit = ImplicitKnowledge(
                (kept,) if kept else (), self.level_names, features, 1, self.dimension, self.branch.task
            )
        for level, values in g.items():
            name = f"sites.{implicit.site}.{level}.forms.0.z"
            self.implicit.get_parameter(name).data = values.to(convs[0].weight)
