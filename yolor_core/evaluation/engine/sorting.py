"""Stable sorts in linear time, of rows by small numbers or by scores; and work shared by threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

DIGIT = 11  # bits that one pass sorts by; 2,048 counters fit into a core's nearest memory
LOWEST = np.uint64((1 << DIGIT) - 1)
SIGN = np.uint64(1 << 63)


@njit(cache=True, nogil=True)
def write_keys(scores, rows, pairs):  # type: ignore[no-untyped-def]
    """Write into pairs[:, 0] (n, uint64) numbers that rise as the scores of `rows` (n,) fall, NaN last."""
    floats = pairs.view(np.float64)
    for i in range(len(rows)):
        falling = 0.0 - np.float64(scores[rows[i]])  # so that both zeros are 0.0
        floats[i, 0] = falling
        bits = pairs[i, 0]
        pairs[i, 0] = ~np.uint64(0) if falling != falling else ~bits if bits & SIGN else bits | SIGN


def group(
    key: NDArray[np.int32], bins: int, order: NDArray[np.int32] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Rows by rising key, equal ones as they stand in `order` (n,), or by rising row without it.

    Returns:
        rows: (n,); start: (bins + 1,), where each of the keys 0 to bins - 1 begins in it.
    """
    order = np.arange(len(key), dtype=np.int32) if order is None else order
    start, rows = np.zeros(bins + 1, np.int64), np.empty(len(key), np.int32)
    _group(key, order, start, rows)
    return rows, start


@njit(cache=True, nogil=True)
def _group(key, order, start, rows):  # type: ignore[no-untyped-def]
    for value in key:
        start[value + 1] += 1
    for bin in range(1, len(start)):
        start[bin] += start[bin - 1]
    at = start.copy()
    for row in order:
        rows[at[key[row]]] = row
        at[key[row]] += 1


@njit(cache=True, nogil=True)
def sort_pairs(pairs, space):  # type: ignore[no-untyped-def]
    """Sort pairs (n, 2) of a key and a value by key, equal ones as they stand; all are uint64.

    A radix sort from the lowest digit, of as many bits as the keys differ in (float32 scores: about 30).
    space: as `pairs`. Both are overwritten; returns the one of them that holds the result.
    """
    count = len(pairs)
    if count < 2:
        return pairs
    least, differ = pairs[:, 0].min(), np.uint64(0)
    for i in range(count):
        differ |= pairs[i, 0] - least
    low, high = 0, 64
    while low < 64 and not differ >> np.uint64(low) & np.uint64(1):
        low += 1
    while high > low and not differ >> np.uint64(high - 1) & np.uint64(1):
        high -= 1
    at = np.empty(1 << DIGIT, np.int64)
    for digit in range(low, high, DIGIT):
        shift = np.uint64(digit)
        at[:] = 0
        for i in range(count):
            at[(pairs[i, 0] - least) >> shift & LOWEST] += 1
        total = 0
        for value in range(len(at)):
            total, at[value] = total + at[value], total
        for i in range(count):
            value = (pairs[i, 0] - least) >> shift & LOWEST
            space[at[value], 0] = pairs[i, 0]
            space[at[value], 1] = pairs[i, 1]
            at[value] += 1
        pairs, space = space, pairs
    return pairs


def spread(work: Callable[[NDArray[np.int64]], Any], sizes: NDArray[np.int64], threads: int) -> None:
    """Call `work` with the positions of `sizes` (n,), shared out to so many threads by size."""
    if threads < 2 or len(sizes) < 2:
        work(np.arange(len(sizes)))
        return
    shares: list[list[int]] = [[] for _ in range(threads)]
    loads = np.zeros(threads)
    for position in np.argsort(-sizes, kind="stable").tolist():
        least = int(loads.argmin())
        shares[least].append(position)
        loads[least] += sizes[position]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [np.array(sorted(share), np.int64) for share in shares if share]))
