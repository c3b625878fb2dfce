"""Darknet's `.weights`: a header of version and images seen, then all numbers of all layers, float32.

The header is three int32 (major, minor, revision) and the images seen, int64 since version 0.2 and int32
before. A layer with BatchNorm is stored as bias, weight, mean, variance of the norm, then the convolution's
weight; one without as its bias and weight; implicit knowledge as its values. The file has no names and no
shapes, so it can only be read for a given model, and only its length tells whether it is of that model.

Darknet itself stores implicit knowledge; the authors' Python tool leaves it out, and such a file is refused
for a model that needs it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from yolor_core.config import ModelConfig
from yolor_core.errors import WeightsError
from yolor_core.models import list_models, named_config
from yolor_core.models.architectures import ARCHITECTURES
from yolor_core.runs.files import write_atomically
from yolor_core.weights.layout import Entry, named_layout

VERSION = (0, 2, 5)
NORM_ORDER = ("bias", "weight", "running_mean", "running_var")


def read_darknet(
    path: Path, model: str | ModelConfig, classes: int | None = None
) -> tuple[dict[str, Tensor], int]:
    """The tensors of a file under the authors' names, float32, and the number of classes.

    classes: None finds the number for which the length fits.
    Raises WeightsError: no cfg model, truncated header, or a length that is not this model's.
    """
    config = named_config(model) if isinstance(model, str) else model
    if ARCHITECTURES[config.architecture].flavour != "cfg":
        raise WeightsError(
            f"{path}: darknet files hold models of the cfg flavour only, not {config.architecture}; "
            f"allowed: {', '.join(_cfg_models())}"
        )
    numbers = _numbers(path)
    if classes is None:
        classes = _classes(len(numbers), config) or 80
    layout = named_layout(config, classes)
    if _size(config, classes) != len(numbers):
        raise _wrong_length(path, len(numbers), config)
    order = list(darknet_order(layout))
    tensors, start = {}, 0
    for entry in order:
        end = start + math.prod(entry.shape)
        tensors[entry.name] = torch.from_numpy(numbers[start:end].reshape(entry.shape).copy())
        start = end
    names = [entry.name for entry in layout if entry.name in tensors]
    return {name: tensors[name] for name in names}, classes


def write_darknet(path: Path, tensors: Mapping[str, Tensor], layout: Sequence[Entry]) -> None:
    """Write tensors, given under our names. Raises WeightsError for a model of the yaml flavour."""
    parts = [
        tensors[entry.ours].detach().float().cpu().numpy() for entry in darknet_order(layout) if entry.ours
    ]
    header = np.array(VERSION, "<i4").tobytes() + np.array([0], "<i8").tobytes()
    data = header + b"".join(part.astype("<f4").tobytes() for part in parts)
    write_atomically(path, lambda file: file.write(data))


def darknet_order(layout: Sequence[Entry]) -> Iterator[Entry]:
    """The entries of a cfg layout in the order of the file; counters are not in it."""
    for layer, group in itertools.groupby(layout, lambda entry: ".".join(entry.name.split(".")[:2])):
        if not layer.startswith("module_list."):
            raise WeightsError(
                f"darknet files hold models of the cfg flavour only; {layer} is of the yaml flavour"
            )
        entries = {entry.name.removeprefix(f"{layer}."): entry for entry in group}
        if "implicit" in entries:
            yield entries["implicit"]
            continue
        normed = "BatchNorm2d.weight" in entries
        yield from (entries[f"BatchNorm2d.{name}"] for name in NORM_ORDER if normed)
        if not normed:
            yield entries["Conv2d.bias"]
        yield entries["Conv2d.weight"]


def _numbers(path: Path) -> np.ndarray:
    data = path.read_bytes()
    if len(data) < 16:
        raise WeightsError(f"{path}: truncated: {len(data)} bytes are less than a darknet header")
    major, minor = np.frombuffer(data, "<i4", 2).tolist()
    if not (0 <= major <= 1 and 0 <= minor <= 10):
        raise WeightsError(f"{path}: not a darknet file: its header says version {major}.{minor}")
    body = data[20:] if major * 10 + minor >= 2 else data[16:]
    if len(body) % 4:
        raise WeightsError(f"{path}: truncated: its {len(body)} bytes of numbers are not a multiple of 4")
    return np.frombuffer(body, "<f4")


def _wrong_length(path: Path, numbers: int, model: ModelConfig) -> WeightsError:
    name = model.architecture
    scaled = (
        f" of width {model.width:g} and depth {model.depth:g}" if (model.width, model.depth) != (1, 1) else ""
    )
    reason = (
        f"{path} is not {name}{scaled}: it has {numbers} numbers, {name} has {_size(model)} with 80 classes"
    )
    if model.implicit and (classes := _classes(numbers, model, implicit=False)):
        missing = _size(model, classes) - numbers
        reason += f"; exactly its {missing} implicit values are missing, as in files of the Python tool"
    elif fitting := [n for n in _cfg_models() if n != name and _classes(numbers, named_config(n)) == 80]:
        reason += f"; that many fit {' and '.join(fitting)}"
    elif numbers < _size(model):
        reason += "; it is truncated, or of another model"
    return WeightsError(reason)


def _classes(numbers: int, model: ModelConfig, implicit: bool = True) -> int | None:
    """The number of classes with which a model has so many numbers; it grows linearly with them."""
    one, two = (_size(model, classes, implicit) for classes in (1, 2))
    classes, rest = divmod(numbers - one, two - one)
    return classes + 1 if rest == 0 and 0 <= classes < 10_000 else None


def _size(model: ModelConfig, classes: int = 80, implicit: bool = True) -> int:
    entries = darknet_order(named_layout(model, classes))
    return sum(math.prod(entry.shape) for entry in entries if implicit or entry.kind != "implicit")


def _cfg_models() -> list[str]:
    return [name for name in list_models() if ARCHITECTURES[name].flavour == "cfg"]
