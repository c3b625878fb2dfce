"""A finished study as a folder of small files that anybody can check: `ablate publish`, `ablate verify`."""

from __future__ import annotations

from pathlib import Path

from yolor_core.errors import ConfigError
from yolor_core.runs.directory import read_json

MAKER, MANIFEST = "ablate publish", "manifest.json"


def is_published(results: Path) -> bool:
    """Whether `ablate publish` has written this folder. Raises RunError for a damaged manifest."""
    content = read_json(results / MANIFEST)
    return content is not None and content.get("made by") == MAKER


def refuse_published(results: Path) -> None:
    """Raises ConfigError for a published folder: its runs have no weights, so they would be trained over."""
    if is_published(results):
        raise ConfigError(
            f"{results} is a published study, which nothing is trained into; --results names another folder"
        )
