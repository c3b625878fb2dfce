"""Images that are not plain RGB files of the annotated size."""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.yolor_core.data.coco_folder import Folder, annotation, picture
from yolor_core.config import AugmentConfig
from yolor_core.data import EvaluationBatches, TrainingBatches, check_dataset, load_images
from yolor_core.data.check import check_splits, sound
from yolor_core.data.decode import decode, decode_bytes, most_pixels
from yolor_core.errors import ConfigError
from yolor_core.evaluation.detect import read_picture

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


def encoded(image: Image.Image, kind: str, orientation: int | None = None, **options: Any) -> bytes:
    """A file, with an EXIF orientation where one is given."""
    exif = Image.Exif()
    if orientation is not None:
        exif[0x010F], exif[0x0112] = "a maker of cameras", orientation
        options["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def upright(data: bytes) -> np.ndarray:
    """As Pillow turns it."""
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))


def as_stored(data: bytes) -> np.ndarray:
    """As OpenCV reads it when it is told to leave it as it is."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return np.asarray(pixels)[..., ::-1]


ENCODERS = [("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("AVIF", {})]
ENCODERS += [("TIFF", {"compression": "tiff_lzw"})]


@pytest.mark.parametrize(("kind", "options"), ENCODERS, ids=[*(k for k, _ in ENCODERS[:5]), "LZW"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("width", "height"), [(64, 48), (48, 64), (48, 48)])
def test_pictures_are_turned_upright_unless_annotated_as_stored(
    kind: str, options: dict[str, Any], orientation: int, width: int, height: int, tmp_path: Path
) -> None:
    data = encoded(picture(0, width, height), kind, orientation, **options)
    expected = upright(data)
    if kind in ("PNG", "WEBP"):  # without loss, so that another program's pixels are the same
        np.testing.assert_array_equal(expected, cv2.imdecode(np.frombuffer(data, np.uint8), 1)[..., ::-1])
    quarter = orientation >= 5
    pixels, found = decode_bytes(data, *expected.shape[1::-1])
    np.testing.assert_array_equal(pixels, expected)
    told = "rotated" if quarter and width != height else "turned"
    assert found == ([(told, f"orientation {orientation}")] if orientation > 1 else [])
    (tmp_path / "picture").write_bytes(data)
    np.testing.assert_array_equal(read_picture(tmp_path / "picture"), expected)  # what `ablate detect` sees
    if quarter and width != height:
        stored, found = decode_bytes(data, width, height)
        assert found == [("stored", f"orientation {orientation}")]
        if kind in ("PNG", "WEBP"):
            np.testing.assert_array_equal(stored, as_stored(data))
        np.testing.assert_array_equal(stored, turn(expected, {6: 8, 8: 6}.get(orientation, orientation)))


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """By the table of the EXIF standard: which side of the picture the first row and column are."""
    turned = pixels.swapaxes(0, 1) if orientation >= 5 else pixels
    rows, columns = {5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}[orientation]
    return turned[::rows, ::columns]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_portrait_and_landscape_decide_where_no_size_is_the_annotated_one(orientation: int) -> None:
    data = encoded(picture(0, 64, 48), "PNG", orientation)
    for width, height, told in ((32, 24, "stored"), (24, 32, "rotated"), (32, 32, "turned")):
        assert [kind for kind, _ in decode_bytes(data, width, height)[1]] == [told, "resized"]


def test_an_orientation_behind_damaged_exif_still_counts() -> None:
    """Pillow gives up at the maker's name, which comes first and lies outside the file."""
    data = bytearray(encoded(picture(0), "JPEG", 3, quality=95))
    at = data.index(b"MM\0*")
    entry = data.index(b"\x01\x0f\0\2", at)
    data[entry + 8 : entry + 12] = b"\x7f\0\0\0"
    pixels, found = decode_bytes(bytes(data), 64, 48)
    np.testing.assert_array_equal(pixels, as_stored(bytes(data))[::-1, ::-1])
    assert [kind for kind, _ in found] == ["metadata", "turned"]


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientations_that_do_not_exist_are_none(orientation: int) -> None:
    for kind in ("JPEG", "PNG"):
        data = encoded(picture(0), kind, orientation)
        pixels, found = decode_bytes(data, 64, 48)
        np.testing.assert_array_equal(pixels, as_stored(data))
        assert not found


def chunk(name: bytes, content: bytes, checksum: int = 0) -> bytes:
    """Of a PNG file; with another `checksum` than 0 a wrong one."""
    crc = zlib.crc32(name + content) ^ checksum
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def segment(marker: int, content: bytes) -> bytes:
    """Of a JPEG file."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


LONG = zlib.compress(bytes(5_000_000))
EXIF = Image.Exif()
EXIF[0x010F] = "a maker of cameras"
CHUNKS = {
    "eXIf": chunk(b"eXIf", b"no exif at all"),
    "eXIf cut": chunk(b"eXIf", EXIF.tobytes()[6:19]),
    "eXIf checksum": chunk(b"eXIf", EXIF.tobytes()[6:], 1),
    "raw profile": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 20\nno hex\n")),
    "zTXt long": chunk(b"zTXt", b"Comment\0\0" + LONG),
    "zTXt method": chunk(b"zTXt", b"Comment\0\7" + LONG),
    "iTXt long": chunk(b"iTXt", b"Comment\0\1\0\0\0" + LONG),
    "iTXt checksum": chunk(b"iTXt", b"Comment\0\0\0\0\0text", 1),
    "tEXt checksum": chunk(b"tEXt", b"Comment\0text", 1),
    "texts": b"".join(chunk(b"zTXt", b"%d\0\0" % k + zlib.compress(bytes(1_000_000))) for k in range(70)),
    "iCCP checksum": chunk(b"iCCP", b"name\0\0" + zlib.compress(b"profile"), 1),
    "iCCP long": chunk(b"iCCP", b"name\0\0" + LONG),
    "tIME checksum": chunk(b"tIME", b"1234567", 1),
    "gAMA short": chunk(b"gAMA", b"1"),
    "pHYs short": chunk(b"pHYs", b"1"),
    "tRNS short": chunk(b"tRNS", b""),
    "tRNS checksum": chunk(b"tRNS", b"\0\1\0\2\0\3", 1),
    "acTL short": chunk(b"acTL", b"1"),
    "fcTL": chunk(b"acTL", struct.pack(">II", 2, 0))
    + chunk(b"fcTL", struct.pack(">IIIII6x", 0, 99, 99, 9, 9)),
    "unknown": chunk(b"prVt", b"anything", 1),
    "length too short": struct.pack(">I", 4) + chunk(b"tEXt", b"Comment\0" + b"text" * 9)[4:],
    "length too long": struct.pack(">I", 60) + chunk(b"tEXt", b"Comment\0" + b"text" * 9)[4:],
    "length of gigabytes": struct.pack(">I", 2**31 - 1) + chunk(b"tEXt", b"Comment\0text")[4:],
}
SEGMENTS = {
    "EXIF": segment(0xE1, b"Exif\0\0no exif"),
    "EXIF cut": segment(0xE1, EXIF.tobytes()[:26]),
    "EXIF loop": segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0\x08\0\0\0"),
    "EXIF offset": segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f"),
    "ICC": segment(0xE2, b"ICC_PROFILE\0"),
    "MPF": segment(0xE2, b"MPF\0no pictures"),
    "Photoshop": segment(0xED, b"Photoshop 3.0\x008BIM\3\xed\0\0\0\0\0\2ab"),
    "Adobe": segment(0xEE, b"Adobe"),
    "JFIF": segment(0xE0, b"JFIF"),
    "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"x" * 65_000),
    "comment": segment(0xFE, b"\xff\xd8" * 30),
    "between": b"no segment",
    "length too short": struct.pack(">BBH", 0xFF, 0xE1, 6) + b"Exif\0\0no exif",
}


@pytest.mark.parametrize("mode", ["RGB", "P", "LA"])
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize("name", CHUNKS)
def test_damaged_metadata_of_png_costs_no_pixels(name: str, before: bytes, mode: str) -> None:
    image = picture(0).quantize(16) if mode == "P" else picture(0).convert(mode)
    clean = encoded(image, "PNG")
    at = clean.rindex(before) - 4
    harmless = name == "tRNS short" and mode != "RGB"
    expect_pixels(clean[:at] + CHUNKS[name] + clean[at:], clean, told=before == b"IDAT" and not harmless)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("name", SEGMENTS)
def test_damaged_metadata_of_jpeg_costs_no_pixels(name: str, mode: str) -> None:
    clean = encoded(picture(0).convert(mode), "JPEG")
    for at in (2, clean.index(b"\xff\xdb")):
        expect_pixels(clean[:at] + SEGMENTS[name] + clean[at:], clean, told=False)


def test_damaged_metadata_of_webp_costs_no_pixels() -> None:
    clean = encoded(picture(0), "WEBP", lossless=True)
    for icc, name in ((None, b"EXIF"), (b"profile" * 9, b"ICCP"), (b"profile" * 9, b"EXIF")):
        data = encoded(picture(0), "WEBP", 1, lossless=True, icc_profile=icc)
        at = data.index(name)
        expect_pixels(data[: at + 4] + struct.pack("<I", 9_999) + data[at + 8 :], clean)
        expect_pixels(data.replace(b"MM\0*", b"none"), clean)
        expect_pixels(data[:-9], clean)


@pytest.mark.parametrize("tag", [270, 315, 305, 34675, 34665, 700, 50000])
@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_damaged_metadata_of_tiff_costs_no_pixels(tag: int, mode: str) -> None:
    image = picture(0).quantize(16) if mode == "P" else picture(0)
    clean = encoded(image, "TIFF")
    (start,) = struct.unpack_from("<I", clean, 4)
    (count,) = struct.unpack_from("<H", clean, start)
    entries = [clean[start + 2 + 12 * k : start + 14 + 12 * k] for k in range(count)]
    entries.append(struct.pack("<HHII", tag, 7, 5_000, 2**31 - 9))  # lies far outside the file
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    expect_pixels(clean[:4] + struct.pack("<I", len(clean)) + clean[8:] + directory, clean)


def expect_pixels(damaged: bytes, clean: bytes, told: bool = True) -> None:
    """A damaged file has the pixels of a clean one, which Pillow reads; where `told`, a finding says so."""
    with Image.open(io.BytesIO(clean)) as opened:
        expected = np.asarray(opened.convert("RGB"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels, found = decode_bytes(damaged, 64, 48)
    np.testing.assert_array_equal(pixels, expected)
    kinds = [kind for kind, _ in found]
    assert set(kinds) <= {"metadata", "converted"}
    assert "metadata" in kinds or not told


def test_an_orientation_survives_damage_beside_it() -> None:
    clean = encoded(picture(0), "PNG", 3)
    at = clean.index(b"IDAT") - 4
    sound = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"text")) + chunk(b"gAMA", b"\0\0\xb1\x8f")
    pixels, found = decode_bytes(clean[:at] + CHUNKS["tEXt checksum"] + sound + clean[at:], 64, 48)
    np.testing.assert_array_equal(pixels, PLAIN[::-1, ::-1])
    assert found == [("metadata", "left out: tEXt"), ("turned", "orientation 3")]


def test_check_names_files_with_damaged_metadata(folder: Folder) -> None:
    clean = encoded(picture(0), "PNG")
    at = clean.index(b"IDAT") - 4
    folder.add(clean[:at] + CHUNKS["zTXt long"] + clean[at:], "long.png", (64, 48))
    folder.add(encoded(picture(0), "PNG", 4), "mirrored.png", (64, 48))
    folder.content["annotations"] = [annotation(1, 11, [4, 4, 30, 30])]
    report = check_splits(Path(folder.write().root), ["val"])["val"]  # the other split has the same pictures
    assert sound(report)
    assert report.findings["metadata"].examples[0].endswith("long.png): left out: zTXt")
    assert report.findings["turned"].examples[0].endswith("mirrored.png): orientation 4")


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 3)])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_few_bits_in_16_are_a_finding(bits: int, shape: tuple[int, ...], suffix: str) -> None:
    samples = np.linspace(0, 2**bits - 1, int(np.prod(shape))).astype(np.uint16).reshape(shape)
    for scale, dark in ((1, True), (2 ** (16 - bits), False)):
        data = cv2.imencode(suffix, samples * scale)[1].tobytes()
        pixels, found = decode_bytes(data, 64, 48)
        expected = np.broadcast_to((samples * scale >> 8).reshape(48, 64, -1), (48, 64, 3))[..., ::-1]
        np.testing.assert_array_equal(pixels, expected)
        assert [kind for kind, _ in found] == ["converted", *(["dark"] if dark else [])]


def test_few_bits_in_16_are_a_finding_in_ppm_as_well() -> None:
    samples = np.linspace(0, 4095, 48 * 64 * 3).astype(">u2")
    for most, dark in ((65535, True), (4095, False)):
        pixels, found = decode_bytes(b"P6 64 48 %d\n" % most + samples.tobytes(), 64, 48)
        expected = np.round(samples.astype(float).reshape(48, 64, 3) * 255 / most)
        assert np.abs(pixels - expected).max() <= 1
        assert ("dark" in [kind for kind, _ in found]) == dark


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_samples_without_a_range_are_unreadable(kind: type) -> None:
    data = encoded(Image.fromarray(np.linspace(-1, 1e6, 48 * 64).astype(kind).reshape(48, 64)), "TIFF")
    ((found, reason),) = decode_bytes(data, 64, 48)[1]
    assert found == "unreadable" and "no defined range; store it with 8 or 16 bits" in reason


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_white_of_jpeg_2000_does_not_become_black(channels: int) -> None:
    """Pillow rounds samples of several channels beyond 255 and keeps the lowest byte."""
    levels = np.linspace(0, 255, 48 * 64).round().astype(np.uint8).reshape(48, 64)
    for samples in (levels, levels * np.uint16(257)):
        stack = np.stack([samples] * channels, axis=2)
        data = cv2.imencode(".jp2", stack, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])[1].tobytes()
        pixels, found = decode_bytes(data, 64, 48)
        if channels > 1 and samples.dtype == np.uint16:
            ((kind, reason),) = found
            assert kind == "unreadable" and "white turned black; store it with 8 bits" in reason
        else:
            assert np.abs(pixels.astype(int) - levels[..., None]).max() <= 1


def test_more_pixels_than_the_limit_are_read_once_it_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    huge = bytearray(encoded(picture(0), "PNG"))
    huge[16:24] = struct.pack(">II", 20_000, 20_000)
    huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
    ((kind, reason),) = decode_bytes(bytes(huge), 20_000, 2)[1]
    assert kind == "unreadable"
    assert "400000000 pixels) exceeds limit of 178956970 pixels" in reason
    assert "ABLATE_MAX_PIXELS=N" in reason
    for limit, read in ((3_000, False), (3_072, True)):
        monkeypatch.setenv("ABLATE_MAX_PIXELS", str(limit))
        most_pixels.cache_clear()
        found = decode_bytes(encoded(picture(0), "PNG"), 64, 48)[1]
        assert [kind for kind, _ in found] == ([] if read else ["unreadable"])
    monkeypatch.setenv("ABLATE_MAX_PIXELS", "many")
    most_pixels.cache_clear()
    with pytest.raises(ConfigError, match="ABLATE_MAX_PIXELS is 'many'"):
        decode_bytes(encoded(picture(0), "PNG"), 64, 48)
    monkeypatch.undo()
    most_pixels.cache_clear()


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
    assert images.report.count("unreadable") == 4
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
    assert images.report.count("unreadable") == 4  # also when other processes met them
    val = load_images(broken.config, "val")
    assert sum(len(b.indices) for b in EvaluationBatches(val, 64, 32, 4, workers=workers)) == 6
    assert val.report.count("unreadable") == 4


def test_check_names_every_undecodable_file(broken: Folder) -> None:
    report = check_dataset(broken.config)["val"]
    assert report.count("unreadable") == 4
    assert not sound(report)
    for name, example in zip(_broken(), report.findings["unreadable"].examples, strict=True):
        assert name in example
