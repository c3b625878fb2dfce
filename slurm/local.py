"""Run jobs on this machine through submitit's local executor, so many at a time.

submitit starts a controller process for every job, which starts the job's own process and passes SIGTERM on
to it. The executor itself starts everything at once and knows no dependencies: that is done here.
"""

from __future__ import annotations

import os
import signal
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import submitit

from slurm.files import last_lines, tail
from slurm.job import Job, Outcome, longest_first
from slurm.lease import Lease, lease
from slurm.signals import StopFlag, held_back
from slurm.snapshot import ROOT
from slurm.task import Task, describe, pid_file

FOREVER_MINUTES = 60 * 24 * 365  # submitit kills a local job after two minutes unless told otherwise
POLL_SECONDS = 0.1
ASK_AGAIN_SECONDS = 1.0  # a request that arrives while a job's process starts is lost
LOG_LINES = 12


class Watcher(Protocol):
    """Is told what happens. All calls come from the launching thread."""

    def started(self, job: Job) -> None:
        """The job's process was started."""

    def waiting(self, job: Job) -> None:
        """Another process works on this job; it is looked at again every second."""

    def ended(self, job: Job, outcome: Outcome) -> None:
        """The job ended, or will not be started any more."""

    def tick(self, stopping: bool) -> None:
        """Called about ten times a second."""


def never_claimed(job: Job) -> str:
    """Default of `claim`: nobody else works on these jobs."""
    return "start"


def run_jobs(
    jobs: Sequence[Job],
    parallel: int,
    watcher: Watcher,
    stop: StopFlag,
    claim: Callable[[Job], str] = never_claimed,
    devices: Sequence[str] = (),
) -> dict[str, Outcome]:
    """Run the jobs, `parallel` at a time, longest first, each after the one it waits for.

    Args:
        jobs: a job whose `after` is not among them has nothing to wait for.
        parallel: processes at a time, at least 1.
        watcher: is told of every change.
        stop: after one request running jobs are asked to stop and waited for; after a second, killed.
        claim: asked just before a start: "start"; "done" when somebody else has done the job by now; or
            "elsewhere" when somebody else is at it, which is waited for.
        devices: CUDA_VISIBLE_DEVICES values to spread the jobs over; none hides all GPUs.

    Returns:
        The outcome of every job by name. A failing job never stops the others; nor does an error of `claim`,
        of `watcher.ended` or of a start (a full disk), which is a failure of that job alone.
    """
    if parallel < 1:
        raise ValueError(f"parallel is {parallel}; at least 1 is needed")
    with lease() as alive:
        return _Scheduler(longest_first(jobs), parallel, watcher, stop, claim, tuple(devices), alive).run()


@dataclass
class _Running:
    job: Job
    handle: submitit.Job[tuple[str, str | None]]
    device: str
    asked: bool = False
    killed: bool = False


class _Scheduler:
    def __init__(
        self,
        waiting: list[Job],
        parallel: int,
        watcher: Watcher,
        stop: StopFlag,
        claim: Callable[[Job], str],
        devices: tuple[str, ...],
        alive: Lease,
    ) -> None:
        self.waiting, self.parallel, self.watcher, self.stop = waiting, parallel, watcher, stop
        self.claim, self.devices, self.alive = claim, devices or ("",), alive
        self.names = {job.name for job in waiting}
        self.running: list[_Running] = []
        self.outcomes: dict[str, Outcome] = {}
        self.look_again: dict[str, float] = {}  # when to look again at jobs that are done elsewhere
        self.asked = 0.0

    def run(self) -> dict[str, Outcome]:
        try:
            while self.waiting or self.running:
                self._reap()
                stopping = self.stop()
                self.watcher.tick(stopping)
                if stopping:
                    self._ask_to_stop()
                else:
                    self._start()
                if self.waiting or self.running:
                    time.sleep(POLL_SECONDS)
        except BaseException:
            for running in self.running:  # an error of ours must not leave processes behind
                _kill(running)
            raise
        return self.outcomes

    def _end(self, job: Job, outcome: Outcome) -> None:
        self.outcomes[job.name] = outcome
        try:
            self.watcher.ended(job, outcome)
        except Exception as error:  # the other jobs have nothing to do with it
            if outcome.state != "done":  # what is done is done, whether or not it could be told
                both = "; then ".join(part for part in (outcome.reason, describe(error)) if part)
                self.outcomes[job.name] = Outcome("failed", both, outcome.log)

    def _reap(self) -> None:
        for running in [r for r in self.running if r.handle.done()]:
            self.running.remove(running)
            outcome = _outcome(running)
            if outcome.state == "elsewhere" or (outcome.state == "failed" and self._taken(running.job)):
                self._wait(running.job)  # somebody else was quicker
            else:
                self._end(running.job, outcome)

    def _taken(self, job: Job) -> bool:
        """Whether somebody else has a job that failed here. Not known is no: the failure stands."""
        try:
            return self.claim(job) != "start"
        except Exception:
            return False

    def _wait(self, job: Job) -> None:
        if job not in self.waiting:
            self.waiting.append(job)
        self.look_again[job.name] = time.monotonic() + 1.0
        self.watcher.waiting(job)

    def _start(self) -> None:
        for job in list(self.waiting):
            needed = self.outcomes.get(job.after) if job.after in self.names else Outcome("done")
            if needed is None or self.look_again.get(job.name, 0.0) > time.monotonic():
                continue
            if needed.state != "done":
                self.waiting.remove(job)
                self._end(job, Outcome("skipped", f"needs {job.after}, which is {needed.state}"))
                continue
            if len(self.running) >= self.parallel:
                continue  # but go on looking for jobs that will never start
            used = [running.device for running in self.running]
            device = min(self.devices, key=used.count)
            try:
                claimed = self.claim(job)
                handle = _submit(job, device, self.alive) if claimed == "start" else None
            except Exception as error:  # damaged files or a full disk
                self.waiting.remove(job)
                self._end(job, Outcome("failed", describe(error)))
                continue
            if claimed == "elsewhere":
                self._wait(job)
                continue
            self.waiting.remove(job)
            if handle is None:
                self._end(job, Outcome("done"))
                continue
            self.running.append(_Running(job, handle, device))
            self.watcher.started(job)

    def _ask_to_stop(self) -> None:
        for job in self.waiting:
            self._end(job, Outcome("skipped", "not started"))
        self.waiting.clear()
        for running in self.running:
            if self.stop.requests > 1 and not running.killed:
                _kill(running)
        if time.monotonic() - self.asked > ASK_AGAIN_SECONDS:
            self.asked = time.monotonic()
            for running in self.running:
                running.asked = True
                _signal(int(running.handle.job_id), signal.SIGTERM)


def _submit(job: Job, device: str, alive: Lease) -> submitit.Job[tuple[str, str | None]]:
    # A folder per start: submitit names files by process id, and those come back (soon, in a container).
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    executor = submitit.LocalExecutor(folder=job.run_dir / "logs" / stamp)
    executor.update_parameters(timeout_min=FOREVER_MINUTES)
    task = Task(job, alive, {"CUDA_VISIBLE_DEVICES": device})
    with held_back(signal.SIGINT, signal.SIGHUP), these_packages():
        return executor.submit(task)


@contextmanager
def these_packages() -> Iterator[None]:
    """Processes started meanwhile import this suite, not a `slurm` or `analysis` of the current folder."""
    more = {"PYTHONSAFEPATH": "1"}  # or the current folder would come first
    if str(ROOT) not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        more["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _outcome(running: _Running) -> Outcome:
    """Read how a finished job ended; clean up after it."""
    paths = running.handle.paths
    log = _end(paths.stderr) or _end(paths.stdout)
    try:
        if not paths.result_pickle.exists():
            begun = _pid_file(running).exists()
            _kill(running)  # when only the controller died
            if running.asked and not begun:
                return Outcome("skipped", "not started")
            if running.killed:
                return Outcome("preempted", "killed on request; resumes from its last checkpoint", log)
            return Outcome("failed", "its process ended without a word (killed, or out of memory)", log)
        state, reason = running.handle.result()
    except Exception as error:  # e.g. an error before the task began, which submitit wraps
        lines = [line for line in str(error).splitlines() if line.strip(" -")]
        traced = [line for line in lines if not line.startswith((" ", "You can check", "Job (task"))]
        return Outcome("failed", (traced or lines or [repr(error)])[-1], log)
    finally:
        for path in (paths.submitted_pickle, paths.result_pickle, _pid_file(running)):
            with suppress(OSError):  # litter is no failure of the job
                path.unlink(missing_ok=True)
    return Outcome(state, reason, log if state == "failed" else ())


def _end(log: Path) -> tuple[str, ...]:
    return tuple(last_lines(tail(log), LOG_LINES))


def _pid_file(running: _Running) -> Path:
    return pid_file(Path(running.handle.paths.folder), running.handle.job_id)


def _kill(running: _Running) -> None:
    running.killed = running.killed or not running.handle.done()
    path = _pid_file(running)
    if path.exists() and (pid := int(path.read_text() or 0)):
        _signal(pid, signal.SIGKILL)
    if not running.handle.done():
        _signal(int(running.handle.job_id), signal.SIGKILL)


def _signal(pid: int, signum: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signum)
