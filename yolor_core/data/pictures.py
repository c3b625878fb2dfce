"""The files that a split's pictures are: their sizes, times and contents, read once and then remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from yolor_core.runs.directory import cache_folder, write_cache

log = logging.getLogger(__name__)

THREADS = 8  # file systems of clusters answer slowly, but many at once
CHUNK = 250  # files
RECENT = 2_000_000_000  # ns: a file may change again within its clock's tick and keep its size and times
SAID_ABOVE = 2**30  # bytes
States = NDArray[np.int64]
"""(n, 3): bytes, time of modification and time of change (ns) of each file; -1 for one that is not there."""
Digests = NDArray[np.uint8]
"""(n, 32): SHA-256 of each file; zeros for one that cannot be read."""


def states(folder: Path, names: Sequence[str]) -> States:
    """The states of files, without reading them."""

    def look(begin: int) -> list[tuple[int, int, int]]:
        return [_state(os.path.join(folder, name)) for name in names[begin : begin + CHUNK]]

    with ThreadPoolExecutor(THREADS) as pool:
        found = [each for part in pool.map(look, range(0, len(names), CHUNK)) for each in part]
    return np.array(found, np.int64).reshape(-1, 3)


def recent(found: States) -> NDArray[np.bool_]:
    """(n,): files so new that their next change may not show in their state."""
    return found[:, 1:].max(axis=1) > time.time_ns() - RECENT


def digests(
    folder: Path,
    names: Sequence[str],
    found: States,
    known: Sequence[tuple[States, Digests]] = (),
    remember: bool = True,
) -> Digests:
    """The contents of files. Only those are read whose state is neither in `known` nor remembered.

    What is read is remembered in the cache folder, an interrupted call included. Processes that want the
    same folder wait for one another, so that one of them reads.

    Args:
        folder: that the names are relative to.
        names: of the files.
        found: their states.
        known: states and contents of the same files, as packs have them.
        remember: false reads every file.
    """
    result, open_ = np.zeros((len(names), 32), np.uint8), found[:, 0] >= 0
    for before, contents in known:
        same = open_ & (before == found).all(axis=1)
        result[same] = contents[same]
        open_ &= ~same
    wanted = np.flatnonzero(open_).tolist()
    if not wanted:
        return result
    key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    store = cache_folder() / "pictures" / f"{key}.json"
    with _alone(store):
        cache = _read(store)
        unread = []
        for index in wanted:
            entry = cache.get(names[index]) if remember else None
            if entry is not None and entry[:3] == found[index].tolist():
                result[index] = np.frombuffer(bytes.fromhex(entry[3]), np.uint8)
            else:
                unread.append(index)
        if unread:
            try:
                _hash_all(folder, names, found, unread, result, cache)
            finally:
                write_cache(store, {"files": cache})
    return result


def _state(path: str) -> tuple[int, int, int]:
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return -1, -1, -1
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _hash_all(
    folder: Path,
    names: Sequence[str],
    found: States,
    unread: list[int],
    result: Digests,
    cache: dict[str, list[Any]],
) -> None:
    """Fill in the rows `unread` of `result`, and `cache`."""
    size = int(found[unread, 0].sum())
    if size > SAID_ABOVE:
        log.warning(
            "%s: reading %d pictures (%.1f GB), once, to know them again", folder, len(unread), size / 1e9
        )
    old = ~recent(found)
    parts = [unread[i : i + CHUNK] for i in range(0, len(unread), CHUNK)]
    pool = ThreadPoolExecutor(THREADS)
    try:
        for part, values in zip(
            parts, pool.map(lambda p: [_hash(os.path.join(folder, names[i])) for i in p], parts), strict=True
        ):
            for index, value in zip(part, values, strict=True):
                if value is None:
                    continue
                result[index] = np.frombuffer(value, np.uint8)
                if old[index]:
                    cache[names[index]] = [*found[index].tolist(), value.hex()]
    finally:
        pool.shutdown(cancel_futures=True)


def _hash(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).digest()
    except OSError:
        return None


@contextlib.contextmanager
def _alone(store: Path) -> Iterator[None]:
    """Locked against other processes, where the file system can do that."""
    lock = FileLock(f"{store}.lock")
    with contextlib.suppress(OSError, NotImplementedError):
        store.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _read(store: Path) -> dict[str, list[Any]]:
    """What is remembered: name -> size, both times (ns), SHA-256."""
    try:
        files = json.loads(store.read_bytes())["files"]
        return {
            str(name): [int(size), int(modified), int(changed), bytes.fromhex(digest).hex()]
            for name, (size, modified, changed, digest) in files.items()
            if len(digest) == 64
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # no cache, or not ours to repair: it is read again
