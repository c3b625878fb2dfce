"""Multi-label classification of the image from the top level (JDC, section 5.4; layout and loss are ours)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from yolor_core.config import BranchConfig, EvaluationConfig, TrainConfig
from yolor_core.data.batches import EvaluationBatch
from yolor_core.data.images import ImageSet
from yolor_core.errors import InputError
from yolor_core.implicit.sites import ImplicitKnowledge, Site
from yolor_core.tasks.base import Head, TaskModel, TrunkMaps, TrunkShape, predictor_linear

THRESHOLD = 0.5  # a class is said to be there when its score is above it


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
        self.linear = predictor_linear(channels, self.implicit.added[0], classes)

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
            folded = predictor_linear(channels, 0, outputs)
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
    def of(cls, model: TaskModel, config: TrainConfig) -> Self:
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


class ImageLogits(NamedTuple):
    """Logits of images, in the order of the split."""

    position: NDArray[np.int64]  # (n,) of the image in its ImageSet
    logits: NDArray[np.float32]  # (n, classes)


class ClassificationCollector:
    """Keeps the logits. Which classes an image shows is read from its boxes, those of crowds left out."""

    def __init__(self, classes: int) -> None:
        self.parts = [ImageLogits(np.zeros(0, np.int64), np.zeros((0, classes), np.float32))]

    @classmethod
    def of(cls, model: TaskModel, images: ImageSet, config: EvaluationConfig) -> Self:
        return cls(model.classes)

    def add(self, batch: EvaluationBatch, predictions: Tensor) -> None:
        """Logits (B, classes) of a batch."""
        self.parts.append(ImageLogits(np.array(batch.indices, np.int64), predictions.float().cpu().numpy()))

    def found(self) -> ImageLogits:
        return self.merge(self.parts)

    @staticmethod
    def merge(parts: Sequence[ImageLogits]) -> ImageLogits:
        """Logits of disjoint sets of images together."""
        position, logits = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        order = position.argsort()
        return ImageLogits(position[order], logits[order])

    @staticmethod
    def score(found: ImageLogits, images: ImageSet) -> dict[str, Any]:
        """See `score_classes`. Probabilities are float64: in float32 all logits above 17 would be equal."""
        truth = np.zeros(found.logits.shape, bool)
        for row, position in zip(truth, found.position.tolist(), strict=True):
            row[images.classes(position)] = True
        with np.errstate(over="ignore"):  # exp of a very negative logit: infinite, the score is 0
            scores = 1 / (1 + np.exp(-found.logits.astype(np.float64)))
        return {"classification": score_classes(truth, scores, images.names)}


def score_classes(
    truth: NDArray[np.bool_], scores: NDArray[np.floating], names: Sequence[str]
) -> dict[str, Any]:
    """Score predicted classes of images.

    Args:
        truth: bool (N, C), whether image i shows class c. An image without labels is a row without True.
        scores: float (N, C), probabilities from 0 to 1.
        names: the C class names.

    Returns:
        {"mAP": mean over classes of the average precision, "F1_micro": F1 of all decisions together,
        "F1_macro": mean of the classes' F1, "per_class": {name: average precision or None}, "images": N,
        "absent": names of the classes that no image shows}.

        Average precision is the sum over the scores that occur, falling, of the gain in recall times the
        precision there; images of equal score enter together, so their order does not matter. An absent
        class has neither recall nor a place in the two means; what is falsely found of it counts in the
        micro F1. Without any positive the three numbers are None.

    Raises:
        InputError: for shapes that do not fit, and for scores that are not numbers from 0 to 1.
    """
    truth, scores = np.asarray(truth), np.asarray(scores)
    _check(truth, scores, names)
    per_class: dict[str, float | None] = dict.fromkeys(names)
    shown = np.flatnonzero(truth.any(axis=0)).tolist()
    result: dict[str, Any] = {"mAP": None, "F1_micro": None, "F1_macro": None, "per_class": per_class}
    if shown:
        # torchmetrics takes seconds to import, which detection alone need not wait for.
        from torchmetrics.functional.classification import binary_average_precision, binary_f1_score

        found, wanted = torch.from_numpy(scores.copy()), torch.from_numpy(truth.astype(np.int64))
        f1 = []
        for index in shown:
            column = found[:, index], wanted[:, index]
            per_class[names[index]] = binary_average_precision(*column, validate_args=False).item()
            f1.append(binary_f1_score(*column, THRESHOLD, validate_args=False).item())
        result["mAP"] = float(np.mean([per_class[names[index]] for index in shown]))
        result["F1_micro"] = binary_f1_score(found, wanted, THRESHOLD, validate_args=False).item()
        result["F1_macro"] = float(np.mean(f1))
    absent = [name for index, name in enumerate(names) if index not in shown]
    return {**result, "images": len(truth), "absent": absent}


def _check(truth: NDArray[Any], scores: NDArray[Any], names: Sequence[str]) -> None:
    if truth.dtype != np.bool_ or truth.ndim != 2:
        raise InputError(f"truth is {truth.dtype} {truth.shape}; bool (images, classes) is needed")
    if scores.shape != truth.shape or scores.dtype not in (np.float32, np.float64):
        raise InputError(
            f"scores are {scores.dtype} {scores.shape}; float32 or float64 {truth.shape} is needed"
        )
    if len(names) != truth.shape[1] or len(set(names)) != len(names):
        raise InputError(
            f"{len(names)} names; {truth.shape[1]} different ones are needed, one for each class"
        )
    wrong = np.argwhere(~((scores >= 0) & (scores <= 1)))  # NaN is neither
    if len(wrong):
        image, index = wrong[0].tolist()
        raise InputError(
            f"scores[{image}, {index}] (class {names[index]!r}) is {scores[image, index]}, one of "
            f"{len(wrong)} that are not probabilities; allowed: numbers from 0 to 1 (pass logits through a "
            "sigmoid)"
        )
