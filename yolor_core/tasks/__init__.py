"""What tasks exist. No torch here: configurations are validated against these names.

To add a task: write its file, and add one entry below.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

COCO_NUMBERS = ("AP", "AP50", "AP75", "APS", "APM", "APL", "AR1", "AR10", "AR100", "ARS", "ARM", "ARL")


@dataclass(frozen=True)
class Task:
    """One task: its file, the classes in it, and the columns that its scores fill in tables."""

    module: str  # loaded when it is needed
    loss: str  # a `tasks.base.TaskLoss`
    collector: str  # a `tasks.base.Collector`
    head: str | None = None  # a `tasks.base.Head`; None for detection, whose heads are part of the detector
    # Column of a table -> the score's name in evaluation.json, below the name of the task; all are fractions.
    columns: Mapping[str, str] = field(default_factory=dict)
    held_out: bool = True  # whether images that were not trained on have the loss too

    def load(self, part: Literal["loss", "collector", "head"]) -> Any:
        """The class of a part."""
        return getattr(importlib.import_module(self.module), str(getattr(self, part)))


TASKS: dict[str, Task] = {
    "detection": Task(
        module="yolor_core.tasks.detection",
        loss="DetectionLoss",
        collector="DetectionCollector",
        columns={name: name for name in COCO_NUMBERS},
    ),
    "classification": Task(
        module="yolor_core.tasks.classification",
        loss="ClassificationLoss",
        collector="ClassificationCollector",
        head="ClassificationHead",
        columns={"cls mAP": "mAP", "cls F1 micro": "F1_micro", "cls F1 macro": "F1_macro"},
    ),
    "embedding": Task(
        module="yolor_core.tasks.embedding",
        loss="IdentityLoss",
        collector="EmbeddingCollector",
        head="EmbeddingHead",
        columns={"emb recall@1": "recall@1", "emb mAP": "mAP", "emb AUC": "AUC"},
        held_out=False,  # a softmax over the identities of the training images
    ),
}
