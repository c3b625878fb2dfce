"""Unpickling that runs nothing from the file.

A pickle is a program: it names functions and calls them. Here a name never becomes the thing that it names.
Tensors become `StoredTensor`, a note of where their numbers are; plain containers become containers; every
other class or function becomes a stand-in, which holds what it was given and does nothing. No tensor and no
object of a named class exists afterwards, and nothing is imported.

torch.load(weights_only=True) does not suffice: it refuses whole models and most of what trainers keep beside
them, knows pickle protocol 2 alone, lets a tensor grow beyond its storage and verifies no checksum. A second
reader for the files that it can read would only add to this one.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
from collections.abc import Callable
from io import BytesIO
from typing import Any, BinaryIO, ClassVar, NamedTuple

import torch

from yolor_core.errors import WeightsError

DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
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
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.qint8,
    "QUInt8Storage": torch.quint8,
    "QInt32Storage": torch.qint32,
    "UntypedStorage": torch.uint8,  # bytes; the tensor says what they are
}
NUMPY = {
    **{"f2": torch.float16, "f4": torch.float32, "f8": torch.float64, "b1": torch.bool},
    **{"i1": torch.int8, "i2": torch.int16, "i4": torch.int32, "i8": torch.int64},
    **{"u1": torch.uint8, "u2": torch.uint16, "u4": torch.uint32, "u8": torch.uint64},
}
# It is stand-ins that keep us safe. A file that names one of these was made to run something as soon as it is
# opened, and whoever got it should know.
PROGRAMS = re.compile(
    r"(os|posix|nt)\.(system|popen\d?|startfile|(exec|spawn|posix_spawn)\w*)"
    r"|(subprocess\.(?!CompletedProcess)|pty\.|runpy\.|webbrowser\.)\w+"
    r"|builtins\.(exec|eval|execfile|compile|open|__import__)"
    r"|(io|_io|_pyio|codecs)\.open|importlib\.(import_module|__import__)"
    r"|(pickle|_pickle|cPickle|dill|joblib|marshal|torch|torch\.serialization)\.loads?|torch\.hub\.\w+"
)
OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # Python 2's, which protocol 2 writes
MEMO = {"PUT", "BINPUT", "LONG_BINPUT"}
EXTENSIONS = {"EXT1", "EXT2", "EXT4"}
MOST_AXES = 8
MOST_PARTS = 1000  # of a key


class Storage(NamedTuple):
    """A run of numbers. `first`: where a view of it begins, in elements; `data`: those in the pickle."""

    key: str
    dtype: torch.dtype
    numel: int
    first: int = 0
    data: bytes | None = None


class StoredTensor(NamedTuple):
    """A tensor as the file describes it, not checked yet (see `containers.Container.tensor`)."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __setstate__(self, state: Any) -> None:
        """Attributes of a tensor; not needed."""


class StandIn:
    """An object of a class that is not there: `contents` are its attributes, `items` what it has under keys.

    Takes every instruction a pickle can give to an object or a function, and does nothing: made with any
    arguments, called, filled with state and items.
    """

    origin = ""  # the full name in the file

    def __new__(cls, *arguments: Any, **__: Any) -> StandIn:
        self = object.__new__(cls if isinstance(cls, type) else type(cls))
        self.arguments, self.contents, self.items = arguments, {}, {}
        return self

    arguments: tuple[Any, ...]
    contents: dict[str, Any]
    items: dict[str, Any]

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *arguments: Any, **__: Any) -> StandIn:
        return type(self)(*arguments)

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.contents.update({k: v for k, v in part.items() if isinstance(k, str)})

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(key, str):
            self.items[key] = value

    def add(self, value: Any) -> None:
        """Items of a list- or set-like object; not needed."""

    append = extend = add


class _NumpyType(StandIn):
    """A numpy.dtype: its code, then its state with the byte order."""

    origin = "numpy.dtype"
    order = "="

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str):
            self.order = state[1]

    def torch(self) -> torch.dtype | None:
        """The same type of torch, if it is one of plain numbers in this machine's order."""
        code = self.arguments[0] if self.arguments else None
        return NUMPY.get(code) if isinstance(code, str) and self.order in "=<|" else None


class NumpyArray(StandIn):
    """A numpy.ndarray; `stored` are its numbers, None for types that torch does not have."""

    origin = "numpy.ndarray"
    stored: StoredTensor | None = None

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 5:
            _, shape, kind, columns_first, data = state
            self.stored = _stored(data, kind, shape, bool(columns_first))


class OrderedMapping(dict[Any, Any]):
    """In place of OrderedDict and its like, whose instances take attributes that shadow their methods."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass  # a state_dict's version numbers


class _Stateless:
    """No attribute can be set on it from a pickle."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("state for a type or a function")


class _Element(_Stateless):
    """The type of a storage or a tensor, e.g. torch.FloatStorage and torch.float32."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _Call(_Stateless):
    """A function of ours under the name of torch's."""

    __slots__ = ("__call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.__call = call

    def __call__(self, *arguments: Any) -> Any:
        return self.__call(*arguments)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor | StandIn:
    if isinstance(storage, StandIn):
        return storage
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    if any(not isinstance(sizes, (tuple, list)) or len(sizes) > MOST_AXES for sizes in (shape, strides)):
        raise pickle.UnpicklingError("a tensor whose shape is none")
    if not all(_is_size(number) for number in (offset, *shape, *strides)):
        raise pickle.UnpicklingError("a tensor whose shape is none")
    return StoredTensor(storage, offset, tuple(shape), tuple(strides))


def _typed_tensor(storage: Any, *rest: Any) -> StoredTensor | StandIn:
    """A tensor of a type without a storage class of its own: its storage counts bytes."""
    kind = rest[5] if len(rest) > 5 else None
    if not isinstance(kind, _Element) or not isinstance(storage, Storage):
        return _unread("torch._utils._rebuild_tensor_v3")()
    size = kind.dtype.itemsize
    return _tensor(Storage(storage.key, kind.dtype, storage.numel // size, storage.first // size), *rest)


def _stored(data: Any, kind: Any, shape: Any, columns_first: bool = False) -> StoredTensor | None:
    """Numbers that are in the pickle itself."""
    dtype = kind.torch() if isinstance(kind, _NumpyType) else None
    sizes = shape if isinstance(shape, tuple) else ()
    if dtype is None or not isinstance(data, (bytes, bytearray)) or not all(map(_is_size, sizes)):
        return None
    order = sizes if columns_first else sizes[::-1]
    strides = tuple(math.prod(order[:axis]) for axis in range(len(order)))
    storage = Storage("of the pickle", dtype, len(data) // dtype.itemsize, 0, bytes(data))
    stored = _tensor(storage, 0, sizes, strides if columns_first else strides[::-1])
    return stored if isinstance(stored, StoredTensor) else None


def _is_size(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**63


def _hashable(key: Any) -> Any:
    """The key, if hashing it is quick: nested tuples can be written so that it takes for ever."""
    parts = [key]
    for part in parts:
        if isinstance(part, (tuple, frozenset)):
            if len(parts) + len(part) > MOST_PARTS:
                raise pickle.UnpicklingError("a key of too many parts")
            parts.extend(part)
        elif not isinstance(part, SIMPLE):
            raise pickle.UnpicklingError("a key of an unexpected kind")
    return key


def _mapping(*arguments: Any) -> OrderedMapping:
    """Today's Python gives the items afterwards, Python 2 as a list of pairs; Counter has a dict."""
    mapping = OrderedMapping()
    given = arguments[-1] if arguments else None
    for pair in given.items() if isinstance(given, dict) else given if isinstance(given, list) else ():
        if isinstance(pair, (list, tuple)) and len(pair) == 2:
            mapping[_hashable(pair[0])] = pair[1]
    return mapping


def _set(items: Any = (), *_: Any) -> set[Any]:
    return {_hashable(item) for item in items} if isinstance(items, (list, tuple, set, frozenset)) else set()


def _encode(text: Any = "", encoding: Any = "", *_: Any) -> bytes | None:
    """How protocol 2 writes bytes."""
    latin = isinstance(text, str) and encoding in ("latin1", "latin-1")
    return text.encode("latin1", "replace") if latin else None


def _first(value: Any = None, *_: Any) -> Any:
    return value


def _of_numpy(array: Any = None, *_: Any) -> Any:
    return array.stored if isinstance(array, NumpyArray) and array.stored else array


def _subclass(function: Any = None, _: Any = None, arguments: Any = (), *__: Any) -> Any:
    if isinstance(function, _Call) and isinstance(arguments, tuple):
        return function(*arguments)
    return function() if isinstance(function, type) else None


def _reconstructed(cls: Any = None, _: Any = None, state: Any = None, *__: Any) -> Any:
    """Objects of protocol 0 and 1; those like a dict have their items as state."""
    made = cls() if isinstance(cls, type) else _mapping()
    for key, value in state.items() if isinstance(state, dict) else ():
        made[key] = value
    return made


def _buffer(data: Any = b"", kind: Any = None, shape: Any = (), order: Any = "C", *_: Any) -> NumpyArray:
    array = NumpyArray()
    array.stored = _stored(data, kind, shape, order == "F")
    return array


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"), _tensor),
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._utils._rebuild_device_tensor_from_numpy": _of_numpy,
    "torch._utils._rebuild_xla_tensor": _of_numpy,
    **{f"{module}._rebuild_from_type_v2": _subclass for module in ("torch._utils", "torch._tensor")},
    **{
        f"{module}._rebuild_from_type": _subclass
        for module in ("torch._utils", "torch._tensor", "torch.tensor")
    },
    **{f"collections.{name}": _mapping for name in ("OrderedDict", "defaultdict", "Counter")},
    "builtins.set": _set,
    "builtins.frozenset": lambda *arguments: frozenset(_set(*arguments)),
    "_codecs.encode": _encode,
    "copyreg._reconstructor": _reconstructed,
    **{f"numpy.{core}.multiarray._reconstruct": lambda *_: NumpyArray() for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _buffer for core in ("core", "_core")},
}
#: What may be a key, or a part of one: quick to hash, or hashed by identity. bool is an int.
SIMPLE = (str, bytes, int, float, complex, type(None), StandIn, type, _Element, _Call, torch.dtype)


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


def _unread(origin: str) -> type[StandIn]:
    return type("StandIn", (StandIn,), {"origin": origin})


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
        self._classes: dict[str, type[StandIn]] = {"numpy.dtype": _NumpyType}

    def find_class(self, module: str, name: str) -> Any:
        """Raises WeightsError for a name that is there to run programs or code."""
        module = OLD_NAMES.get(module, module)
        full = f"{module}.{name}"
        if PROGRAMS.fullmatch(full):
            raise WeightsError(
                f"{self.label}: refused, because it asks for {full} while it is read, which runs programs or "
                "code; weights need none. Nothing of the file was run"
            )
        if full in _FUNCTIONS:
            return _Call(_FUNCTIONS[full])
        if module in ("torch", "torch.cuda", "torch.storage") and name in STORAGES:
            return _Element(STORAGES[name])
        if module == "torch" and name in DTYPES:
            return _Element(DTYPES[name])
        if full not in self._classes:
            self._classes[full] = _unread(full)
        return self._classes[full]

    def persistent_load(self, pid: Any) -> Any:
        """References that torch.save writes: storages, and in old files classes with their source text."""
        kind, *rest = pid if isinstance(pid, tuple) else (None,)
        if kind == "module" and rest:
            return rest[0]  # the source text stays text
        if kind == "storage" and rest and isinstance(rest[0], type):
            return rest[0]()  # of a type that this torch does not have
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
