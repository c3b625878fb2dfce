"""Random change of hue, saturation and value."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from yolor_core.config import AugmentConfig

Pixels = NDArray[np.uint8]


def jitter(rng: np.random.Generator, image: Pixels, config: AugmentConfig) -> Pixels:
    """Multiply hue, saturation and value by gains uniform in 1 +- hsv_h, hsv_s, hsv_v. RGB in, RGB out."""
    limits = np.array([config.hsv_h, config.hsv_s, config.hsv_v])
    gains = 1 + limits * rng.uniform(-1, 1, size=3)
    if not limits.any():
        return image
    levels = np.arange(256) * gains[:, None]
    table = np.empty((1, 256, 3), np.uint8)
    table[0, :, 0] = levels[0] % 180  # OpenCV's hue runs from 0 to 179
    table[0, :, 1:] = np.clip(levels[1:], 0, 255).T
    changed = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table)
    return np.asarray(cv2.cvtColor(changed, cv2.COLOR_HSV2RGB), np.uint8)
