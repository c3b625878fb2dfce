"""One mark per image that all workers of a loader see: what was once verified need not be verified again."""

from __future__ import annotations

import mmap


class Marks:
    """Marks in anonymous shared memory, which forked processes share. A copy made by pickling starts anew:
    losing a mark costs a second look, nothing else."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._bytes = mmap.mmap(-1, max(count, 1))

    def __contains__(self, position: int) -> bool:
        return self._bytes[position] == 1

    def add(self, position: int) -> None:
        """Set a mark."""
        self._bytes[position] = 1

    def __reduce__(self) -> tuple[type[Marks], tuple[int]]:
        return Marks, (self._count,)
