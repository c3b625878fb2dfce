"""Many small values in one array each: nothing that a forked worker copies by counting references."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class _InArrays(Sequence[T]):
    """What both kinds share. Equal to any sequence of equal values."""

    def _one(self, index: int) -> T:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        if isinstance(index, slice):
            return tuple(self._one(i) for i in range(*index.indices(len(self))))
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"{index} of {len(self)}")
        return self._one(position)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(repr(value) for value in self[:3])
        return f"{type(self).__name__}([{shown}{', ...' if len(self) > 3 else ''}], {len(self)} in all)"


class Integers(_InArrays[int]):
    """Whole numbers of 64 bits; elements are plain ints, `np.asarray` gives the array itself."""

    def __init__(self, values: Iterable[int]) -> None:
        self._values = np.array(list(values), np.int64)
        self._values.flags.writeable = False

    def __len__(self) -> int:
        return len(self._values)

    def _one(self, index: int) -> int:
        return int(self._values[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._values, dtype, copy=copy)


class Texts(_InArrays[str]):
    """Texts as UTF-8 bytes, one after the other, and where each begins."""

    def __init__(self, values: Iterable[str]) -> None:
        encoded = [value.encode("utf-8", "surrogatepass") for value in values]
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self._starts = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(e) for e in encoded], out=self._starts[1:])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def _one(self, index: int) -> str:
        data = self._bytes[self._starts[index] : self._starts[index + 1]]
        return data.tobytes().decode("utf-8", "surrogatepass")
