"""How a test asks a run to stop, and what two runs that should have ended alike are compared by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from yolor_core.runs.directory import RunDirectory

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
ROUNDING = 1e-4  # losses, targets and counts are float32 even where the network is float64
TIMES = ("seconds", "data_seconds", "images_per_second", "peak_memory_mb")


def lasting(run: RunDirectory) -> list[dict]:
    """Metrics without what depends on the machine's speed."""
    return [{k: v for k, v in record.items() if k not in TIMES} for record in run.read_metrics()]


def assert_same_result(first: RunDirectory, second: RunDirectory) -> None:
    ours, theirs = load_file(first.weights), load_file(second.weights)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert lasting(first) == lasting(second)
    assert first.read_evaluation() == second.read_evaluation()
    assert pq.read_table(first.implicit).equals(pq.read_table(second.implicit))
    assert pq.read_table(first.detections).equals(pq.read_table(second.detections))


def assert_nearly_the_same(first: Path, second: Path) -> None:
    """For runs in float64 that added up in another order."""
    ours, theirs = (load_file(RunDirectory(path).weights) for path in (first, second))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=ROUNDING, atol=ROUNDING, msg=name)
    for one, other in zip(
        RunDirectory(first).read_metrics(), RunDirectory(second).read_metrics(), strict=True
    ):
        for name in one.keys() & {"loss/box", "loss/obj", "loss/cls", "loss/id", "loss/sparse", "grad_norm"}:
            assert other[name] == pytest.approx(one[name], rel=1e-2), name


def stop_after(calls: int) -> Callable[[], bool]:
    """A `stop` that answers True from its `calls`-th question on."""
    asked = iter(range(10**6))
    return lambda: next(asked) >= calls
