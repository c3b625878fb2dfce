"""Predictions of a model for all of its tasks on the images of a split, and their scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from yolor_core.config import EvaluationConfig, TrainConfig
from yolor_core.data import EvaluationBatches, ImageSet
from yolor_core.errors import ConfigError
from yolor_core.evaluation.detections import Detections
from yolor_core.models import Detector
from yolor_core.tasks import TASKS
from yolor_core.tasks.base import Collector, build_losses, with_tensors

MANY_IMAGES = 1_000  # below this pycocotools is done before compiled code is loaded


@dataclass(frozen=True)
class Predictions:
    """What was found in the images of a split, or in a rank's share of them, by task.

    terms: what each batch adds to each term of the losses, by the term's name; empty where nobody asked.
    """

    found: dict[str, Any]
    terms: dict[str, list[float]] = field(default_factory=dict)

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
        terms = {name: [x for part in parts for x in part.terms.get(name, ())] for name in parts[0].terms}
        return cls(merged, terms)

    def losses(self) -> dict[str, float | None]:
        """`val/box`, `val/obj`, `val/cls` and what further tasks have: see `SplitLoss`. `val/loss` is the sum
        of detection's. Their sums are exact, so that ranks do not change them; None for what is not finite.
        """
        totals = {f"val/{name.removeprefix('loss/')}": values for name, values in self.terms.items()}
        parts = [totals[name] for name in ("val/box", "val/obj", "val/cls") if name in totals]
        if parts:
            totals = {"val/loss": [value for part in parts for value in part], **totals}
        finite = {name: all(map(math.isfinite, values)) for name, values in totals.items()}
        return {name: math.fsum(values) if finite[name] else None for name, values in totals.items()}


def predict(
    model: Detector,
    images: ImageSet,
    config: EvaluationConfig,
    device: torch.device,
    workers: int = 0,
    rank: int = 0,
    ranks: int = 1,
    watch: Callable[[int, int], None] | None = None,
    recipe: TrainConfig | None = None,
) -> Predictions:
    """Predictions of every task of `model` on every image of a split, in one pass over the images.

    One of several ranks takes every `ranks`-th batch; `Predictions.merge` puts the parts together. `watch` is
    told (batches done, batches in all). With the `recipe` of a training its losses are taken too. The model
    computes in its own precision, without autocast; it is put in evaluation mode for the time and left in the
    mode it was in. Raises ConfigError for a stride that does not fit the model.
    """
    collectors: dict[str, Collector] = {
        t: TASKS[t].load("collector").of(model, images, config) for t in model.tasks
    }
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
    losses = SplitLoss(model, batches, recipe) if recipe else None
    collect(model, batches, device, collectors, losses, watch)
    found = {task: collector.found() for task, collector in collectors.items()}
    return Predictions(found, losses.terms if losses else {})


class SplitLoss:
    """The losses of a training on all images of a split as if they were one batch, added up batch by batch.

    A positive weighs the same in whatever image and batch it is, a cell the same as the others of its image,
    and every image the same: so the sums depend on the order and size of batches no more than the padding of
    rectangles does. `LossConfig.images_per_mean` is set aside. Tasks that are not `held_out` have none.

    terms: what each batch added, by the name of the term.
    """

    def __init__(self, model: Detector, batches: EvaluationBatches, recipe: TrainConfig) -> None:
        whole = recipe.model_copy(update={"loss": recipe.loss.model_copy(update={"images_per_mean": 0})})
        losses = build_losses(model, whole)
        self.losses = {task: loss for task, loss in losses.items() if TASKS[task].held_out}
        self.terms: dict[str, list[float]] = {}
        wanted: dict[str, list[Any]] = {task: [] for task in self.losses}
        for step in range(batches.all_steps if self.losses else 0):  # of all ranks, for the counts
            outline = batches.outline(step)
            targets, (count, _, height, width) = outline.targets(batches.images), outline.images.shape
            for task, loss in self.losses.items():
                all_images = len(batches.images)
                wanted[task].append(loss.wanted(targets, (height, width), count, total=all_images))
        for of_task in wanted.values():
            counts = sum(each.counts for each in of_task)
            for each in of_task:
                each.counts = counts
        self.wanted = {task: [each[step] for step in batches.steps] for task, each in wanted.items()}

    def add(self, place: int, predictions: Any, device: torch.device) -> None:
        """Take in the model's predictions for batch number `place` of the rank."""
        for task, loss in self.losses.items():
            wanted = with_tensors(self.wanted[task][place], lambda values: values.to(device))
            for name, term in loss(of_task(predictions, task), wanted).items():
                self.terms.setdefault(name, []).append(float(term))


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
    batches: EvaluationBatches,
    device: torch.device,
    collectors: Mapping[str, Collector],
    losses: SplitLoss | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> None:
    """Show batches to the model and its predictions to the collectors, named by task, and to the losses."""
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
            if losses is not None:
                losses.add(done, predictions, device)
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
