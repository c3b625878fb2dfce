"""Training one run. `train` is loaded on first use, because it imports torch."""

from __future__ import annotations

from typing import Any

__all__ = ["train"]


def __getattr__(name: str) -> Any:
    if name == "train":
        from yolor_core.training.loop import train

        return train
    raise AttributeError(f"module 'yolor_core.training' has no attribute {name!r}")
