"""From a registry entry to the class it names."""

from __future__ import annotations

import importlib
from typing import Any


def load_class(entry: str) -> Any:
    """Import `module:Class`."""
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)
