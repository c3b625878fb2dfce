"""How one run works: model, data, training and evaluation of detectors with implicit knowledge.

Importing the package imports no torch; the names below are loaded when first used.
"""

from __future__ import annotations

from typing import Any

__all__ = ["create_model", "list_models", "train"]


def __getattr__(name: str) -> Any:
    if name in ("create_model", "list_models"):
        from yolor_core import models

        return getattr(models, name)
    if name == "train":
        from yolor_core.training import train

        return train
    raise AttributeError(f"module 'yolor_core' has no attribute {name!r}")
