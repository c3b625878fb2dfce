"""Images and boxes: the synthetic shapes, COCO folders, augmentation, and batches for training and
evaluation.

Names are imported when first used, so that what needs neither torch nor OpenCV does not wait for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolor_core.data.batches import Batch as Batch
    from yolor_core.data.batches import EvaluationBatch as EvaluationBatch
    from yolor_core.data.batches import EvaluationBatches as EvaluationBatches
    from yolor_core.data.batches import TrainingBatches as TrainingBatches
    from yolor_core.data.check import check_dataset as check_dataset
    from yolor_core.data.fingerprint import data_fingerprint as data_fingerprint
    from yolor_core.data.images import ImageSet as ImageSet
    from yolor_core.data.load import load_images as load_images
    from yolor_core.data.report import DataReport as DataReport
    from yolor_core.data.shapes.dataset import write_dataset as write_dataset

_HOME = {
    "Batch": "batches",
    "DataReport": "report",
    "EvaluationBatch": "batches",
    "EvaluationBatches": "batches",
    "ImageSet": "images",
    "TrainingBatches": "batches",
    "check_dataset": "check",
    "data_fingerprint": "fingerprint",
    "load_images": "load",
    "write_dataset": "shapes.dataset",
}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
