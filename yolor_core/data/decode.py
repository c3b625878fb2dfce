"""Decode an image file to 8-bit RGB of the annotated size, whatever it is encoded as."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from yolor_core.data.jpeg import decode_plain
from yolor_core.data.report import Note

cv2.setNumThreads(0)  # parallelism is the loader's; a pool per worker process would only fight over the cores

Pixels = NDArray[np.uint8]
Findings = list[tuple[str, str]]
"""What was done to an image: kinds of `report.KINDS`, each with a detail."""
GREY = 114
# EXIF orientations that exchange width and height, and what turns each upright.
UPRIGHT = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(
    path: Path, identifier: int, width: int, height: int, rows: int | None = None
) -> tuple[Pixels, list[Note]]:
    """Pixels of a file as uint8 RGB (height, width, 3), and notes of what had to be done; see `decode_bytes`.

    A file that cannot be read is treated like one that cannot be decoded.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        pixels, findings = unreadable(error, width, height)
    else:
        pixels, findings = decode_bytes(data, width, height, rows)
    return pixels, notes(findings, identifier, path)


def notes(findings: Findings, identifier: int, path: Path) -> list[Note]:
    """Findings as notes that name the image and its file."""
    return [Note(kind, identifier, f"image {identifier} ({path}): {detail}") for kind, detail in findings]


def decode_bytes(data: bytes, width: int, height: int, rows: int | None = None) -> tuple[Pixels, Findings]:
    """Pixels of an encoded image as uint8 RGB (height, width, 3), and what had to be done.

    `width` and `height` are the annotation file's, and the boxes are relative to them, so they decide:

    * the stored pixels have that size: they are used as stored, as COCO's tools do, whatever EXIF says;
    * only turning them upright by EXIF gives that size: they are turned;
    * neither does: they are scaled to that size (and counted; `ablate data check` reports it as an error).

    Greyscale, palette, CMYK, alpha and 16-bit images become 8-bit RGB; alpha is discarded. What cannot be
    decoded completely gives a grey image and an `unreadable` finding; this function does not raise.

    `rows` is for files that were once found to be without fault: the result may then end after so many rows.
    """
    plain = decode_plain(data, width, height, rows)
    if plain is not None:
        return plain, []
    turned = 0
    try:
        with Image.open(io.BytesIO(data)) as opened:
            mode = opened.mode
            orientation = opened.getexif().get(0x0112, 1)
            opened.load()  # raises for truncated files
            rgb = to_rgb(opened)
            if orientation in UPRIGHT and rgb.size != (width, height) and rgb.size == (height, width):
                rgb, turned = rgb.transpose(UPRIGHT[orientation]), orientation
            pixels = np.array(rgb, dtype=np.uint8)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds; none may end a training
        return unreadable(error, width, height)
    findings = []
    if mode != "RGB":
        findings.append(("converted", mode))
    if turned:
        findings.append(("rotated", f"orientation {turned}"))
    if pixels.shape[:2] != (height, width):
        found = f"{pixels.shape[1]} x {pixels.shape[0]}, annotated as {width} x {height}"
        findings.append(("resized", found))
        pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    return pixels, findings


def unreadable(error: Exception, width: int, height: int) -> tuple[Pixels, Findings]:
    """What stands in for an image that cannot be decoded."""
    reason = str(error)
    if isinstance(error, UnidentifiedImageError):
        reason = "not an image of a known kind"  # Pillow's sentence would name a buffer
    elif isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    return grey(width, height), [("unreadable", f"{type(error).__name__}: {reason}")]


def grey(width: int, height: int) -> Pixels:
    """An image without content."""
    return np.full((height, width, 3), GREY, np.uint8)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as 8-bit RGB. Raises ValueError for floating-point samples."""
    if image.mode.startswith("I"):  # 16 bits a sample, which Pillow would saturate instead of scale
        samples = np.asarray(image).astype(np.int64)
        return Image.fromarray((np.clip(samples, 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point samples have no defined range")
    return image.convert("RGB")
