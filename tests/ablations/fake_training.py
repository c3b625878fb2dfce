"""Stands in for training: writes the states that training writes, and can fail or be killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from yolor_core.runs.directory import RunDirectory


def work(run_dir: Path, stop: Callable[[], bool]) -> str:
    """The file `kind` says done, raise, diverge, or die (killed while it says running)."""
    run, kind = RunDirectory(run_dir), (run_dir / "kind").read_text()
    with run.lock():
        run.write_state("running", epoch=1, epochs=2)
        with (run.path / "attempts").open("a") as file:
            file.write("attempt\n")
        if kind == "raise":
            run.write_state("failed", reason="ValueError: too wide")
            raise ValueError("too wide")
        if kind == "diverge":
            run.nonfinite.write_text("{}")
            run.write_state("failed", reason="loss/box is not finite")
            raise ValueError("loss/box is not finite")
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        leave_results(run)
    return "done"


def leave_results(run: RunDirectory) -> None:
    """The files by which a run counts as finished."""
    run.write_state("done", epoch=2, epochs=2, ap=0.25)
    run.run.write_text("{}")
    run.evaluation.write_text('{"detection": {"AP": null}}')
    run.weights.write_bytes(b"")


def attempts(run: RunDirectory) -> int:
    """How often the run was started."""
    path = run.path / "attempts"
    return len(path.read_text().splitlines()) if path.exists() else 0
