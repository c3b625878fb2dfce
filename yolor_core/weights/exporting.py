"""Write a model's weights for others to read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from yolor_core.errors import UnknownNameError
from yolor_core.models import Detector
from yolor_core.runs.files import write_atomically
from yolor_core.weights.darknet import write_darknet
from yolor_core.weights.layout import key_layout
from yolor_core.weights.onnx import export_onnx

SUFFIXES = {"safetensors": ".safetensors", "onnx": ".onnx", "authors": ".pt", "darknet": ".weights"}


def export_weights(
    model: Detector, path: Path | str, format: str, size: int | tuple[int, int] | None = None
) -> str:
    """Write `model` to `path` and say in a line what was written.

    format: `safetensors` (our names), `onnx` (see `onnx.export_onnx`; `size` in pixels, the paper's test
    size by default), `authors` (their names; {"model": state_dict}, which their main branch loads as it is;
    for the yaml flavour give it to `load_state_dict`), `darknet` (cfg flavour only).
    Raises UnknownNameError for the format, WeightsError for a model that it cannot hold.
    """
    path = Path(path)
    writers: dict[str, Callable[[], str]] = {
        "safetensors": lambda: _safetensors(model, path),
        "onnx": lambda: _onnx(model, path, size or model.architecture.size),
        "authors": lambda: _authors(model, path),
        "darknet": lambda: _darknet(model, path),
    }
    if format not in writers:
        raise UnknownNameError("format", format, writers)
    path.parent.mkdir(parents=True, exist_ok=True)
    return writers[format]()


def authors_state(model: Detector) -> OrderedDict[str, Tensor]:
    """The state_dict of the authors' model: their names, order and shapes, constants included."""
    ours = model.state_dict()
    state: OrderedDict[str, Tensor] = OrderedDict()
    for entry in key_layout(model):
        value = entry.constant if entry.ours is None else ours[entry.ours]
        assert value is not None
        state[entry.name] = value.detach().cpu().reshape(entry.shape).clone()
    return state


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write named tensors, atomically."""
    data = save({name: value.detach().contiguous().cpu() for name, value in tensors.items()})
    write_atomically(path, lambda file: file.write(data))


def _safetensors(model: Detector, path: Path) -> str:
    write_safetensors(path, model.state_dict())
    return f"{len(model.state_dict())} tensors under our names"


def _onnx(model: Detector, path: Path, size: int | tuple[int, int]) -> str:
    difference = export_onnx(model, path, size)
    return f"images of {size}, any batch size; onnxruntime differs from torch by {difference:.1e}"


def _authors(model: Detector, path: Path) -> str:
    state = authors_state(model)
    write_atomically(path, lambda file: torch.save({"model": state}, file))
    return f"{len(state)} tensors under the authors' names"


def _darknet(model: Detector, path: Path) -> str:
    write_darknet(path, model.state_dict(), key_layout(model))
    return "all layers in the order of the cfg file"
