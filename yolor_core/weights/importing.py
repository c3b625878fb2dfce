"""Read any weights file for a named model, or a run's, without running anything from it.

What torch.save writes (a zip archive since torch 1.6, a sequence of pickles before) is read without
torch.load: the pickle through `inert`, the numbers as bytes whose place and length are checked against the
file before a tensor is made of them.
"""

from __future__ import annotations

import json
import math
import re
import struct
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from yolor_core.config import ModelConfig, RunConfig
from yolor_core.errors import ConfigError, RunError, WeightsError, some_of
from yolor_core.models import Detector, create_model, named_config
from yolor_core.models.architectures import ARCHITECTURES
from yolor_core.models.build import blank_model
from yolor_core.runs.directory import RunDirectory
from yolor_core.weights.checkpoint import Found, find_tensors
from yolor_core.weights.formats import read_darknet
from yolor_core.weights.inert import Storage, StoredTensor, unpickle
from yolor_core.weights.layout import Entry, Shape, classes_of, match, named_layout, twins

Format = Literal["torch zip", "torch legacy", "safetensors", "darknet"]
LISTED = 6  # keys that the summary shows
ANCHOR_TOLERANCE = 4e-3  # relative; bfloat16 keeps 8 bits
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
PAGES = r"<(!doctype html|html|head|body|script|title|meta|div|center|h1|p)\b"
POINTERS = ("version https://git-lfs", "version https://hawser", "version http://git-media")
ARCHIVES = {
    b"\x1f\x8b": "gzip archive",
    b"BZh": "bzip2 archive",
    b"\xfd7zXZ": "xz archive",
    b"7z\xbc\xaf": "7z archive",
    b"Rar!": "RAR archive",
    b"\x28\xb5\x2f\xfd": "Zstandard archive",
    b"\x89HDF": "HDF5 file, as Keras writes it",
    b"\x08": "ONNX file",
}


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
    twins: tuple[str, ...]  # models that differ only in what the file does not show: activation, DWT or ReOrg

    def text(self) -> str:
        """One line."""
        cast = f", cast from {' and '.join(self.cast_from)} to float32" if self.cast_from else ""
        twin = (
            f"; {' and '.join(self.twins)} would fit as well, with another activation or stem"
            if self.twins
            else ""
        )
        network = "" if self.network == "only" else f"the {self.network} network, "
        rest = f"; not read: {some_of(self.others, LISTED)}" if self.others else ""
        return (
            f"{self.model}: {self.tensors} tensors from {network}{self.content} ({self.format}), matched by "
            f"{self.matched_by}, {self.classes} classes{cast}{twin}{rest}"
        )


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
    kind, found, read = _open(path, config, key)
    shapes = {name: tuple(tensor.shape) for name, tensor in found.tensors.items()}
    architecture = ARCHITECTURES[config.architecture]
    classes, identities = _counts(shapes, architecture.anchors_per_level)
    own = _under_our_names(config, shapes, classes, identities) if kind == "safetensors" else None
    if own is not None:
        layout: Sequence[Entry] = own
        pairs, how = {entry.name: entry for entry in own}, "our own names"
    else:
        classes = classes_of(shapes, architecture.anchors_per_level) or 80
        layout = named_layout(config, classes)
        where = f"{path}: the {found.network} network at {found.key}" if found.network != "only" else path
        pairs, how = match(shapes, layout, model, str(where))

    tensors: dict[str, Tensor] = {}
    cast, ignored = set(), []
    for name, entry in pairs.items():
        value = read(name)
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
        if not bool(value.isfinite().all()):
            raise WeightsError(f"{path}: {name} has numbers that are not finite")
        tensors[entry.ours] = value.float().reshape(-1 if entry.kind == "implicit" else entry.shape)
    ours = [entry.ours for entry in layout if entry.ours is not None]
    state = {name: tensors.get(name, torch.tensor(0)) for name in ours}  # only counters may be absent
    report = Report(
        file=str(path),
        format=kind,
        content=found.content,
        key=found.key,
        network=found.network,
        others=found.others,
        model=model,
        classes=classes,
        tensors=len(tensors),
        matched_by=how,
        cast_from=tuple(sorted(cast)),
        ignored=tuple(ignored),
        twins=tuple(twins(config.architecture, stem_known=how == "name" and architecture.flavour == "yaml")),
    )
    return state, report


def _under_our_names(
    config: ModelConfig, shapes: Mapping[str, Shape], classes: int, identities: int
) -> list[Entry] | None:
    """The layout of a file that has all tensors of our model, whatever its tasks and forms; else None."""
    state = blank_model(config, classes, identities).state_dict()
    if {name: tuple(value.shape) for name, value in state.items()} != dict(shapes):
        return None
    return [
        Entry(name, name, tuple(value.shape), "weight" if value.is_floating_point() else "counter")
        for name, value in state.items()
    ]


def described(config: ModelConfig) -> str:
    """A model in words: its name, and what is not as in the named one."""
    full = named_config(config.architecture)
    changed = [
        f"{field} {getattr(config, field):g}" for field in ("width", "depth") if getattr(config, field) != 1
    ]
    if config.kept != full.implicit:
        implicit = " and ".join(f"{i.operator} {i.site}" for i in config.kept) or "none"
        changed.append(f"implicit knowledge {implicit}")
    return config.architecture + (f" ({', '.join(changed)})" if changed else "")


def load_model(name: str | ModelConfig, path: Path | str, key: str | None = None) -> tuple[Detector, Report]:
    """A model with the weights of a file of any known format (see `import_weights`), in eval mode."""
    state, report = import_weights(path, name, key)
    config = named_config(name) if isinstance(name, str) else name
    shapes = {each: tuple(value.shape) for each, value in state.items()}
    _, identities = _counts(shapes, ARCHITECTURES[config.architecture].anchors_per_level)
    model = create_model(config, report.classes, seed=None, identities=identities)
    model.load_state_dict(state)
    return model.eval(), report


def load_run(path: Path | str) -> tuple[Detector, RunConfig]:
    """The averaged model that a finished run left, in eval mode, and the run's configuration.

    Raises RunError when there is no finished run, WeightsError when its weights do not fit its configuration.
    """
    run = RunDirectory(path)
    record = run.read_run()
    if record is None:
        raise RunError(f"{run.path} is not a run directory: there is no run.json")
    if not run.weights.exists():
        state = (run.read_state() or {}).get("state", "unknown")
        if state == "done":
            raise RunError(
                f"{run.weights} is missing although the run is done: launch it again, unless it is of a "
                "published study, which has none"
            )
        raise RunError(
            f"{run.path} has no weights yet (state: {state}); they are written at the end of training"
        )
    config = RunConfig.from_json(json.dumps(record["config"]))
    tensors = _load_safetensors(run.weights)
    science = config.science.model
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    classes, identities = _counts(shapes, ARCHITECTURES[science.architecture].anchors_per_level)
    weighting = config.science.train.tasks
    try:
        model = create_model(science, classes, seed=None, identities=identities, weighting=weighting)
        model.load_state_dict(tensors)
    except (RuntimeError, ConfigError) as error:
        raise WeightsError(
            f"{run.weights} does not fit the configuration in {run.run.name}: {error}"
        ) from None
    return model.eval(), config


def _counts(shapes: Mapping[str, Shape], anchors: int) -> tuple[int, int]:
    """(classes, identities) that our tensors are made for; 80 where no task knows classes."""
    detection, tags = shapes.get("predictor_p3.bias"), shapes.get("branches.classification.linear.bias")
    classes = 80
    if detection is not None:
        classes = math.prod(detection) // anchors - 5
    elif tags is not None:
        classes = math.prod(tags)
    names = shapes.get("branches.embedding.classifier.bias")
    return max(classes, 1), 0 if names is None else math.prod(names)


def _open(path: Path, config: ModelConfig, key: str | None) -> tuple[Format, Found, Callable[[str], Tensor]]:
    """The format of a file, the network in it (shapes first), and what reads a tensor of it by name."""
    kind = sniff(path)
    if kind == "darknet":
        values = read_darknet(path, config)
        found = Found(dict(values), "the file itself", "layers in order", "only", ())
        return kind, found, values.__getitem__
    container: Container | None = None
    if kind != "safetensors":
        container = ZipContainer(path) if kind == "torch zip" else LegacyContainer(path)
    found = find_tensors(container.graph if container else _load_safetensors(path), str(path), key)

    def read(name: str) -> Tensor:
        stored = found.tensors[name]
        if isinstance(stored, Tensor):
            return stored
        assert container is not None
        return container.tensor(stored, name)

    return kind, found, read


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: damaged or truncated safetensors file ({error})") from None


def _check_constant(value: Tensor, entry: Entry, path: Path, model: str) -> None:
    assert entry.constant is not None
    expected = entry.constant.to("cpu")
    if not torch.allclose(value.float(), expected, rtol=ANCHOR_TOLERANCE, atol=1e-3):
        raise WeightsError(
            f"{path} is not {model}: its {entry.name} are {value.flatten()[:6].tolist()} ..., "
            f"{model} has {expected.flatten()[:6].tolist()} ..."
        )


def sniff(path: Path) -> Format:
    """The format of a weights file.

    Raises WeightsError saying what the file is instead: missing, a folder, empty, a web page, an error of the
    server in XML or JSON, a Git LFS pointer, an archive of another kind, or nothing known.
    """
    if path.is_dir():
        raise WeightsError(f"{path}: a folder; a file of weights is needed")
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    if not start:
        raise WeightsError(f"{path}: empty; the download may have failed")
    _refuse_answer(path, start)
    if start.startswith(b"PK\x03\x04"):
        return "torch zip"
    if start[:1] == b"\x80" and len(start) > 1 and 2 <= start[1] <= 5:
        return "torch legacy"
    if len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 100_000_000:
        return "safetensors"
    plausible = start[:4] in (b"\0\0\0\0", b"\1\0\0\0")  # major version 0 or 1
    if (path.suffix == ".weights" and plausible) or start[:8] == b"\0\0\0\0\2\0\0\0":
        return "darknet"
    for magic, archive in ARCHIVES.items():
        if start.startswith(magic):
            raise WeightsError(f"{path}: {archive}, not weights; unpack or convert it first")
    raise WeightsError(
        f"{path}: not a weights file (it begins with {start[:12]!r}); known: torch .pt, darknet .weights, "
        "safetensors"
    )


def _refuse_answer(path: Path, start: bytes) -> None:
    """Raises WeightsError for what a server sends instead of a file: a page, its error, a pointer."""
    coding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = start.decode(coding, "replace").lstrip()
    body = re.sub(r"^(\s|<\?.*?\?>|<!--.*?-->)+", "", text, flags=re.DOTALL)
    told = re.search(r"<(?:Code|Message)>\s*([^<]+)", text) or re.search(
        r"""["'](?:error|message|detail)["']\s*:\s*["']([^"']+)""", text
    )
    why = f", which says {told[1].strip()[:80]!r}" if told else ""
    if re.match(PAGES, body, re.IGNORECASE):
        raise WeightsError(
            f"{path}: a web page (HTML), not weights; the server answered the download with a page, "
            "often one that asks for confirmation"
        )
    if text.startswith("<?xml") or re.match(r"<[A-Za-z!]", body):
        raise WeightsError(f"{path}: XML, not weights, as servers send it for an error{why}")
    if re.match(r"""[\[{]\s*(["'{\[]|\}|\]|$)""", text):
        raise WeightsError(f"{path}: JSON, not weights, as servers send it for an error{why}")
    if text.startswith(POINTERS):
        raise WeightsError(f"{path}: a Git LFS pointer, not weights; fetch the file with `git lfs pull`")


class Container(ABC):
    """An opened checkpoint: `graph` is what was saved, with descriptions in place of tensors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.graph: Any = None
        self._last: tuple[Storage | None, bytearray] = (None, bytearray())

    @abstractmethod
    def read(self, storage: Storage) -> bytearray:
        """The bytes of a whole storage. Raises WeightsError when they are not all there."""

    def tensor(self, stored: StoredTensor, name: str) -> Tensor:
        """Read a tensor; on the CPU, contiguous, of the stored type. Raises WeightsError naming it."""
        storage, offset, shape, strides = stored
        numbers = (offset, storage.first, storage.numel, *shape, *strides)
        if len(shape) != len(strides) or any(type(n) is not int or n < 0 for n in numbers):
            raise WeightsError(f"{self.path}: damaged: {name} has shape {shape} and strides {strides}")
        first = storage.first + offset
        last = first + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        count = math.prod(shape)
        if count > storage.numel or (count and last >= storage.numel):
            raise WeightsError(
                f"{self.path}: damaged: {name} of shape {shape} does not fit into the {storage.numel} "
                "numbers stored for it"
            )
        if not count:
            return torch.empty(shape, dtype=storage.dtype)
        whole = storage._replace(first=0)
        if self._last[0] != whole:  # tensors that share a storage follow one another
            inline = storage.data
            self._last = (whole, self.read(storage) if inline is None else self._complete(inline, storage))
        flat = torch.frombuffer(self._last[1], dtype=storage.dtype)
        return flat.as_strided(shape, strides, first).clone(memory_format=torch.contiguous_format)

    def _complete(self, data: bytes, storage: Storage) -> bytearray:
        needed = storage.numel * storage.dtype.itemsize
        if len(data) != needed:
            raise WeightsError(
                f"{self.path}: damaged or truncated: storage {storage.key} has {len(data)} of {needed} bytes"
            )
        return bytearray(data)


class ZipContainer(Container):
    """The format of torch 1.6 and later."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self.archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise WeightsError(f"{path}: damaged or truncated zip archive ({error})") from None
        names = self.archive.namelist()
        pickles = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            found = f"{len(pickles)} files data.pkl" if pickles else "no data.pkl"
            raise WeightsError(f"{path}: a zip archive, but not one of torch.save ({found} in it)")
        self.root = pickles[0].removesuffix("data.pkl")
        if f"{self.root}constants.pkl" in names:
            raise WeightsError(f"{path}: a TorchScript program, which is code; a checkpoint is needed")
        if f"{self.root}byteorder" in names and self._member("byteorder") != b"little":
            raise WeightsError(f"{path}: its numbers are big-endian, which is not supported")
        self.graph, _ = unpickle(BytesIO(self._member("data.pkl")), str(path))

    def _member(self, name: str) -> bytes:
        full = f"{self.root}{name}"
        try:
            info = self.archive.getinfo(full)
            if info.compress_type != zipfile.ZIP_STORED:
                raise WeightsError(f"{self.path}: {full} is compressed, which torch.save never does")
            return self.archive.read(info)
        except WeightsError:
            raise
        except KeyError:
            raise WeightsError(f"{self.path}: damaged: there is no {full} in the archive") from None
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
            why = str(error) or type(error).__name__
            raise WeightsError(f"{self.path}: damaged: {full} cannot be read ({why})") from None

    def read(self, storage: Storage) -> bytearray:
        """The bytes of a whole storage; the archive's checksum is verified."""
        return self._complete(self._member(f"data/{storage.key}"), storage)


class LegacyContainer(Container):
    """The format before torch 1.6: five pickles, then for each storage its length and its numbers."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        label = str(path)
        with path.open("rb") as file:
            magic, _ = unpickle(file, label)
            if magic != LEGACY_MAGIC:
                raise WeightsError(
                    f"{path}: a pickle, but not one of torch.save; convert it where it was made"
                )
            protocol, _ = unpickle(file, label)
            system, _ = unpickle(file, label)
            if protocol != LEGACY_PROTOCOL or not isinstance(system, dict):
                raise WeightsError(f"{path}: damaged: its header is not one of torch.save")
            if not system.get("little_endian", True):
                raise WeightsError(f"{path}: its numbers are big-endian, which is not supported")
            self.graph, storages = unpickle(file, label)
            keys, _ = unpickle(file, label)
            listed = isinstance(keys, list) and all(type(key) in (str, int) for key in keys)
            if not listed or set(storages) - set(map(str, keys)):
                raise WeightsError(f"{path}: damaged: storages are referred to that it does not list")
            self._places = self._find(file, [str(key) for key in keys], storages)

    def _find(self, file: BinaryIO, keys: list[str], storages: dict[str, Storage]) -> dict[str, int]:
        size, places = self.path.stat().st_size, {}
        for number, key in enumerate(keys, 1):
            header = file.read(8)
            if key not in storages:
                raise WeightsError(f"{self.path}: damaged: storage {key} belongs to no tensor")
            end = file.tell() + storages[key].numel * storages[key].dtype.itemsize
            if len(header) < 8 or end > size:
                raise WeightsError(f"{self.path}: truncated in storage {number} of {len(keys)}")
            if struct.unpack("<q", header)[0] != storages[key].numel:
                raise WeightsError(
                    f"{self.path}: damaged: storage {key} has another length than its tensors say"
                )
            places[key] = file.tell()
            file.seek(end)
        return places

    def read(self, storage: Storage) -> bytearray:
        """The bytes of a whole storage."""
        with self.path.open("rb") as file:
            file.seek(self._places[storage.key])
            return self._complete(file.read(storage.numel * storage.dtype.itemsize), storage)
