"""Reading and writing one run directory (`results/runs/<run id>/`). No torch, no pandas.

Files: run.json (who), state.json (how far), metrics.jsonl (one line per epoch), evaluation.json,
detections.parquet, implicit.parquet, effects.parquet, dataset.json, weights.safetensors, checkpoint.pt and
checkpoint.previous.pt; features.parquet where somebody asked for it; nonfinite.json where a run stopped
because of a loss that is not finite.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from yolor_core.errors import BusyError, RunError, json_kind
from yolor_core.runs import GOING_ON, WRITTEN, State, combined
from yolor_core.tasks import TASKS


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step.

    A reader sees the old file or the new one, never a part. On an error the old file stays.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~umask())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # not the temporary one; a full disk names none
        raise


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN is refused, because it is not JSON."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_json(path: Path, remedy: str | None = None) -> dict[str, Any] | None:
    """The object in a JSON file, or None where there is no such file.

    Raises RunError, naming the file and the remedy, for a file that cannot be read or holds anything else.
    The remedy is that of a run's file unless another is given.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, why(error), remedy) from None
    if not isinstance(value, dict):
        raise unreadable(path, f"holds {json_kind(value)}, not an object", remedy)
    return value


def unreadable(path: Path, reason: str, remedy: str | None = None) -> RunError:
    """The error for a damaged file, of a run unless a remedy is given: which one, why, and what to do."""
    reason = reason.strip().rstrip(".")
    remedy = remedy or f"Remove the file, or the folder {path.parent} to run it anew"
    return RunError(f"{path} cannot be read: {reason}. {remedy}")


def why(error: Exception) -> str:
    """What is wrong with a file, in a few words without its name."""
    if isinstance(error, UnicodeDecodeError):
        return f"not text (byte {error.start} is 0x{error.object[error.start]:02x})"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error})" if error.doc.strip() else "it is empty"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"


def number(value: object) -> int | float | None:
    """The value where it is a finite number, None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def umask() -> int:
    """Which permissions new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def cache_folder() -> Path:
    """Where what was computed is remembered: ABLATE_CACHE, else the user's cache folder."""
    folder = os.environ.get("ABLATE_CACHE")
    return Path(folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ablate")


def write_cache(path: Path, content: object) -> None:
    """Write JSON in one step, or nothing where that cannot be."""
    with suppress(OSError):  # a read-only home costs time, not correctness
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(json.dumps(content).encode()))


RECORD = {"run": str, "signature": str, "seed": int, "fingerprint": str, "config": dict}  # of run.json
NEEDED = {str: "a text", int: "a whole number", dict: "an object"}


def now() -> str:
    """The present in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _refused(path: Path, flags: int) -> int:
    """Why a lock file cannot be locked now, as an errno, or 0. Raises OSError where it cannot be opened."""
    handle = os.open(path, flags, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as FileLock does, but shared among lookers
    except OSError as error:
        return error.errno or errno.EIO
    finally:
        os.close(handle)
    return 0


class RunDirectory:
    """One run's files, by name."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.run = self.path / "run.json"
        self.state = self.path / "state.json"
        self.metrics = self.path / "metrics.jsonl"
        self.evaluation = self.path / "evaluation.json"
        self.detections = self.path / "detections.parquet"
        self.implicit = self.path / "implicit.parquet"
        self.effects = self.path / "effects.parquet"
        self.dataset = self.path / "dataset.json"
        self.features = self.path / "features.parquet"
        self.weights = self.path / "weights.safetensors"
        self.priors = self.path / "implicit_priors.safetensors"
        self.checkpoint = self.path / "checkpoint.pt"
        self.previous_checkpoint = self.path / "checkpoint.previous.pt"
        self.checksums = self.path / "checkpoint.sha256"
        self.nonfinite = self.path / "nonfinite.json"

    def read_run(self) -> dict[str, Any] | None:
        """run.json, or None before the run has started. Raises RunError where it is damaged."""
        value = read_json(self.run)
        for key, found in (value or {}).items():
            if key in RECORD and not isinstance(found, RECORD[key]):
                raise unreadable(self.run, f"{key} is {found!r:.40}; {NEEDED[RECORD[key]]} is needed")
        return value

    def read_state(self) -> dict[str, Any] | None:
        """state.json, or None where nobody has touched the run. Raises RunError where it is damaged."""
        value = read_json(self.state)
        if value is not None and value.get("state") not in WRITTEN:
            raise unreadable(self.state, f"state is {value.get('state')!r}; allowed: {', '.join(WRITTEN)}")
        return value

    def read_evaluation(self) -> dict[str, Any] | None:
        """evaluation.json, or None before the last epoch or where it has no task's scores.

        Raises RunError where it is damaged.
        """
        value = read_json(self.evaluation)
        return value if value is not None and any(value.get(task) for task in TASKS) else None

    def written(self) -> State | None:
        """The run's own last word; None where nobody has touched it. Raises RunError where it is damaged.

        A failure because of a loss or gradient that was not finite is DIVERGED.
        """
        state = self.read_state()
        if state is None:
            return None
        word = State(state["state"])
        not_finite = self.nonfinite.exists() or str(state.get("reason")).startswith("NonFiniteError")
        return State.DIVERGED if word is State.FAILED and not_finite else word

    def life(self, job: State | None = None) -> State:
        """Where the run stands, from its folder and what the scheduler says.

        Args:
            job: the scheduler's word for its last submission (see `combined`); None where it was never
                submitted, or where nobody asked.
        """
        try:
            own = self.written()
            if own is State.DONE:
                return State.INCOMPLETE if self.missing() else State.DONE
        except RunError:
            return State.UNREADABLE
        # One that has left the cluster may be trained on this machine by now.
        left = job is not None and job not in (*GOING_ON, State.UNKNOWN) and self.running()
        if job is not None and not left:
            return combined(own, job)
        if own is State.RUNNING and not left and not self.running():
            return State.INTERRUPTED
        return own or State.MISSING

    def complete(self) -> bool:
        """Whether the run is finished and all that a finished run is good for is there.

        That is: state.json says done, run.json and the scores in evaluation.json can be read, the weights
        exist. Raises RunError where state.json is damaged, because then nobody knows how far the run got.
        """
        state = self.read_state()
        if state is None or state["state"] != "done":
            return False
        return not self.missing()

    def missing(self) -> list[str]:
        """What keeps a run that is done from being complete, as `evaluation.json is missing`."""
        found = [] if self.weights.is_file() else [f"{self.weights.name} is missing"]
        for path, read in ((self.run, self.read_run), (self.evaluation, self.read_evaluation)):
            try:
                if not path.exists():
                    found.append(f"{path.name} is missing")
                elif read() is None:
                    found.append(f"{path.name} has no scores")
            except RunError:
                found.append(f"{path.name} cannot be read")
        return found

    def last_logs(self) -> list[Path]:
        """The non-empty logs of the run's last start on this machine."""
        starts = sorted(path for path in (self.path / "logs").glob("*") if path.is_dir())
        return sorted(path for path in starts[-1].glob("*_log.*") if path.stat().st_size) if starts else []

    def read_metrics(self) -> list[dict[str, Any]]:
        """One record per finished epoch, in order. Raises RunError where metrics.jsonl is damaged."""
        try:
            lines = self.metrics.read_text(encoding="utf-8").splitlines()
            return [dict(json.loads(line)) for line in lines if line]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise unreadable(self.metrics, why(error)) from None

    def write_metrics(self, records: Sequence[dict[str, Any]]) -> None:
        """Replace metrics.jsonl. Written whole, so that a resumed run leaves no line of a lost epoch."""
        text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
        write_atomically(self.metrics, lambda file: file.write(text.encode()))

    def write_state(self, state: str, **fields: Any) -> None:
        """Write state.json with a fresh heartbeat; fields not given keep their last value.

        A damaged state.json is replaced.
        """
        if state not in WRITTEN:
            raise ValueError(f"unknown state {state!r}; allowed: {', '.join(WRITTEN)}")
        self.path.mkdir(parents=True, exist_ok=True)
        known: dict[str, Any] = {
            "reason": None,
            "epoch": 0,
            "epochs": 0,
            "step": 0,
            "steps": 0,
            "ap": None,
            "seconds": 0.0,
        }
        with suppress(RunError):  # whoever writes has looked already, or knows better
            known |= self.read_state() or {}
        value = known | {"reason": None} | fields
        value |= {"state": state, "heartbeat": now(), "host": socket.gethostname(), "pid": os.getpid()}
        write_json(self.state, value)

    @contextmanager
    def lock(self, timeout: float = 5.0) -> Iterator[None]:
        """Hold the run while writing to it; the lock goes with the process, however that ends.

        Raises BusyError when another process holds it for longer than `timeout` seconds, RunError on a file
        system without flock.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if _refused(self.path / ".lock", os.O_RDWR | os.O_CREAT) in (errno.ENOSYS, errno.EOPNOTSUPP):
            # filelock would take the file itself for the lock, which a lost node leaves behind.
            what = "its file system has no flock (Lustre: mount option flock), and two could train it at once"
            raise RunError(f"{self.path}: {what}")
        try:
            with FileLock(self.path / ".lock", timeout=timeout):
                yield
        except Timeout:
            raise BusyError(
                f"{self.path} is being trained by another process; wait for it or cancel it"
            ) from None

    def running(self) -> bool:
        """Whether a live process on this machine holds the run.

        Nothing is written, so one who may only read can ask; a lock that they may not read counts as free.
        """
        try:
            return _refused(self.path / ".lock", os.O_RDONLY) == errno.EWOULDBLOCK
        except OSError:
            return False
