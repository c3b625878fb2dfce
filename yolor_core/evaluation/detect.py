"""Detections of a model on the images of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from yolor_core.config import EvaluationConfig
from yolor_core.data import ImageSet
from yolor_core.data.evaluation_batches import EvaluationBatch
from yolor_core.evaluation.coco import evaluate_boxes
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.inference import collect
from yolor_core.evaluation.inference import input_stride as input_stride
from yolor_core.evaluation.postprocess import suppress
from yolor_core.models import Detector, decode

Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def detect(
    model: Detector,
    images: ImageSet,
    config: EvaluationConfig,
    device: torch.device,
    workers: int = 0,
    rank: int = 0,
    ranks: int = 1,
    watch: Callable[[int, int], None] | None = None,
) -> Detections:
    """Detections of `model` on every image of a split, in original pixels, clipped to the image.

    One of several ranks takes every `ranks`-th batch; `Detections.merge` puts the parts together. See
    `inference.collect`. Raises ConfigError for a stride that does not fit the model, and for a model without
    the detection task.
    """
    collector = DetectionCollector.of(model, images, config)
    collect(model, images, config, device, {"detection": collector}, workers, rank, ranks, watch)
    return collector.found()


class DetectionCollector:
    """Decodes, suppresses, and maps back to original pixels."""

    def __init__(
        self, strides: Sequence[int], anchors: Tensor, images: ImageSet, config: EvaluationConfig
    ) -> None:
        self.strides, self.anchors, self.images, self.config = strides, anchors, images, config
        self.category_ids, self.image_ids = np.asarray(images.category_ids), np.asarray(images.ids)
        none = (self.image_ids[:0], self.category_ids[:0], np.zeros((0, 4)), np.zeros(0, np.float32))
        self.rows: list[Columns] = [none]

    @classmethod
    def of(cls, model: Detector, images: ImageSet, config: EvaluationConfig) -> Self:
        """A collector that has seen no batch."""
        return cls(model.strides, model.anchors, images, config)

    def add(self, batch: EvaluationBatch, predictions: Sequence[Tensor]) -> None:
        """Raw predictions [(B, anchors, rows, columns, 5 + classes)] of a batch."""
        decoded = decode(predictions, self.strides, self.anchors)
        for position, detections in enumerate(suppress(decoded, self.config)):
            index = int(batch.indices[position])
            width, height = self.images.sizes[index]
            boxes = np.asarray(batch.to_original(position, detections.boxes.cpu().numpy()), np.float64)
            boxes = boxes.reshape(-1, 4).clip(0, [width, height, width, height])
            boxes[:, 2:] -= boxes[:, :2]
            self.rows.append(
                (
                    np.full(len(boxes), self.image_ids[index]),
                    self.category_ids[detections.labels.cpu().numpy()],
                    boxes,
                    detections.scores.cpu().numpy(),
                )
            )

    def found(self) -> Detections:
        """The detections so far."""
        columns = [np.concatenate(parts) for parts in zip(*self.rows, strict=True)]
        return Detections.build(*columns)

    @staticmethod
    def merge(parts: Sequence[Detections]) -> Detections:
        """See `Detections.merge`."""
        return Detections.merge(parts)

    @staticmethod
    def score(found: Detections, images: ImageSet) -> dict[str, Any]:
        """See `evaluate_boxes`."""
        return evaluate_boxes(images.coco, found)
