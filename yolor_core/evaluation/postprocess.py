"""From decoded predictions to detections: confidence threshold and non-maximum suppression."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import nms

from yolor_core.config import EvaluationConfig

# The released code separates classes by shifting boxes this far. IoU is computed on the shifted float32
# coordinates, whose rounding changes about 1 % of the kept boxes, so the shift is kept here.
CLASS_OFFSET = 4096.0


class ImageDetections(NamedTuple):
    """Detections of one image, best first."""

    boxes: Tensor  # (n, 4) x1, y1, x2, y2 in pixels of the network's input
    scores: Tensor  # (n,)
    labels: Tensor  # (n,) class index


def suppress(decoded: Tensor, config: EvaluationConfig) -> list[ImageDetections]:
    """Multi-label non-maximum suppression of decoded predictions (B, N, 5 + classes), image by image.

    A box with objectness above the confidence gives one candidate per class whose product of objectness and
    class score is above it. Suppression runs class by class, which gives the same boxes as comparing all
    shifted boxes at once and is several times faster.
    """
    return [_suppress_image(image, config) for image in decoded]


def _suppress_image(rows: Tensor, config: EvaluationConfig) -> ImageDetections:
    rows = rows[rows[:, 4] > config.confidence]
    scores = rows[:, 5:] * rows[:, 4:5]
    row, label = (scores > config.confidence).nonzero(as_tuple=True)
    scores = scores[row, label]
    half = rows[:, 2:4] / 2
    boxes = torch.cat([rows[:, :2] - half, rows[:, :2] + half], 1)[row]

    order = scores.argsort(descending=True, stable=True)
    boxes, scores, label = boxes[order], scores[order], label[order]
    shifted = boxes + (label * CLASS_OFFSET)[:, None].to(boxes.dtype)
    kept = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    for value in label.unique():
        members = (label == value).nonzero().squeeze(1)
        kept[members[nms(shifted[members], scores[members], config.iou)]] = True
    best = kept.nonzero().squeeze(1)[: config.max_detections]
    return ImageDetections(boxes[best], scores[best], label[best])
