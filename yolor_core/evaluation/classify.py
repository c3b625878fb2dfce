"""Classes that a model sees in the images of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from yolor_core.config import EvaluationConfig
from yolor_core.data import ImageSet
from yolor_core.data.evaluation_batches import EvaluationBatch
from yolor_core.evaluation.classification import score_classes
from yolor_core.models import Detector


class ImageLogits(NamedTuple):
    """Logits of images, in the order of the split."""

    position: NDArray[np.int64]  # (n,) of the image in its ImageSet
    logits: NDArray[np.float32]  # (n, classes)


class ClassificationCollector:
    """Keeps the logits. Which classes an image shows is read from its boxes, those of crowds left out."""

    def __init__(self, classes: int) -> None:
        self.parts = [ImageLogits(np.zeros(0, np.int64), np.zeros((0, classes), np.float32))]

    @classmethod
    def of(cls, model: Detector, images: ImageSet, config: EvaluationConfig) -> Self:
        """A collector that has seen no batch."""
        return cls(model.classes)

    def add(self, batch: EvaluationBatch, predictions: Tensor) -> None:
        """Logits (B, classes) of a batch."""
        self.parts.append(ImageLogits(np.array(batch.indices, np.int64), predictions.float().cpu().numpy()))

    def found(self) -> ImageLogits:
        """All logits so far."""
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
