"""Decode an image file to 8-bit RGB, upright, of the annotated size, whatever it is encoded as."""

from __future__ import annotations

import functools
import io
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import StubImageFile

from yolor_core.data.images import GREY, Pixels
from yolor_core.data.metadata import ORIENTATION, exif_orientation, without_metadata
from yolor_core.data.report import Note
from yolor_core.errors import ConfigError

# Sampling of luma against chroma that decoders of all ages upsample alike; 4:4:0 is not among them.
SAMPLINGS = (0x11, 0x21, 0x22)
LARGEST = 50_000_000  # pixels; beyond, Pillow has a say about what is too large


def decode_plain(data: bytes, width: int, height: int) -> Pixels | None:
    """uint8 RGB of an ordinary colour JPEG of a size, as Pillow would decode it; None for anything else.

    None, too, for a file that cannot be decoded: what is wrong is for Pillow to say.
    """
    if ordinary(data) != (width, height) or width * height > LARGEST:
        return None
    return _decode(data) if agrees() else None


def ordinary(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG of three 8-bit channels, colour sampled in a usual way; else None.

    None, too, where metadata says that it has to be turned, or cannot be read.
    """
    if data[:2] != b"\xff\xd8":
        return None
    at, size = 2, None
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if length < 2 or len(body) != length - 2 or (marker == 0xE2 and body[:4] == b"MPF\0"):
            return None  # cut short, or several pictures in one file
        if marker == 0xDA:  # the scan begins: all that matters came before
            return size
        if marker in (0xC0, 0xC1, 0xC2):
            if len(body) != 15 or body[0] != 8 or body[5] != 3 or size is not None:
                return None
            luma, *chroma = body[7::3]
            if luma not in SAMPLINGS or chroma != [0x11, 0x11]:
                return None
            size = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
        elif marker == 0xE1 and (
            b"tiff:Orientation" in body or (body[:6] == b"Exif\0\0" and exif_orientation(body[6:]) != 1)
        ):
            return None
        elif 0xC3 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return None  # arithmetic or lossless coding
        at += 2 + length
    return None


@functools.cache
def agrees() -> bool:
    """Whether torchvision's decoder is there and gives Pillow's pixels on a noisy picture of each kind.

    Both use libjpeg-turbo where they come from the usual packages, but a build may differ; then Pillow's
    pixels are what counts.
    """
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8))
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        for progressive in (False, True):
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=80, subsampling=subsampling, progressive=progressive)
            found = _decode(buffer.getvalue())
            if found is None or not np.array_equal(found, np.asarray(Image.open(buffer).convert("RGB"))):
                return False
    return True


def _decode(data: bytes) -> Pixels | None:
    try:
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg

        encoded = torch.from_numpy(
            np.frombuffer(bytearray(data), np.uint8)
        )  # a copy, as torch wants to own it
        pixels = decode_jpeg(encoded, mode=ImageReadMode.RGB)
    except (ImportError, RuntimeError, ValueError, NotImplementedError):
        return None
    return np.asarray(pixels.permute(1, 2, 0).numpy(), np.uint8)


Findings = list[tuple[str, str]]
"""What was done to an image: kinds of `report.KINDS`, each with a detail."""
DARK = 64  # of 256: what 16-bit samples stay below that use 14 bits or fewer
MAX_PIXELS = "ABLATE_MAX_PIXELS"
# What turns a stored picture upright, by EXIF orientation; from 5 on width and height change places.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(path: Path, identifier: int, width: int, height: int) -> tuple[Pixels, list[Note]]:
    """Pixels of a file as uint8 RGB (height, width, 3), and notes of what had to be done; see `decode_bytes`.

    A file that cannot be read is treated like one that cannot be decoded.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        pixels, findings = unreadable(error, width, height)
    else:
        pixels, findings = decode_bytes(data, width, height)
    return pixels, notes(findings, identifier, path)


def notes(findings: Findings, identifier: int, path: Path) -> list[Note]:
    """Findings as notes that name the image and its file."""
    return [Note(kind, identifier, f"image {identifier} ({path}): {detail}") for kind, detail in findings]


def decode_bytes(data: bytes, width: int, height: int) -> tuple[Pixels, Findings]:
    """Pixels of an encoded image as uint8 RGB (height, width, 3), and what had to be done.

    `width` and `height` are the annotation file's. The picture is upright or as stored (see `read`), and
    scaled to that size where it has another one (which is counted; `ablate data check` reports it as an
    error).

    Greyscale, palette, CMYK, alpha and 16-bit images become 8-bit RGB; alpha is discarded. What cannot be
    decoded completely gives a grey image and an `unreadable` finding; this function does not raise for it.
    """
    plain = decode_plain(data, width, height)
    if plain is not None:
        return plain, []
    try:
        pixels, findings = read(data, (width, height))
    except (MemoryError, ConfigError):
        raise
    except Exception as error:  # Pillow's decoders raise many kinds; none may end a training
        return unreadable(error, width, height)
    if pixels.shape[:2] != (height, width):
        found = f"{pixels.shape[1]} x {pixels.shape[0]}, annotated as {width} x {height}"
        findings.append(("resized", found))
        pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    return pixels, findings


def read(data: bytes, annotated: tuple[int, int] | None = None) -> tuple[Pixels, Findings]:
    """Pixels of an encoded image as uint8 RGB (height, width, 3), and what had to be done to have them.

    The rule of all commands: a picture is turned upright by its EXIF orientation, as viewers, annotation
    tools and OpenCV show it. Only where the `annotated` width and height are those of the stored picture and
    not of the upright one (orientations 5 to 8, unless it is square) is it left as stored, since its boxes
    are relative to that. Of another size altogether, portrait and landscape decide.

    Metadata that cannot be read is left out. Raises what Pillow's decoders raise for damaged pixels.
    """
    try:
        image, orientation, findings = _load(data)
    except (MemoryError, ConfigError, Image.DecompressionBombError):
        raise
    except Exception:
        clean = without_metadata(data)
        if clean is None:
            raise
        try:
            image, orientation, findings = _load(clean[0])
        except Exception:
            clean = None
        if clean is None:
            raise  # as the file itself was judged
        findings.append(("metadata", f"left out: {', '.join(clean[1])}"))
    if orientation not in UPRIGHT:
        return np.array(image, np.uint8), findings
    kind = "turned"
    if annotated is not None and orientation >= 5:
        (width, height), (w, h) = annotated, image.size
        if width != height and w != h:
            kind = "stored" if (width > height) == (w > h) else "rotated"
    if kind != "stored":
        image = image.transpose(UPRIGHT[orientation])
    return np.array(image, np.uint8), [*findings, (kind, f"orientation {orientation}")]


def _load(data: bytes) -> tuple[Image.Image, int, Findings]:
    """An image as 8-bit RGB as it is stored, its EXIF orientation, and findings."""
    findings: Findings = []
    limit = most_pixels()
    if limit:
        Image.MAX_IMAGE_PIXELS = limit // 2  # Pillow warns beyond, and refuses what has twice as many
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Image.open(io.BytesIO(data)) as opened:
            mode = opened.mode
            deep = any(sign in str(tile[3]) for tile in opened.tile for sign in (";16", "65535"))
            if opened.format != "TIFF":  # which loses its orientation by being loaded
                opened.load()  # raises for truncated files
            orientation, wrong = 1, ""
            try:
                orientation = opened.getexif().get(ORIENTATION, 1)
            except Exception as error:
                wrong = str(error)
            wrong = wrong or next((str(w.message) for w in said if w.category is UserWarning), "")
            if "exif" in opened.info and orientation == 1:  # Pillow stops at what is damaged before it
                found = exif_orientation(opened.info["exif"].removeprefix(b"Exif\0\0"))
                orientation, wrong = found or 1, wrong or ("" if found is not None else "EXIF")
            if wrong:
                findings.append(("metadata", f"in part unread: {wrong.strip()}"))
            opened.load()
            rgb = to_rgb(opened)
            if orientation in UPRIGHT and opened.format == "TIFF":  # Pillow has turned it
                rgb = rgb.transpose(UPRIGHT[{6: 8, 8: 6}.get(orientation, orientation)])
    if mode != "RGB" or deep:
        findings.append(("converted", mode if mode != "RGB" else "RGB of 16 bits"))
    if deep or mode.startswith("I"):
        brightest = max(int(high) for _, high in rgb.getextrema())  # type: ignore[misc]  # a pair a channel
        if brightest < DARK:
            findings.append(("dark", f"the brightest sample becomes {brightest} of 255"))
    return rgb, orientation, findings


@functools.cache
def most_pixels() -> int:
    """The most pixels that an image may have, as ABLATE_MAX_PIXELS says; 0 for Pillow's own limit.

    Raises ConfigError for anything but a number.
    """
    value = os.environ.get(MAX_PIXELS, "0")
    if not value.isdecimal():
        raise ConfigError(f"{MAX_PIXELS} is {value!r}; a number of pixels is needed, as 400000000")
    return int(value)


def unreadable(error: Exception, width: int, height: int) -> tuple[Pixels, Findings]:
    """What stands in for an image that cannot be decoded."""
    return grey(width, height), [("unreadable", reason(error))]


def reason(error: Exception) -> str:
    """Why an image cannot be decoded, and what to do where something can be done."""
    text = str(error)
    if isinstance(error, UnidentifiedImageError):
        text = "not an image of a known kind"  # Pillow's sentence would name a buffer
    elif isinstance(error, Image.DecompressionBombError):
        text = (
            f"{text.partition(',')[0]}; cut it into pieces, make it smaller, "
            f"or raise the limit with {MAX_PIXELS}=N in the environment"
        )
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    return f"{type(error).__name__}: {text}"


@functools.cache
def suffixes() -> frozenset[str]:
    """How names of image files end, with the dot: of all kinds that Pillow reads without other programs."""
    Image.init()
    readable = {
        kind
        for kind, (factory, _) in Image.OPEN.items()
        if kind not in ("EPS", "MPEG")
        and not (isinstance(factory, type) and issubclass(factory, StubImageFile))
    }
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in readable)


def grey(width: int, height: int) -> Pixels:
    """An image without content."""
    return np.full((height, width, 3), GREY, np.uint8)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as 8-bit RGB. Raises ValueError for floating-point samples and those of more than 16 bits."""
    if image.mode.startswith("I"):  # 16 bits a sample, which Pillow would saturate instead of scale
        samples = np.asarray(image).astype(np.int64)
        if samples.min() < 0 or samples.max() > 65535:
            raise ValueError("samples outside 0 to 65535 have no defined range; store it with 8 or 16 bits")
        return Image.fromarray((samples >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point samples have no defined range; store it with 8 or 16 bits")
    return image.convert("RGB")
