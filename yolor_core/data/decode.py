"""Decode an image file to 8-bit RGB, upright, of the annotated size, whatever it is encoded as.

Pillow refuses a whole file for a chunk of text that it cannot read, or that is longer than it likes; such a
file is decoded without its metadata. Nothing that is left out there has a part in the pixels; what is left
in, the decoder judges.
"""

from __future__ import annotations

import functools
import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import StubImageFile

from yolor_core.data.images import GREY, Pixels
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
            if opened.format == "JPEG2000" and not mode.startswith("I") and _bits_of_jpeg2000(data) > 8:
                raise ValueError(
                    "JPEG 2000 of several channels of more than 8 bits, which Pillow decodes with white "
                    "turned black; store it with 8 bits, or as PNG or TIFF"
                )
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


def _bits_of_jpeg2000(data: bytes) -> int:
    """The most bits that a sample of any channel has."""
    at = data.find(b"\xff\x4f\xff\x51")  # the codestream begins, with its sizes
    (channels,) = struct.unpack_from(">H", data, at + 40)
    return max((depth & 0x7F) + 1 for depth in data[at + 42 : at + 42 + 3 * channels : 3])


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


ORIENTATION = 0x0112
PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
# Tags that say what the samples of a TIFF file are and where; the rest describes.
TIFF_TAGS = {
    *(254, 255, 256, 257, 258, 259, 262, 266, 273, ORIENTATION, 277, 278, 279, 284, 292, 293, 317, 320),
    *(322, 323, 324, 325, 338, 339, 347, 512, 513, 514, 519, 520, 521, 529, 530, 531, 532),
}  # fmt: skip


def without_metadata(data: bytes) -> tuple[bytes, list[str]] | None:
    """A file without metadata that Pillow cannot read, and the names of what was wrong; None where
    nothing is.

    PNG, JPEG, WebP and TIFF files. An orientation is kept where it can be read.
    """
    kinds: dict[bytes, Callable[[bytes], tuple[bytes, list[str]]]] = {
        b"\x89PNG\r\n\x1a\n": _png, b"\xff\xd8": _jpeg, b"RIFF": _webp, b"II": _tiff, b"MM": _tiff,
    }  # fmt: skip
    for magic, strip in kinds.items():
        if data.startswith(magic):
            try:
                clean, ignored = strip(data)
            except (struct.error, ValueError, IndexError):
                return None  # the structure itself is damaged
            return (clean, list(dict.fromkeys(ignored))) if ignored else None
    return None


def exif_orientation(exif: bytes) -> int | None:
    """The orientation in EXIF data (from its byte order on), 1 without one, 0 for one of another kind; None
    for anything but EXIF data.

    Read from the first directory alone: what is wrong with other entries does not matter.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return None
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, values, value = struct.unpack_from(f"{order}HHIH2x", exif, entry)
            if tag == ORIENTATION:
                return int(value) if (kind, values) == (3, 1) else 0
    except struct.error:
        return None
    return 1


def _opens(data: bytes) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = Image.open(io.BytesIO(data))
            if {"exif", "Raw profile type exif"} & opened.info.keys():
                opened.getexif()
    except Exception:
        return False
    return True


def _png(data: bytes) -> tuple[bytes, list[str]]:
    signature, at, ignored = data[:8], 8, []
    head, kept, body = b"", b"", bytearray()  # IHDR, metadata, and the rest
    others = 0
    while at + 8 <= len(data):
        chunk, whole = _chunk(data, at)
        kind = chunk[4:8]
        at += len(chunk)
        if kind in PNG_PIXELS:
            if kind == b"IHDR":
                head = chunk
            else:
                body += chunk
            continue
        others += 1
        if not whole or not _opens(signature + head + chunk + b"\0\0\0\0IDAT"):
            ignored.append(kind.decode() if kind.isalpha() else "a chunk of no kind")
        elif kind == b"eXIf" or b"Raw profile type exif" in chunk or b"XML:com.adobe.xmp" in chunk:
            kept += chunk
        if not whole and not _chunk(data, at)[1]:  # its length may be wrong
            start = at - len(chunk) + 8
            names = re.finditer(b"|".join(PNG_PIXELS), data[start:])
            places = (start + name.start() - 4 for name in names)
            at = next((place for place in places if _chunk(data, place)[1]), at)
    if not ignored and others:  # too much text together, or an animation that does not fit
        ignored.append(f"all metadata, {others} chunks")
    return signature + head + kept + body, ignored


def _chunk(data: bytes, at: int) -> tuple[bytes, bool]:
    """A part of a PNG file, and whether it has its checksum."""
    (length,) = struct.unpack(">I", data[at : at + 4].rjust(4, b"\0"))
    chunk = data[at : at + 12 + length]
    return chunk, len(chunk) == 12 + length and chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))


def _jpeg(data: bytes) -> tuple[bytes, list[str]]:
    at, ignored = 2, []
    describing: list[bytes] = []
    frame = b""
    while data[at : at + 2] != b"\xff\xda":
        if data[at] != 0xFF or data[at + 1] in (0x00, 0xFF):  # as libjpeg does, go on to the next marker
            if data[at] != 0xFF:
                ignored.append("bytes between segments")
            at = data.index(b"\xff", at + 1)
            continue
        marker, (length,) = data[at + 1], struct.unpack_from(">H", data, at + 2)
        segment = data[at : at + 2 + length]
        if length < 2 or 0xD0 <= marker <= 0xD9:
            raise ValueError("not a segment")
        if 0xE0 <= marker <= 0xEF or marker == 0xFE:
            describing.append(segment)
        else:
            frame += segment
        at += 2 + length
    rest, kept = frame + data[at:], b""
    for segment in describing:
        if not _opens(b"\xff\xd8" + segment + rest):
            ignored.append("COM" if segment[1] == 0xFE else f"APP{segment[1] - 0xE0}")
        elif segment[1] in (
            0xE0,
            0xE1,
            0xEE,
        ):  # JFIF and Adobe say what the colours are, EXIF how it is turned
            kept += segment
    return b"\xff\xd8" + kept + rest, ignored


def _webp(data: bytes) -> tuple[bytes, list[str]]:
    pixels = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
    at, ignored, parts = 12, [], b""
    if struct.unpack_from("<I", data, 4)[0] > len(data) - 8:
        ignored.append("the length of the file")
    while at + 8 <= len(data):
        kind, (length,) = data[at : at + 4], struct.unpack_from("<I", data, at + 4)
        chunk = data[at : at + 8 + length + length % 2]
        end = at + len(chunk)
        if kind == b"VP8X":
            parts += chunk[:8] + bytes([chunk[8] & ~0x2C]) + chunk[9:]  # neither ICC profile, EXIF nor XMP
        elif kind in pixels:
            parts += chunk
        elif kind not in (b"ICCP", b"EXIF", b"XMP "):
            raise ValueError("the chunk before it does not end here")
        elif len(chunk) < 8 + length or not re.match(rb"[A-Z0-9 ]{4}|$", data[end : end + 4]):
            ignored.append(kind.decode().strip())
            found = re.search(b"|".join(pixels), data[at + 8 :])
            end = at + 8 + found.start() if found else len(data)
        elif kind == b"EXIF" and exif_orientation(chunk[8:].removeprefix(b"Exif\0\0")) is not None:
            parts += chunk
            parts = re.sub(rb"^(VP8X\x0a\0\0\0)(.)", _says_exif, parts, flags=re.DOTALL)
        at = end
    return b"RIFF" + struct.pack("<I", len(parts) + 4) + b"WEBP" + parts, ignored


def _says_exif(header: re.Match[bytes]) -> bytes:
    return header[1] + bytes([header[2][0] | 0x08])


def _tiff(data: bytes) -> tuple[bytes, list[str]]:
    order = "<" if data[:2] == b"II" else ">"
    (version,) = struct.unpack_from(f"{order}H", data, 2)
    number, offset, entry, at = ("Q", "Q", 20, 8) if version == 43 else ("H", "I", 12, 4)
    (start,) = struct.unpack_from(order + offset, data, at)
    (count,) = struct.unpack_from(order + number, data, start)
    first = start + struct.calcsize(number)
    entries = [data[first + k * entry : first + (k + 1) * entry] for k in range(count)]
    tags = [struct.unpack_from(f"{order}H", each)[0] for each in entries]
    kept = [each for each, tag in zip(entries, tags, strict=True) if tag in TIFF_TAGS]
    directory = struct.pack(order + number, len(kept)) + b"".join(kept) + bytes(struct.calcsize(offset))
    ignored = [f"tag {tag}" for tag in tags if tag not in TIFF_TAGS]
    return data[:start] + directory + data[start + len(directory) :], ignored
