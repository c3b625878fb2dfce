"""Run jobs on this machine, so many at a time: a process each of `slurm.worker`, longest first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from slurm.files import last_lines, read_json, tail
from slurm.submission import ROOT
from slurm.worker import StopFlag, describe, held_back

POLL_SECONDS = 0.1
ASK_AGAIN_SECONDS = 1.0
LOG_LINES = 12


@dataclass(frozen=True)
class Job:
    """One piece of work: a folder, and the module whose `work(run_dir, stop)` knows what to do with it.

    `after` names a job that must be done first; `cost` is relative, for starting the longest first; `label`
    is a shorter name for places where there is little room.
    """

    name: str
    run_dir: Path
    work: str
    after: str | None = None
    cost: float = 0.0
    label: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a job ended: "done", "preempted", "failed", "skipped" (never started) or "elsewhere"."""

    state: str
    reason: str | None = None
    log: tuple[str, ...] = ()  # the last lines it wrote


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
    return _Scheduler(longest_first(jobs), parallel, watcher, stop, claim, tuple(devices)).run()


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    folder: Path  # of this start's logs
    device: str
    asked: bool = False
    killed: bool = False

    @property
    def ended(self) -> Path:
        return self.folder / "ended.json"

    def kill(self) -> None:
        self.killed = self.killed or self.process.poll() is None
        self.process.kill()

    def outcome(self) -> Outcome:
        """Read how the process ended, when it has; clean up after it."""
        log = _end(self.folder / "run_log.err") or _end(self.folder / "run_log.out")
        found, code = read_json(self.ended), self.process.returncode
        self.ended.unlink(missing_ok=True)
        assert self.process.stdin is not None
        self.process.stdin.close()
        if found is not None:
            return Outcome(found["state"], found["reason"], log if found["state"] == "failed" else ())
        if self.asked and code == -signal.SIGTERM:  # before its handlers were there
            return Outcome("skipped", "not started")
        if self.killed:
            return Outcome("preempted", "killed on request; resumes from its last checkpoint", log)
        if code > 0 and log:  # an error before the work began
            return Outcome("failed", log[-1], log)
        return Outcome("failed", "its process ended without a word (killed, or out of memory)", log)


class _Scheduler:
    def __init__(
        self,
        waiting: list[Job],
        parallel: int,
        watcher: Watcher,
        stop: StopFlag,
        claim: Callable[[Job], str],
        devices: tuple[str, ...],
    ) -> None:
        self.waiting, self.parallel, self.watcher, self.stop = waiting, parallel, watcher, stop
        self.claim, self.devices = claim, devices or ("",)
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
                running.kill()
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
        for running in [r for r in self.running if r.process.poll() is not None]:
            self.running.remove(running)
            outcome = running.outcome()
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
            used = [other.device for other in self.running]
            device = min(self.devices, key=used.count)
            try:
                claimed = self.claim(job)
                running = _start(job, device) if claimed == "start" else None
            except Exception as error:  # damaged files or a full disk
                self.waiting.remove(job)
                self._end(job, Outcome("failed", describe(error)))
                continue
            if claimed == "elsewhere":
                self._wait(job)
                continue
            self.waiting.remove(job)
            if running is None:
                self._end(job, Outcome("done"))
                continue
            self.running.append(running)
            self.watcher.started(job)

    def _ask_to_stop(self) -> None:
        for job in self.waiting:
            self._end(job, Outcome("skipped", "not started"))
        self.waiting.clear()
        for running in self.running:
            if self.stop.requests > 1 and not running.killed:
                running.kill()
        if time.monotonic() - self.asked > ASK_AGAIN_SECONDS:
            self.asked = time.monotonic()
            for running in self.running:
                running.asked = True
                running.process.terminate()


def _start(job: Job, device: str) -> _Running:
    # A folder per start, so that no start overwrites the logs of another.
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    folder = job.run_dir / "logs" / stamp
    folder.mkdir(parents=True)
    command = [sys.executable, "-u", "-m", "slurm.worker", job.work, str(job.run_dir.absolute())]
    environment = os.environ | these_packages() | {"CUDA_VISIBLE_DEVICES": device}
    with ExitStack() as files, held_back(signal.SIGINT, signal.SIGHUP):
        out, err = (files.enter_context((folder / f"run_log.{kind}").open("ab")) for kind in ("out", "err"))
        process = subprocess.Popen(
            [*command, str((folder / "ended.json").absolute())],
            stdin=subprocess.PIPE,  # which is closed when this process ends, however it does
            stdout=out,
            stderr=err,
            env=environment,
        )
    return _Running(job, process, folder, device)


def these_packages() -> dict[str, str]:
    """Variables by which a process imports this suite, not a `slurm` or `analysis` of the current folder."""
    more = {"PYTHONSAFEPATH": "1"}  # or the current folder would come first
    if str(ROOT) not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        more["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return more


def _end(log: Path) -> tuple[str, ...]:
    return tuple(last_lines(tail(log), LOG_LINES))


def longest_first(jobs: Iterable[Job]) -> list[Job]:
    """Order by the cost of the longest chain that starts with a job; equal ones keep their order.

    Raises ValueError when jobs share a name or wait for each other in a circle.
    """
    jobs = list(jobs)
    by_name = {job.name: job for job in jobs}
    if len(by_name) != len(jobs):
        twice = sorted({job.name for job in jobs if sum(other.name == job.name for other in jobs) > 1})
        raise ValueError(f"jobs share a name: {', '.join(twice)}")
    chain = {name: job.cost for name, job in by_name.items()}
    for job in jobs:
        total, seen, current = job.cost, {job.name}, job
        while current.after in by_name:
            current = by_name[current.after]
            if current.name in seen:
                raise ValueError(f"jobs wait for each other in a circle: {', '.join(sorted(seen))}")
            seen.add(current.name)
            total += current.cost
            chain[current.name] = max(chain[current.name], total)
    return sorted(jobs, key=lambda job: -chain[job.name])
