"""Checkpoints as the authors' code writes them, from classes that are gone when the file is read.

Modules `models.yolo`, `models.common` ... exist only while `saved_by_the_authors` saves.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

NAMES = {
    "models.yolo": ("Model", "Detect"),
    "models.common": ("Block", "Conv", "ImplicitA", "DWT"),
    "utils.torch_utils": ("ModelEMA",),
    "mish_cuda": ("MishCuda",),
    "pytorch_wavelets.dwt.transform2d": ("DWTForward",),
}


@contextlib.contextmanager
def authors_modules() -> Iterator[dict[str, Any]]:
    """Their classes by name; the modules disappear from the interpreter afterwards."""
    classes: dict[str, Any] = {}
    added = []
    for module_name, names in NAMES.items():
        parts = module_name.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            if name not in sys.modules:
                assert end > 1 or importlib.util.find_spec(name) is None
                sys.modules[name] = types.ModuleType(name)
                added.append(name)
        for name in names:
            base = object if name == "ModelEMA" else nn.Module
            classes[name] = type(name, (base,), {"__module__": module_name})
            setattr(sys.modules[module_name], name, classes[name])
    try:
        yield classes
    finally:
        for name in added:
            del sys.modules[name]


def module_of(state: dict[str, Tensor], classes: dict[str, Any]) -> nn.Module:
    """A module object with this state_dict, built of real torch layers inside the authors' classes."""
    root = classes["Model"]()
    groups: dict[str, dict[str, Tensor]] = collections.defaultdict(dict)
    for name, tensor in state.items():
        prefix, _, last = name.rpartition(".")
        groups[prefix][last] = tensor
    for prefix, tensors in groups.items():
        parent, (*path, last) = root, prefix.split(".")
        for part in path:
            if part not in parent._modules:
                parent.add_module(part, classes["Block"]())
            parent = parent._modules[part]
        if last in parent._modules:  # the detector, whose children came later in the order of names
            _fill(parent._modules[last], tensors)
        else:
            parent.add_module(last, _fill(_layer(tensors, classes), tensors))
    for module in list(root.modules()):
        if type(module).__name__ == "Block":
            module.add_module("act", classes["MishCuda"]())
    root.yaml = {"nc": 80, "anchors": [[1, 2]]}
    root.names = ["person", "car"]
    root.stride = torch.tensor([8.0, 16.0])
    root.hyp = collections.defaultdict(list, lr0=np.float64(0.01))
    return root


def _layer(tensors: dict[str, Tensor], classes: dict[str, Any]) -> nn.Module:
    if "running_mean" in tensors:
        return nn.BatchNorm2d(len(tensors["running_mean"]))
    if "implicit" in tensors:
        return classes["ImplicitA"]()
    if "h0_col" in tensors:
        return classes["DWTForward"]()
    if "anchors" in tensors:
        return classes["Detect"]()
    out, c_in, height, width = tensors["weight"].shape
    return nn.Conv2d(c_in, out, (height, width), bias="bias" in tensors)


def _fill(layer: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    for name, value in tensors.items():
        if name in layer._buffers or name in ("anchors", "anchor_grid") or name.startswith("h"):
            layer.register_buffer(name, value.clone())
        else:
            layer.register_parameter(name, nn.Parameter(value.clone()))
    return layer


def save(value: Any, path: Path, legacy: bool) -> None:
    """torch.save in the format of today or of torch before 1.6."""
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)


def checkpoint(model: Any, ema: Any = None) -> dict[str, Any]:
    """What their training loop puts around a network."""
    state = {0: {"momentum_buffer": torch.ones(3)}}
    optimiser = {"state": state, "param_groups": [{"lr": 0.01, "params": [0]}]}
    return {
        "epoch": 299,
        "best_fitness": np.array([0.5]),
        "training_results": "text",
        "model": model,
        "ema": ema,
        "optimizer": optimiser,
        "wandb_id": None,
        "opt": {"save_dir": Path("runs/exp")},
    }
