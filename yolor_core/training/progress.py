"""What a run reports while it trains: metrics.jsonl, implicit.parquet, effects.parquet, TensorBoard's event
files, the heartbeat in state.json, and words to whoever watches.
"""

from __future__ import annotations

import errno
import io
import math
import os
import re
import socket
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from yolor_core.device import peak_memory
from yolor_core.models import Detector, implicit_values
from yolor_core.models.knowledge import implicit_effects, mean_features
from yolor_core.runs.directory import RunDirectory, number, why, write_atomically
from yolor_core.training.distributed import Ranks
from yolor_core.training.schedule import Settings
from yolor_core.training.state import TrainingState


@dataclass(frozen=True)
class Moment:
    """Where a run is, between two steps."""

    epoch: int  # epochs finished
    epochs: int
    step: int  # steps taken in the present epoch
    steps: int  # steps of an epoch
    seconds: float = 0.0  # spent training in the present epoch, over all resumes
    images: int = 0  # seen in the present epoch
    losses: Mapping[str, float] = field(default_factory=dict)  # means over the present epoch


class Watch(Protocol):
    """Somebody who is told how a run goes on, in the training process: each answer has to be quick."""

    def started(self, record: Mapping[str, Any], now: Moment, metrics: list[dict[str, Any]]) -> None:
        """Training begins or goes on.

        Args:
            record: the content of run.json.
            now: where it starts; not at the beginning when it resumes.
            metrics: records of the epochs finished before, as in metrics.jsonl.
        """

    def stepped(self, now: Moment) -> None:
        """Some steps were taken; called a few times a second at most."""

    def evaluating(self, done: int, total: int) -> None:
        """So many of the validation images are evaluated; 0 when it begins."""

    def epoch_finished(self, record: Mapping[str, Any]) -> None:
        """An epoch ended, evaluated or not: its record of metrics.jsonl."""


NAME = pa.dictionary(pa.int32(), pa.string())


# What an item is, and its columns of numbers with the item's attribute of each.
IMPLICIT = ("site", "level", "form", "operator"), {"value": "values"}
EFFECTS = ("site", "level"), {"before": "before", "after": "after"}


class History:
    """implicit.parquet or effects.parquet: what implicit knowledge is at every epoch, and what it does.

    IMPLICIT is g(z) of every site and level (`models.implicit_values`); its index is the place in the
    flattened g(z). EFFECTS is what each site does to the raw predictions (`implicit_effects`); its index is
    anchor x outputs + output. `epoch` counts finished epochs; 0 is the initial value. A run without implicit
    knowledge has empty tables.
    """

    def __init__(self, names: Sequence[str], numbers: Mapping[str, str]) -> None:
        self.names, self.numbers = names, numbers
        columns = [("epoch", pa.int32()), *((name, NAME) for name in names), ("index", pa.int32())]
        self.schema = pa.schema([*columns, *((column, pa.float32()) for column in numbers)])
        self.table = self.schema.empty_table()

    def read(self, path: Path, epochs: int) -> None:
        """Take over what was written to `path`, up to `epochs` finished epochs.

        A file that is lost or damaged costs its values and gives a warning; training can go on without them.
        """
        try:
            table = pq.read_table(path, schema=self.schema)
        except (OSError, pa.ArrowException) as error:
            lost = f"the values of epochs 0 to {epochs} are lost"
            warnings.warn(f"{path} cannot be read ({error}); {lost}", stacklevel=2)
            table = self.schema.empty_table()
        self.table = table.filter(pc.field("epoch") <= epochs)

    def add(self, epoch: int, items: Iterable[Any]) -> None:
        """Append items after `epoch` finished epochs; the numbers of an item are of equal length."""
        parts = [self.table]
        for item in items:
            numbers = {column: np.ravel(getattr(item, name)) for column, name in self.numbers.items()}
            count = len(next(iter(numbers.values())))
            columns: dict[str, Any] = {"epoch": np.full(count, epoch, np.int32)}
            for name in self.names:
                columns[name] = pa.array([getattr(item, name)] * count, pa.string()).dictionary_encode()
            columns |= {"index": np.arange(count, dtype=np.int32), **numbers}
            parts.append(pa.table(columns, schema=self.schema))
        self.table = pa.concat_tables(parts).unify_dictionaries()

    def write(self, path: Path) -> None:
        write_atomically(path, lambda file: pq.write_table(self.table, file, compression="zstd"))


# TensorBoard's event files are written with the `tensorboard` package's own records and messages, which take
# a tenth of a second to import: that is done when the first file is written. torch's `SummaryWriter` writes
# from a thread of its own, leaves a part of a record on a full disk, which hides all that comes after it, and
# then writes no more.
PATTERN = "events.out.tfevents.*"  # what TensorBoard looks for
FILE_VERSION = "brain.Event:2"
BINS = 30
COCO = re.compile(r"A[PR]")  # the twelve numbers: AP, AP50 ... ARL


def tag(key: str) -> str:
    """TensorBoard's name of a number: the part before the slash is the group it is shown in."""
    if "/" in key:
        return key
    return f"coco/{key}" if COCO.match(key) else f"run/{key}"


class EventFiles:
    """Keeps the event files in `folder` equal to the records of the finished epochs.

    A process begins a new file and empties those of earlier processes, so that nothing of a lost epoch is
    left and damage is repaired. It does not remove them, and appends from then on, because a running
    TensorBoard reads on in the file it has open and gives up where that is gone.

    The files are a view of metrics.jsonl and never worth a run: when they cannot be written (the disk is
    full, the package is missing) there is one warning, and after the next epoch it is tried again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path: Path | None = None
        self.written: set[int] = set()  # epochs in the file; 0 has only the initial values of g(z)
        self.warned = False

    def update(self, records: Sequence[Mapping[str, Any]], implicit: pa.Table) -> None:
        """Write the epochs that the file lacks.

        Args:
            records: the lines of metrics.jsonl.
            implicit: the content of implicit.parquet.
        """
        known = {record["epoch"]: record for record in records}
        fresh = self.path is None or not self.path.exists()
        missing = sorted({0, *known} - (set() if fresh else self.written))
        if not missing:
            return
        try:
            data = b"".join(self._epoch(known, epoch, implicit) for epoch in missing)
            if fresh:
                self._begin(data)
            elif self.path is not None:
                _append(self.path, data)
            self.written.update(missing)
        except (OSError, ImportError) as error:
            self._warn(why(error) if isinstance(error, OSError) else str(error))

    def _begin(self, data: bytes) -> None:
        """A new file with its head and these records, in place of all others."""
        self.folder.mkdir(exist_ok=True)
        # Names sort by time, and TensorBoard reads them in that order: nanoseconds, as a run may be resumed
        # within a second. The rest of the name is as usual.
        second, rest = divmod(time.time_ns(), 10**9)
        path = self.folder / f"events.out.tfevents.{second}.{rest:09}.{socket.gethostname()}.{os.getpid()}"
        head = _event(time.time(), 0, file_version=FILE_VERSION)
        # Tells a TensorBoard that has read an earlier file to forget what it saw there.
        head += _event(time.time(), 0, session_start=True)
        try:
            _append(path, head + data)
        except OSError:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise
        self.path, self.written = path, set()
        for old in self.folder.glob(PATTERN):
            with suppress(OSError):
                if old != path and old.stat().st_size:
                    os.truncate(old, 0)

    def _warn(self, reason: str) -> None:
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"{self.folder}: TensorBoard's event files cannot be written ({reason}); training goes on, "
                "and after each epoch it is tried again",
                stacklevel=4,
            )

    def _epoch(self, known: Mapping[int, Mapping[str, Any]], epoch: int, implicit: pa.Table) -> bytes:
        """The records of an epoch."""
        # Restored epochs have kept no time of day, only how long they took; later ones end before now.
        later = sum(float(record.get("seconds") or 0) for at, record in known.items() if at > epoch)
        scalars = {tag(key): number(value) for key, value in known.get(epoch, {}).items() if key != "epoch"}
        return _event(
            time.time() - later,
            epoch,
            scalars={key: float(value) for key, value in scalars.items() if value is not None},
            histograms=_representations(implicit, epoch),
        )


def _representations(implicit: pa.Table, epoch: int) -> dict[str, np.ndarray]:
    """`implicit/fa P3` -> values of g(z) after an epoch."""
    frame = implicit.filter(pc.field("epoch") == epoch).select(["site", "level", "value"])
    if not len(frame):
        return {}
    names = pc.binary_join_element_wise(
        pc.cast(frame["site"], "string"), pc.cast(frame["level"], "string"), " "
    ).to_numpy()
    values = frame["value"].to_numpy()
    return {f"implicit/{name}": values[names == name] for name in dict.fromkeys(names)}


def _event(
    wall_time: float,
    step: int,
    *,
    file_version: str | None = None,
    session_start: bool = False,
    scalars: Mapping[str, float] | None = None,
    histograms: Mapping[str, np.ndarray] | None = None,
) -> bytes:
    """One event as a record of the file; empty bytes where there is nothing to say."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    event = Event(wall_time=wall_time, step=step)
    if file_version is not None:
        event.file_version = file_version
    elif session_start:
        event.session_log.CopyFrom(SessionLog(status=SessionLog.START))
    else:
        found = [Summary.Value(tag=name, simple_value=value) for name, value in (scalars or {}).items()]
        for name, values in (histograms or {}).items():
            finite = values[np.isfinite(values)].astype(np.float64)
            if not len(finite):
                continue
            counts, edges = np.histogram(finite, bins=BINS)
            histogram = HistogramProto(
                min=finite.min(), max=finite.max(), num=len(finite),
                sum=finite.sum(), sum_squares=np.square(finite).sum(),
                bucket_limit=edges, bucket=[0, *counts],  # a limit is the upper end of its bucket
            )  # fmt: skip
            found.append(Summary.Value(tag=name, histo=histogram))
        if not found:
            return b""
        event.summary.CopyFrom(Summary(value=found))
    buffer = io.BytesIO()
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()


def _append(path: Path, data: bytes) -> None:
    """Append all of the data or nothing: a part of a record would hide all that comes after it."""
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            done = file.write(data)
            if done != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            with suppress(OSError):
                file.truncate(size)
            raise


HEARTBEAT = 2.0  # seconds between two writings of state.json
GLANCE = 0.2  # seconds between two words to whoever watches


class Progress:
    """Keeps the records of finished epochs and writes them whole, so that a lost epoch leaves no line.

    Rank 0 alone writes and tells.

    Args:
        run: where to write.
        ranks: that train the run.
        epochs: of the whole run.
        steps: of an epoch.
        reference: images, uint8 (B, 3, H, W), of which the effects of implicit knowledge are means.
        tensorboard: whether to write event files too.
        watch: who is told.
    """

    def __init__(
        self,
        run: RunDirectory,
        ranks: Ranks,
        epochs: int,
        steps: int,
        reference: torch.Tensor,
        tensorboard: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.run, self.ranks, self.epochs, self.steps = run, ranks, epochs, steps
        self.watch = watch if ranks.main else None
        self.events = EventFiles(run.path / "tensorboard") if tensorboard and ranks.main else None
        self.metrics: list[dict[str, Any]] = []
        self.reference = reference
        self.history, self.effects = History(*IMPLICIT), History(*EFFECTS)
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
        if not self.ranks.main:
            return
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
        if self.watch:
            self.watch.started(record, self._moment(now), list(self.metrics))

    def beat_if_due(self, now: TrainingState) -> None:
        """After a step: write state.json and tell whoever watches, each when the last time is long ago."""
        moment = time.monotonic()
        if moment - self.last_beat > HEARTBEAT:
            self.beat("running", now)
        if self.watch and moment - self.last_glance > GLANCE:
            self.last_glance = moment
            self.watch.stepped(self._moment(now))

    def finish_epoch(
        self, now: TrainingState, settings: Settings, scores: Mapping[str, float | None]
    ) -> None:
        """Record the epoch that `now` has just ended; implicit values are those of the averaged model.

        A quantity beside the losses that is not finite is no JSON number and becomes null.
        """
        if not self.ranks.main:
            return
        finished, task = now.epoch + 1, now.model.task
        extra = {"data_seconds": round(now.waited, 3), **now.norms.means(), **now.conflicts.means()}
        if task.learnt:
            extra |= {f"weight/{name}": value for name, value in task.factors().items()}
        self.metrics.append(
            {
                "epoch": finished,
                **now.totals.means(),
                "lr/weights": settings.weights,
                "lr/bias": settings.bias,
                "momentum": settings.momentum,
                "seconds": round(now.seconds, 3),
                "images_per_second": round(now.totals.count / max(now.seconds, 1e-9), 2),
                "peak_memory_mb": round(peak_memory(self.ranks.device), 1),
                **{name: value if math.isfinite(value) else None for name, value in extra.items()},
                **scores,
            }
        )
        self.look(finished, now.average.model)
        if self.watch:
            self.watch.epoch_finished(self.metrics[-1])
        self.write()

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
