"""The fast way to decode JPEG gives Pillow's pixels, or leaves the file to Pillow."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.yolor_core.data.coco_folder import picture
from yolor_core.data.decode import agrees, decode_bytes, decode_plain, ordinary


def noisy(width: int = 203, height: int = 117) -> Image.Image:
    """Detail in every block and every colour."""
    coarse = np.asarray(picture(3, width, height)).astype(int)
    noise = np.random.default_rng(0).integers(-40, 41, coarse.shape)
    return Image.fromarray((coarse + noise).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(opened.convert("RGB"))


def opencv(sampling: str, progressive: bool, restart: int) -> bytes:
    """A file from another encoder, which can do more."""
    pixels = np.asarray(noisy())[..., ::-1]
    flags = [
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}"),
        cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive), cv2.IMWRITE_JPEG_RST_INTERVAL, restart,
    ]  # fmt: skip
    return cv2.imencode(".jpg", pixels, flags)[1].tobytes()


@pytest.mark.parametrize("sampling", ["444", "422", "420", "440", "411"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("restart", [0, 3])
def test_pixels_equal_those_of_pillow(sampling: str, progressive: bool, restart: int) -> None:
    # Beside it one without the usual transform of colours.
    for data in (opencv(sampling, progressive, restart), encoded(noisy(), keep_rgb=True, quality=95)):
        pixels, found = decode_bytes(data, 203, 117)
        np.testing.assert_array_equal(pixels, by_pillow(data))
        assert not found


def test_damaged_metadata_of_no_consequence_is_read_without_a_warning() -> None:
    exif = Image.Exif()
    exif[0x010F] = "a maker of cameras"
    data = bytearray(encoded(noisy(), exif=exif))
    del data[2 : data.index(b"\xff\xe1")]  # Pillow then looks for the resolution in EXIF
    entry = data.index(b"\x01\x0f\0\2")
    data[entry + 8 : entry + 12] = b"\x7f\0\0\0"  # the name lies outside the file
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(decode_bytes(bytes(data), 203, 117)[0], by_pillow(encoded(noisy())))


def test_ordinary_files_take_the_fast_way_where_it_agrees() -> None:
    data = encoded(noisy())
    assert ordinary(data) is not None
    assert (decode_plain(data, 203, 117) is not None) == agrees()
    assert decode_plain(data, 117, 203) is None  # one of another size is left to Pillow


@pytest.mark.parametrize(
    "data",
    [
        encoded(noisy().convert("L")),
        encoded(noisy().convert("CMYK")),
        opencv("440", False, 0),
        encoded(noisy())[:300],
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xda\x00\x00",
    ],
    ids=["grey", "CMYK", "4:4:0", "header cut", "empty", "start only", "marker cut", "no length"],
)
def test_unusual_files_are_left_to_pillow(data: bytes) -> None:
    assert ordinary(data) is None
    assert decode_plain(data, 203, 117) is None


def test_several_pictures_in_one_file_are_left_to_pillow() -> None:
    buffer = io.BytesIO()
    noisy().save(buffer, "MPO", save_all=True, append_images=[picture(1, 203, 117)])
    assert ordinary(buffer.getvalue()) is None
    np.testing.assert_array_equal(decode_bytes(buffer.getvalue(), 203, 117)[0], by_pillow(buffer.getvalue()))


def test_every_truncated_file_is_unreadable() -> None:
    data = encoded(noisy())
    for end in range(0, len(data) - 2, 97):
        pixels, found = decode_bytes(data[:end], 203, 117)
        assert [kind for kind, _ in found] == ["unreadable"], end
        assert (pixels == 114).all()


def test_files_with_errors_inside_are_judged_as_pillow_judges_them() -> None:
    sound = encoded(noisy())
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(60):
        data = bytearray(sound)
        start = int(rng.integers(700, len(data) - 300))
        del data[start : start + int(rng.integers(1, 200))]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected: np.ndarray | None = by_pillow(bytes(data))
        except (OSError, SyntaxError):
            expected = None
        pixels, found = decode_bytes(bytes(data), 203, 117)
        assert bool(found) == (expected is None)
        if expected is not None:
            np.testing.assert_array_equal(pixels, expected)
        outcomes.add(expected is None)
    assert False in outcomes


def test_real_files_decode_as_by_pillow(real_data: Path) -> None:
    for path in sorted((real_data / "coco_multitask" / "images" / "val2017").glob("*.jpg"))[:40]:
        data = path.read_bytes()
        expected = by_pillow(data)
        height, width = expected.shape[:2]
        np.testing.assert_array_equal(decode_bytes(data, width, height)[0], expected)
