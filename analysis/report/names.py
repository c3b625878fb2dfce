"""Names and sentences as pages need them: file names that are safe and differ, ids, escaped prose."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from markupsafe import Markup, escape

UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
LONGEST = 120
CODE = re.compile(r"`([^`]*)`")


def page_names(names: Iterable[str]) -> dict[str, str]:
    """A file's stem for every name; a name that is safe already is its own."""
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        stem = UNSAFE.sub("_", name)[:LONGEST].lstrip(".") or "_"
        # Some file systems take letters of both cases for one.
        if stem != name or stem.lower() in taken:
            stem = f"{stem}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
        taken.add(stem.lower())
        stems[name] = stem
    return stems


def prose(text: str) -> Markup:
    """A sentence as HTML: escaped, with what stands between backticks as code."""
    return Markup(CODE.sub(r"<code>\1</code>", str(escape(text))))


def anchor(text: str) -> str:
    """An id for a part of a page."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"
