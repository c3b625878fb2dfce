"""The end of what a job has printed, and what it tells."""

from __future__ import annotations

from pathlib import Path

LOG_BYTES, LOG_LINES = 20_000, 8
MEMORY = ("oom-kill", "out of memory", "oom_kill", "exceeded memory limit", "cannot allocate memory")


def tail(path: Path | None) -> str:
    """The end of a log; nothing where there is none."""
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - LOG_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def last_lines(text: str, lines: int = LOG_LINES) -> list[str]:
    """The last lines that say something, without submitit's own."""
    told = [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("submitit ")]
    return told[-lines:]


def out_of_memory(log: str) -> bool:
    """Whether a log says that memory ran out."""
    return any(sign in log.lower() for sign in MEMORY)
