"""Pixels of a synthetic image: textured background, distractors that are not objects, things, noise."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from yolor_core.data.shapes.appearance import SPLITS, Stream, generator
from yolor_core.data.shapes.scene import Patch, Thing, lay_out

Pixels = NDArray[np.uint8]

BACKGROUND_SATURATION = 0.3  # objects have at least 0.6
# Bounds of numbers, the upper one left out.
BLOBS = (1, 4)  # soft, desaturated spots
LINES = (0, 3)  # that are no objects
NOISE = (2, 6)  # amplitude, grey levels


def render(seed: int, size: int, split: str, index: int) -> Pixels:
    """Image `index` of a split, uint8 RGB (height, width, 3)."""
    scene = lay_out(seed, size, split, index)
    rng = generator(Stream.PIXELS, seed, SPLITS[split], index, size)
    image = _background(rng, scene.width, scene.height)
    for thing, patch in scene.things:
        _paint(image, thing, patch)
    amplitude = int(rng.integers(*NOISE))
    noise = rng.integers(-amplitude, amplitude + 1, image.shape, dtype=np.int16)
    return np.clip(image.astype(np.int16) + noise, 0, 255).astype(np.uint8)


def _dull(rng: np.random.Generator) -> NDArray[np.float32]:
    """A colour of low saturation, RGB 0..255."""
    value = rng.uniform(40, 225)
    return (value * (1 - BACKGROUND_SATURATION * rng.random(3))).astype(np.float32)


def _background(rng: np.random.Generator, width: int, height: int) -> Pixels:
    first, second = _dull(rng), _dull(rng)
    angle = rng.uniform(0, 2 * np.pi)
    across = np.cos(angle) * np.linspace(-0.7, 0.7, width, dtype=np.float32)
    down = np.sin(angle) * np.linspace(-0.7, 0.7, height, dtype=np.float32)
    blend = np.clip(across[None] + down[:, None] + 0.5, 0, 1)[..., None].astype(np.float32)
    image = first * (1 - blend) + second * blend
    # Clutter is drawn on a coarse canvas and enlarged, which makes its edges soft.
    coarse_width, coarse_height = max(width // 8, 2), max(height // 8, 2)
    coarse = (rng.random((coarse_height, coarse_width, 3), dtype=np.float32) - 0.5) * 44
    for _ in range(int(rng.integers(*BLOBS))):
        centre = (int(rng.integers(coarse_width)), int(rng.integers(coarse_height)))
        axes = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
        tint = rng.uniform(-60, 60) + rng.uniform(-12, 12, 3)
        cv2.ellipse(coarse, centre, axes, float(rng.uniform(0, 180)), 0, 360, tint.tolist(), -1)
    image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    canvas = np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8))
    for _ in range(int(rng.integers(*LINES))):
        ends = [(int(rng.integers(width)), int(rng.integers(height))) for _ in range(2)]
        colour = _dull(rng).tolist()
        cv2.line(canvas, ends[0], ends[1], colour, int(rng.integers(1, 3)), cv2.LINE_AA)
    return canvas


def _paint(image: Pixels, thing: Thing, patch: Patch) -> None:
    main, second = thing.identity.colours
    amount = _texture(thing, patch)[..., None]
    colour = main * (1 - amount) + second * amount
    alpha = (patch.coverage.astype(np.float32) / 255)[..., None]
    window = image[patch.window]
    window[:] = np.rint(window * (1 - alpha) + colour * alpha).astype(np.uint8)


def _texture(thing: Thing, patch: Patch) -> NDArray[np.float32]:
    """Share of the second colour per pixel of the patch, in the object's own turned coordinates."""
    height, width = patch.coverage.shape
    kind = thing.identity.texture
    if kind == "plain":
        return np.zeros((height, width), np.float32)
    x = (np.arange(width, dtype=np.float32) + patch.x + 0.5 - thing.x)[None]
    y = (np.arange(height, dtype=np.float32) + patch.y + 0.5 - thing.y)[:, None]
    c, s = np.float32(np.cos(thing.angle)), np.float32(np.sin(thing.angle))
    u, v = (c * x + s * y) / thing.radius, (c * y - s * x) / thing.radius
    if kind == "stripes":
        pattern = np.sin(u * 9) > 0
    elif kind == "checks":
        pattern = (np.sin(u * 7) > 0) ^ (np.sin(v * 7) > 0)
    elif kind == "dots":
        pattern = np.cos(u * 9) + np.cos(v * 9) > 1.0
    elif kind == "gradient":
        return np.clip(0.5 + 0.5 * u, 0, 1).astype(np.float32)
    else:  # speckle: a fixed hash of the object's coordinates, so that an identity keeps its pattern
        pattern = np.sin(np.floor(u * 8) * 12.9898 + np.floor(v * 8) * 78.233) > 0.35
    return pattern.astype(np.float32)
