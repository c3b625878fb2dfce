"""The pixels of ordinary JPEG files, decoded faster than by Pillow alone and to the same values."""

from __future__ import annotations

import functools
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from yolor_core.data.metadata import exif_orientation

Pixels = NDArray[np.uint8]
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
