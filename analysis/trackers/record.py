"""What is sent of a run to a tracker, read from the plain files of its folder.

Training never calls a tracker: a run is read while it trains or later, as often as one likes, and what is new
of it is sent. What is no finite number is kept as text beside. docs/tracking.md says what goes where.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ablations.cli import installing
from yolor_core.errors import RunError, YolorError
from yolor_core.runs import State
from yolor_core.runs.directory import RunDirectory, number, read_json, unreadable

PROJECT = "yolor-ablations"  # of both trackers, where nothing else is said
#: MLflow's words for where a run stands; KILLED for all others.
STATUS = {
    State.QUEUED: "SCHEDULED", State.STARTING: "SCHEDULED", State.RUNNING: "RUNNING",
    State.UNKNOWN: "RUNNING", State.DONE: "FINISHED", State.INCOMPLETE: "FINISHED",
    State.FAILED: "FAILED", State.DIVERGED: "FAILED",
}  # fmt: skip
GOING_ON = ("SCHEDULED", "RUNNING")


class TrackerError(YolorError):
    """A tracker that is not installed, cannot be reached, refuses something or has lost something."""


@dataclass(frozen=True)
class Epoch:
    """The finite numbers of one line of metrics.jsonl; `time` in seconds since 1970."""

    epoch: int
    time: float
    values: Mapping[str, int | float]


@dataclass(frozen=True)
class Record:
    """What is sent of a run.

    Attributes:
        run: its id.
        key: of this very training: another one of the same id, e.g. in another folder, began at another time.
        state: where it stands.
        content: run.json.
        epochs: in order, steps strictly increasing.
        scores: the numbers of evaluation.json, as `final/detection/AP`; empty before it is there.
        beside: what is no finite number, by name: `{"loss/box": {"7": null}}` by epoch for metrics.jsonl.
        started, ended: seconds since 1970; `ended` is None until the run is done.
    """

    run: str
    key: str
    state: State
    content: Mapping[str, Any]
    epochs: Sequence[Epoch]
    scores: Mapping[str, int | float]
    beside: Mapping[str, Any]
    started: float
    ended: float | None
    reason: str | None = None

    @property
    def status(self) -> str:
        """SCHEDULED, RUNNING, FINISHED, FAILED or KILLED."""
        return STATUS.get(self.state, "KILLED")


@dataclass(frozen=True)
class Sent:
    """What became of a run: how many numbers are new, how many there are, and where they are."""

    new: int
    numbers: int
    where: str


def read(path: Path, state: State, reason: str | None = None) -> Record:
    """The record of a run's folder.

    Raises RunError, naming file and entry, where run.json is missing or a file cannot be read.
    """
    directory = RunDirectory(path)
    content = directory.read_run()
    if content is None:
        raise RunError(f"{directory.run} is missing: the run has not started, so there is nothing to send")
    run = str(content.get("run", path.name))
    started, ended = _seconds(directory, content, "started"), None
    if content.get("ended") is not None:
        ended = _seconds(directory, content, "ended")
    beside: dict[str, Any] = {}
    epochs = _epochs(directory, started, beside)
    scores: dict[str, int | float] = {}
    for keys, value in _entries(read_json(directory.evaluation) or {}):
        name = "/".join(("final", *keys))
        if (finite := number(value)) is None:
            beside[name] = plain(value)
        else:
            scores[name] = finite
    if nonfinite := read_json(directory.nonfinite):
        beside["nonfinite.json"] = plain(nonfinite)
    key = hashlib.sha256(json.dumps([run, content.get("started")]).encode()).hexdigest()[:16]
    return Record(run, key, state, content, epochs, scores, beside, started, ended, reason)


def _seconds(directory: RunDirectory, content: Mapping[str, Any], name: str) -> float:
    try:
        return datetime.fromisoformat(str(content.get(name))).timestamp()
    except ValueError:
        raise unreadable(directory.run, f"{name} is {content.get(name)!r:.40}; a time is needed") from None


def _epochs(directory: RunDirectory, started: float, beside: dict[str, Any]) -> list[Epoch]:
    """The lines of metrics.jsonl; adds to `beside` what is no finite number."""
    found: list[Epoch] = []
    moment = started
    for line, record in enumerate(directory.read_metrics(), start=1):
        epoch = record.pop("epoch", None)
        last = found[-1].epoch if found else 0
        if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch <= last:
            said = f"line {line}: epoch is {epoch!r:.40}; a whole number above {last} is needed"
            raise unreadable(directory.metrics, said)
        values = {}
        for name, value in record.items():
            if (finite := number(value)) is None:
                beside.setdefault(name, {})[str(epoch)] = plain(value)
            else:
                values[name] = finite
        moment += max(values.get("seconds", 0.0), 0.0)
        found.append(Epoch(epoch, moment, values))
    return found


def _entries(value: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What stands in a JSON object, with the keys that lead there; lists are one value."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _entries(item, (*keys, key))
    elif keys:
        yield keys, value


def plain(value: Any) -> Any:
    """A JSON value without NaN and the infinities, which are no JSON: they become text."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def digest(points: Sequence[Any]) -> str:
    """By which a later call knows whether what was sent before still stands."""
    return hashlib.sha256(json.dumps(points).encode()).hexdigest()


@contextmanager
def installed() -> Iterator[None]:
    """Raises TrackerError, which says what to install, where an import inside finds nothing."""
    try:
        yield
    except ModuleNotFoundError as error:
        said = installing(str(error.name).partition(".")[0]) or "the store needs it"
        raise TrackerError(f"{error.name} is not installed: {said}") from None
