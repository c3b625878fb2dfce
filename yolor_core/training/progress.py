"""What a run reports while it trains: metrics.jsonl, implicit.parquet, effects.parquet, TensorBoard's event
files, the heartbeat in state.json, and words to whoever watches.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Mapping
from typing import Any

import torch

from yolor_core.models import Detector, implicit_values
from yolor_core.models.knowledge import implicit_effects, mean_features
from yolor_core.runs.directory import RunDirectory
from yolor_core.training.history import EffectHistory, ImplicitHistory
from yolor_core.training.schedule import Settings
from yolor_core.training.state import TrainingState
from yolor_core.training.tensorboard import EventFiles
from yolor_core.training.watch import Moment, Unwatched, Watch

HEARTBEAT = 2.0  # seconds between two writings of state.json
GLANCE = 0.2  # seconds between two words to whoever watches


class Progress:
    """Keeps the records of finished epochs and writes them whole, so that a lost epoch leaves no line.

    Args:
        run: where to write.
        epochs: of the whole run.
        steps: of an epoch.
        tensorboard: whether to write event files too.
        reference: images, uint8 (B, 3, H, W), of which the effects of implicit knowledge are means.
        watch: who is told.
    """

    def __init__(
        self,
        run: RunDirectory,
        epochs: int,
        steps: int,
        reference: torch.Tensor,
        tensorboard: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.run, self.epochs, self.steps = run, epochs, steps
        self.watch = watch or Unwatched()
        self.events = EventFiles(run.path / "tensorboard") if tensorboard else None
        self.metrics: list[dict[str, Any]] = []
        self.reference = reference
        self.history, self.effects = ImplicitHistory(), EffectHistory()
        self.last_beat = self.last_glance = 0.0

    def load(self, source: RunDirectory, metrics: list[dict[str, Any]]) -> None:
        """Take over what `source` recorded: metrics of its checkpoint, implicit values and effects."""
        self.metrics = list(metrics)
        self.history.read(source.implicit, len(metrics))
        self.effects.read(source.effects, len(metrics))

    def look(self, epoch: int, model: Detector) -> None:
        """Record what implicit knowledge is in `model` after `epoch` finished epochs, and what it does."""
        values = implicit_values(model)
        self.history.add(epoch, values)
        if values and model.config.detection:
            self.effects.add(epoch, implicit_effects(model, mean_features(model, self.reference)))

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

    def started(self, record: Mapping[str, Any], now: TrainingState) -> None:
        """Tell whoever watches what is trained (run.json) and from where on."""
        self.watch.started(record, self._moment(now), list(self.metrics))

    def beat_if_due(self, now: TrainingState) -> None:
        """After a step: write state.json and tell whoever watches, each when the last time is long ago."""
        moment = time.monotonic()
        if moment - self.last_beat > HEARTBEAT:
            self.beat("running", now)
        if moment - self.last_glance > GLANCE:
            self.last_glance = moment
            self.watch.stepped(self._moment(now))

    def evaluating(self, done: int, total: int) -> None:
        """So many batches of the validation images are evaluated; `detect` calls it."""
        self.watch.evaluating(done, total)

    def finish_epoch(
        self,
        now: TrainingState,
        settings: Settings,
        scores: dict[str, float | None],
        device: torch.device,
        extra: Mapping[str, float] | None = None,
    ) -> None:
        """Record the epoch that `now` has just ended; implicit values are those of the averaged model.

        `extra`: further quantities of the epoch. One that is not finite is no JSON number and becomes null.
        """
        finished = now.epoch + 1
        further = {name: value if math.isfinite(value) else None for name, value in (extra or {}).items()}
        self.metrics.append(
            {
                "epoch": finished,
                **now.totals.means(),
                "lr/weights": settings.weights,
                "lr/bias": settings.bias,
                "momentum": settings.momentum,
                "seconds": round(now.seconds, 3),
                "images_per_second": round(now.totals.count / max(now.seconds, 1e-9), 2),
                "peak_memory_mb": _peak_memory(device),
                **further,
                **scores,
            }
        )
        self.look(finished, now.average.model)
        self.watch.epoch_finished(self.metrics[-1])

    def write(self) -> None:
        """Write metrics.jsonl, implicit.parquet, effects.parquet and the event files."""
        self.run.write_metrics(self.metrics)
        self.history.write(self.run.implicit)
        self.effects.write(self.run.effects)
        if self.events is not None:
            self.events.update(self.metrics, self.history.table)

    def _moment(self, now: TrainingState) -> Moment:
        return Moment(
            now.epoch, self.epochs, now.step, self.steps, now.seconds, now.totals.count, now.totals.means()
        )


def _peak_memory(device: torch.device) -> float:
    """MiB: of the GPU where there is one, else of the process."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
