"""How a test asks a run to stop, and what two runs that should have ended alike are compared by."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

from yolor_core.runs.directory import RunDirectory

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


def stop_after(calls: int) -> Callable[[], bool]:
    """A `stop` that answers True from its `calls`-th question on."""
    asked = iter(range(10**6))
    return lambda: next(asked) >= calls
