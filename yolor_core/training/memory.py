"""How a training process on the CPU treats memory that a step has freed and the next step wants again."""

from __future__ import annotations

import ctypes

# Numbers of glibc's malloc.h; both settings belong to the whole process.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed, instead of handing every large map back to the kernel.

    glibc fetches blocks beyond 32 MB from the kernel one by one and returns them at once, so a step on the
    CPU meets tens of thousands of fresh, zeroed pages. With the blocks kept the same step is shorter (see
    `benchmarks/training_step.py`) at about the same peak memory; results do not change. For another C
    library nothing is done and False returned.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc; Windows has no such handle
        return False
    # From now on memory comes from one growing heap, whose free end is never cut off.
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
