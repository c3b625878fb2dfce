"""Detectors built from data: `architectures` is the table, `detector` the network, `counts` its cost.

Nothing here imports torch until one of the names below is used, because configurations are validated
against `architectures` in programs that must start quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolor_core.models.build import create_model, list_models, named_config
    from yolor_core.models.counts import Counts, count
    from yolor_core.models.decoding import decode
    from yolor_core.models.detector import Detector
    from yolor_core.models.folding import fold
    from yolor_core.models.initialisation import initialise
    from yolor_core.models.knowledge import ImplicitValues, implicit_priors, implicit_values, sparse_penalty
    from yolor_core.models.parameters import parameter_groups

_HOMES = {
    "create_model": "build",
    "list_models": "build",
    "named_config": "build",
    "Counts": "counts",
    "count": "counts",
    "decode": "decoding",
    "Detector": "detector",
    "fold": "folding",
    "initialise": "initialisation",
    "ImplicitValues": "knowledge",
    "implicit_priors": "knowledge",
    "implicit_values": "knowledge",
    "sparse_penalty": "knowledge",
    "parameter_groups": "parameters",
}

__all__ = [
    "Counts",
    "Detector",
    "ImplicitValues",
    "count",
    "create_model",
    "decode",
    "fold",
    "implicit_priors",
    "implicit_values",
    "initialise",
    "list_models",
    "named_config",
    "parameter_groups",
    "sparse_penalty",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'yolor_core.models' has no attribute {name!r}")
    return getattr(importlib.import_module(f"yolor_core.models.{_HOMES[name]}"), name)
