"""Geometry of the augmentation, compared with regions painted into the images."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest

from yolor_core.config import AugmentConfig
from yolor_core.data.augment import (
    Labelled,
    compose,
    flip,
    jitter,
    layout4,
    layout9,
    map_boxes,
    map_image,
    mix,
    random_map,
    training_sample,
    worth_keeping,
)
from yolor_core.data.images import letterbox, resize

STILL = AugmentConfig(mosaic=0, scale=0, hsv_h=0, hsv_s=0, hsv_v=0, flip_horizontal=0)
IDENTITY = 1000  # more than the class of a painted box


def painted(level: int, width: int, height: int, box: Sequence[int]) -> Labelled:
    """A black image whose only box is filled with a grey level that tells it from other images."""
    pixels = np.zeros((height, width, 3), np.uint8)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = level
    one = np.array([level], np.int64)
    return Labelled(pixels, np.array([box], np.float32), one, one + IDENTITY)


def nothing(level: int) -> Labelled:
    """A grey image without boxes."""
    none = np.zeros(0, np.int64)
    return Labelled(np.full((64, 64, 3), level, np.uint8), np.zeros((0, 4), np.float32), none, none)


def extent(pixels: np.ndarray, level: int, tolerance: int = 0) -> list[int] | None:
    """x1 y1 x2 y2 of the pixels of a grey level, found without knowing any box."""
    found = np.abs(pixels[..., 0].astype(int) - level) <= tolerance
    columns, rows = np.flatnonzero(found.any(axis=0)), np.flatnonzero(found.any(axis=1))
    if not len(columns):
        return None
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def _parts(count: int, seed: int) -> list[Labelled]:
    rng = np.random.default_rng(seed)
    parts = []
    for k in range(count):
        width, height = (
            (64, int(rng.integers(20, 65))) if rng.random() < 0.5 else (int(rng.integers(20, 65)), 64)
        )
        x1, y1 = int(rng.integers(0, width - 4)), int(rng.integers(0, height - 4))
        x2, y2 = int(rng.integers(x1 + 2, width + 1)), int(rng.integers(y1 + 2, height + 1))
        parts.append(painted(130 + 10 * k, width, height, (x1, y1, x2, y2)))
    return parts


def mosaic(rng: np.random.Generator, parts: list[Labelled], size: int = 64) -> Labelled:
    """A whole mosaic of four or nine images, 2 size x 2 size."""
    image = compose((layout4 if len(parts) == 4 else layout9)(rng, parts, size), parts)
    return replace(image, pixels=np.ascontiguousarray(image.pixels[..., :3]))


@pytest.mark.parametrize("count", [4, 9])
def test_mosaic_boxes_are_where_the_painted_regions_are(count: int) -> None:
    lost = 0
    for seed in range(40):
        parts = _parts(count, seed)
        image = mosaic(np.random.default_rng(seed), parts)
        assert image.pixels.shape == (128, 128, 3)
        boxes = {int(c): b for c, b in zip(image.classes, image.boxes, strict=True)}
        np.testing.assert_array_equal(image.identities, image.classes + IDENTITY)
        for part in parts:
            level = int(part.classes[0])
            found = extent(image.pixels, level)
            if found is None:
                assert level not in boxes
                lost += 1
            else:
                assert boxes[level].tolist() == found
    assert lost < 40 * count / 3


def test_mosaic_leaves_grey_where_no_image_is_and_varies_its_centre() -> None:
    parts = [painted(200, 64, 20, (0, 0, 1, 1)) for _ in range(4)]
    corners = set()
    for seed in range(30):
        image = mosaic(np.random.default_rng(seed), parts)
        dark = image.pixels[..., 0] != 114
        assert 0 < dark.mean() < 0.4
        rows = np.flatnonzero(dark.any(axis=1))
        corners.add(int(rows[0]) + 20)
    assert min(corners) >= 32
    assert max(corners) <= 96
    assert max(corners) - min(corners) > 40


@pytest.mark.parametrize("config", [
    AugmentConfig(scale=0.5, translate=0.1),
    AugmentConfig(scale=0.3, translate=0.3, degrees=30, shear=10),
    AugmentConfig(scale=0.2, translate=0.1, perspective=0.001),
], ids=["scale", "turn and shear", "perspective"])  # fmt: skip
def test_mapped_boxes_enclose_the_mapped_regions(config: AugmentConfig) -> None:
    size, rng = 256, np.random.default_rng(1)
    seen = 0
    for _ in range(40):
        x1, y1 = rng.integers(0, 380, 2)
        w, h = rng.integers(20, 130, 2)
        image = painted(255, 512, 512, (x1, y1, min(x1 + w, 512), min(y1 + h, 512)))
        matrix, scale = random_map(rng, config, 512, 512, size)
        boxes, keep = map_boxes(image.boxes, matrix, scale, size)
        found = extent(map_image(image.pixels, matrix, size), 255, tolerance=1)
        if found is None:
            continue
        seen += 1
        # Grey borders of interpolation aside, the region touches all four sides of its box unless a side
        # shows no corner, which needs a cut by the frame.
        inner = boxes[0].round()
        assert (np.array(found[:2]) >= inner[:2] - 1).all()
        assert (np.array(found[2:]) <= inner[2:] + 1).all()
        if (boxes[0] > 0).all() and (boxes[0] < size).all():
            assert np.abs(np.array(found) - boxes[0]).max() < 3
            assert bool(keep[0])
    assert seen > 20


def test_a_box_that_a_tilt_spreads_over_the_horizon_is_dropped() -> None:
    """Its corners lie on both sides of the picture, and a box around them would be the whole picture."""
    matrix = np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])  # the horizon is x = 100
    boxes = np.array([[20, 16, 60, 40], [60, 16, 140, 40]], np.float32)
    mapped, keep = map_boxes(boxes, matrix, 1.0, 200)
    np.testing.assert_allclose(mapped[0], [25, 20, 150, 100])
    assert keep.tolist() == [True, False]
    config, size = AugmentConfig(perspective=0.001), 1280  # the most that is allowed
    for seed in range(200):
        rng = np.random.default_rng(seed)
        matrix, scale = random_map(rng, config, 2 * size, 2 * size, size)
        low = rng.uniform(0, 2 * size - 80, (20, 2))
        boxes = np.concatenate([low, low + 80], axis=1).astype(np.float32)
        mapped, keep = map_boxes(boxes, matrix, scale, size)
        sides = mapped[keep, 2:] - mapped[keep, :2]
        assert not (sides == size).all(axis=1).any()


def test_the_map_centres_and_scales_the_canvas_as_specified() -> None:
    config = AugmentConfig(scale=0.5, translate=0.25)
    rng = np.random.default_rng(0)
    centres, scales = [], []
    for _ in range(2000):
        matrix, scale = random_map(rng, config, 320, 320, 160)
        centres.append((matrix @ (160, 160, 1))[:2])
        scales.append(scale)
        assert np.linalg.det(matrix[:2, :2]) == pytest.approx(scale**2)
    for values, low, high in ((np.array(centres), 0.25 * 160, 0.75 * 160), (np.array(scales), 0.5, 1.5)):
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, rel=0.03)


def test_an_integer_shift_moves_pixels_exactly() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    matrix = np.array([[1.0, 0, 3], [0, 1, -5], [0, 0, 1]])
    moved = map_image(image, matrix, 40)
    np.testing.assert_array_equal(moved[:35, 3:], image[5:, :37])
    assert (moved[35:] == 114).all()
    assert (moved[:, :3] == 114).all()


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.25, 1.5, 1.8])
def test_a_map_keeps_boxes_on_their_pixels_which_opencv_shifts_by_half_of_the_scale_less_one(
    scale: float,
) -> None:
    """OpenCV's coordinates count pixel centres from 0; those of boxes count edges."""
    x, y = np.arange(400) + 0.5, np.arange(400)[:, None] + 0.5
    blob = np.exp(((x - 190) ** 2 + (y - 210) ** 2) / (-2 * 9**2))  # its centre is that of the box
    image = np.repeat((250 * blob).round().astype(np.uint8)[..., None], 3, axis=2)
    matrix = np.array([[scale, 0, 64 - 190 * scale], [0, scale, 64 - 210 * scale], [0, 0, 1]])
    ((x1, y1, x2, y2),), _ = map_boxes(np.array([[170, 195, 210, 225]], np.float32), matrix, scale, 128)
    for pixels, shift in (
        (map_image(image, matrix, 128), 0.0),
        (cv2.warpAffine(image, matrix[:2], (128, 128)), (1 - scale) / 2),
    ):
        weights = pixels[..., 0] / pixels[..., 0].sum(dtype=float)
        centre = np.array([weights.sum(axis=k) @ (np.arange(128) + 0.5) for k in (0, 1)])
        np.testing.assert_allclose(centre - [(x1 + x2) / 2, (y1 + y2) / 2], shift, atol=0.02)


def test_boxes_that_are_too_small_thin_or_cut_are_dropped() -> None:
    before = np.array([[0, 0, 10, 10]] * 6, np.float32)
    after = np.array(
        [[0, 0, 10, 10], [0, 0, 2, 10], [0, 0, 2.1, 10], [0, 0, 3, 3.3], [0, 0, 3.2, 3.2], [0, 0, 3, 61]],
        np.float32,
    )
    assert worth_keeping(before, after).tolist() == [True, False, True, False, True, False]


def test_hsv_gains_scale_saturation_and_value_and_turn_the_hue() -> None:
    colour = np.full((4, 4, 3), (180, 90, 60), np.uint8)
    before = colorsys.rgb_to_hsv(*(colour[0, 0] / 255))
    ranges = np.array([[np.inf] * 3, [-np.inf] * 3])
    config = AugmentConfig(hsv_h=0.2, hsv_s=0.3, hsv_v=0.25)
    for seed in range(300):
        pixels = jitter(np.random.default_rng(seed), colour, config)
        gains = np.array(colorsys.rgb_to_hsv(*(pixels[0, 0] / 255))) / before
        ranges = np.array([np.minimum(ranges[0], gains), np.maximum(ranges[1], gains)])
    np.testing.assert_allclose(ranges[0], [0.8, 0.7, 0.75], atol=0.1)  # OpenCV's hue has steps of two degrees
    np.testing.assert_allclose(ranges[1], [1.2, 1.3, 1.25], atol=0.1)
    unchanged = jitter(np.random.default_rng(0), colour, STILL)
    np.testing.assert_array_equal(unchanged, colour)


@pytest.mark.parametrize("horizontal", [False, True])
@pytest.mark.parametrize("vertical", [False, True])
def test_flipped_boxes_follow_the_pixels(horizontal: bool, vertical: bool) -> None:
    image = flip(painted(200, 64, 64, (3, 10, 20, 50)), horizontal, vertical)
    assert image.boxes[0].tolist() == extent(image.pixels, 200)


def test_mixing_blends_pixels_and_keeps_all_labels() -> None:
    first, second = painted(200, 64, 64, (0, 0, 10, 10)), painted(100, 64, 64, (20, 20, 30, 30))
    mixed = mix(first, second, 0.75)
    assert mixed.pixels[5, 5, 0] == 150
    assert mixed.pixels[25, 25, 0] == 25
    assert mixed.boxes.tolist() == [[0, 0, 10, 10], [20, 20, 30, 30]]
    assert mixed.classes.tolist() == [200, 100]
    assert mixed.identities.tolist() == [200 + IDENTITY, 100 + IDENTITY]


def test_mixup_shares_follow_beta_8_8() -> None:
    """Recovered from white images mixed with black ones, whose blend is the share itself."""
    white = nothing(255)
    black = nothing(0)
    config = STILL.model_copy(update={"mosaic": 1.0, "mixup": 1.0, "translate": 0.0})
    shares = []
    for seed in range(400):
        calls = iter([white] * 4 + [black] * 4)
        image = training_sample(
            np.random.default_rng(seed), lambda i, c=calls: next(c), 0, np.arange(2), config, 64
        )
        shares.append(image.pixels[32, 32, 0] / 255)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.025)
    assert np.std(shares) == pytest.approx((1 / 68) ** 0.5, rel=0.15)  # variance of Beta(8, 8): 1 / (4 * 17)


def test_without_augmentation_an_image_is_only_letterboxed() -> None:
    source = painted(200, 64, 40, (10, 5, 30, 25))
    image = training_sample(np.random.default_rng(0), lambda i: source, 0, np.arange(1), STILL, 64)
    expected, left, top = letterbox(source.pixels, 64, 64)
    np.testing.assert_array_equal(image.pixels, expected)
    assert (left, top) == (0, 12)
    assert image.boxes.tolist() == [[10, 17, 30, 37]]


@pytest.mark.parametrize(("images", "probability"), [(4, 1.0), (9, 1.0), (4, 0.0)])
def test_the_images_of_a_mosaic_are_drawn_uniformly_from_the_pool(images: int, probability: float) -> None:
    pool = np.array([2, 3, 5, 7, 11])
    counts = dict.fromkeys(pool.tolist(), 0)
    source = painted(200, 32, 32, (0, 0, 20, 20))
    config = STILL.model_copy(update={"mosaic": probability, "mosaic_images": images})
    for seed in range(300):
        asked: list[int] = []
        training_sample(
            np.random.default_rng(seed), lambda i, a=asked: a.append(i) or source, 3, pool, config, 32
        )
        assert asked[0] == 3
        assert len(asked) == (images if probability else 1)
        for index in asked[1:]:
            counts[index] += 1
    total = sum(counts.values())
    if probability:
        expected, spread = total / 5, (total * 0.2 * 0.8) ** 0.5
        assert all(abs(c - expected) < 4 * spread for c in counts.values())


class Watched:
    """A part that tells whether it was asked for."""

    def __init__(self, image: Labelled) -> None:
        self.image, self.asked = image, False
        self.width, self.height = image.width, image.height

    def load(self) -> Labelled:
        self.asked = True
        return self.image


@pytest.mark.parametrize("config", [
    AugmentConfig(scale=0.5, translate=0.0),
    AugmentConfig(scale=0.8, translate=0.5),
    AugmentConfig(scale=0.5, translate=0.3, degrees=30, shear=10),
    AugmentConfig(scale=0.5, translate=0.3, perspective=0.001),
], ids=["scale", "shift", "turn and shear", "perspective"])  # fmt: skip
@pytest.mark.parametrize("count", [4, 9])
def test_what_cannot_be_seen_is_not_loaded_and_changes_nothing(config: AugmentConfig, count: int) -> None:
    """Against mapping the whole canvas with all its boxes."""
    size = 64
    still = {"hsv_h": 0, "hsv_s": 0, "hsv_v": 0, "flip_horizontal": 0}
    config = config.model_copy(update={"mosaic_images": count, **still})
    left_out = 0
    for seed in range(60):
        rng = np.random.default_rng(1000 + seed)
        parts = _parts(count, seed)
        for part in parts:
            part.pixels[:] = rng.integers(0, 256, part.pixels.shape)
        watched = [Watched(part) for part in parts]
        found = _sample(seed, watched, config, size)
        rng = np.random.default_rng(seed)
        rng.random()
        rng.choice(np.arange(1), size=count - 1)
        canvas = mosaic(rng, parts, size)
        matrix, scale = random_map(rng, config, 2 * size, 2 * size, size)
        boxes, keep = map_boxes(canvas.boxes, matrix, scale, size)
        np.testing.assert_array_equal(found.pixels, map_image(canvas.pixels, matrix, size))
        np.testing.assert_array_equal(found.boxes, boxes[keep])
        np.testing.assert_array_equal(found.classes, canvas.classes[keep])
        np.testing.assert_array_equal(found.identities, canvas.identities[keep])
        left_out += sum(not w.asked for w in watched)
    if not (config.degrees or config.perspective):
        assert left_out > 5


def _sample(seed: int, parts: Sequence[Watched], config: AugmentConfig, size: int) -> Labelled:
    calls = iter(parts)
    return training_sample(np.random.default_rng(seed), lambda i: next(calls), 0, np.arange(1), config, size)


def test_augmentation_does_not_write_into_its_sources() -> None:
    parts = _parts(4, 0)
    copies = [p.pixels.copy() for p in parts]
    for mosaic in (0.0, 1.0):
        config = AugmentConfig(mosaic=mosaic, mixup=1, flip_vertical=0.5)
        for seed in range(5):
            training_sample(np.random.default_rng(seed), lambda i: parts[i], 0, np.arange(4), config, 64)
    for part, copy in zip(parts, copies, strict=True):
        np.testing.assert_array_equal(part.pixels, copy)


def test_boxes_follow_regions_through_the_whole_augmentation() -> None:
    config = AugmentConfig(mosaic=1, scale=0.5, translate=0.1, hsv_h=0, hsv_s=0, hsv_v=0, flip_vertical=0.5)
    black = nothing(0)
    compared = 0
    for seed in range(100):
        x, y, w, h = np.random.default_rng(seed).integers(4, 32, 4)
        marked = painted(255, 64, 64, (x, y, x + w, y + h))
        parts = iter([marked, black, black, black])
        rng = np.random.default_rng(seed)
        image = training_sample(rng, lambda i, parts=parts: next(parts), 0, np.arange(4), config, 64)
        found = extent(image.pixels, 255, tolerance=127)  # at least half covered, brighter than the grey
        if len(image.boxes):
            compared += 1
            assert found is not None
            assert np.abs(np.array(found) - image.boxes[0]).max() <= 1
        elif found is not None:  # dropped as too small, too thin or too cut
            sides = sorted((found[2] - found[0], found[3] - found[1]))
            assert sides[0] <= 3 or sides[1] / sides[0] > 15 or sides[0] * sides[1] < 0.2 * 1.5**2 * w * h
    assert compared > 25  # the output shows about a quarter of the canvas


def test_resizing_makes_the_long_side_the_size_and_shrinks_tests_by_area() -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    assert resize(image, 60, "test").shape == (45, 60, 3)
    assert resize(image, 240, "train").shape == (180, 240, 3)
    assert resize(image, 120, "train") is image
    mean = image.reshape(45, 2, 60, 2, 3).mean(axis=(1, 3))
    assert np.abs(resize(image, 60, "test") - mean).max() <= 0.5
    bilinear = cv2.resize(image, (40, 30), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resize(image, 40, "train"), bilinear)
    assert (resize(image, 40, "test") != bilinear).any()


def test_letterbox_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="33 x 10 does not fit into 32 x 32"):
        letterbox(np.zeros((10, 33, 3), np.uint8), 32, 32)
