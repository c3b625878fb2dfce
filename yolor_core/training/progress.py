"""What a run reports while it trains: metrics.jsonl, implicit.parquet and the heartbeat in state.json."""

from __future__ import annotations

import resource
import time
from typing import Any

import torch

from yolor_core.models import implicit_values
from yolor_core.runs.directory import RunDirectory
from yolor_core.training.history import ImplicitHistory
from yolor_core.training.schedule import Settings
from yolor_core.training.state import TrainingState

HEARTBEAT = 2.0  # seconds between two writings of state.json


class Progress:
    """Keeps the records of finished epochs and writes them whole, so that a lost epoch leaves no line."""

    def __init__(self, run: RunDirectory, epochs: int, steps: int) -> None:
        self.run, self.epochs, self.steps = run, epochs, steps
        self.metrics: list[dict[str, Any]] = []
        self.history = ImplicitHistory()
        self.last_beat = 0.0

    def load(self, source: RunDirectory, metrics: list[dict[str, Any]]) -> None:
        """Take over what `source` recorded: the metrics of its checkpoint, and its implicit values so far."""
        self.metrics = list(metrics)
        self.history = ImplicitHistory.read(source, len(metrics))

    def beat(self, state: str, now: TrainingState, reason: str | None = None) -> None:
        """Write state.json."""
        self.last_beat = time.monotonic()
        aps = [record["AP"] for record in self.metrics if record.get("AP") is not None]
        finished = sum(record["seconds"] for record in self.metrics)
        self.run.write_state(
            state,
            reason=reason,
            epoch=now.epoch,
            epochs=self.epochs,
            step=now.step,
            steps=self.steps,
            ap=aps[-1] if aps else None,
            seconds=round(finished + now.seconds, 1),
        )

    def beat_if_due(self, now: TrainingState) -> None:
        """Write state.json when the last heartbeat is old enough."""
        if time.monotonic() - self.last_beat > HEARTBEAT:
            self.beat("running", now)

    def finish_epoch(
        self, now: TrainingState, settings: Settings, scores: dict[str, float | None], device: torch.device
    ) -> None:
        """Record the epoch that `now` has just ended; implicit values are those of the averaged model."""
        finished = now.epoch + 1
        self.metrics.append(
            {
                "epoch": finished,
                **now.totals.means(),
                "lr/weights": settings.weights,
                "lr/bias": settings.bias,
                "momentum": settings.momentum,
                "seconds": round(now.seconds, 3),
                "images_per_second": round(now.totals.images / max(now.seconds, 1e-9), 2),
                "peak_memory_mb": _peak_memory(device),
                **scores,
            }
        )
        self.history.add(finished, implicit_values(now.average.model))

    def write(self) -> None:
        """Write metrics.jsonl and implicit.parquet."""
        self.run.write_metrics(self.metrics)
        self.history.write(self.run)


def _peak_memory(device: torch.device) -> float:
    """MiB: of the GPU where there is one, else of the process."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
