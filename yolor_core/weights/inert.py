"""Unpickling that runs nothing from the file.

A pickle is a program: it names functions and calls them. Here a name becomes a description or nothing.
Tensors become `StoredTensor`, a note of where their numbers are; classes of the modules that the authors'
checkpoints mention become stand-ins, which hold what they were given and do nothing; any other name is
refused. No tensor and no object of a named class exists afterwards, and nothing is imported.

torch's own `weights_only` does not suffice: it refuses whole models, since their classes are code.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable
from io import BytesIO
from typing import Any, BinaryIO, ClassVar, NamedTuple

import torch

from yolor_core.errors import WeightsError

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

# What the authors' checkpoints mention beside tensors. Everything from these modules becomes a stand-in, so
# the list decides what is expected, not what is harmless.
PACKAGES = (
    "models",  # the authors' networks
    "utils",  # their training loop: ModelEMA, loggers
    "torch.nn",
    "torch.optim",
    "mish_cuda",  # ScaledYOLOv4's activation
    "pytorch_wavelets",  # the DWT stem
)
MODULES = {
    "argparse": {"Namespace"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"},
    "collections": {"defaultdict", "Counter", "deque"},
    "builtins": {
        "object",
        "list",
        "dict",
        "tuple",
        "str",
        "bytes",
        "int",
        "float",
        "bool",
        "slice",
        "complex",
    },
    "copyreg": {"_reconstructor"},
    "_codecs": {"encode"},
    "datetime": {"datetime", "date", "timedelta"},
    "numpy": {"dtype", "ndarray", "bool_", "int32", "int64", "float16", "float32", "float64"},
    "numpy.core.multiarray": {"scalar", "_reconstruct"},
    "numpy._core.multiarray": {"scalar", "_reconstruct"},
    "torch": {"Tensor", "Size", "device", "dtype", "Generator", *(str(d)[6:] for d in STORAGES.values())},
}
OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # Python 2's, which protocol 2 writes
MEMO = {"PUT", "BINPUT", "LONG_BINPUT"}
EXTENSIONS = {"EXT1", "EXT2", "EXT4"}


class Storage(NamedTuple):
    """A run of numbers in the file. `first`: where a view of it begins, in elements."""

    key: str
    dtype: torch.dtype
    numel: int
    first: int = 0


class StoredTensor(NamedTuple):
    """A tensor as the file describes it, not checked yet (see `containers.Container.tensor`)."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class StandIn:
    """An object of a class that is not there: `contents` are its attributes, nothing else happens.

    Takes every instruction a pickle can give to an object: made with any arguments, filled with state, items.
    """

    origin = ""  # the class's full name in the file

    def __new__(cls, *_: Any, **__: Any) -> StandIn:
        self = object.__new__(cls)
        self.contents = {}
        return self

    contents: dict[str, Any]

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.contents.update({k: v for k, v in part.items() if isinstance(k, str)})

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """An item of a list-like object; not needed."""

    def extend(self, values: Any) -> None:
        """Items of a list-like object; not needed."""

    def add(self, value: Any) -> None:
        """An item of a set-like object; not needed."""


class OrderedMapping(dict[Any, Any]):
    """In place of OrderedDict, whose instances would take attributes that shadow their methods."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass  # a state_dict's version numbers


class _Element:
    """The type of a storage, as in torch.FloatStorage."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("state for a type")


class _Call:
    """A function of ours under the name of torch's. No attribute can be set on it from a pickle."""

    __slots__ = ("__call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.__call = call

    def __call__(self, *arguments: Any) -> Any:
        return self.__call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("state for a function")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor:
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    if any(not isinstance(sizes, (tuple, list)) or len(sizes) > MOST_AXES for sizes in (shape, strides)):
        raise pickle.UnpicklingError("a tensor whose shape is none")
    if not all(_is_size(number) for number in (offset, *shape, *strides)):
        raise pickle.UnpicklingError("a tensor whose shape is none")
    return StoredTensor(storage, offset, tuple(shape), tuple(strides))


def _is_size(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**63


def _hashable(key: Any) -> Any:
    """The key, if hashing it is quick: nested tuples can be written so that it takes for ever."""
    if isinstance(key, SIMPLE) or (isinstance(key, tuple) and all(isinstance(part, SIMPLE) for part in key)):
        return key
    raise pickle.UnpicklingError("a key of an unexpected kind")


def _mapping(*_: Any) -> OrderedMapping:
    return OrderedMapping()  # torch's and Python's give the items afterwards


def _set(items: Any = (), *_: Any) -> set[Any]:
    return {_hashable(item) for item in items} if isinstance(items, (list, tuple, set, frozenset)) else set()


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _subclass(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    return function(*arguments) if isinstance(function, _Call) else None


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_parameter": _parameter,
    "_rebuild_parameter_with_state": _parameter,
    "_rebuild_from_type_v2": _subclass,
}
_CONTAINERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _mapping,
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): _set,
}
SIMPLE = (str, bytes, int, float, type(None), StandIn)  # bool is an int; stand-ins are hashed by identity
MOST_AXES = 8


# Instructions that hash things, and where on the stack those are.
KEYS = {
    pickle.DICT[0]: slice(None, None, 2),
    pickle.SETITEM[0]: slice(-2, -1),
    pickle.SETITEMS[0]: slice(None, None, 2),
    pickle.ADDITEMS[0]: slice(None),
    pickle.FROZENSET[0]: slice(None),
}


def _looking_first(load: Callable[[Any], None], keys: slice) -> Callable[[Any], None]:
    """The instruction, with a look at what it is going to hash."""

    def looked_at(reader: InertUnpickler) -> None:
        for key in reader.stack[keys]:
            _hashable(key)
        load(reader)

    return looked_at


def expected(module: str, name: str) -> bool:
    """Whether a stand-in may take the place of this name."""
    inside = any(module == package or module.startswith(f"{package}.") for package in PACKAGES)
    return inside or name in MODULES.get(module, ())


class InertUnpickler(pickle._Unpickler):
    """Builds plain containers, `StoredTensor`s and stand-ins. `storages`: what tensors refer to, by key.

    It is Python's own unpickler written in Python, because that one lets keys be looked at before they are
    hashed. A checkpoint has some ten thousand instructions, which is quick either way.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    for _code, _keys in KEYS.items():
        dispatch[_code] = _looking_first(dispatch[_code], _keys)

    stack: list[Any]  # what was built since the last mark

    def __init__(self, file: BinaryIO, label: str) -> None:
        super().__init__(file)
        self.label = label
        self.storages: dict[str, Storage] = {}
        self._classes: dict[str, type[StandIn]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Raises WeightsError for a name that no checkpoint of the authors has a reason to mention."""
        module = OLD_NAMES.get(module, module)
        if (module, name) in _CONTAINERS:
            return _Call(_CONTAINERS[module, name])
        if module in ("torch", "torch.cuda", "torch.storage") and name in STORAGES:
            return _Element(STORAGES[name])
        if module == "torch._utils" and name in _FUNCTIONS:
            return _Call(_FUNCTIONS[name])
        full = f"{module}.{name}"
        if not expected(module, name):
            raise WeightsError(
                f"{self.label}: refused, because it asks for {full} while it is read. Weights need "
                "tensors and the authors' classes only; nothing of the file was run"
            )
        if full not in self._classes:
            self._classes[full] = type("StandIn", (StandIn,), {"origin": full})
        return self._classes[full]

    def persistent_load(self, pid: Any) -> Any:
        """References that torch.save writes: storages, and in old files classes with their source text."""
        kind, *rest = pid if isinstance(pid, tuple) else (None,)
        if kind == "module" and rest:
            return rest[0]  # the source text stays text
        if kind != "storage" or len(rest) < 4 or not isinstance(rest[0], _Element):
            raise pickle.UnpicklingError("a reference to something that is no storage")
        element, key, _, numel, *view = rest
        first = view[0][1] if view and isinstance(view[0], tuple) and len(view[0]) > 1 else 0
        if type(key) not in (str, int) or not _is_size(numel) or not _is_size(first):
            raise pickle.UnpicklingError("a storage whose key or length is none")
        storage = Storage(str(key), element.dtype, numel)
        self.storages[storage.key] = storage
        return storage._replace(first=first)


def unpickle(file: BinaryIO, label: str) -> tuple[Any, dict[str, Storage]]:
    """The next pickle of a file, made inert, and the storages it refers to.

    label: how errors call the file. Raises WeightsError: it asks for something else, or it is damaged.
    """
    start = file.tell()
    try:
        end = _checked(file, label)
        file.seek(start)
        reader = InertUnpickler(BytesIO(file.read(end - start)), label)
        return reader.load(), reader.storages
    except WeightsError:
        raise
    except Exception as error:  # a damaged program can fail in any way
        text = " ".join(str(error).split())[:120]
        raise WeightsError(
            f"{label}: damaged or truncated (unpickling failed: {type(error).__name__}: {text})"
        ) from None


def _checked(file: BinaryIO, label: str) -> int:
    """Look at the instructions first, without following them; returns where the pickle ends.

    Finds lengths beyond the end of the file, and numbers that would make the reader reserve gigabytes.
    """
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in EXTENSIONS:
            raise WeightsError(f"{label}: refused, because it uses {opcode.name} of the pickle language")
        if opcode.name in MEMO and int(argument or 0) > 10_000_000:
            raise WeightsError(f"{label}: refused, because it numbers an object {argument}")
    return file.tell()
