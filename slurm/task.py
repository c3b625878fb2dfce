"""What runs inside a job's process: the signal handlers, then the job's function."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import submitit

from slurm.job import Job
from slurm.lease import Lease
from slurm.signals import stop_on

STATES = ("done", "preempted", "elsewhere")
LOOK_SECONDS = 1.0  # between two looks whether the launcher is still there


@dataclass(frozen=True)
class Task:
    """Picklable; submitit calls it in the new process. Returns (state, reason).

    An orphan stops by itself: when the launcher has vanished nobody could ask the job to stop any more.
    """

    job: Job
    launcher: Lease
    environment: Mapping[str, str] = field(default_factory=dict)  # set before the function is called

    def __call__(self) -> tuple[str, str | None]:
        pid_file().write_text(str(os.getpid()))
        os.environ.update(self.environment)
        looked = time.monotonic()
        # After submitit's own handlers, which would exit in the middle of a step.
        with stop_on(signal.SIGTERM, signal.SIGUSR2) as asked:

            def stop() -> bool:
                nonlocal looked
                if time.monotonic() - looked > LOOK_SECONDS:
                    looked = time.monotonic()
                    asked.requests += not self.launcher.held()
                return asked()

            try:
                state = self.job.function(stop)
            except Exception as error:
                traceback.print_exc()
                sys.stderr.flush()
                return "failed", describe(error)
        if state not in STATES:
            return "failed", f"the job returned {state!r}; allowed: {', '.join(STATES)}"
        return state, None


def describe(error: BaseException) -> str:
    """One line: the kind of the error and its message."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def pid_file(folder: Path | None = None, job_id: str | None = None) -> Path:
    """Where the job's process notes its id; inside that process both arguments are known."""
    if folder is None or job_id is None:
        environment = submitit.JobEnvironment()
        folder, job_id = Path(environment.paths.folder), environment.job_id
    return folder / f"{job_id}.pid"
