"""Run a model over the images of a split, once for all of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self

import torch

from yolor_core.config import EvaluationConfig
from yolor_core.data import EvaluationBatches, ImageSet
from yolor_core.data.evaluation_batches import EvaluationBatch
from yolor_core.errors import ConfigError
from yolor_core.models import Detector


class Collector(Protocol):
    """Gathers what a model says for one task, and scores it.

    Several ranks see different images; each hands on its `found`, of plain arrays, and `merge` makes of all
    of them what one process would have found, in the same order.
    """

    @classmethod
    def of(cls, model: Detector, images: ImageSet, config: EvaluationConfig) -> Self:
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
