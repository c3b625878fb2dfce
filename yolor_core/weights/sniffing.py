"""What a file is, by its first bytes, whatever it is called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from yolor_core.errors import WeightsError

Format = Literal["torch zip", "torch legacy", "safetensors", "darknet"]
PAGES = r"<(!doctype html|html|head|body|script|title|meta|div|center|h1|p)\b"
POINTERS = ("version https://git-lfs", "version https://hawser", "version http://git-media")
ARCHIVES = {
    b"\x1f\x8b": "gzip archive",
    b"BZh": "bzip2 archive",
    b"\xfd7zXZ": "xz archive",
    b"7z\xbc\xaf": "7z archive",
    b"Rar!": "RAR archive",
    b"\x28\xb5\x2f\xfd": "Zstandard archive",
    b"\x89HDF": "HDF5 file, as Keras writes it",
    b"\x08": "ONNX file",
}


def sniff(path: Path) -> Format:
    """The format of a weights file.

    Raises WeightsError saying what the file is instead: missing, a folder, empty, a web page, an error of the
    server in XML or JSON, a Git LFS pointer, an archive of another kind, or nothing known.
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
    _refuse_answer(path, start)
    if start.startswith(b"PK\x03\x04"):
        return "torch zip"
    if start[:1] == b"\x80" and len(start) > 1 and 2 <= start[1] <= 5:
        return "torch legacy"
    if len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 100_000_000:
        return "safetensors"
    plausible = start[:4] in (b"\0\0\0\0", b"\1\0\0\0")  # major version 0 or 1
    if (path.suffix == ".weights" and plausible) or start[:8] == b"\0\0\0\0\2\0\0\0":
        return "darknet"
    for magic, archive in ARCHIVES.items():
        if start.startswith(magic):
            raise WeightsError(f"{path}: {archive}, not weights; unpack or convert it first")
    raise WeightsError(
        f"{path}: not a weights file (it begins with {start[:12]!r}); known: torch .pt, darknet .weights, "
        "safetensors"
    )


def _refuse_answer(path: Path, start: bytes) -> None:
    """Raises WeightsError for what a server sends instead of a file: a page, its error, a pointer."""
    coding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = start.decode(coding, "replace").lstrip()
    body = re.sub(r"^(\s|<\?.*?\?>|<!--.*?-->)+", "", text, flags=re.DOTALL)
    told = re.search(r"<(?:Code|Message)>\s*([^<]+)", text) or re.search(
        r"""["'](?:error|message|detail)["']\s*:\s*["']([^"']+)""", text
    )
    why = f", which says {told[1].strip()[:80]!r}" if told else ""
    if re.match(PAGES, body, re.IGNORECASE):
        raise WeightsError(
            f"{path}: a web page (HTML), not weights; the server answered the download with a page, "
            "often one that asks for confirmation"
        )
    if text.startswith("<?xml") or re.match(r"<[A-Za-z!]", body):
        raise WeightsError(f"{path}: XML, not weights, as servers send it for an error{why}")
    if re.match(r"""[\[{]\s*(["'{\[]|\}|\]|$)""", text):
        raise WeightsError(f"{path}: JSON, not weights, as servers send it for an error{why}")
    if text.startswith(POINTERS):
        raise WeightsError(f"{path}: a Git LFS pointer, not weights; fetch the file with `git lfs pull`")
