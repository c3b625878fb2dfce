"""Weights of others and for others: the authors' checkpoints, darknet, safetensors, ONNX.

`importing` reads, `formats` writes. No code from a file is run: see `inert`.
"""

from __future__ import annotations

from yolor_core.weights.formats import export_weights
from yolor_core.weights.importing import Report, import_weights, load_model, load_run
from yolor_core.weights.layout import Entry, key_layout

__all__ = ["Entry", "Report", "export_weights", "import_weights", "key_layout", "load_model", "load_run"]
