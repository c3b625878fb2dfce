"""How a shape looks: its class, colours and outline; the streams of random numbers it is drawn from."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

SPLITS = {"train": 0, "val": 1}


class Stream(IntEnum):
    """What a generator is for. The numbers are part of the dataset: changing one changes its images."""

    IDENTITIES = 1
    LAYOUT = 2
    PIXELS = 3


def generator(stream: Stream, seed: int, *key: int) -> np.random.Generator:
    """Generator keyed by (stream, seed, key); negative seeds are allowed."""
    return np.random.default_rng([0x5A9E5, int(stream), seed % 2**64, *key])


Outline = NDArray[np.float64]


# Each class has hues of its own, so that a few thousand updates are enough to learn it.
HUES = 20  # shared out over the classes
TONES = ((0.95, 0.95), (0.60, 1.0), (0.90, 0.62))  # saturation, value: backgrounds stay below both
TEXTURES = ("plain", "stripes", "checks", "dots", "gradient", "speckle")
IDENTITIES = {"train": 160, "val": 60}  # shared out over the classes by their frequency


def _regular(corners: int, radius: float = 1.0, start: float = -math.pi / 2) -> Outline:
    angles = start + np.arange(corners) * (2 * math.pi / corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius


def _star(points: int = 5, inner: float = 0.45) -> Outline:
    outline = _regular(2 * points)
    outline[1::2] *= inner
    return outline


@dataclass(frozen=True)
class ShapeClass:
    """A class: its outline in the unit circle (even-odd filled), its COCO-like id and how often it occurs."""

    name: str
    category_id: int
    frequency: float
    outlines: tuple[Outline, ...]

    @property
    def area(self) -> float:
        """Area of the unit shape; the parts of one shape are nested, so the inner ones count negative."""
        parts = [abs(_signed_area(outline)) for outline in self.outlines]
        return parts[0] - sum(parts[1:])


def _signed_area(outline: Outline) -> float:
    x, y = outline[:, 0], outline[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


# Category ids have gaps, as COCO's 1..90 have, so that the mapping to contiguous classes is always exercised.
CLASSES = (
    ShapeClass("disc", 2, 0.32, (_regular(48),)),
    ShapeClass("square", 3, 0.25, (_regular(4),)),
    ShapeClass("triangle", 5, 0.19, (_regular(3),)),
    ShapeClass("star", 9, 0.14, (_star(),)),
    ShapeClass("ring", 14, 0.10, (_regular(48), _regular(48, 0.55))),
)
FREQUENCIES = np.array([c.frequency for c in CLASSES])


@dataclass(frozen=True)
class Identity:
    """One individual: a class with a colour and a texture that recur wherever it is seen."""

    id: int
    class_index: int
    hue: float  # of a full turn
    tone: int
    texture: str

    @property
    def colours(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Main and second colour, RGB 0..255; the second is a darker shade of the first."""
        saturation, value = TONES[self.tone]
        main = np.array(colorsys.hsv_to_rgb(self.hue, saturation, value), np.float32) * 255
        return main, main * np.float32(0.5)


@cache
def identities(seed: int, split: str) -> tuple[tuple[Identity, ...], ...]:
    """The individuals of a split, one tuple per class.

    The appearances of a class are shuffled once per seed and dealt to the splits without repeats, so train
    and val identities differ in id and in looks.
    """
    quotas = {name: np.maximum(np.rint(FREQUENCIES * n).astype(int), 1) for name, n in IDENTITIES.items()}
    dealt: list[tuple[Identity, ...]] = []
    next_id = 1
    for class_index in range(len(CLASSES)):
        looks = [(h, t, x) for h in range(HUES) for t in range(len(TONES)) for x in TEXTURES]
        shuffled = [looks[i] for i in generator(Stream.IDENTITIES, seed, class_index).permutation(len(looks))]
        own = iter([look for look in shuffled if look[0] // (HUES // len(CLASSES)) == class_index])
        for name in IDENTITIES:
            people = [
                Identity(next_id + k, class_index, hue / HUES, tone, texture)
                for k, (hue, tone, texture) in enumerate(islice(own, int(quotas[name][class_index])))
            ]
            next_id += len(people)
            if name == split:
                dealt.append(tuple(people))
    return tuple(dealt)
