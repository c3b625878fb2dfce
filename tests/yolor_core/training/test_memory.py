"""Memory of a training process on the CPU. Each case needs a process of its own: the setting is its state."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

# Page faults of filling a large tensor again and again, once the heap has found its size.
PROGRAM = """
import resource, sys, torch
from yolor_core.device import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(50):
    torch.ones(2 ** 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2 ** 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str) -> int:
    """Page faults that the program counts."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_memory_is_used_again_without_fetching_fresh_pages() -> None:
    assert faults("keep") < 100
    assert faults("leave") > 100  # else there would be nothing to keep
