"""What the head of a task reads, and what every head offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from yolor_core.config import BranchConfig
from yolor_core.implicit.sites import Site
from yolor_core.models.knowledge import ImplicitKnowledge


@dataclass(frozen=True)
class TrunkShape:
    """Levels and channels of the maps that the trunk gives to its heads; level names are P3, P4 ..."""

    level_names: tuple[str, ...]
    neck: tuple[int, ...]  # channels of the maps that enter the 3x3 convolution in front of a predictor
    head: tuple[int, ...]  # channels behind it
    width: float  # of the model, for channels of the task's own


class TrunkMaps(NamedTuple):
    """Maps (B, channels, H / stride, W / stride) of a batch, by level."""

    neck: Mapping[str, Tensor]  # every level
    head: Mapping[str, Tensor]  # the levels that some task reads


class Head(nn.Module, ABC):
    """The branch of one task: implicit knowledge, or nothing, in front of a predictor.

    Args:
        branch: its configuration.
        trunk: what it is attached to.
        classes: of the data.
        identities: of the training data; 0 for a head that is only used, not trained.
        previous: detection's sites in front of the predictors, by level, from which a Markov chain goes on.
    """

    implicit: ImplicitKnowledge

    def __init__(
        self,
        branch: BranchConfig,
        trunk: TrunkShape,
        classes: int,
        identities: int,
        previous: Mapping[str, Site],
    ) -> None:
        super().__init__()
        self.branch = branch

    @staticmethod
    def reads_heads(level_names: Sequence[str]) -> Sequence[str]:
        """Levels of which the task reads the map behind the 3x3 convolution; the others may be left out."""
        return ()

    @abstractmethod
    def forward(self, maps: TrunkMaps) -> Any:
        """The raw predictions of the task."""

    def fold(self, exact: ImplicitKnowledge) -> None:
        """Merge implicit knowledge into the predictor where that is exact, and drop what only training needs.

        `exact` is `implicit` in float64. Called on a copy of the model in evaluation mode; the base does
        nothing, and the head stays as it is.
        """
