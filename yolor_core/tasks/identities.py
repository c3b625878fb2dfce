"""The identity loss of the embedding task: a softmax over the training identities at labelled cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Self, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from yolor_core.config import TrainConfig
from yolor_core.errors import DataError
from yolor_core.tasks.assignment import Positives, assign
from yolor_core.tasks.embedding import EmbeddingHead

if TYPE_CHECKING:
    from yolor_core.models.detector import Detector

IDENTITY = 6  # column of the targets


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
        self.anchors = [level / stride for level, stride in zip(anchors, strides, strict=True)]

    @classmethod
    def of(cls, model: Detector, config: TrainConfig) -> Self:
        """The loss for the predictions of a model."""
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
