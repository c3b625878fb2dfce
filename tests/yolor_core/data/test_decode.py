"""Images that are not plain RGB files of the annotated size."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.yolor_core.data.coco_folder import Folder, annotation, picture
from yolor_core.config import AugmentConfig
from yolor_core.data import EvaluationBatches, TrainingBatches, check_dataset, load_images
from yolor_core.data.check import sound
from yolor_core.data.decode import decode

PLAIN = np.asarray(picture(0))


def _decoded(image: Image.Image, path: Path, width: int = 64, height: int = 48) -> np.ndarray:
    image.save(path)
    pixels, notes = decode(path, 1, width, height)
    assert pixels.shape == (height, width, 3)
    assert pixels.dtype == np.uint8
    assert not [n for n in notes if n.kind == "unreadable"]
    return pixels


def test_greyscale_is_repeated_over_the_channels(tmp_path: Path) -> None:
    grey = picture(0).convert("L")
    pixels = _decoded(grey, tmp_path / "grey.png")
    for channel in range(3):
        np.testing.assert_array_equal(pixels[..., channel], np.asarray(grey))


def test_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    picture(0).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=98)
    pixels, notes = decode(tmp_path / "cmyk.jpg", 5, 64, 48)
    assert [n.kind for n in notes] == ["converted"]
    assert np.abs(pixels.astype(int) - PLAIN).mean() < 4
    assert np.abs(255 - pixels.astype(int) - PLAIN).mean() > 30  # the inverted picture, CMYK's usual mishap


def test_palette_and_alpha_become_rgb(tmp_path: Path) -> None:
    paletted = picture(0).quantize(64)
    np.testing.assert_array_equal(_decoded(paletted, tmp_path / "p.png"), np.asarray(paletted.convert("RGB")))
    with_alpha = picture(0).convert("RGBA")
    with_alpha.putalpha(7)
    np.testing.assert_array_equal(_decoded(with_alpha, tmp_path / "a.png"), PLAIN)
    np.testing.assert_array_equal(_decoded(picture(0).convert("1"), tmp_path / "1.png") % 255, 0)


def test_16_bit_samples_are_scaled_not_saturated(tmp_path: Path) -> None:
    samples = (np.arange(64 * 48, dtype=np.uint32).reshape(48, 64) * 65535 // (64 * 48)).astype(np.uint16)
    pixels = _decoded(Image.fromarray(samples), tmp_path / "16.png")
    np.testing.assert_array_equal(pixels[..., 1], samples // 256)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_exif_turns_an_image_only_when_the_annotated_size_says_so(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    picture(0).save(path, exif=exif)
    stored, notes = decode(path, 1, 64, 48)
    np.testing.assert_array_equal(stored, PLAIN)
    assert not notes
    upright, notes = decode(path, 1, 48, 64)
    assert [n.kind for n in notes] == ["rotated"]
    # Where the stored row and column 0 belong, by the EXIF standard.
    rows, columns = {5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom")}[
        orientation
    ]
    first_row = upright[:, 0] if rows == "left" else upright[:, -1]
    expected = PLAIN[0] if columns == "top" else PLAIN[0][::-1]
    np.testing.assert_array_equal(first_row, expected)


def test_pixels_of_another_size_are_scaled_to_the_annotations_and_reported(folder: Folder) -> None:
    image = folder.add(picture(0, 128, 96), "big.png", (64, 48))
    folder.content["annotations"] = [annotation(1, image, [8, 8, 16, 16])]
    config = folder.write()
    images = load_images(config, "train")
    assert images.image(0).shape == (48, 64, 3)
    assert np.abs(images.image(0).astype(int) - PLAIN).mean() < 3
    assert images.report.count("resized") == 1
    report = check_dataset(config)["train"]
    assert not sound(report)
    assert "128 x 96, annotated as 64 x 48" in report.findings["resized"].examples[0]


def _broken() -> dict[str, bytes]:
    import io

    result = {"empty.jpg": b"", "text.jpg": b"this is not an image"}
    for name, kind in (("cut.jpg", "JPEG"), ("cut.png", "PNG")):
        buffer = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(buffer, kind)
        result[name] = buffer.getvalue()[: len(buffer.getvalue()) // 2]
    return result


@pytest.fixture
def broken(folder: Folder) -> Folder:
    """Two sound images and four that cannot be decoded, each with a box."""
    for k in range(2):
        folder.add(picture(k), f"good{k}.png", (64, 48))
    for name, data in _broken().items():
        folder.add(data, name, (64, 48))
    folder.content["annotations"] = [
        annotation(k, image["id"], [4, 4, 30, 30]) for k, image in enumerate(folder.content["images"])
    ]
    folder.write()
    return folder


def test_undecodable_files_become_grey_images_without_boxes(
    broken: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    images = load_images(broken.config, "train")
    with caplog.at_level(logging.WARNING, "yolor_core"):
        for _ in range(2):
            for index in range(2, 6):
                assert (images.image(index) == 114).all()
                assert len(images.sample(index).boxes) == 0
    assert images.report.unreadable == 4
    assert len(caplog.records) == 4  # once per image, however often it is read
    for record, name in zip(caplog.records, _broken(), strict=True):
        assert name in record.getMessage()
    assert "image 33" in caplog.records[0].getMessage()
    assert len(images.sample(0).boxes) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_training_and_evaluation_survive_undecodable_files(broken: Folder, workers: int) -> None:
    images = load_images(broken.config, "train")
    plain = AugmentConfig(mosaic=0, scale=0, hsv_h=0, hsv_s=0, hsv_v=0, flip_horizontal=0)
    batches = list(TrainingBatches(images, 64, 2, seed=0, workers=workers).epoch(0, plain))
    for batch in batches:
        for row, identifier in enumerate(batch.ids):
            boxes = batch.targets[batch.targets[:, 0] == row]
            assert len(boxes) == (1 if identifier <= 22 else 0)
            assert bool((batch.images[row] == 114).all()) == (identifier > 22)
    assert sorted(i for b in batches for i in b.ids) == list(images.ids)
    assert images.report.unreadable == 4  # also when other processes met them
    val = load_images(broken.config, "val")
    assert sum(len(b.indices) for b in EvaluationBatches(val, 64, 32, 4, workers=workers)) == 6
    assert val.report.unreadable == 4


def test_check_names_every_undecodable_file(broken: Folder) -> None:
    report = check_dataset(broken.config)["val"]
    assert report.unreadable == 4
    assert not sound(report)
    for name, example in zip(_broken(), report.findings["unreadable"].examples, strict=True):
        assert name in example
