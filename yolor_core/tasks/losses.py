"""What training asks of the loss of a task.

A batch may be shared out over ranks and cut into parts. A loss first says what it wants of the share of a
rank; ranks add the counts up; then every part is given its share of each term, such that parts and ranks sum
up to the terms of the whole batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

from torch import Tensor

from yolor_core.config import TrainConfig
from yolor_core.implicit.loading import load_class
from yolor_core.tasks.registry import TASKS

if TYPE_CHECKING:
    from yolor_core.models.detector import Detector


class Wanted(Protocol):
    """What the predictions for a share of a batch should be."""

    counts: Tensor  # float, added up over the ranks in place

    def part(self, begin: int, end: int) -> Self:
        """The same for the images [begin, end) of the share; counts stay those of the whole batch."""
        ...


class TaskLoss(Protocol):
    """The loss of one task."""

    @classmethod
    def of(cls, model: Detector, config: TrainConfig) -> Self:
        """The loss for the predictions of a model."""
        ...

    def wanted(
        self, targets: Tensor, size: tuple[int, int], images: int, first: int = 0, total: int | None = None
    ) -> Any:
        """A `Wanted` for `images` images of `size` (height, width) pixels.

        targets: (n, 7) image index within these images, class, centre x, centre y, width, height (normalised
        to the image), identity or -1. first: position of the first image in the whole batch; total: images
        of the whole batch, by default these.
        """
        ...

    def __call__(self, predictions: Any, wanted: Any) -> dict[str, Tensor]:
        """Scalar terms by name, per image of the whole batch; their sum is the loss of the task."""
        ...


def build_losses(model: Detector, config: TrainConfig) -> dict[str, TaskLoss]:
    """The losses of a model's tasks, by task, in the order of `model.tasks`."""
    return {task: load_class(TASKS[task].loss).of(model, config) for task in model.tasks}
