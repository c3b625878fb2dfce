"""Random change of hue, saturation and value."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from yolor_core.config import AugmentConfig

Pixels = NDArray[np.uint8]
STRIP = 128  # rows


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
    columns = [np.ascontiguousarray(table[..., channel]) for channel in range(3)]
    height, width = image.shape[:2]
    # In strips, whose buffers stay in the processor's cache from one step to the next.
    strip = np.empty((min(STRIP, height), width, 3), np.uint8)
    planes = np.empty((3, *strip.shape[:2]), np.uint8)
    changed = np.empty_like(image)
    for y in range(0, height, STRIP):
        rows = image[y : y + STRIP]
        hsv, channels = strip[: len(rows)], [plane[: len(rows)] for plane in planes]
        cv2.cvtColor(rows, cv2.COLOR_RGB2HSV, dst=hsv)
        cv2.split(hsv, channels)
        for channel, column in zip(channels, columns, strict=True):
            cv2.LUT(channel, column, dst=channel)
        cv2.merge(channels, dst=hsv)
        cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=changed[y : y + STRIP])
    return changed
