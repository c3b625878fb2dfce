"""TensorBoard event files of a run: one scalar per number of metrics.jsonl, histograms of g(z), by epoch.

The format is written with the `tensorboard` package's own records and messages, which take a tenth of a
second to import; they are imported when the first file is written. torch's `SummaryWriter` writes
from a thread of its own, leaves a part of a record on a full disk, which hides all that comes after it, and
then writes no more.
"""

from __future__ import annotations

import errno
import io
import os
import re
import socket
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yolor_core.runs.directory import number, why

if TYPE_CHECKING:
    import pyarrow as pa

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
                _write(self.path, data)
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
            _write(path, head + data)
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
    import pyarrow.compute as pc

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


def _write(path: Path, data: bytes) -> None:
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
