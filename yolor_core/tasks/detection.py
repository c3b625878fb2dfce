"""Detection as one of several tasks: its terms by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from torch import Tensor

from yolor_core.config import TrainConfig
from yolor_core.tasks.detection_loss import DetectionLoss, Wanted

if TYPE_CHECKING:
    from yolor_core.models.detector import Detector


class DetectionTerms:
    """The detection loss, its terms as a dictionary."""

    def __init__(self, loss: DetectionLoss) -> None:
        self.loss = loss

    @classmethod
    def of(cls, model: Detector, config: TrainConfig) -> Self:
        """The loss for the predictions of a model."""
        return cls(DetectionLoss(model.anchors, model.strides, model.classes, config.loss))

    def wanted(
        self, targets: Tensor, size: tuple[int, int], images: int, first: int = 0, total: int | None = None
    ) -> Wanted:
        """See `DetectionLoss.wanted`."""
        return self.loss.wanted(targets, size, images, first, total)

    def __call__(self, predictions: Sequence[Tensor], wanted: Wanted) -> dict[str, Tensor]:
        """`loss/box`, `loss/obj` and `loss/cls` of raw predictions, see `DetectionLoss`."""
        terms = self.loss(predictions, wanted)
        return {"loss/box": terms.box, "loss/obj": terms.objectness, "loss/cls": terms.classification}
