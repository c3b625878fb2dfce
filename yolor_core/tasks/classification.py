"""Multi-label classification of the image from the top level (JDC, section 5.4; layout and loss are ours)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yolor_core.config import BranchConfig, TrainConfig
from yolor_core.implicit.sites import Site
from yolor_core.models.knowledge import ImplicitKnowledge
from yolor_core.tasks.head import Head, TrunkMaps, TrunkShape
from yolor_core.tasks.layers import BranchLinear

if TYPE_CHECKING:
    from yolor_core.models.detector import Detector


class ClassificationHead(Head):
    """Top level's map -> implicit knowledge -> global average pooling -> linear layer with bias."""

    def __init__(
        self,
        branch: BranchConfig,
        trunk: TrunkShape,
        classes: int,
        identities: int,
        previous: Mapping[str, Site],
    ) -> None:
        super().__init__(branch, trunk, classes, identities, previous)
        self.level, channels = trunk.level_names[-1], trunk.head[-1]
        configs = (branch.implicit,) if branch.implicit else ()
        self.implicit = ImplicitKnowledge(
            configs, [self.level], [channels], 1, classes, branch.task, previous
        )
        self.linear = BranchLinear(channels, self.implicit.added[0], classes)

    @staticmethod
    def reads_heads(level_names: Sequence[str]) -> Sequence[str]:
        """The top level."""
        return level_names[-1:]

    def forward(self, maps: TrunkMaps) -> Tensor:
        """Logits (B, classes)."""
        (x,) = self.implicit.before(maps.head[self.level], self.level)
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits

    def fold(self, exact: ImplicitKnowledge) -> None:
        """A constant passes the mean unchanged, so every affine operator folds into the linear layer."""
        weight, bias = self.linear.weight.double()[..., None, None], self.linear.bias.double()
        for site in reversed(exact.feature_sites(self.level)):
            weight, bias = site.fold(weight, bias)
        outputs, channels = weight.shape[:2]
        with torch.device("meta"):
            folded = BranchLinear(channels, 0, outputs)
        folded.weight = nn.Parameter(weight[..., 0, 0].to(self.linear.weight))
        folded.bias = nn.Parameter(bias.to(self.linear.bias))
        self.linear = folded
        self.implicit = ImplicitKnowledge((), [self.level], [channels], 1, outputs, self.branch.task)
        self.branch = self.branch.model_copy(update={"implicit": None})


@dataclass
class WantedClasses:
    """The classes that should be found in a share of a batch.

    truth: (B, classes), 1 where the image shows the class. counts: (1,), images; of the whole batch after
    ranks have added theirs up.
    """

    truth: Tensor
    counts: Tensor

    def part(self, begin: int, end: int) -> WantedClasses:
        """The same for the images [begin, end); counts stay those of the whole batch."""
        return replace(self, truth=self.truth[begin:end])


class ClassificationLoss:
    """Binary cross-entropy, the mean over the classes and images of the batch.

    An image shows the classes of the boxes that are left in it after augmentation; an image without boxes
    shows none, and counts as that.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes

    @classmethod
    def of(cls, model: Detector, config: TrainConfig) -> Self:
        """The loss for the predictions of a model."""
        return cls(model.classes)

    def wanted(
        self, targets: Tensor, size: tuple[int, int], images: int, first: int = 0, total: int | None = None
    ) -> WantedClasses:
        """Truth for `images` images; targets (n, 2 or more) image index, class. See `TaskLoss.wanted`."""
        truth = targets.new_zeros(images, self.classes)
        truth[targets[:, 0].long(), targets[:, 1].long()] = 1
        return WantedClasses(truth, targets.new_tensor([images]))

    def __call__(self, predictions: Tensor, wanted: WantedClasses) -> dict[str, Tensor]:
        """`loss/tag` of logits (B, classes)."""
        logits = predictions.float() if predictions.dtype.itemsize < 4 else predictions
        truth = wanted.truth.to(logits)
        losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="sum")
        return {"loss/tag": losses / (wanted.counts[0].clamp(min=1) * self.classes)}
