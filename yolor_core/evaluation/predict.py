"""Predictions of a model for all of its tasks, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from yolor_core.config import EvaluationConfig
from yolor_core.data import ImageSet
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.inference import Collector, collect
from yolor_core.implicit.loading import load_class
from yolor_core.models import Detector
from yolor_core.tasks.registry import TASKS

MANY_IMAGES = 1_000  # below this pycocotools is done before compiled code is loaded


@dataclass(frozen=True)
class Predictions:
    """What was found in the images of a split, or in a rank's share of them, by task."""

    found: dict[str, Any]

    @property
    def detections(self) -> Detections | None:
        """Those of the detection task; None for a model without it."""
        return self.found.get("detection")

    @classmethod
    def merge(cls, parts: Sequence[Predictions]) -> Predictions:
        """The predictions of all ranks together: the same as those of one process, in the same order."""
        tasks = parts[0].found
        return cls({task: _collector(task).merge([part.found[task] for part in parts]) for task in tasks})


def predict(
    model: Detector,
    images: ImageSet,
    config: EvaluationConfig,
    device: torch.device,
    workers: int = 0,
    rank: int = 0,
    ranks: int = 1,
    watch: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Predictions of every task of `model` on every image of a split, in one pass over the images.

    One of several ranks takes every `ranks`-th batch; `Predictions.merge` puts the parts together. See
    `inference.collect`. Raises ConfigError for a stride that does not fit the model.
    """
    collectors: dict[str, Collector] = {t: _collector(t).of(model, images, config) for t in model.tasks}
    collect(model, images, config, device, collectors, workers, rank, ranks, watch)
    return Predictions({task: collector.found() for task, collector in collectors.items()})


def evaluate(predictions: Predictions, images: ImageSet, official: bool = True) -> dict[str, Any]:
    """What evaluation.json says: for detection what `evaluate_boxes` returns, "classification" with what
    `score_classes` and "embedding" with what `score_embeddings` returns; the keys of the model's tasks only.

    Reported numbers are pycocotools'. With `official` false, as in the middle of a training, many images are
    scored by `evaluation.engine`, which gives the same numbers to the bit in a hundredth of the time.

    Raises InputError for logits and embeddings that are not finite.
    """
    result: dict[str, Any] = {}
    for task, found in predictions.found.items():
        if task == "detection" and not official and len(images) >= MANY_IMAGES:
            from yolor_core.evaluation.engine import match, score  # numba takes a second to import

            result |= score(match(images.coco, found))
        else:
            result |= _collector(task).score(found, images)
    return result


def _collector(task: str) -> Any:
    return load_class(TASKS[task].metric)
