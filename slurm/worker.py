"""The one worker: what a process does that trains a run, in a job of SLURM or started by a launch here.

It calls `work(run_dir, stop)` of a module that is named by a text, e.g. `ablations.worker`; what is to be
done lies in the run's folder. It trains until told to stop, and leaves word how it ended. What comes next is
not decided here but in `slurm.local` and `slurm.ending`.

    python -m slurm.worker MODULE RUN_DIR ENDED    # on this machine; stops when its standard input is closed
    python -m slurm.worker FOLDER                  # in a job, which finds its run in the array's folder

`work` returns "done"; "preempted" once `stop()` was true and the run is saved; or "elsewhere" when another
process has the run. An exception that has a true `final` would come again, and is not tried once more. Its
twin `leave(run_dir, state, reason)` writes into the run's own files how it ended, where it could not itself.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from slurm.files import BEGINNING, read_json, replace_json
from slurm.tokens import AGAIN, current, read

STATES = ("done", "preempted", "elsewhere")
STOPS = (signal.SIGTERM, signal.SIGUSR2)  # by which a scheduler or launcher asks a run to stop
LAUNCHER_SECONDS = 1.0  # between two looks whether the launcher is still there
LOOK_SECONDS = 20.0  # between two looks whether the run is still this job's
GONE = "this submission does not count any more (a newer one does, or the run's folder is gone): ending"
SAME_SECONDS = 1.0


def here(work: str, run_dir: Path, ended: Path) -> None:
    """Work on a run for a launch of this machine, and leave state and reason in the file `ended`.

    An orphan stops by itself: when the launcher has vanished, nobody could ask it to stop any more. The
    launcher holds the other end of standard input, which the kernel closes however the launcher ends.
    """
    # After the imports of torch and others, a signal must not end the process in the middle of a step.
    with stop_on(*STOPS) as asked:

        def look() -> None:
            asked.requests += bool(select.select([0], [], [], 0)[0])

        stop = looking(asked, LAUNCHER_SECONDS, look)
        state, reason = "failed", None
        try:
            state = importlib.import_module(work).work(run_dir, stop)
            if state not in STATES:
                state, reason = "failed", nonsense(state)
        except Exception as error:
            traceback.print_exc()
            sys.stderr.flush()
            reason = describe(error)
        replace_json(ended, {"state": state, "reason": reason})


def job(folder: Path) -> int:
    """One process of a job of SLURM, after each requeue again; returns its exit code.

    `folder` is that of the array, whose `jobs.json` says which run this job has, or which runs share it. Then
    each process has a run of its own, and one whose run is over by now ends at once.
    """
    rank, restart = int(os.environ.get("SLURM_PROCID", 0)), restarts()
    print(f"{BEGINNING}, restart {restart}, on {socket.gethostname()}", flush=True)
    # The shell before us ignored the signal. All that is imported from here on takes some seconds.
    with stop_on(*STOPS, even_ignored=True) as asked:
        runs = entries(folder)
        packed = "pack" in runs[0]
        if packed:
            if rank >= len(runs):  # the last job of an array may have fewer
                return 0
            about, rank = runs[rank], 0
            os.environ["SLURM_STEP_NUM_TASKS"] = "1"  # by which the training knows its ranks
        else:
            about = runs[0]
        os.environ.update(about.get("variables") or {})
        run_dir, number, launch = Path(about["run_dir"]), int(about["number"]), str(about["launch"])
        token = read(run_dir, number)
        state, final, reason = "failed", False, ""
        if superseded(run_dir, number, launch):
            print(GONE, flush=True)
            return 0
        if packed and token.ended_as not in (None, *AGAIN):
            return 0
        if token.cancelled:
            token.ended(rank, restart, state="cancelled")
            return 0
        if token.withdrawn:  # its launch took it for not sent, so another one may have it
            token.ended(rank, restart, state="elsewhere")
            return 0
        if rank == 0:
            if token.job is None:  # its launch was interrupted before it could write that down
                token = token.update(job=job_id(), **placed(about))
            node = os.environ.get("SLURM_JOB_NODELIST", socket.gethostname())
            token.note("start", job=job_id(), restart=restart, node=node)

        def look() -> None:
            # Somebody has removed the run's folder, and perhaps begun it anew: whatever this process
            # still wrote would be written into theirs.
            if superseded(run_dir, number, launch):
                print(GONE, flush=True)
                os._exit(0)
            asked.requests += token.cancelled is not None  # SLURM is not told so by runs that share a job

        try:
            other = other_code(str(about.get("code") or ""))
            if other:
                final, reason = True, other
            else:
                state = str(
                    importlib.import_module(about["work"]).work(run_dir, looking(asked, LOOK_SECONDS, look))
                )
                if state not in STATES:
                    state, final, reason = "failed", True, nonsense(state)
        except Exception as error:
            traceback.print_exc()
            sys.stderr.flush()
            if superseded(run_dir, number, launch):
                print(GONE, flush=True)
                return 0
            final = bool(getattr(error, "final", False))
            # One of the suite's own needs no class name.
            reason = " ".join(str(error).split()) if final else describe(error)
    # What comes from here on must not kill the process on its way out, where Python has no handlers left.
    for signum in STOPS:
        signal.signal(signum, signal.SIG_IGN)
    more = {"final": final, "reason": reason} if state == "failed" else {}
    try:
        token.ended(rank, restart, state=state, **more)
    except OSError as error:  # the disk is full: the log, which is another file, may still say why
        print(f"ablate: {state}: {reason or describe(error)}", flush=True)
        return 1
    return int(state == "failed")


def other_code(frozen: str) -> str:
    """Why this process must not train: it runs other code than the launch has frozen. Empty where it may."""
    here = Path(__file__).parent.parent
    if not frozen or (Path(frozen).exists() and here.samefile(frozen)):
        return ""
    return (
        f"the job runs the code in {here}, not the frozen copy {frozen}: something that comes after the "
        f"profile's `setup`, as a TaskProlog, sets PYTHONPATH={os.environ.get('PYTHONPATH', '')}"
    )


def looking(asked: Callable[[], bool], seconds: float, look: Callable[[], None]) -> Callable[[], bool]:
    """`asked`, which also calls `look` when that was last done so many seconds ago."""
    looked = time.monotonic()

    def stop() -> bool:
        nonlocal looked
        if time.monotonic() - looked > seconds:
            looked = time.monotonic()
            look()
        return asked()

    return stop


def entries(folder: Path) -> list[dict[str, Any]]:
    """The lines of an array's `jobs.json` that are about this job: one, or as many as runs share it."""
    runs = (read_json(folder / "jobs.json") or {}).get("jobs") or []
    number = int(job_id().partition("_")[2] or 0)
    return [run for index, run in enumerate(runs) if run.get("array_job", index) == number]


def placed(about: Mapping[str, Any]) -> dict[str, int]:
    """Of a line of `jobs.json`, what a token has to know of a run that shares its job; else nothing."""
    return {name: int(about[name]) for name in ("place", "pack") if name in about}


def nonsense(state: object) -> str:
    """Why a run has failed that returned something else than a state."""
    return f"the run returned {state!r}; allowed: {', '.join(STATES)}"


def describe(error: BaseException) -> str:
    """One line: the kind of the error and its message."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def superseded(run_dir: Path, number: int, launch: str) -> bool:
    """Whether a submission is not the one that counts: a newer one is there, or its token is gone.

    A file system that does not answer says neither.
    """
    try:
        latest = current(run_dir, strict=True)
    except OSError:
        return False
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


class StopFlag:
    """Counts the requests to stop. Calling it tells whether there was one.

    Signals within a second count as one request: `make` and `timeout` pass on a signal that the process group
    got already.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.signum: int | None = None  # the last one
        self.last = float("-inf")

    def __call__(self) -> bool:
        return self.requests > 0

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler: nothing but the count, because it may interrupt any line of any library."""
        moment = time.monotonic()
        self.requests += moment - self.last > SAME_SECONDS
        self.signum, self.last = signum, moment


@contextmanager
def stop_on(*signals: signal.Signals, once: bool = False, even_ignored: bool = False) -> Iterator[StopFlag]:
    """Within the block the given signals only set the flag; afterwards the former handlers are back.

    With `once` that holds for the first request: the former handlers take the second one, so that a second
    Ctrl-C interrupts. A signal that is ignored on entry (SIGHUP under nohup) stays ignored, unless
    `even_ignored`. Main thread only.
    """
    flag = StopFlag()
    former = {
        s: signal.getsignal(s) for s in signals if even_ignored or signal.getsignal(s) is not signal.SIG_IGN
    }

    def handle(signum: int, frame: FrameType | None) -> None:
        flag.handle(signum, frame)
        if once and flag.requests > 1:
            signal.signal(signum, former[signal.Signals(signum)])
            os.kill(os.getpid(), signum)

    for signum in former:
        signal.signal(signum, handle)
    try:
        yield flag
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)


@contextmanager
def held_back(*signals: signal.Signals) -> Iterator[None]:
    """Within the block the given signals wait. A process started here holds them back for all its life.

    So a terminal's Ctrl-C, which reaches every process of the foreground group, is left to the launcher.
    """
    former = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        code = job(Path(sys.argv[1]))
        sys.stdout.flush()
        sys.stderr.flush()
        if code:  # at once: what a library still waits for at exit may be a rank that has died
            os._exit(code)
    else:
        here(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
