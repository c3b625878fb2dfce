"""Width and depth scaling, so that small runs use the same code as full-size ones."""

from __future__ import annotations

import math


def scaled_channels(channels: int, width: float) -> int:
    """ceil(channels x width / 8) x 8."""
    return math.ceil(channels * width / 8) * 8


def scaled_repeats(repeats: int, depth: float) -> int:
    """Blocks repeated more than once: max(round(repeats x depth), 1)."""
    return max(round(repeats * depth), 1) if repeats > 1 else repeats
