"""Real features of validation images, before and after implicit knowledge (paper figures 3 and 4).

Written to a file once, so that whoever looks at them needs neither the model nor torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from yolor_core.config import EvaluationConfig, LossConfig
from yolor_core.data.batches import EvaluationBatch, EvaluationBatches
from yolor_core.data.images import ImageSet
from yolor_core.errors import InputError
from yolor_core.evaluation.predict import input_stride
from yolor_core.models.detector import Detector
from yolor_core.tasks.detection import assign

NUMBERS = pa.list_(pa.float32())
SCHEMA = pa.schema(
    {
        "image": pa.int64(),
        "level": pa.string(),
        "row": pa.int32(),
        "column": pa.int32(),
        "anchor": pa.int32(),
        "class": pa.int32(),  # of the object that the anchor answers for, from 0; -1: background
        "width": pa.float32(),  # of that object, pixels of the network's input; NaN for background
        "height": pa.float32(),
        "feature": NUMBERS,  # (channels,) in front of the implicit knowledge
        "aligned": NUMBERS,  # (channels + added,) behind FA, of this anchor
        "before": NUMBERS,  # (5 + classes,) raw outputs of this anchor without implicit knowledge
        "after": NUMBERS,  # the same with it
    }
)
TOGETHER = 8  # images
OTHERS = 64  # anchors without an object, of every level and batch
BACKGROUND = -1


@torch.no_grad()
def collect_features(
    model: Detector,
    images: ImageSet,
    config: EvaluationConfig,
    loss: LossConfig,
    device: torch.device,
    first: int = 64,
    cells: int = 400,
    seed: int = 0,
) -> pa.Table:
    """Anchors of some cells of the `first` images, columns as in `SCHEMA`.

    On every level, half of `cells` (rounded up) are anchors that training would make answer for an object
    whose centre lies in their cell, half are others, each drawn at random; fewer where there are not so many.
    Raises InputError for a model that does not detect, or that has been folded.
    """
    if not model.config.detection or model.folded:
        raise InputError(
            "features are taken in front of detection's predictors, of a model as it was trained"
        )
    batches = EvaluationBatches(images, config.size, input_stride(model, config), TOGETHER, rectangular=False)
    generator = np.random.default_rng(seed)
    found: dict[str, list[dict[str, Any]]] = {level: [] for level in model.level_names}
    model.eval()
    weight = next(model.parameters())
    for begin in range(0, min(first, len(images)), TOGETHER):
        batch = _first(batches.build(begin // TOGETHER)[0], first - begin)
        maps = model.maps(batch.images.to(device, weight.dtype) / 255).head
        for level, x in maps.items():
            found[level] += _anchors(model, images, batch, level, x, loss, generator)
    rows = [row for level, items in found.items() for row in _chosen(items, cells, generator)]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _first(batch: EvaluationBatch, count: int) -> EvaluationBatch:
    """The first `count` images of a batch."""
    return EvaluationBatch(
        batch.images[:count],
        batch.indices[:count],
        batch.scales[:count],
        batch.pads[:count],
        batch.sizes[:count],
    )


def _chosen(
    items: list[dict[str, Any]], cells: int, generator: np.random.Generator
) -> Iterator[dict[str, Any]]:
    for objects in (True, False):
        group = [item for item in items if (item["class"] != BACKGROUND) == objects]
        keep = generator.permutation(len(group))[: (cells + objects) // 2]
        yield from (group[i] for i in sorted(keep))


def _anchors(
    model: Detector,
    images: ImageSet,
    batch: EvaluationBatch,
    level: str,
    x: Tensor,
    loss: LossConfig,
    generator: np.random.Generator,
) -> list[dict[str, Any]]:
    """All object anchors of a batch on a level, and as many others."""
    place = model.level_names.index(level)
    stride, rows, columns = model.strides[place], x.shape[2], x.shape[3]
    targets = batch.targets(images)
    anchors = model.anchors[place].cpu() / stride
    positives = assign(targets, [anchors], [(rows, columns)], loss.anchor_threshold)[0]
    centre = ((positives.box[:, :2] >= 0) & (positives.box[:, :2] < 1)).all(1)
    taken = torch.stack([positives.image, positives.anchor, positives.row, positives.column], 1)
    keys = {tuple(key) for key in taken.tolist()}
    places = taken[centre].tolist()
    shape = (len(batch.indices), model.anchors_per_level, rows, columns)
    others = [tuple(generator.integers(shape).tolist()) for _ in range(max(len(places), OTHERS))]
    others = [key for key in dict.fromkeys(others) if key not in keys]
    sizes = (positives.box[centre, 2:] * stride).tolist()
    known = list(zip(positives.label[centre].tolist(), sizes, strict=True))
    known += [(BACKGROUND, [float("nan")] * 2)] * len(others)
    everywhere = [*map(tuple, places), *others]
    if not everywhere:
        return []
    image, anchor, row, column = (torch.tensor(v, device=x.device) for v in zip(*everywhere, strict=True))
    feature = x[image, :, row, column][:, :, None, None]
    own = (torch.arange(len(everywhere), device=x.device), anchor)
    sites = model.implicit.at(level)
    outputs = [
        model.predict(level, feature, out).flatten(1).unflatten(1, (-1, model.outputs))[own]
        for out in (sites, ())
    ]
    aligned = model.implicit.before(feature, level)
    behind = torch.stack([aligned[a if len(aligned) > 1 else 0][i] for i, a in enumerate(anchor.tolist())])
    numbers = [t.flatten(1).float().cpu().numpy() for t in (feature, behind, *outputs)]
    return [
        {
            "image": int(images.ids[batch.indices[i]]),
            "level": level,
            "row": r,
            "column": c,
            "anchor": a,
            "class": label,
            "width": size[0],
            "height": size[1],
            **dict(zip(("feature", "aligned", "before", "after"), values, strict=True)),
        }
        for (i, a, r, c), (label, size), *values in zip(everywhere, known, *numbers, strict=True)
    ]
