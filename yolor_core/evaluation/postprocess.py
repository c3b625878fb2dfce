"""From decoded predictions to detections: confidence threshold and non-maximum suppression.

The released code shifts every box by 4096 pixels times its class and compares all candidates with each other.
The same boxes are found here, bit for bit, with a small part of the comparisons:

* classes do not overlap once shifted, so they are compared one by one (a few small classes at a time);
* a candidate's fate depends on better candidates alone, so the search stops at the last one reported.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import nms

from yolor_core.config import EvaluationConfig
from yolor_core.errors import InputError

# IoU is computed on the shifted float32 coordinates, whose rounding changes about 1 % of the kept boxes
# against `suppression = "exact"`, so the released shift is part of the result.
CLASS_OFFSET = 4096.0

# These change the speed, never the result.
FIRST = 2  # candidates that are looked at first, per detection wanted
RANKED = 4  # candidates that are sorted first, per detection wanted; all others only when those were too few
GROUP = 96  # classes are compared together up to this many candidates: a call costs as much as 100 boxes


class ImageDetections(NamedTuple):
    """Detections of one image, best first."""

    boxes: Tensor  # (n, 4) x1, y1, x2, y2 in pixels of the network's input
    scores: Tensor  # (n,)
    labels: Tensor  # (n,) class index


class Candidates(NamedTuple):
    """What passed the confidence threshold: candidate i is class labels[i] of box boxes[rows[i]]."""

    boxes: Tensor  # (m, 4) x1, y1, x2, y2 in pixels
    rows: Tensor  # (n,)
    scores: Tensor  # (n,) objectness times class score
    labels: Tensor  # (n,)


def suppress(decoded: Tensor, config: EvaluationConfig) -> list[ImageDetections]:
    """Multi-label non-maximum suppression of decoded predictions (B, N, 5 + classes), image by image.

    A box with objectness above the confidence gives one candidate per class whose product of objectness and
    class score is above it. Of equal scores the earlier row, then the lower class, comes first. Works on the
    device of its input; on a GPU the released comparison is one call per image. Raises InputError for
    another shape.
    """
    if decoded.ndim != 3 or decoded.shape[2] < 6:
        raise InputError(f"decoded has shape {tuple(decoded.shape)}; (B, N, 5 + classes) is needed")
    if decoded.dtype in (torch.float16, torch.bfloat16):
        decoded = decoded.float()  # torchvision's kernel on the CPU has no half precision
    found = []
    for image in decoded:
        candidates = select(image, config.confidence)
        best = keep(candidates, config)
        boxes = candidates.boxes[candidates.rows[best]]
        found.append(ImageDetections(boxes, candidates.scores[best], candidates.labels[best]))
    return found


def select(rows: Tensor, confidence: float) -> Candidates:
    """Candidates of one image from its decoded rows (N, 5 + classes), in the order of rows, then classes.

    Rows whose box or objectness is not finite give none.
    """
    rows = rows[rows[:, 4] > confidence]
    half = rows[:, 2:4] / 2
    boxes = torch.cat([rows[:, :2] - half, rows[:, :2] + half], 1)
    scores = rows[:, 5:] * rows[:, 4:5]
    finite = rows[:, :5].isfinite().all(1, keepdim=True)
    row, label = ((scores > confidence) & finite).nonzero(as_tuple=True)
    return Candidates(boxes, row, scores[row, label], label)


def keep(candidates: Candidates, config: EvaluationConfig) -> Tensor:
    """Indices of the candidates that suppression leaves, best first, at most `max_detections`."""
    boxes, rows, scores, labels = candidates
    limit = config.max_detections
    ranked, seen, step = best_first(scores, RANKED * limit), 0, FIRST * limit
    kept = ranked[:0]
    while len(kept) < limit and seen < len(scores):
        if seen == len(ranked):
            ranked = best_first(scores, len(scores))
        pool = torch.cat((kept, ranked[seen : seen + step]))  # what was suppressed suppresses nothing
        kept = pool[_compare(boxes[rows[pool]], scores[pool], labels[pool], config)]
        seen = min(seen + step, len(ranked))
        expected = (limit - len(kept)) * seen // max(len(kept), 1)  # at the rate so far
        step = max(expected * 5 // 4, seen // 2)
    return kept[:limit]


def best_first(scores: Tensor, size: int) -> Tensor:
    """Indices of at least the `size` best of (n,) scores, best first, earlier ones first among equals.

    Every score equal to the last one is in, so the result is a prefix of the stable order of all.
    """
    if size < len(scores):
        smallest = scores.topk(size, sorted=False).values.min()
        chosen = (scores >= smallest).nonzero().squeeze(1)
        return chosen[scores[chosen].argsort(descending=True, stable=True)]
    return scores.argsort(descending=True, stable=True)


def _compare(boxes: Tensor, scores: Tensor, labels: Tensor, config: EvaluationConfig) -> Tensor:
    """Positions that are left, ascending, of candidates (n, 4), (n,), (n,) sorted by score."""
    extent = boxes[:, 2:].amax(0) - boxes[:, :2].amin(0)
    if config.suppression == "exact":
        # In float64 the sum is exact to 1e-9 pixels, and the offset keeps classes apart whatever the boxes.
        offset = extent.max().double().clamp_min(CLASS_OFFSET).log2().ceil().exp2() * 2
        shifted = boxes.double() + (labels * offset)[:, None]
    else:
        shifted = boxes + (labels * CLASS_OFFSET)[:, None].to(boxes.dtype)
        if boxes.device.type == "cpu" and extent.min() > CLASS_OFFSET - 1:  # a pixel for rounding
            return nms(shifted, scores, config.iou).sort().values  # boxes of two classes may overlap
    scores = scores.to(shifted.dtype)
    if boxes.device.type != "cpu":  # every call waits for the device, which compares everything in one
        return nms(shifted, scores, config.iou).sort().values
    return _by_class(shifted, scores, labels, config.iou)


def _by_class(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> Tensor:
    """As `_compare`, for shifted boxes of which no two classes overlap: a few classes at a time."""
    order = labels.argsort(stable=True)
    sizes = [0]
    for count in labels.bincount().tolist():
        if sizes[-1] < GROUP:
            sizes[-1] += count
        else:
            sizes.append(count)
    groups = zip(boxes[order].split(sizes), scores[order].split(sizes), order.split(sizes), strict=True)
    return torch.cat([members[nms(b, s, iou)] for b, s, members in groups]).sort().values
