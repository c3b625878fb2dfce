"""Feature embedding (JDE, section 5.4): one embedding for every cell of every level.

`jde` follows arXiv 1909.12605, `fairmot` the head of arXiv 2004.01888; where the paper's own branch sits is
not known. The loss is a softmax over the training identities at labelled cells; scores are retrieval and
verification among boxes of known identity.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from yolor_core.config import BranchConfig, EvaluationConfig, ImplicitConfig, TrainConfig
from yolor_core.data.batches import EvaluationBatch
from yolor_core.data.images import ImageSet
from yolor_core.errors import DataError, InputError
from yolor_core.implicit.operators import rebuilt
from yolor_core.implicit.sites import ImplicitKnowledge, Site
from yolor_core.models.trunk import scaled_channels
from yolor_core.tasks.base import (
    Head,
    TaskModel,
    TrunkMaps,
    TrunkShape,
    predictor_conv,
    predictor_linear,
)
from yolor_core.tasks.detection import Positives, assign

DIMENSIONS = {"jde": 512, "fairmot": 128}
FAIRMOT_CHANNELS = 256
IDENTITY = 6  # column of the targets
STEPS = 2**20
"""Cosines are rounded to steps of 1 / STEPS, about the error of a sum in float32: what a matrix product makes
of equal embeddings depends on the processor, ties and scores then do not."""
OUT = -STEPS - 1  # stands for a pair that does not count: below every cosine
BLOCK = 2**22  # similarities at a time


class EmbeddingPredictor(nn.Module):
    """The embedding of a level: a 3x3 convolution; in FairMOT's variant a ReLU and a 1x1 convolution more."""

    def __init__(self, features: int, added: int, dimension: int, hidden: int) -> None:
        super().__init__()
        self.conv = predictor_conv(features, added, hidden or dimension, 3)
        self.project = predictor_conv(hidden, 0, dimension) if hidden else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, features + added, H, W) -> (B, dimension, H, W)."""
        y: Tensor = self.conv(x)
        return y if self.project is None else self.project(F.relu(y))


class EmbeddingHead(Head):
    """Per level: neck's map -> implicit knowledge -> `EmbeddingPredictor`; beside it the classifier.

    The classifier tells identities apart in training: one linear layer for all levels. Without identities
    there is none.
    """

    def __init__(
        self,
        branch: BranchConfig,
        trunk: TrunkShape,
        classes: int,
        identities: int,
        previous: Mapping[str, Site],
    ) -> None:
        super().__init__(branch, trunk, classes, identities, previous)
        self.level_names = trunk.level_names
        self.dimension = scaled_channels(branch.dimension or DIMENSIONS[branch.variant], trunk.width)
        hidden = scaled_channels(FAIRMOT_CHANNELS, trunk.width) if branch.variant == "fairmot" else 0
        configs = (branch.implicit,) if branch.implicit else ()
        self.implicit = ImplicitKnowledge(
            configs, trunk.level_names, trunk.neck, 1, self.dimension, branch.task, previous
        )
        self.predictors = nn.ModuleDict(
            {
                level: EmbeddingPredictor(channels, added, self.dimension, hidden)
                for level, channels, added in zip(
                    trunk.level_names, trunk.neck, self.implicit.added, strict=True
                )
            }
        )
        self.identities = identities
        self.classifier = predictor_linear(self.dimension, 0, identities) if identities else None

    def forward(self, maps: TrunkMaps) -> list[Tensor]:
        """Embeddings (B, dimension, H / stride, W / stride) per level, not normalised."""
        found = []
        for level in self.level_names:
            (x,) = self.implicit.before(maps.neck[level], level)
            found.append(self.predictors[level](x))
        return found

    def identity_logits(self, embeddings: Tensor) -> Tensor:
        """Embeddings (n, dimension) -> logits (n, identities).

        Embeddings are scaled to the length sqrt(2) ln(identities - 1) before the classifier, so that its
        softmax can become as sharp as that many identities need (arXiv 1909.12605's code).
        """
        assert self.classifier is not None
        scale = math.sqrt(2) * math.log(self.identities - 1)
        logits: Tensor = self.classifier(scale * F.normalize(embeddings, dim=1))
        return logits

    def fold(self, exact: ImplicitKnowledge) -> None:
        """Multiplication folds into the convolution. Addition and concatenation do not, and stay.

        The convolution pads with zeros behind the operator, so at the border no single bias is right. What
        stays is g(z) itself, as a vector: the form and its prior are evaluated a last time.
        """
        self.classifier, self.identities = None, 0
        if self.branch.implicit is None:
            return
        g: dict[str, Tensor] = {}
        for level in self.level_names:
            predictor = cast(EmbeddingPredictor, self.predictors[level])
            (site,) = exact.feature_sites(level)
            if not site.operator.affine(site.values()).keeps_zero:
                g[level] = site.values()
                continue
            assert predictor.conv.bias is not None
            weight, bias = predictor.conv.weight.double(), predictor.conv.bias.double()
            predictor.conv = rebuilt(predictor.conv, *site.fold(weight, bias))
        implicit = self.branch.implicit
        kept = ImplicitConfig(site=implicit.site, operator=implicit.operator) if g else None
        self.branch = self.branch.model_copy(update={"implicit": kept})
        convs = [cast(EmbeddingPredictor, self.predictors[level]).conv for level in self.level_names]
        features = [conv.in_channels - added for conv, added in zip(convs, self.implicit.added, strict=True)]
        with torch.device(convs[0].weight.device):
            self.implicit = ImplicitKnowledge(
                (kept,) if kept else (), self.level_names, features, 1, self.dimension, self.branch.task
            )
        for level, values in g.items():
            name = f"sites.{implicit.site}.{level}.forms.0.z"
            self.implicit.get_parameter(name).data = values.to(convs[0].weight)


class Cells(NamedTuple):
    """Labelled cells of a level, each once; (n,) columns."""

    image: Tensor
    row: Tensor
    column: Tensor
    identity: Tensor


@dataclass
class WantedIdentities:
    """Whose embedding each cell should be, for a share of a batch.

    cells: per level. counts: float (levels,), cells; of the whole batch after ranks have added theirs up.
    """

    cells: list[Cells]
    counts: Tensor

    def part(self, begin: int, end: int) -> WantedIdentities:
        """The same for the images [begin, end); counts stay those of the whole batch."""
        parts = []
        for cells in self.cells:
            chosen = (cells.image >= begin) & (cells.image < end)
            kept = Cells(*(column[chosen] for column in cells))
            parts.append(kept._replace(image=kept.image - begin))
        return replace(self, cells=parts)


class IdentityLoss:
    """Cross-entropy of `EmbeddingHead.identity_logits` at the cells that answer for a box with an identity.

    These are the cells of the detection assignment, whichever anchor matched; where boxes share a cell the
    largest identity index is used, as in JDE. Each level's mean over its cells, summed over the levels as in
    JDE, times 3 / levels as in the detection loss (ours). A batch without identities has the loss 0.

    Args:
        head: has the classifier.
        anchors: (levels, a, 2) width and height in pixels.
        strides: pixels per cell of each level.
        threshold: of the assignment.
    """

    def __init__(
        self, head: EmbeddingHead, anchors: Tensor, strides: Sequence[int], threshold: float
    ) -> None:
        self.head, self.strides, self.threshold = head, strides, threshold
        self.anchors = [level / stride for level, stride in zip(anchors.cpu(), strides, strict=True)]

    @classmethod
    def of(cls, model: TaskModel, config: TrainConfig) -> Self:
        head = cast(EmbeddingHead, model.branches["embedding"])
        return cls(head, model.anchors, model.strides, config.loss.anchor_threshold)

    def wanted(
        self, targets: Tensor, size: tuple[int, int], images: int, first: int = 0, total: int | None = None
    ) -> WantedIdentities:
        """Labelled cells for `images` images; see `TaskLoss.wanted`.

        Raises DataError for targets without the column of identities.
        """
        if targets.shape[1] <= IDENTITY:
            raise DataError(
                f"targets of {targets.shape[1]} columns have no identities; the embedding task needs column "
                f"{IDENTITY}, an index or -1"
            )
        grids = [(size[0] // stride, size[1] // stride) for stride in self.strides]
        levels = assign(targets, self.anchors, grids, self.threshold)
        identities = targets[:, IDENTITY].long()
        cells = [
            _labelled(level, identities[level.target], grid)
            for level, grid in zip(levels, grids, strict=True)
        ]
        return WantedIdentities(cells, targets.new_tensor([len(level.image) for level in cells]))

    def __call__(self, predictions: Sequence[Tensor], wanted: WantedIdentities) -> dict[str, Tensor]:
        """`loss/id` of embeddings [(B, dimension, rows, columns)] per level."""
        terms = []
        for maps, cells, count in zip(predictions, wanted.cells, wanted.counts, strict=True):
            # Taken even where there is none, so that every level keeps its gradient, of zeros.
            embeddings = maps.permute(0, 2, 3, 1)[cells.image, cells.row, cells.column]
            embeddings = embeddings.float() if embeddings.dtype.itemsize < 4 else embeddings
            logits = self.head.identity_logits(embeddings)
            losses = F.cross_entropy(logits, cells.identity, reduction="sum")
            terms.append(losses / count.clamp(min=1))
        return {"loss/id": torch.stack(terms).sum() * (3 / len(terms))}


def _labelled(positives: Positives, identity: Tensor, grid: tuple[int, int]) -> Cells:
    """The cells of positives with an identity (n,), each cell once with its largest."""
    rows, columns = grid
    known = identity >= 0
    identity = identity[known]
    place = (positives.image * rows + positives.row) * columns + positives.column
    cells, which = torch.unique(place[known], return_inverse=True)
    largest = torch.full_like(cells, -1).scatter_reduce_(0, which, identity, "amax")
    return Cells(
        image=cells // (rows * columns),
        row=cells // columns % rows,
        column=cells % columns,
        identity=largest,
    )


class BoxEmbeddings(NamedTuple):
    """Embeddings of boxes, in the order of the split: image by image, each image's as `ImageSet.boxes`."""

    position: NDArray[np.int64]  # (n,) of the image in its ImageSet
    identity: NDArray[np.int64]  # (n,) index in the split, -1 for none
    embedding: NDArray[np.float32]  # (n, D)


def cells(
    boxes: NDArray[np.floating],
    anchors: NDArray[np.floating],
    strides: Sequence[int],
    grids: Sequence[tuple[int, int]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Level, row and column of the cell whose embedding stands for a box, each (n,). Ours.

    The level is that of the anchor which fits the box best, by the measure of the assignment: the larger of
    the ratios of the widths and of the heights, each taken so that it is at least 1; of equal ones the finest
    level. The cell is the one that holds the box's centre.

    Args:
        boxes: (n, 4) x1, y1, x2, y2 in pixels of the network's input, with an area.
        anchors: (levels, a, 2) width and height in pixels.
        strides: pixels per cell of each level.
        grids: rows and columns of each level.
    """
    boxes = boxes.astype(np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    ratio = sides[:, None, None] / anchors.astype(np.float64)  # (n, levels, a, 2)
    level = np.maximum(ratio, 1 / ratio).max(3).min(2).argmin(1)
    stride = np.asarray(strides)[level]
    last = np.asarray(grids).reshape(-1, 2)[level] - 1
    column, row = ((boxes[:, axis] + boxes[:, axis + 2]) / 2 // stride for axis in (0, 1))
    inside = (side.astype(np.int64).clip(0, limit) for side, limit in zip((row, column), last.T, strict=True))
    return level, *inside


class EmbeddingCollector:
    """Takes, for every ground-truth box without crowds, the embedding of its cell."""

    def __init__(self, strides: Sequence[int], anchors: Tensor, images: ImageSet) -> None:
        self.strides, self.anchors, self.images = strides, anchors.cpu().double().numpy(), images
        self.parts: list[BoxEmbeddings] = []

    @classmethod
    def of(cls, model: TaskModel, images: ImageSet, config: EvaluationConfig) -> Self:
        return cls(model.strides, model.anchors, images)

    def add(self, batch: EvaluationBatch, predictions: Sequence[Tensor]) -> None:
        """Embeddings [(B, D, rows, columns)] of all cells of a batch, finest level first."""
        boxes = [self.images.boxes(index) for index in batch.indices]
        counts = [len(each) for each in boxes]
        image = np.repeat(np.arange(len(boxes)), counts)
        scale, pad = np.tile(batch.scales[image], 2), np.tile(batch.pads[image], 2)
        placed = np.concatenate(boxes) * scale + pad
        grids = [(level.shape[2], level.shape[3]) for level in predictions]
        level, row, column = cells(placed, self.anchors, self.strides, grids)
        embedding = np.empty((len(image), predictions[0].shape[1]), np.float32)
        for index, maps in enumerate(predictions):
            here = level == index
            where = (torch.from_numpy(values[here]).to(maps.device) for values in (image, row, column))
            at, y, x = where
            embedding[here] = maps[at, :, y, x].float().cpu().numpy()
        position = np.repeat(np.array(batch.indices, np.int64), counts)
        identity = np.concatenate([self.images.identities(index) for index in batch.indices])
        self.parts.append(BoxEmbeddings(position, identity, embedding))

    def found(self) -> BoxEmbeddings:
        return self.merge(self.parts)

    @staticmethod
    def merge(parts: Sequence[BoxEmbeddings]) -> BoxEmbeddings:
        """Embeddings of the boxes of disjoint sets of images together."""
        parts = [part for part in parts if len(part.position)]  # a rank without images knows no dimension
        if not parts:
            return BoxEmbeddings(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 0), np.float32))
        position, identity, embedding = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        order = position.argsort(kind="stable")
        return BoxEmbeddings(position[order], identity[order], embedding[order])

    @staticmethod
    def score(found: BoxEmbeddings, images: ImageSet) -> dict[str, Any]:
        image_ids = np.asarray(images.ids)[found.position]
        return {"embedding": score_embeddings(found.embedding, found.identity, image_ids)}


def score_embeddings(
    embeddings: NDArray[np.floating],
    identities: NDArray[np.integer],
    image_ids: NDArray[np.integer],
) -> dict[str, Any]:
    """Score embeddings of boxes by their cosine similarities. Ours: the sources define no protocol for COCO.

    Args:
        embeddings: float (M, D), of any length; a zero vector has the cosine 0 with everything.
        identities: integer (M,); boxes of identity -1 (unknown) are left out altogether.
        image_ids: integer (M,), the image of each box; boxes of one image are compared with each other too.

    Returns:
        {"recall@1", "mAP", "AUC", "queries", "boxes", "identities", "alone", "unknown"}.

        Every box is a query against all others. A box is `alone` when no other of its identity is among
        them: it is no query, but stays in the others' gallery. `recall@1` is the share of queries whose most
        similar box has their identity. `mAP` is the mean over queries of the average precision: the mean,
        over the boxes of the query's identity, of the share of that identity among all boxes at least as
        similar. `AUC` is the share of right orders among all (pair of one identity, pair of two identities):
        the area under the ROC curve of verification, over all pairs, none sampled.

        Equal similarities enter average precision together, share recall@1 by what part of them is right,
        and count half in the AUC; so where all embeddings are equal, every number is that of chance. A
        number that is not defined (no query; no pair of one of the two kinds) is None.

    Raises:
        InputError: for shapes that do not fit, and for embeddings that are not finite.
    """
    embeddings, identities = np.asarray(embeddings), np.asarray(identities)
    image_ids = np.asarray(image_ids)
    _check(embeddings, identities, image_ids)
    known = identities != -1
    unit, labels = _normalised(embeddings[known]), identities[known]

    precisions: list[float] = []
    hits: list[float] = []
    pairs = np.zeros((2, 2 * STEPS + 2), np.int64)  # different and same identity, by similarity
    for first, steps in _similarities(unit):
        same = labels[first : first + len(steps), None] == labels
        bins = steps - OUT
        together = np.bincount(bins[same], minlength=pairs.shape[1])
        pairs[1] += together
        pairs[0] += np.bincount(bins.ravel(), minlength=pairs.shape[1]) - together
        for row, mine in zip(steps, same, strict=True):
            right = row[mine]
            right = np.sort(right[right != OUT])
            if len(right):
                row.sort()
                precisions.append(_average_precision(row, right))
                hits.append(_first_is_right(row, right))
    return {
        "recall@1": _mean(hits),
        "mAP": _mean(precisions),
        "AUC": _area(pairs[:, 1:]),
        "queries": len(hits),
        "boxes": len(labels),
        "identities": len(np.unique(labels)),
        "alone": len(labels) - len(hits),
        "unknown": int((~known).sum()),
    }


def _check(embeddings: NDArray[Any], identities: NDArray[Any], image_ids: NDArray[Any]) -> None:
    if embeddings.ndim != 2 or not np.issubdtype(embeddings.dtype, np.floating):
        raise InputError(
            f"embeddings are {embeddings.dtype} {embeddings.shape}; float (boxes, dimension) is needed"
        )
    for name, values in (("identities", identities), ("image_ids", image_ids)):
        if values.shape != embeddings.shape[:1] or not np.issubdtype(values.dtype, np.integer):
            raise InputError(
                f"{name} are {values.dtype} {values.shape}; integer ({len(embeddings)},) is needed, one for "
                "each embedding"
            )
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        raise InputError(
            f"the embedding of box {bad[0]} (image {image_ids[bad[0]]}) is not finite, one of {len(bad)}; "
            "finite numbers are needed"
        )


def _normalised(embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of length 1, or 0. Scaled by the largest element first: squares of large ones overflow."""
    wide = embeddings.astype(np.float64)
    wide /= np.maximum(np.abs(wide).max(axis=1, keepdims=True, initial=0), np.finfo(np.float64).tiny)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return (wide / np.where(length > 0, length, 1)).astype(np.float32)


def _similarities(unit: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Blocks of rows: (index of the first row, cosines (rows, M) in steps). OUT for a box and itself."""
    rows = max(BLOCK // max(len(unit), 1), 1)
    for first in range(0, len(unit), rows):
        cosines = unit[first : first + rows] @ unit.T
        steps = np.rint(cosines.clip(-1, 1) * np.float32(STEPS)).astype(np.int32)
        index = np.arange(len(steps))
        steps[index, first + index] = OUT
        yield first, steps


def _average_precision(row: NDArray[np.int32], right: NDArray[np.int32]) -> float:
    """Of rising similarities to all boxes and, among them, to those of the query's identity."""
    of_all = len(row) - np.searchsorted(row, right)
    of_right = len(right) - np.searchsorted(right, right)
    return float((of_right / of_all).mean())


def _first_is_right(row: NDArray[np.int32], right: NDArray[np.int32]) -> float:
    """Share of the query's identity among the most similar boxes; more than one box only at a tie."""
    best = row[-1]
    return float((right == best).sum() / (len(row) - np.searchsorted(row, best)))


def _area(pairs: NDArray[np.int64]) -> float | None:
    """Share of right orders, ties half, of counts (different, same) x similarity. In Python's integers."""
    different, same = pairs
    totals = int(different.sum()), int(same.sum())
    if not all(totals):
        return None
    below = np.cumsum(different) - different
    present = np.flatnonzero(same)
    columns = (column[present].tolist() for column in (same, below, different))
    twice = sum(s * (2 * b + d) for s, b, d in zip(*columns, strict=True))
    return twice / (2 * totals[0] * totals[1])


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
