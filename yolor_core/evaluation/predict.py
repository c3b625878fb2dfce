"""Predictions of a model for all of its tasks on the images of a split, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from yolor_core.config import EvaluationConfig
from yolor_core.data import EvaluationBatches, ImageSet
from yolor_core.errors import ConfigError
from yolor_core.evaluation.detections import Detections
from yolor_core.models import Detector
from yolor_core.tasks import TASKS
from yolor_core.tasks.base import Collector

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
        merged = {
            task: TASKS[task].load("collector").merge([part.found[task] for part in parts])
            for task in parts[0].found
        }
        return cls(merged)


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
    `collect`. Raises ConfigError for a stride that does not fit the model.
    """
    collectors: dict[str, Collector] = {
        t: TASKS[t].load("collector").of(model, images, config) for t in model.tasks
    }
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
            result |= TASKS[task].load("collector").score(found, images)
    return result


@torch.no_grad()
def collect(
    model: Detector,
    images: ImageSet,
    config: EvaluationConfig,
    device: torch.device,
    collectors: Mapping[str, Collector],
    workers: int = 0,
    rank: int = 0,
    ranks: int = 1,
    watch: Callable[[int, int], None] | None = None,
) -> None:
    """Show a rank's images to the model and its predictions to the collectors, which are named by task.

    One of several ranks takes every `ranks`-th batch. `watch` is told (batches done, batches in all). The
    model computes in its own precision, without autocast; it is put in evaluation mode for the time and left
    in the mode it was in. Raises ConfigError for a stride that does not fit the model, and for a task that it
    does not have.
    """
    batches = EvaluationBatches(
        images,
        size=config.size,
        stride=input_stride(model, config),
        batch=config.batch,
        rectangular=config.rectangular,
        pad=config.pad,
        workers=workers,
        rank=rank,
        ranks=ranks,
    )
    dtype = next(model.parameters()).dtype
    training = model.training
    model.eval()
    try:
        for done, batch in enumerate(batches):
            if watch is not None:
                watch(done, len(batches))
            predictions = model(batch.images.to(device, dtype) / 255)
            for task, collector in collectors.items():
                collector.add(batch, of_task(predictions, task))
    finally:
        model.train(training)


def of_task(predictions: Any, task: str) -> Any:
    """What a `Detector` said for one task; one of detection alone returns just that.

    Raises ConfigError for a task that the model does not have.
    """
    found = predictions if isinstance(predictions, dict) else {"detection": predictions}
    if task not in found:
        raise ConfigError(f"the model has no task {task!r}; its tasks are: {', '.join(found)}")
    return found[task]


def input_stride(model: Detector, config: EvaluationConfig) -> int:
    """What the sides of the network's input are multiples of, in pixels.

    Raises ConfigError for a stride that does not fit the model.
    """
    largest = max(model.strides)
    if config.stride % largest:
        raise ConfigError(
            f"evaluation.stride = {config.stride}: the model's largest stride is {largest}; "
            "allowed are 0 and multiples of it"
        )
    return config.stride or largest
