"""What a file is, by its first bytes, whatever it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from yolor_core.errors import WeightsError

Format = Literal["torch zip", "torch legacy", "safetensors", "darknet"]
PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<script", b"<body")


def sniff(path: Path) -> Format:
    """The format of a weights file.

    Raises WeightsError saying what the file is instead: missing, a folder, empty, a web page, a Git LFS
    pointer, an archive of another kind, or nothing known.
    """
    if path.is_dir():
        raise WeightsError(f"{path}: a folder; a file of weights is needed")
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    if not start:
        raise WeightsError(f"{path}: empty; the download may have failed")
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:400].lower()
    if text.startswith(PAGES):
        raise WeightsError(
            f"{path}: a web page (HTML), not weights; the server answered the download with a page, "
            "often one that asks for confirmation"
        )
    if text.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path}: a Git LFS pointer, not weights; fetch the file with `git lfs pull`")
    if start.startswith(b"PK\x03\x04"):
        return "torch zip"
    if start[:1] == b"\x80" and len(start) > 1 and 2 <= start[1] <= 5:
        return "torch legacy"
    if len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 100_000_000:
        return "safetensors"
    plausible = start[:4] in (b"\0\0\0\0", b"\1\0\0\0")  # major version 0 or 1
    if (path.suffix == ".weights" and plausible) or start[:8] == b"\0\0\0\0\2\0\0\0":
        return "darknet"
    raise WeightsError(
        f"{path}: not a weights file (it begins with {start[:12]!r}); known: torch .pt, darknet .weights, "
        "safetensors"
    )
