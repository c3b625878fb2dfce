"""What every task has: a head on the trunk, a loss, a collector of predictions, a weight among the losses.

A batch may be shared out over ranks and cut into parts. A loss first says what it wants of the share of a
rank; ranks add the counts up; then every part is given its share of each term, such that parts and ranks sum
up to the terms of the whole batch. Several ranks see different validation images; each hands on what its
collectors found, and `merge` makes of all of them what one process would have found, in the same order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from yolor_core.config import BranchConfig, EvaluationConfig, TasksConfig, TrainConfig
from yolor_core.implicit.sites import ImplicitKnowledge, Site
from yolor_core.tasks import TASKS

if TYPE_CHECKING:
    from yolor_core.data.batches import EvaluationBatch
    from yolor_core.data.images import ImageSet

ADDED = "implicit_channels"  # attribute of the layers of `predictor_conv` and `predictor_linear`
LEAST_IDENTITIES = 3  # of the embedding task: its softmax is scaled by ln(identities - 1)


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


class TaskModel(Protocol):
    """What a loss or a collector asks of the model (`models.Detector`)."""

    tasks: tuple[str, ...]
    classes: int
    strides: list[int]  # pixels per cell of each level
    anchors: Tensor  # (levels, anchors, 2) width and height in pixels
    branches: nn.ModuleDict  # heads by task, without detection's


class Wanted(Protocol):
    """What the predictions for a share of a batch should be."""

    counts: Tensor  # float; replaced by those of all ranks together

    def part(self, begin: int, end: int) -> Self:
        """The same for the images [begin, end) of the share; counts stay those of the whole batch."""
        ...


class TaskLoss(Protocol):
    """The loss of one task."""

    @classmethod
    def of(cls, model: TaskModel, config: TrainConfig) -> Self:
        """The loss for the predictions of a model."""
        ...

    def wanted(
        self, targets: Tensor, size: tuple[int, int], images: int, first: int = 0, total: int | None = None
    ) -> Any:
        """A `Wanted` for `images` images of `size` (height, width) pixels.

        targets: (n, 7) image index within these images, class, centre x, centre y, width, height (normalised
        to the image), identity or -1; on the CPU, since how many cells match a box is only known once it is
        computed, for which a GPU would be waited for. first: position of the first image in the whole batch;
        total: images of the whole batch, by default these.
        """
        ...

    def __call__(self, predictions: Any, wanted: Any) -> dict[str, Tensor]:
        """Scalar terms by name, per image of the whole batch; their sum is the loss of the task."""
        ...


class Collector(Protocol):
    """Gathers what a model says for one task, in plain arrays, and scores it."""

    @classmethod
    def of(cls, model: TaskModel, images: ImageSet, config: EvaluationConfig) -> Self:
        """A collector that has seen no batch."""
        ...

    def add(self, batch: EvaluationBatch, predictions: Any) -> None:
        """Take in what the task's head gave for a batch, which is on the model's device."""
        ...

    def found(self) -> Any:
        """What was found so far; can be pickled."""
        ...

    @staticmethod
    def merge(parts: Sequence[Any]) -> Any:
        """What was found in disjoint sets of images, together."""
        ...

    @staticmethod
    def score(found: Any, images: ImageSet) -> dict[str, Any]:
        """What evaluation.json says of it: finite numbers or None."""
        ...


def with_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """What a task wants, its tensors changed wherever they are in dataclasses, tuples, lists and mappings."""
    if isinstance(value, Tensor):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        content = {field.name: getattr(value, field.name) for field in fields(value)}
        return replace(value, **with_tensors(content, change))
    if isinstance(value, Mapping):
        return {name: with_tensors(item, change) for name, item in value.items()}
    if isinstance(value, list | tuple):
        items = [with_tensors(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def build_losses(model: TaskModel, config: TrainConfig) -> dict[str, TaskLoss]:
    """The losses of a model's tasks, by task, in the order of `model.tasks`."""
    return {task: TASKS[task].load("loss").of(model, config) for task in model.tasks}


class TaskWeights(nn.Module):
    """Weights of a model's tasks. It has parameters only where they are learnt, one s named as each task.

    fixed: sum of w L. uncertainty: sum of (exp(-s) L + s) / 2, with s the logarithm of the task's noise
    variance (arXiv 1705.07115, in the form of arXiv 1909.12605).
    """

    def __init__(self, tasks: Sequence[str], config: TasksConfig) -> None:
        super().__init__()
        self.tasks, self.config = tuple(tasks), config
        self.learnt = config.weighting == "uncertainty"
        if self.learnt:
            for task in self.tasks:
                self.register_parameter(task, nn.Parameter(torch.empty(())))

    def combine(self, losses: Mapping[str, Tensor], share: float = 1.0) -> Tensor:
        """The loss to minimise, from the scalar loss of every task by name.

        share: of the terms s / 2, which belong to the batch as a whole. Parts and ranks that share a batch
        give shares that add up to 1, and their results add up to the batch's.
        """
        return torch.stack([self._weighted(task, losses[task], share) for task in self.tasks]).sum()

    def _weighted(self, task: str, loss: Tensor, share: float) -> Tensor:
        if not self.learnt:
            return loss * self.config.weight(task)
        s = self.get_parameter(task)
        return (torch.exp(-s) * loss + share * s) / 2

    @torch.no_grad()
    def factors(self) -> dict[str, float]:
        """What the loss of each task is multiplied by now: w, or exp(-s) / 2."""
        if not self.learnt:
            return {task: self.config.weight(task) for task in self.tasks}
        return {task: float(torch.exp(-self.get_parameter(task)) / 2) for task in self.tasks}

    @torch.no_grad()
    def reset(self) -> None:
        """Set every s to its configured start."""
        if self.learnt:
            for task in self.tasks:
                self.get_parameter(task).fill_(self.config.initial(task))


# Predictors are plain layers, not classes derived from them: tools that count operations know a layer by its
# exact class. `added` channels before the features' own come from concatenated implicit knowledge;
# initialisation draws them apart, so that the features' part starts the same with and without them.


def predictor_conv(features: int, added: int, outputs: int, kernel: int = 1) -> nn.Conv2d:
    """A convolution with bias and zero padding that keeps the size of the map."""
    layer = nn.Conv2d(added + features, outputs, kernel, padding=kernel // 2)
    layer.__dict__[ADDED] = added
    return layer


def predictor_linear(features: int, added: int, outputs: int) -> nn.Linear:
    """A linear layer with bias."""
    layer = nn.Linear(added + features, outputs)
    layer.__dict__[ADDED] = added
    return layer


def added_channels(layer: nn.Module) -> int | None:
    """What `added` was, or None for a layer that none of these functions made."""
    found: int | None = layer.__dict__.get(ADDED)
    return found
