"""Run a detector over the images of a split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from yolor_core.config import EvaluationConfig
from yolor_core.data import EvaluationBatches, ImageSet
from yolor_core.errors import ConfigError
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.postprocess import suppress
from yolor_core.models import Detector, decode


@torch.no_grad()
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

    One of several ranks takes every `ranks`-th batch; `Detections.merge` puts the parts together. `watch` is
    told (batches done, batches in all). The model computes in its own precision, without autocast; it is put in
    evaluation mode for the time and left in the mode it was in.
    Raises ConfigError for a stride that does not fit the model.
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
    category_ids = np.asarray(images.category_ids)
    image_ids = np.asarray(images.ids)
    none = (image_ids[:0], category_ids[:0], np.zeros((0, 4)), np.zeros(0, np.float32))
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = [none]
    dtype = next(model.parameters()).dtype
    training = model.training
    model.eval()
    try:
        for done, batch in enumerate(batches):
            if watch is not None:
                watch(done, len(batches))
            raw = model(batch.images.to(device, dtype) / 255)
            decoded = decode(raw, model.strides, model.anchors)
            for position, detections in enumerate(suppress(decoded, config)):
                index = int(batch.indices[position])
                width, height = images.sizes[index]
                boxes = np.asarray(batch.to_original(position, detections.boxes.cpu().numpy()), np.float64)
                boxes = boxes.reshape(-1, 4).clip(0, [width, height, width, height])
                boxes[:, 2:] -= boxes[:, :2]
                count = len(boxes)
                found.append(
                    (
                        np.full(count, image_ids[index]),
                        category_ids[detections.labels.cpu().numpy()],
                        boxes,
                        detections.scores.cpu().numpy(),
                    )
                )
    finally:
        model.train(training)
    columns = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    return Detections.build(*columns)


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
