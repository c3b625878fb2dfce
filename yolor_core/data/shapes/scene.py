"""What the objects of a synthetic image look like, where they are, and what of each is visible."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from itertools import islice

import cv2
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


Mask = NDArray[np.uint8]

# Sides (roots of areas) are fractions of the image's long side. The limits of small and large are COCO's 32
# and 96 pixels of the 640 that detectors are tested at.
LIMITS = (0.05, 0.15)
# Many objects, because each is an example to learn from, and an image costs the same.
SIDES = {"large": (0.16, 0.34), "medium": (0.06, 0.135), "small": (0.035, 0.048)}
SHARES = (0.7, 0.25, 0.05)
OBJECTS = (5, 11)
RATIOS = (1.0, 1.0, 0.875, 0.75)  # short side over long side
MIN_SIDE = 0.022  # of the long side; a sliver that is left of an object is left out too
CLEARANCE = 0.75  # distance of two centres over the sum of radii below which another place is tried

CROWD_SCENES = 0.06
CROWD_AREA = 0.006  # of the long side's square; a smaller rest of a crowd is left out
FRAME_SHARE = 0.9  # no object is larger than this share of the image
MIN_VISIBLE = 0.25  # of the whole object; what is hidden more is left out of the image altogether
SPECK = 0.04  # of the visible pixels; smaller disconnected parts are not annotated
TILT = math.pi / 9  # most things stand upright, as most photographed things do
TRIES = 6
SUPERSAMPLING = 4


@dataclass(frozen=True)
class Thing:
    """One object: an identity placed in the image. Lengths in pixels, angle in radians."""

    identity: Identity
    x: float
    y: float
    radius: float
    stretch: float
    angle: float

    def contours(self) -> list[NDArray[np.float64]]:
        """Outlines in image coordinates, pixel (0, 0) covering [0, 1) x [0, 1)."""
        root = math.sqrt(self.stretch)
        c, s = math.cos(self.angle), math.sin(self.angle)
        turn = np.array([[c * root, s * root], [-s / root, c / root]]) * self.radius
        return [outline @ turn + (self.x, self.y) for outline in CLASSES[self.identity.class_index].outlines]

    @property
    def area(self) -> float:
        """Area in pixels of the whole object, hidden or not."""
        return CLASSES[self.identity.class_index].area * self.radius**2


@dataclass(frozen=True)
class Patch:
    """How much of each pixel an object covers (0..255), on the rectangle of the image that it touches."""

    x: int
    y: int
    coverage: Mask

    @property
    def window(self) -> tuple[slice, slice]:
        """Index of the rectangle in an image array."""
        height, width = self.coverage.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)


@dataclass(frozen=True)
class Visible:
    """An object or crowd and the pixels of it that are seen: a boolean mask on a rectangle at (x, y)."""

    things: tuple[Thing, ...]
    crowd: bool
    x: int
    y: int
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """One image before it is drawn: things from back to front, and what is annotated."""

    width: int
    height: int
    things: tuple[tuple[Thing, Patch], ...]
    visible: tuple[Visible, ...]


def draw_patch(thing: Thing, width: int, height: int) -> Patch | None:
    """Anti-aliased coverage of a thing inside the frame; None when it is wholly outside."""
    contours = thing.contours()
    low = np.maximum(np.floor(contours[0].min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(contours[0].max(axis=0)).astype(int), (width, height))
    if (high <= low).any():
        return None
    w, h = (int(v) for v in high - low)
    fine = np.zeros((h * SUPERSAMPLING, w * SUPERSAMPLING), np.uint8)
    # OpenCV's integer coordinates are pixel centres, hence the half; 4 fractional bits.
    points = [np.rint(((c - low) * SUPERSAMPLING - 0.5) * 16).astype(np.int32) for c in contours]
    cv2.fillPoly(fine, points, 255, lineType=cv2.LINE_8, shift=4)
    coverage = cv2.resize(fine, (w, h), interpolation=cv2.INTER_AREA)
    return Patch(int(low[0]), int(low[1]), np.asarray(coverage, np.uint8))


def lay_out(seed: int, size: int, split: str, index: int) -> Scene:
    """The scene of image `index` of a split; `size` is the long side in pixels."""
    rng = generator(Stream.LAYOUT, seed, SPLITS[split], index, size)
    people = identities(seed, split)
    short = round(size * float(rng.choice(RATIOS)))
    width, height = (size, short) if rng.random() < 0.6 else (short, size)
    count = int(rng.integers(*OBJECTS))
    kinds = [tuple(SIDES)[k] for k in sorted(rng.choice(len(SIDES), size=count, p=SHARES))]
    crowd = _crowd(rng, people, width, height) if rng.random() < CROWD_SCENES else ()
    things: list[Thing] = []
    for kind in kinds:  # the largest at the back
        things.append(_thing(rng, people, things, kind, width, height))
    return _resolve(width, height, crowd, things)


def _pick(rng: np.random.Generator, people: tuple[tuple[Identity, ...], ...]) -> Identity:
    members = people[int(rng.choice(len(CLASSES), p=FREQUENCIES))]
    return members[int(rng.integers(len(members)))]


def _radius(rng: np.random.Generator, identity: Identity, kind: str, width: int, height: int) -> float:
    area = (_log_uniform(rng, *SIDES[kind]) * max(width, height)) ** 2
    return min(math.sqrt(area / CLASSES[identity.class_index].area), FRAME_SHARE / 2 * min(width, height))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _thing(
    rng: np.random.Generator,
    people: tuple[tuple[Identity, ...], ...],
    placed: list[Thing],
    kind: str,
    width: int,
    height: int,
) -> Thing:
    identity = _pick(rng, people)
    radius = _radius(rng, identity, kind, width, height)
    stretch = float(rng.uniform(0.8, 1.25))
    angle = float(rng.uniform(-TILT, TILT))
    x = y = 0.0
    best = -1.0
    for _ in range(TRIES):  # the clearest of a few places; a full image leaves none without occlusion
        tx, ty = (_coordinate(rng, radius, extent) for extent in (width, height))
        clearance = min(
            (math.hypot(tx - o.x, ty - o.y) / (radius + o.radius) for o in placed), default=math.inf
        )
        if clearance > best:
            best, x, y = clearance, tx, ty
        if clearance > CLEARANCE:
            break
    return Thing(identity, x, y, radius, stretch, angle)


def _coordinate(rng: np.random.Generator, radius: float, extent: int) -> float:
    """A centre that leaves at most a fifth of the radius outside, or about the middle if nothing else
    fits."""
    margin = 0.8 * radius
    if 2 * margin >= extent:
        return extent / 2 + float(rng.uniform(-0.04, 0.04)) * extent
    return float(rng.uniform(margin, extent - margin))


def _crowd(
    rng: np.random.Generator,
    people: tuple[tuple[Identity, ...], ...],
    width: int,
    height: int,
) -> tuple[Thing, ...]:
    """A dense group of tiny things of one class: annotated as one region with iscrowd = 1."""
    members = people[int(rng.choice(len(CLASSES), p=FREQUENCIES))]
    spread = 0.16 * min(width, height)
    x0, y0 = rng.uniform(spread, width - spread), rng.uniform(spread, height - spread)
    unit = max(width, height) / 160
    group = []
    for _ in range(int(rng.integers(9, 16))):
        x, y = x0 + rng.uniform(-spread, spread), y0 + rng.uniform(-spread, spread)
        identity = members[int(rng.integers(len(members)))]
        group.append(Thing(identity, x, y, rng.uniform(4.0, 6.0) * unit, 1.0, rng.uniform(0, 2 * math.pi)))
    return tuple(group)


def _resolve(width: int, height: int, crowd: tuple[Thing, ...], things: list[Thing]) -> Scene:
    """Decide front to back what is seen. Later things lie in front; the crowd lies behind all."""
    min_side = MIN_SIDE * max(width, height)
    covered = np.zeros((height, width), bool)
    drawn: list[tuple[Thing, Patch]] = []
    visible: list[Visible] = []
    for thing in reversed(things):
        patch = draw_patch(thing, width, height)
        if patch is None:
            continue
        solid = patch.coverage >= 128
        seen = _without_specks(solid & ~covered[patch.window])
        box = _extent(seen)
        if seen.sum() < MIN_VISIBLE * thing.area or box is None or min(box[2:]) < min_side:
            continue
        covered[patch.window] |= solid
        drawn.append((thing, patch))
        visible.append(_cut((thing,), False, patch.x, patch.y, seen, box))
    if crowd:
        group = [(thing, patch) for thing in crowd if (patch := draw_patch(thing, width, height)) is not None]
        region = np.zeros((height, width), bool)
        for _, patch in group:
            region[patch.window] |= patch.coverage >= 128
        region &= ~covered
        box = _extent(region)
        if box is not None and region.sum() >= CROWD_AREA * max(width, height) ** 2:
            drawn.extend(group)
            visible.append(_cut(crowd, True, 0, 0, region, box))
    return Scene(width, height, tuple(reversed(drawn)), tuple(reversed(visible)))


def _without_specks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Drop the parts that hold less than SPECK of the visible pixels: nobody would stretch a box to them."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 2:  # background and one part
        return mask
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    return np.asarray((areas >= SPECK * areas.sum())[labels], bool)


def _extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """x, y, width, height of the True pixels."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1


def _cut(
    things: tuple[Thing, ...],
    crowd: bool,
    x: int,
    y: int,
    mask: NDArray[np.bool_],
    box: tuple[int, int, int, int],
) -> Visible:
    bx, by, w, h = box
    return Visible(things, crowd, x + bx, y + by, mask[by : by + h, bx : bx + w])
