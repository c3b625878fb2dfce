"""The released paper-branch code as the named peer of benchmarks: its model, loss and EMA, called as is.

The user fetches it (branch `paper` of the authors' repository) and says where it lies in YOLOR_PEER. It is
written for torch 1.7 and numpy 1.18; what has gone since is put back here, at run time, for it alone:
numpy's old aliases of Python types, `tqdm` where that is not installed, and `clamp_` of integers by a
floating limit.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision  # noqa: F401 - before anything is put in the place of a missing module
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

# The recipe's settings under the peer's names (hyp.scratch files); only what its loss reads.
SETTINGS = {"box": 0.05, "cls": 0.5, "cls_pw": 1.0, "obj": 1.0, "obj_pw": 1.0}
SETTINGS |= {"fl_gamma": 0.0, "anchor_t": 4.0, "iou_t": 0.2}

CLAMP = "clamp_"
CPU = torch.device("cpu")


def checkout() -> Path:
    """The folder YOLOR_PEER names; exits with what to do where there is none."""
    path = Path(os.environ.get("YOLOR_PEER", ""))
    if not os.environ.get("YOLOR_PEER") or not (path / "models" / "yolo.py").is_file():
        sys.exit(
            f"YOLOR_PEER = {os.environ.get('YOLOR_PEER', '')!r}: this benchmark compares with the authors' "
            "released code; set YOLOR_PEER to a checkout of their repository's branch `paper`"
        )
    return path


class ReleasedStep:
    """A training step of the released model: forward, loss, backward, SGD, EMA.

    name: of its yaml file, such as "yolor-p6". half: autocast to it, float16 with a scaled loss; None is
    float32. Calling it takes uint8 images (B, 3, H, W) and targets (n, 6).
    """

    def __init__(
        self,
        name: str,
        classes: int = 80,
        device: torch.device = CPU,
        half: torch.dtype | None = None,
    ) -> None:
        path = checkout()
        with peer_modules(path):
            build = importlib.import_module("models.yolo").Model
            self._loss = importlib.import_module("utils.loss").compute_loss
            average = importlib.import_module("utils.torch_utils").ModelEMA
            model: Any = build(str(path / "models" / f"{name}.yaml"), ch=3, nc=classes).to(device)
            self.average = average(model)
        model.train()
        model.nc, model.gr, model.hyp = classes, 1.0, SETTINGS
        self.model, self.device, self.half = model, device, half
        self.scaler = GradScaler(device.type, enabled=half is torch.float16)
        others, weights, biases = _groups(model)
        self.optimiser = torch.optim.SGD(others, lr=1e-4, momentum=0.937, nesterov=True)
        self.optimiser.add_param_group({"params": weights, "weight_decay": 5e-4})
        self.optimiser.add_param_group({"params": biases})

    def __call__(self, images: Tensor, targets: Tensor) -> float:
        """Take one step; the loss."""
        images, targets = (values.to(self.device, non_blocking=True) for values in (images, targets))
        with torch.autocast(self.device.type, self.half or torch.bfloat16, enabled=self.half is not None):
            predictions = self.model(images.float() / 255)
            with _old_clamp():
                loss, terms = self._loss(predictions, targets, self.model)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad()
        self.average.update(self.model)
        return float(terms[-1])


def _groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Without decay, convolution weights, biases."""
    others: list[nn.Parameter] = []
    weights: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias":
                biases.append(parameter)
            else:
                (weights if isinstance(module, nn.Conv2d) else others).append(parameter)
    return others, weights, biases


class Quiet:
    """Stands in for tqdm."""

    def __init__(self, items: Any = (), **_: Any) -> None:
        self._items, self.desc = items, ""

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def close(self) -> None:
        """Nothing to close."""


@contextlib.contextmanager
def peer_modules(path: Path) -> Iterator[None]:
    """Its packages are called `models` and `utils`; they are importable in here only."""
    importlib.import_module("torch._dynamo")  # looks modules up by name when it is first imported
    for name, kind in {"int": int, "float": float, "bool": bool, "object": object}.items():
        if name not in vars(np):
            setattr(np, name, kind)
    if importlib.util.find_spec("tqdm") is None:
        module: Any = types.ModuleType("tqdm")
        module.__spec__, module.tqdm = importlib.machinery.ModuleSpec("tqdm", None), Quiet
        sys.modules["tqdm"] = module
    sys.path.insert(0, str(path))
    try:
        yield
    finally:
        sys.path.remove(str(path))


@contextlib.contextmanager
def _old_clamp() -> Iterator[None]:
    """Integers could be clamped by a tensor of floats."""
    modern = getattr(torch.Tensor, CLAMP)

    def clamp_(values: Tensor, low: Any = None, high: Any = None) -> Tensor:
        whole = not values.is_floating_point()
        low, high = (int(v) if whole and isinstance(v, Tensor) else v for v in (low, high))
        return modern(values, low, high)

    setattr(torch.Tensor, CLAMP, clamp_)
    try:
        yield
    finally:
        setattr(torch.Tensor, CLAMP, modern)
