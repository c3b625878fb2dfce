"""What /proc says about processes, and how to end them for good."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Process:
    """A process by its id and its start, because the id comes back after the process is gone."""

    pid: int
    began: int

    def alive(self) -> bool:
        """Whether it runs; a zombie does not, whoever neglects to collect it."""
        now = _stat(self.pid)
        return now is not None and now[0] == self and now[2] not in "ZX"

    def save(self, path: Path) -> None:
        """Record it in a file, for `load`."""
        path.write_text(f"{self.pid} {self.began}\n")


def _stat(pid: int) -> tuple[Process, int, str] | None:
    """The process, its parent's id and its state."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return Process(pid, int(fields[19])), int(fields[1]), fields[0]


def process(pid: int) -> Process | None:
    """The process of that id; None where there is none."""
    found = _stat(pid)
    return found[0] if found else None


def load(path: Path) -> Process | None:
    """The process recorded in a file, if it is still alive."""
    try:
        pid, began = map(int, path.read_text().split())
    except (OSError, ValueError):
        return None
    recorded = Process(pid, began)
    return recorded if recorded.alive() else None


def all_processes() -> dict[int, tuple[Process, int]]:
    """Every living process by its id, with its parent's id."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    found = {pid: _stat(pid) for pid in pids}
    return {pid: (s[0], s[1]) for pid, s in found.items() if s is not None and s[2] not in "ZX"}


def with_descendants(roots: Iterable[Process]) -> list[Process]:
    """The given processes, then their children, grandchildren and so on."""
    family = list(roots)
    table = all_processes()
    for member in family:  # grows while it is walked
        family += [p for p, parent in table.values() if parent == member.pid and p not in family]
    return family


def environment_of(pid: int) -> dict[str, str]:
    """The variables the process began with; empty where it is gone or has overwritten them."""
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)


def name_of(pid: int) -> str:
    """The name of its program, cut to 15 characters; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def has_open(pid: int, path: Path) -> bool:
    """Whether the process has that file open."""
    try:
        links = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
    for link in links:
        with suppress(OSError):
            if os.readlink(link) == str(path):
                return True
    return False


def kill(victims: Iterable[Process]) -> None:
    """SIGKILL in the given order."""
    for victim in victims:
        if victim.alive():
            with suppress(ProcessLookupError):
                os.kill(victim.pid, signal.SIGKILL)


def until(condition: Callable[[], bool], seconds: float, poll: float = POLL_SECONDS) -> bool:
    """Wait for the condition; whether it came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(poll)
    return True
