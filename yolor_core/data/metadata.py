"""Image files without the metadata that keep a decoder from their pixels.

Pillow refuses a whole file for a chunk of text that it cannot read, or that is longer than it likes. Nothing
that is left out here has a part in the pixels; what is left in, the decoder judges.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable

from PIL import Image

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
