"""Submit tokens: who has sent a run to the scheduler, written before it is sent.

`<run>/submits/0001.json` is the first submission of a run, `0002.json` the next. The highest number counts.
Whoever creates a number owns that submission, so of two people who launch the same grid at the same moment
one gets each run, and a job that finds a higher number than its own leaves the run alone. Nothing is ever
locked or removed.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slurm.files import append_line, create_json, read_json, read_lines, replace_json

SENDING_SECONDS = 120.0  # a launch takes so long at most from one array to the next
AGAIN = ("crash", "preempted")  # endings of an attempt after which a run goes on by itself
NUMBER = re.compile(r"(\d{4,})\.json")


@dataclass(frozen=True)
class Token:
    """One submission of a run."""

    run_dir: Path
    number: int
    content: Mapping[str, Any]

    @property
    def job(self) -> str | None:
        """The scheduler's id, as 123 or 123_4; None when it was not sent, or nobody could write it down."""
        return self._text("job")

    @property
    def name(self) -> str:
        """Of its job (of the whole array)."""
        return self._text("name") or ""

    @property
    def user(self) -> str:
        return self._text("user") or "somebody"

    @property
    def withdrawn(self) -> str | None:
        """Why it was never sent."""
        return self._text("withdrawn")

    @property
    def gpus(self) -> int:
        """GPUs (or processes, where there are none) of the run."""
        return int(self.content.get("gpus") or 1)

    @property
    def place(self) -> int:
        """Which of the runs of its job it is, from 0."""
        return int(self.content.get("place") or 0)

    @property
    def pack(self) -> int:
        """How many runs share its job and its GPU."""
        return int(self.content.get("pack") or 1)

    @property
    def hours(self) -> float | None:
        """GPU hours that were expected."""
        value = self.content.get("hours")
        return float(value) if isinstance(value, int | float) else None

    @property
    def being_sent(self) -> bool:
        """Whether its launch may still send it: its process lives.

        That of another machine cannot be looked at. It writes down how far it is, with the time, and counts
        as alive for `SENDING_SECONDS` after that.
        """
        if self.job or self.withdrawn:
            return False
        if self.content.get("host") == socket.gethostname() and self.content.get("process"):
            return process_mark(int(str(self.content["process"]).split(":")[0])) == self.content["process"]
        folder = self._text("folder")
        launch = read_json(Path(folder).parent.parent / "launch.json") if folder else None
        return min(_age(self.content), _age(launch or {})) <= SENDING_SECONDS

    def again(self) -> Token:
        """The same, read anew."""
        return read(self.run_dir, self.number)

    @property
    def log(self) -> Path | None:
        """What its first process prints, once it has an id."""
        folder = self._text("folder")
        return Path(folder) / f"{self.job}_{self.place}_log.out" if folder and self.job else None

    @property
    def cancelled(self) -> dict[str, Any] | None:
        """Who cancelled it, and when."""
        return read_json(self._beside("cancelled.json"))

    def cancel(self) -> None:
        """Note that it is not wanted any more, so that its job does not queue itself again."""
        create_json(self._beside("cancelled.json"), {"user": user(), "when": moment()})

    def update(self, **fields: Any) -> Token:
        """Write more into it; only its owner does."""
        content = dict(self.content) | fields
        replace_json(self._path, content)
        return Token(self.run_dir, self.number, content)

    def attempts(self) -> list[dict[str, Any]]:
        """What its job did: records with `event` start or end, in order."""
        return read_lines(self._beside("attempts.jsonl"))

    @property
    def ended_as(self) -> str | None:
        """How its last attempt ended, in the words of `slurm.ending`; None while one goes on."""
        told = [record for record in self.attempts() if record.get("event") in ("start", "end")]
        return str(told[-1].get("kind")) if told and told[-1]["event"] == "end" else None

    def note(self, event: str, **fields: Any) -> None:
        """Add a record of what its job does."""
        append_line(self._beside("attempts.jsonl"), {"event": event, "when": moment(), **fields})

    def outcomes(self, restart: int) -> list[dict[str, Any]]:
        """How the processes of one attempt ended, as far as they could say."""
        paths = sorted(self._path.parent.glob(f"{self.number:04}.outcome.*.json"))
        found = [value for path in paths if (value := read_json(path)) is not None]
        mine = (restart, self.content.get("launch"))
        return [value for value in found if (value.get("restart"), value.get("launch")) == mine]

    def ended(self, rank: int, restart: int, **fields: Any) -> None:
        """Leave how one process of an attempt ended."""
        about = {"rank": rank, "restart": restart, "launch": self.content.get("launch")}
        replace_json(self._beside(f"outcome.{rank}.json"), about | fields)

    @property
    def _path(self) -> Path:
        return self.run_dir / "submits" / f"{self.number:04}.json"

    def _beside(self, ending: str) -> Path:
        return self._path.with_name(f"{self.number:04}.{ending}")

    def _text(self, key: str) -> str | None:
        value = self.content.get(key)
        return str(value) if value else None


def current(run_dir: Path, strict: bool = False) -> Token | None:
    """The submission of a run that counts; None where it was never submitted.

    strict: raise the OSError of files that are there and cannot be read now.
    """
    names: list[str] = []
    try:
        names = os.listdir(run_dir / "submits")
    except OSError as error:
        if strict and not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise
    numbers = [int(match[1]) for name in names if (match := NUMBER.fullmatch(name))]
    return read(run_dir, max(numbers), strict) if numbers else None


def read(run_dir: Path, number: int, strict: bool = False) -> Token:
    """A submission by its number; a damaged one has no content. strict: as for `current`."""
    path = run_dir / "submits" / f"{number:04}.json"
    return Token(run_dir, number, read_json(path, strict) or {})


def claim(run_dir: Path, after: int, **content: Any) -> Token | None:
    """Become the owner of the submission that follows number `after`; None when somebody else has."""
    own = {"user": user(), "host": socket.gethostname(), "process": process_mark(os.getpid())}
    content = {**own, "written": moment(), **content}
    token = Token(run_dir, after + 1, content)
    return token if create_json(token._path, content) else None


def process_mark(pid: int) -> str:
    """A process of this machine as nobody else can be it: its number, the boot, and when it began.

    Empty where there is none, or where the system does not say.
    """
    try:
        began = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (OSError, IndexError):
        return ""
    return f"{pid}:{boot}:{began}"


def _age(content: Mapping[str, Any]) -> float:
    """Seconds since something was written."""
    with suppress(ValueError, TypeError):
        written = datetime.fromisoformat(str(content.get("written")))
        return (datetime.now(UTC) - written).total_seconds()
    return float("inf")


def user() -> str:
    """The name of the user, or their number where the machine knows no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def moment() -> str:
    """Now in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
