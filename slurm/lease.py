"""A sign of life: a file that is locked as long as its owner lives, however the owner ends.

A process id would not do: it is taken until the dead process's parent looks after it, and then comes back.
"""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Lease:
    """What other processes on this machine look at."""

    path: Path

    def held(self) -> bool:
        """Whether the owner lives; also where the file is gone (somebody cleaned up) and nobody can tell."""
        try:
            with self.path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # BlockingIOError: it is locked
            return True
        return False


@contextmanager
def lease() -> Iterator[Lease]:
    """Hold a lease within the block. Processes started here do not inherit it."""
    with tempfile.NamedTemporaryFile(prefix="ablate-launcher-") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield Lease(Path(file.name))
