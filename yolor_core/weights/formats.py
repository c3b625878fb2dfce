"""The formats other programs read: the authors' .pt, darknet's .weights, safetensors and ONNX.

Darknet's file has a header of version and images seen, then all numbers of all layers, float32. The header
is three int32 (major, minor, revision) and the images seen, int64 since version 0.2 and int32 before. A layer
with BatchNorm is stored as bias, weight, mean, variance of the norm, then the convolution's weight; one
without as its bias and weight; implicit knowledge as its values. The file has no names and no shapes, so it
can only be read for a given model, and only its length tells whether it is of that model. Darknet itself
stores implicit knowledge; the authors' Python tool leaves it out, and such a file is refused for a model that
needs it.
"""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import logging
import math
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from yolor_core.config import ModelConfig
from yolor_core.errors import InputError, UnknownNameError, WeightsError
from yolor_core.models import Detector, decode, list_models, named_config
from yolor_core.models.architectures import ARCHITECTURES
from yolor_core.runs.directory import write_atomically
from yolor_core.weights.layout import Entry, check_detection_only, key_layout, named_layout

SUFFIXES = {"safetensors": ".safetensors", "onnx": ".onnx", "authors": ".pt", "darknet": ".weights"}
VERSION = (0, 2, 5)  # of darknet
NORM_ORDER = ("bias", "weight", "running_mean", "running_var")
INPUT, OUTPUT = "images", "predictions"  # of the ONNX graph
TOLERANCE = 1e-3  # of max(1, |value|): pixels and scores in float32, summed in another order
CHECKED_BATCHES = (1, 3)


def export_weights(
    model: Detector, path: Path | str, format: str, size: int | tuple[int, int] | None = None
) -> str:
    """Write `model` to `path` and say in a line what was written.

    format: `safetensors` (our names), `onnx` (see `export_onnx`; `size` in pixels, the paper's test
    size by default), `authors` (their names; {"model": state_dict}, which their main branch loads as it is;
    for the yaml flavour give it to `load_state_dict`), `darknet` (cfg flavour only).
    Raises UnknownNameError for the format, WeightsError for a model that it cannot hold.
    """
    path = Path(path)
    if format not in SUFFIXES:
        raise UnknownNameError("format", format, SUFFIXES)
    path.parent.mkdir(parents=True, exist_ok=True)
    if format == "safetensors":
        write_safetensors(path, model.state_dict())
        return f"{len(model.state_dict())} tensors under our names"
    if format == "onnx":
        size = model.architecture.size if size is None else size
        difference = export_onnx(model, path, size)
        return f"images of {size}, any batch size; onnxruntime differs from torch by {difference:.1e}"
    if format == "authors":
        state = authors_state(model)
        write_atomically(path, lambda file: torch.save({"model": state}, file))
        return f"{len(state)} tensors under the authors' names"
    write_darknet(path, model.state_dict(), key_layout(model))
    return "all layers in the order of the cfg file"


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


class Decoding(nn.Module):
    """A detector followed by its decoding, which is what the exported graph computes."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> (B, N, 5 + classes): x, y, w, h in pixels, objectness, class scores."""
        return decode(self.model(images), self.model.strides, self.model.anchors)


def export_onnx(model: Detector, path: Path, size: int | tuple[int, int]) -> float:
    """Write an ONNX file for images of `size` pixels (a square, or height and width) and any batch size.

    Its output is decoded, (B, N, 5 + classes) as `models.decode` gives it, because raw logits would leave
    anchors and strides to every reader; suppression of overlapping boxes stays outside, where its thresholds
    can be chosen. The file is checked by onnxruntime on random images in two batch sizes.

    Returns the largest difference from torch, relative to max(1, |value|).
    Raises InputError for a size the model cannot take, WeightsError when the check fails and for a model
    with other tasks than detection, ModuleNotFoundError without the packages of the extra `export`.
    """
    # Both before any work; onnxruntime has types in some of its versions.
    import onnxruntime  # type: ignore[import-untyped,unused-ignore]  # noqa: F401
    import onnxscript  # noqa: F401

    check_detection_only(model, "our ONNX graph")
    height, width = (size, size) if isinstance(size, int) else size
    stride = model.strides[-1]
    if height % stride or width % stride or height <= 0 or width <= 0:
        near = " x ".join(str(max(-(-side // stride), 1) * stride) for side in (height, width))
        raise InputError(
            f"size {height} x {width}: both sides have to be multiples of {stride}; next: {near}"
        )
    network = Decoding(copy.deepcopy(model).cpu().float()).eval()
    example = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder) / path.name
        with _quiet():
            torch.onnx.export(
                network,
                (example,),
                draft,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        difference = compare(draft, network, (height, width))
        if not difference <= TOLERANCE:
            raise WeightsError(
                f"{path} was not written: onnxruntime differs from torch by {difference:.1e} "
                f"(allowed: {TOLERANCE})"
            )
        draft.replace(path)
    return difference


@torch.no_grad()
def compare(file: Path, network: nn.Module, size: tuple[int, int]) -> float:
    """Largest difference between onnxruntime and torch, relative to max(1, |value|), on random images."""
    import onnxruntime  # type: ignore[import-untyped,unused-ignore]  # as above

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(1)
    worst = 0.0
    for batch in CHECKED_BATCHES:
        images = torch.rand(batch, 3, *size, generator=generator)
        expected = network(images).numpy()
        (found,) = session.run([OUTPUT], {INPUT: images.numpy()})
        if found.shape != expected.shape:
            return float("inf")
        worst = max(worst, float((np.abs(found - expected) / np.maximum(1, np.abs(expected))).max()))
    return worst


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its progress on every channel; none of it is about the user's model."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def read_darknet(path: Path, config: ModelConfig) -> dict[str, Tensor]:
    """The tensors of a file under the authors' names, float32, with as many classes as its length says.

    Raises WeightsError: no cfg model, truncated header, or a length that is not this model's.
    """
    if ARCHITECTURES[config.architecture].flavour != "cfg":
        raise WeightsError(
            f"{path}: darknet files hold models of the cfg flavour only, not {config.architecture}; "
            f"allowed: {', '.join(_cfg_models())}"
        )
    numbers = _numbers(path)
    classes = _classes(len(numbers), config)
    if classes is None:
        raise _wrong_length(path, len(numbers), config)
    layout = named_layout(config, classes)
    tensors, start = {}, 0
    for entry in darknet_order(layout):
        end = start + math.prod(entry.shape)
        tensors[entry.name] = torch.from_numpy(numbers[start:end].reshape(entry.shape).copy())
        start = end
    return {entry.name: tensors[entry.name] for entry in layout if entry.name in tensors}


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
