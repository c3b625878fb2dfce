"""Memory formats, and memory of a training process on the CPU: in processes of its own, whose state it is."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
import torch

from yolor_core.config import NumericsConfig
from yolor_core.device import Numerics

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


def test_channels_last_reaches_the_model_and_the_images() -> None:
    numerics = Numerics(NumericsConfig(channels_last=True), torch.device("cpu"))
    model = numerics.model(torch.nn.Conv2d(3, 8, 3))
    images = numerics.images(torch.full((2, 3, 8, 8), 255, dtype=torch.uint8))
    assert model.weight.is_contiguous(memory_format=torch.channels_last)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert float(images.max()) == float(images.min()) == 1.0
