"""What tasks exist. No torch here: configurations are validated against these names.

To add a task: write its head, its loss and its metric, and add one entry below.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """The parts of a task, each `module:name`, loaded when they are needed."""

    loss: str  # a `tasks.losses.TaskLoss`
    metric: str  # an `evaluation.inference.Collector`: gathers predictions and scores them
    head: str | None = None  # a `tasks.head.Head`; None for detection, whose heads are part of the detector


TASKS: dict[str, Task] = {
    "detection": Task(
        loss="yolor_core.tasks.detection:DetectionTerms",
        metric="yolor_core.evaluation.detect:DetectionCollector",
    ),
    "classification": Task(
        loss="yolor_core.tasks.classification:ClassificationLoss",
        metric="yolor_core.evaluation.classify:ClassificationCollector",
        head="yolor_core.tasks.classification:ClassificationHead",
    ),
    "embedding": Task(
        loss="yolor_core.tasks.identities:IdentityLoss",
        metric="yolor_core.evaluation.embed:EmbeddingCollector",
        head="yolor_core.tasks.embedding:EmbeddingHead",
    ),
}
