"""Read any weights file for a named model, without running anything from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from yolor_core.config import ModelConfig
from yolor_core.errors import WeightsError
from yolor_core.models import named_config
from yolor_core.models.architectures import ARCHITECTURES
from yolor_core.weights.checkpoint import find_tensors
from yolor_core.weights.containers import Container, LegacyContainer, ZipContainer
from yolor_core.weights.darknet import read_darknet
from yolor_core.weights.inert import StoredTensor
from yolor_core.weights.layout import Entry, named_layout
from yolor_core.weights.matching import classes_of, match, twins
from yolor_core.weights.sniffing import sniff

LISTED = 6  # keys that the summary shows
ANCHOR_TOLERANCE = 4e-3  # relative; bfloat16 keeps 8 bits


@dataclass(frozen=True)
class Report:
    """What was read."""

    file: str
    format: str  # torch zip, torch legacy, darknet or safetensors
    content: str  # state_dict or whole module, and where it was
    key: str  # the same place, as --key takes it
    network: str  # averaged, raw, or only
    others: tuple[str, ...]  # keys of the checkpoint that were not read
    model: str
    classes: int
    tensors: int  # filled in our model
    matched_by: str  # name, our own names or order
    cast_from: tuple[str, ...]  # types that were turned into float32
    ignored: tuple[str, ...]  # constants of the file, compared with the architecture's own
    twins: tuple[str, ...]  # models that differ in the activation only, which no file of tensors shows

    def text(self) -> str:
        """One line."""
        cast = f", cast from {' and '.join(self.cast_from)} to float32" if self.cast_from else ""
        twin = (
            f"; {' and '.join(self.twins)} would fit as well, with another activation" if self.twins else ""
        )
        network = "" if self.network == "only" else f"the {self.network} network, "
        rest = f"; not read: {', '.join(self.others[:LISTED])}" if self.others else ""
        more = f" and {len(self.others) - LISTED} more" if len(self.others) > LISTED else ""
        return (
            f"{self.model}: {self.tensors} tensors from {network}{self.content} ({self.format}), matched by "
            f"{self.matched_by}, {self.classes} classes{cast}{twin}{rest}{more}"
        )


@dataclass(frozen=True)
class _Source:
    """Tensors of a file: shapes first, values on demand."""

    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], Tensor]
    format: str
    content: str
    key: str = "the file itself"
    network: str = "only"
    others: tuple[str, ...] = ()


def import_weights(
    path: Path | str, model: str | ModelConfig, key: str | None = None
) -> tuple[dict[str, Tensor], Report]:
    """Read weights of a model: a named one, or any that a configuration describes.

    path: the authors' .pt (a state_dict, or a whole pickled module, of any torch version), darknet's .weights
    for models of the cfg flavour, or safetensors with our names. Of a checkpoint with several networks the
    averaged one is taken, or the one under `key`; see `checkpoint.find_tensors`. The number of classes is the
    file's.

    Returns our state_dict (float32, on the CPU; BatchNorm's counters int64) and what was read.

    Raises UnknownNameError for the model, WeightsError for the file: not weights at all (HTML, empty),
    damaged or truncated, asking for programs to be run, without a network that can be chosen, of another
    model, with missing, additional, wrongly shaped or non-finite tensors, or made for other anchors.
    """
    path = Path(path)
    config = named_config(model) if isinstance(model, str) else model
    model = config.architecture if isinstance(model, str) else described(config)
    source = _open(path, config, key)
    classes = classes_of(source.shapes, ARCHITECTURES[config.architecture].anchors_per_level) or 80
    layout = named_layout(config, classes)
    where = f"{path}: the {source.network} network at {source.key}" if source.network != "only" else str(path)
    pairs, how = match(source.shapes, layout, model, where)

    tensors: dict[str, Tensor] = {}
    cast, ignored = set(), []
    for name, entry in pairs.items():
        value = source.read(name)
        if entry.kind == "constant":
            _check_constant(value, entry, path, model)
            ignored.append(name)
            continue
        assert entry.ours is not None
        if entry.kind == "counter":
            tensors[entry.ours] = value.to(torch.int64)
            continue
        if value.is_complex():
            raise WeightsError(f"{path}: {name} has complex numbers")
        if value.dtype != torch.float32:
            cast.add(str(value.dtype).removeprefix("torch."))
        tensors[entry.ours] = _finite(value.float(), name, path).reshape(_our_shape(entry))
    ours = [entry.ours for entry in layout if entry.ours is not None]
    state = {name: tensors.get(name, torch.tensor(0)) for name in ours}  # only counters may be absent
    report = Report(
        file=str(path),
        format=source.format,
        content=source.content,
        key=source.key,
        network=source.network,
        others=source.others,
        model=model,
        classes=classes,
        tensors=len(tensors),
        matched_by=how,
        cast_from=tuple(sorted(cast)),
        ignored=tuple(ignored),
        twins=tuple(twins(config.architecture)),
    )
    return state, report


def described(config: ModelConfig) -> str:
    """A model in words: its name, and what is not as in the named one."""
    full = named_config(config.architecture)
    changed = [
        f"{field} {getattr(config, field):g}" for field in ("width", "depth") if getattr(config, field) != 1
    ]
    if config.implicit != full.implicit:
        implicit = " and ".join(f"{i.operator} {i.site}" for i in config.implicit) or "none"
        changed.append(f"implicit knowledge {implicit}")
    return config.architecture + (f" ({', '.join(changed)})" if changed else "")


def _open(path: Path, config: ModelConfig, key: str | None) -> _Source:
    kind = sniff(path)
    if kind == "darknet":
        values, _ = read_darknet(path, config)
        return _Source(_shapes(values), values.__getitem__, kind, "layers in order")
    if kind == "safetensors":
        try:
            loaded: dict[str, Tensor] = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(f"{path}: damaged or truncated safetensors file ({error})") from None
        found = find_tensors(loaded, str(path), key)
    else:
        container: Container = ZipContainer(path) if kind == "torch zip" else LegacyContainer(path)
        found = find_tensors(container.graph, str(path), key)

    def read(name: str) -> Tensor:
        value = found.tensors[name]
        return value if isinstance(value, Tensor) else container.tensor(value, name)

    return _Source(_shapes(found.tensors), read, kind, found.content, found.key, found.network, found.others)


def _shapes(tensors: Mapping[str, Tensor | StoredTensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _our_shape(entry: Entry) -> tuple[int, ...]:
    return (entry.shape[1],) if entry.kind == "implicit" else entry.shape


def _finite(value: Tensor, name: str, path: Path) -> Tensor:
    if not bool(value.isfinite().all()):
        raise WeightsError(f"{path}: {name} has numbers that are not finite")
    return value


def _check_constant(value: Tensor, entry: Entry, path: Path, model: str) -> None:
    assert entry.constant is not None
    expected = entry.constant.to("cpu")
    if not torch.allclose(value.float(), expected, rtol=ANCHOR_TOLERANCE, atol=1e-3):
        raise WeightsError(
            f"{path} is not {model}: its {entry.name} are {value.flatten()[:6].tolist()} ..., "
            f"{model} has {expected.flatten()[:6].tolist()} ..."
        )
