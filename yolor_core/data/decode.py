"""Decode an image file to 8-bit RGB of the annotated size, whatever it is encoded as."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from yolor_core.data.report import Note

cv2.setNumThreads(0)  # parallelism is the loader's; a pool per worker process would only fight over the cores

Pixels = NDArray[np.uint8]
GREY = 114
# EXIF orientations that exchange width and height, and what turns each upright.
UPRIGHT = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(path: Path, identifier: int, width: int, height: int) -> tuple[Pixels, list[Note]]:
    """Pixels of a file as uint8 RGB (height, width, 3), and notes of what had to be done.

    `width` and `height` are the annotation file's, and the boxes are relative to them, so they decide:

    * the stored pixels have that size: they are used as stored, as COCO's tools do, whatever EXIF says;
    * only turning them upright by EXIF gives that size: they are turned;
    * neither does: they are scaled to that size (and counted; `ablate data check` reports it as an error).

    Greyscale, palette, CMYK, alpha and 16-bit images become 8-bit RGB; alpha is discarded. A file that cannot
    be decoded completely gives a grey image and an `unreadable` note; this function does not raise.
    """
    try:
        with Image.open(path) as opened:
            mode = opened.mode
            orientation = opened.getexif().get(0x0112, 1)
            opened.load()  # raises for truncated files
            rgb = to_rgb(opened)
            turned = orientation in UPRIGHT and rgb.size != (width, height) and rgb.size == (height, width)
            if turned:
                rgb = rgb.transpose(UPRIGHT[orientation])
            pixels = np.array(rgb, dtype=np.uint8)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds; none may end a training
        text = f"image {identifier} ({path}): {type(error).__name__}: {error}"
        return np.full((height, width, 3), GREY, np.uint8), [Note("unreadable", identifier, text)]
    notes = []
    if mode != "RGB":
        notes.append(Note("converted", identifier, f"image {identifier} ({path}): {mode}"))
    if turned:
        notes.append(Note("rotated", identifier, f"image {identifier} ({path}): orientation {orientation}"))
    if pixels.shape[:2] != (height, width):
        found = f"{pixels.shape[1]} x {pixels.shape[0]}, annotated as {width} x {height}"
        notes.append(Note("resized", identifier, f"image {identifier} ({path}): {found}"))
        pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    return pixels, notes


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as 8-bit RGB. Raises ValueError for floating-point samples."""
    if image.mode.startswith("I"):  # 16 bits a sample, which Pillow would saturate instead of scale
        samples = np.asarray(image).astype(np.int64)
        return Image.fromarray((np.clip(samples, 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point samples have no defined range")
    return image.convert("RGB")
