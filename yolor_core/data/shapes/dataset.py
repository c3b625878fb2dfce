"""The synthetic dataset: the pixels of an image, its COCO annotations, drawn on demand or written to disk."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from yolor_core.config import ShapesConfig
from yolor_core.data.annotations import clean
from yolor_core.data.images import ImageSet, Pixels, Reader, Split
from yolor_core.data.report import Note
from yolor_core.data.shapes.scene import (
    CLASSES,
    LIMITS,
    SPLITS,
    Patch,
    Scene,
    Stream,
    Thing,
    Visible,
    generator,
    lay_out,
)
from yolor_core.errors import DataError

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


def image_id(split: str, index: int) -> int:
    """Odd ids are train images, even ids val images, whatever the size of the dataset."""
    return 2 * index + SPLITS[split] + 1


def annotate(seed: int, size: int, split: str, images: int) -> dict[str, Any]:
    """The annotation content of a split, in the layout of COCO's instances files.

    Beside COCO's fields, each image has `labels` (category ids present) and each object an `identity`.
    """
    content: dict[str, Any] = {
        "info": {
            "description": "synthetic shapes",
            "version": "2",
            "seed": seed,
            "size": size,
            "split": split,
            "size_limits": [round(share * size, 3) for share in LIMITS],
        },
        "licenses": [],
        "categories": [{"id": c.category_id, "name": c.name, "supercategory": "shape"} for c in CLASSES],
        "images": [],
        "annotations": [],
    }
    for index in range(images):
        scene = lay_out(seed, size, split, index)
        identifier = image_id(split, index)
        objects = [_annotation(v, scene, identifier, k) for k, v in enumerate(scene.visible)]
        content["images"].append(
            {
                "id": identifier,
                "file_name": f"{identifier:012d}.png",
                "width": scene.width,
                "height": scene.height,
                "labels": sorted({o["category_id"] for o in objects}),
            }
        )
        content["annotations"].extend(objects)
    return content


def _annotation(visible: Visible, scene: Scene, identifier: int, number: int) -> dict[str, Any]:
    identity = visible.things[0].identity
    height, width = visible.mask.shape
    segmentation: Any = polygons(visible.mask, visible.x, visible.y)
    if visible.crowd:
        whole = np.zeros((scene.height, scene.width), bool)
        whole[visible.y : visible.y + height, visible.x : visible.x + width] = visible.mask
        segmentation = {"counts": run_lengths(whole), "size": [scene.height, scene.width]}
    return {
        "id": identifier * 100 + number,
        "image_id": identifier,
        "category_id": CLASSES[identity.class_index].category_id,
        "bbox": [visible.x, visible.y, width, height],
        "area": int(visible.mask.sum()),
        "iscrowd": int(visible.crowd),
        "identity": None if visible.crowd else identity.id,
        "segmentation": segmentation,
    }


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed run lengths: column by column, starting with the number of zeros."""
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    runs = np.diff(edges).tolist()
    return [0, *runs] if flat[0] else runs


def polygons(mask: NDArray[np.bool_], x: int, y: int) -> list[list[float]]:
    """Outlines of a mask at offset (x, y), one flat x, y, x, y ... list per part.

    A hole is joined to its outline by a slit of no width, since COCO's polygons know no holes. The mask is
    doubled first, so that the outline runs a quarter pixel inside its edge instead of half a pixel.
    """
    doubled = np.pad(mask, 1).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts: list[list[float]] = []
    for number, contour in enumerate(contours):
        if hierarchy[0][number][3] >= 0:
            continue  # a hole, joined to its parent below
        outline = _simplify(contour)
        child = int(hierarchy[0][number][2])
        while child >= 0:
            hole = _simplify(contours[child])
            if len(hole) >= 3:
                outline = _join(outline, hole)
            child = int(hierarchy[0][child][0])
        if len(outline) >= 3:
            points = (outline + 0.5) / 2 - 1 + (x, y)
            parts.append(points.reshape(-1).tolist())
    return parts


def _simplify(contour: Any) -> NDArray[np.float64]:
    return np.asarray(cv2.approxPolyDP(contour, 0.8, True), np.float64).reshape(-1, 2)


def _join(outline: NDArray[np.float64], hole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Walk the outline to the point nearest to the hole, around the hole, and back."""
    distance = ((outline[:, None] - hole[None]) ** 2).sum(axis=2)
    a, b = np.unravel_index(int(distance.argmin()), distance.shape)
    around = np.concatenate([hole[b:], hole[: b + 1]])
    return np.concatenate([outline[: a + 1], around, outline[a:]])


@lru_cache(maxsize=4)
def annotations_drawn(seed: int, size: int, split: str, images: int) -> bytes:
    """The bytes of a split's annotation file, the same drawn on demand and read from disk.

    Drawing takes seconds, so the last ones are kept.
    """
    content = annotate(seed, size, split, images)
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True)
class ShapesReader(Reader):
    """Draws images on demand."""

    seed: int
    size: int
    split: Split

    def __call__(self, index: int) -> tuple[Pixels, list[Note]]:
        return render(self.seed, self.size, self.split, index), []


def load_shapes(config: ShapesConfig, split: Split) -> ImageSet:
    """A split of the synthetic dataset, equal to what `write_dataset` writes."""
    images = config.train_images if split == "train" else config.val_images
    written = annotations_drawn(config.seed, config.size, split, images)
    annotations, report = clean(json.loads(written), f"shapes, seed {config.seed}, {split}")
    reader = ShapesReader(config.seed, config.size, split)
    return ImageSet(annotations, report, reader, partial(json.loads, written), sha256(written).hexdigest())


def write_dataset(config: ShapesConfig, folder: Path) -> None:
    """Write `train/`, `val/` (PNG, lossless) and `annotations/instances_{train,val}.json`.

    The annotation files are written last, so that an interrupted call leaves nothing that looks complete; a
    second call finishes it. Raises DataError when the folder holds another dataset.
    """
    from PIL import Image

    files = {}
    for split, images in (("train", config.train_images), ("val", config.val_images)):
        files[split] = annotations_drawn(config.seed, config.size, split, images)
        target = folder / "annotations" / f"instances_{split}.json"
        if target.exists() and target.read_bytes() != files[split]:
            raise DataError(f"{target} belongs to another dataset; choose an empty folder")
    for split, written in files.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        for index, record in enumerate(json.loads(written)["images"]):
            pixels = render(config.seed, config.size, split, index)
            target = folder / split / record["file_name"]
            begun = target.with_suffix(".partial")
            Image.fromarray(pixels).save(begun, format="PNG", compress_level=1)
            os.replace(begun, target)
    (folder / "annotations").mkdir(exist_ok=True)
    for split, written in files.items():
        target = folder / "annotations" / f"instances_{split}.json"
        begun = target.with_suffix(".partial")
        begun.write_bytes(written)
        os.replace(begun, target)
