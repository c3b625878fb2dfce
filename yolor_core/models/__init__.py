"""Detectors built from data: `architectures` is the table, `detector` the network, `counts` its cost.

Nothing here imports torch until one of the names below is used, because configurations are validated
against `architectures` in programs that must start quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolor_core.models.build import create_model as create_model
    from yolor_core.models.build import initialise as initialise
    from yolor_core.models.build import list_models as list_models
    from yolor_core.models.build import named_config as named_config
    from yolor_core.models.build import parameter_groups as parameter_groups
    from yolor_core.models.counts import Counts as Counts
    from yolor_core.models.counts import count as count
    from yolor_core.models.detector import Detector as Detector
    from yolor_core.models.detector import decode as decode
    from yolor_core.models.knowledge import ImplicitValues as ImplicitValues
    from yolor_core.models.knowledge import fold as fold
    from yolor_core.models.knowledge import implicit_priors as implicit_priors
    from yolor_core.models.knowledge import implicit_values as implicit_values
    from yolor_core.models.knowledge import sparse_penalty as sparse_penalty

_HOMES = {
    "build": ("create_model", "initialise", "list_models", "named_config", "parameter_groups"),
    "counts": ("Counts", "count"),
    "detector": ("Detector", "decode"),
    "knowledge": ("ImplicitValues", "fold", "implicit_priors", "implicit_values", "sparse_penalty"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"yolor_core.models.{module}"), name)
    raise AttributeError(f"module 'yolor_core.models' has no attribute {name!r}")
