"""What each process of a run does inside a SLURM job: train until told to stop, and leave word how it ended.

It decides nothing about what comes next; that is `slurm.ending`, called once when all processes are gone.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import submitit

from slurm.signals import stop_on
from slurm.task import STATES, describe
from slurm.tokens import current, read

STOPS = (signal.SIGTERM, signal.SIGUSR2)  # by which the scheduler asks a run to stop
LOOK_SECONDS = 20.0  # between two looks whether the run is still this job's
GONE = "this submission does not count any more (a newer one does, or the run's folder is gone): ending"


class Work(Protocol):
    """What a run does; picklable."""

    def __call__(self, stop: Callable[[], bool]) -> str:
        """Goes on where it was left; returns as `slurm.job.Job.function`.

        An exception that has a true `final` would come again: it is not tried once more.
        """

    def leave(self, state: str, reason: str) -> None:
        """Write into the run's own files how it ended, where it could not do so itself."""


@dataclass(frozen=True)
class Attempt:
    """Picklable; submitit calls it in every process of the job, and again after each requeue."""

    run_dir: Path
    number: int  # of the submission
    launch: str
    work: Work
    variables: tuple[tuple[str, str], ...] = ()

    def __call__(self) -> str:
        clear_leftovers()
        os.environ.update(self.variables)
        rank, restart = int(os.environ.get("SLURM_PROCID", 0)), restarts()
        token = read(self.run_dir, self.number)
        if superseded(self.run_dir, self.number, self.launch):
            print(GONE, flush=True)
            return "elsewhere"
        if token.cancelled:
            token.ended(rank, restart, state="cancelled")
            return "cancelled"
        if token.withdrawn:  # its launch took it for not sent, so another one may have it
            token.ended(rank, restart, state="elsewhere")
            return "elsewhere"
        if rank == 0:
            if token.job is None:  # its launch was interrupted before it could write that down
                token = token.update(job=job_id())
            node = os.environ.get("SLURM_JOB_NODELIST", socket.gethostname())
            token.note("start", job=job_id(), restart=restart, node=node)
        # After submitit's own handlers, which would exit in the middle of a step.
        with stop_on(*STOPS) as stop:
            try:
                state = self.work(self._stop(stop))
            except Exception as error:
                traceback.print_exc()
                sys.stderr.flush()
                if superseded(self.run_dir, self.number, self.launch):
                    print(GONE, flush=True)
                    return "elsewhere"
                final = bool(getattr(error, "final", False))
                token.ended(rank, restart, state="failed", final=final, reason=_reason(error))
                raise SystemExit(1) from None
        # What comes from here on must not kill the process on its way out, where Python has no handlers left.
        for signum in STOPS:
            signal.signal(signum, signal.SIG_IGN)
        if state not in STATES:
            reason = f"the run returned {state!r}; allowed: {', '.join(STATES)}"
            token.ended(rank, restart, state="failed", final=True, reason=reason)
            raise SystemExit(1)
        token.ended(rank, restart, state=state)
        return state

    def _stop(self, asked: Callable[[], bool]) -> Callable[[], bool]:
        """Whether the run is asked to stop; ends the process at once when the run is not its own any more.

        Somebody has removed the run's folder, and perhaps begun it anew: whatever this process still wrote
        would be written into theirs.
        """
        looked = time.monotonic()

        def stop() -> bool:
            nonlocal looked
            if time.monotonic() - looked > LOOK_SECONDS:
                looked = time.monotonic()
                if superseded(self.run_dir, self.number, self.launch):
                    print(GONE, flush=True)
                    os._exit(0)
            return asked()

        return stop

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """For a signal that arrives before the handlers are there: the same once more."""
        return submitit.helpers.DelayedSubmission(self)


def superseded(run_dir: Path, number: int, launch: str) -> bool:
    """Whether a submission is not the one that counts: a newer one is there, or its token is gone."""
    latest = current(run_dir)
    return latest is None or latest.number != number or latest.content.get("launch") != launch


def restarts() -> int:
    """How often SLURM has started this job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def job_id() -> str:
    """The id of this job as `sbatch` counts: 123, or 123_4 in an array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '0')}"
    return os.environ.get("SLURM_JOB_ID", "")


def clear_leftovers() -> None:
    """Remove the temporary files of an attempt that was killed while it wrote: submitit refuses to go on."""
    paths = submitit.JobEnvironment().paths
    for path in (paths.result_pickle, paths.submitted_pickle):
        path.with_suffix(path.suffix + ".save_tmp").unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    if getattr(error, "final", False):  # one of the suite's own, which needs no class name
        return " ".join(str(error).split())
    return describe(error)
