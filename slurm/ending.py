"""What becomes of a run when the processes of its job are gone. The job's script calls this:

    python -m slurm.ending FOLDER EXIT_CODE [PLACE]

FOLDER is that of the array; the exit code is srun's. Of runs that share a job, each is judged when its own
process has ended too, by that one's exit code and the run's place among them. All is decided here, in a
process that no failure of a rank can touch:

| how the attempt ended | what follows |
|---|---|
| done; or another submission has the run | nothing |
| saved itself, asked to by a signal (preemption, time limit) | back to the queue, at most `requeues` times |
| the same, five times in a row before a step of training | failed, with the reason |
| cancelled, by `ablate cancel` or `scancel` | it stays as it is; the next launch goes on |
| SLURM has put it back itself (a lost node, preemption, `scontrol requeue`) | nothing |
| a lost node, and SLURM has not put it back | back to the queue, at most `requeues` times |
| nothing can be written in its folder now (a full disk) | the same |
| an error that would come again (configuration, data, not finite) | failed, with the reason |
| no run was started: no srun or Python after the profile's `setup`, or no time | failed, with the reason |
| out of memory, as far as the log says so | failed: the same would happen again |
| anything else: a crash, a rank that died or hung | back to the queue, at most `retries` times, then failed |

A node that loses power, and a preemption or time limit that leaves no time to save, end the whole job, this
too; SLURM itself then puts it back (except after the time limit), and it goes on from its last checkpoint.
"""

from __future__ import annotations

import errno
import importlib
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm import ClusterError, scheduler
from slurm.files import (
    BEGINNING,
    NO_TIME,
    SCRIPT,
    TOO_LATE,
    TOO_LITTLE,
    last_lines,
    out_of_memory,
    read_json,
    tail,
)
from slurm.scheduler import Own
from slurm.tokens import AGAIN, Token, read
from slurm.worker import describe, entries, job_id, restarts, superseded
from yolor_core.runs import State

# SLURM adds DUE TO PREEMPTION, TIME LIMIT and so on where it was not a person. Where it was one, logs of 2026
# have "DUE to SIGNAL Terminated"; their lines begin with a time in place of slurmstepd.
CANCELLED = re.compile(r"\*\*\* JOB \S+ ON \S+ CANCELLED AT \S+(?: (?i:due to signal) \w+)? \*\*\*")
TIME_LIMIT = re.compile(r"\*\*\* \w+ \S+ ON \S+ CANCELLED AT \S+ DUE TO TIME LIMIT \*\*\*")
OWN_WORDS = re.compile(r"^(?:(?:slurmstepd\S*|srun): |\[\d{4}-\d\d-\d\dT[\d:.]+\] error: )", re.MULTILINE)
OF_A_TASK = re.compile(r": tasks? [\d,-]+: ")  # one process, as "task 1: Killed"
TRIED_BYTES = 1_000_000
NO_SRUN = (
    "srun is not on the PATH of the job; lines of the profile's `setup`, as `module purge`, may remove it"
)
NO_PROGRAM = "the job could not start Python (exit code {}): the profile's `environment` or `container`"
STALLED = 5  # attempts in a row
NO_STEP = (
    f"{STALLED} attempts in a row were asked to stop before a step of training: start-up takes longer than "
    "`time` less `signal_delay`, or the partition or QOS preempts too soon"
)

CRASH, ELSEWHERE = "crash", "elsewhere"  # it may be tried again; another submission has the run


@dataclass(frozen=True)
class Decision:
    """What to do: "leave", "requeue" or "fail"; and what the attempt has come to: a state, or one above."""

    action: str
    kind: str
    reason: str = ""


def decide(
    outcomes: list[dict[str, Any]],
    exit_code: int,
    cancelled: str | None,
    log: str,
    preemptions: int,
    crashes: int,
    requeues: int,
    retries: int,
    seen: Own | None = None,
    restart: int = 0,
    began: bool = True,
    unwritable: str = "",
    stalled: bool = False,
) -> Decision:
    """Decide about an attempt that is over.

    Args:
        outcomes: what its processes left (see `Token.ended`).
        exit_code: srun's.
        cancelled: who cancelled the run, if anybody.
        log: what this attempt printed, or the end of it.
        preemptions, crashes: how often this submission was requeued before, by kind.
        requeues, retries: how often it may be.
        seen: the job, as SLURM sees it now; None where it does not say.
        restart: how often SLURM had started the job before this attempt.
        began: whether the run's own process was started.
        unwritable: why nothing can be written in the run's folder, if so: that may pass.
        stalled: whether the last attempts, this one too, came to no step of training.
    """
    states = [str(outcome.get("state")) for outcome in outcomes]
    failures = [outcome for outcome in outcomes if outcome.get("state") == State.FAILED]
    final = [outcome for outcome in failures if outcome.get("final")]
    if exit_code == 0 and State.DONE in states:
        return Decision("leave", State.DONE)
    if ELSEWHERE in states:
        return Decision("leave", ELSEWHERE)
    if cancelled or State.CANCELLED in states:
        return Decision("leave", State.CANCELLED, f"cancelled by {cancelled}; launch again to go on")
    if final and not unwritable:
        return Decision("fail", State.FAILED, str(final[0].get("reason")))
    if seen is not None and seen.restarts > restart:
        return Decision("leave", State.PREEMPTED, "SLURM has put it back in the queue")
    lost = seen is not None and seen.state == "NODE_FAIL"
    saved = State.PREEMPTED in states and not failures
    if saved and stalled and not lost and not unwritable:
        return Decision("fail", State.FAILED, NO_STEP)
    if lost or unwritable or saved:
        if preemptions < requeues:
            return Decision("requeue", State.PREEMPTED, unwritable or ("its node was lost" if lost else ""))
        often = f"{preemptions} time{'' if preemptions == 1 else 's'}"
        return Decision("fail", State.FAILED, f"restarted {often}, as often as `requeues` allows")
    if not began and TIME_LIMIT.search(log):
        return Decision("fail", State.FAILED, NO_TIME)
    if not began and exit_code in (126, 127):
        gone = exit_code == 127 and shutil.which("srun") is None
        return Decision("fail", State.FAILED, NO_SRUN if gone else NO_PROGRAM.format(exit_code))
    # Before a run has begun, a site's own welcome may speak of memory.
    if out_of_memory(log if began else "\n".join(filter(OWN_WORDS.match, log.splitlines()))):
        return Decision("fail", State.FAILED, TOO_LITTLE)
    # A rank that lost another one knows less than the one that was lost.
    first = min(failures, key=lambda outcome: "rank" in str(outcome.get("reason")), default=None)
    reason = str(first.get("reason")) if first else TOO_LATE if TIME_LIMIT.search(log) else _exit(exit_code)
    if crashes < retries:
        return Decision("requeue", CRASH, reason)
    retried = f"{crashes} {'retry' if crashes == 1 else 'retries'}"
    return Decision("fail", State.FAILED, f"{reason} (after {retried})" if crashes else reason)


def _exit(code: int) -> str:
    if code > 128:
        return f"a process was killed by signal {code - 128} without a word"
    return f"the processes ended with exit code {code} without a word"


def end(folder: Path, exit_code: int, place: int | None = None) -> int:
    """Judge this job's attempt and carry the decision out; returns the job's own exit code.

    Of runs that share a job each is judged when its process has ended (`place`: which one), and those that
    are to go on once more at the end of the job, of which SLURM has said more by then. The job goes back to
    the queue if one of them asks for it; else it ends with 0, however they ended.
    """
    job, runs = job_id(), entries(folder)
    packed = "pack" in runs[0]
    again: list[tuple[dict[str, Any], Decision]] = []
    for about in runs if place is None else runs[place : place + 1]:
        decision = _decide_about(folder, about, exit_code, packed)
        if decision.action == "requeue":
            again.append((about, decision))
        elif decision.action == "fail":
            _fail(folder, about, decision.reason)
        elif decision.kind == State.CANCELLED:
            _leave(about, State.PREEMPTED, decision.reason)
    if place is not None:
        return 0
    if again:
        try:
            scheduler.requeue(job)
            return 1
        except ClusterError as error:
            now = scheduler.own(job)
            if now is not None and now.restarts > restarts():  # SLURM was quicker
                return 1
            for about, wish in again:
                _fail(folder, about, f"{wish.reason or wish.kind}, and not requeued: {error}")
    if packed:
        return 0
    # What waits for this run must not take it for done.
    return exit_code if decision.kind == State.DONE else exit_code or 1


def _decide_about(folder: Path, about: Mapping[str, Any], exit_code: int, packed: bool) -> Decision:
    """Decide about a run of this job, and note it."""
    job, restart = job_id(), restarts()
    run_dir, number = Path(about["run_dir"]), int(about["number"])
    token = read(run_dir, number)
    if superseded(run_dir, number, str(about["launch"])):
        print("ending: elsewhere -> leave", flush=True)
        return Decision("leave", ELSEWHERE)
    if packed and token.ended_as not in (None, *AGAIN):  # it was over before, or has been judged
        return Decision("leave", ELSEWHERE)
    attempts = token.attempts()
    ended = (record for record in attempts if record.get("event") == "end")
    ends = {record.get("restart", -index): record for index, record in enumerate(ended, 1)}
    told = ends.pop(restart, None) if packed else None  # what was decided when its process ended
    kinds = [record.get("kind") for record in ends.values()]
    crashes = kinds.count(CRASH)
    log = _log(folder, about)
    seen, came_to = scheduler.own(job), progress(run_dir)
    decision = decide(
        token.outcomes(restart),
        exit_code if told is None else int(told["exit"]),
        _canceller(token, seen, log),
        log,
        max(restart - crashes, 0),
        crashes,
        int(about["requeues"]),
        int(about["retries"]),
        seen,
        restart,
        any((record.get("event"), record.get("restart")) == ("start", restart) for record in attempts),
        unwritable(run_dir),
        stalled(ends.values(), came_to),
    )
    name = f"{about['run']}: " if packed else ""
    print(f"ending: {name}{decision.kind} {decision.reason} -> {decision.action}", flush=True)
    if told is None or (told["kind"], told["reason"]) != (decision.kind, decision.reason):
        how = {"kind": decision.kind, "exit": exit_code, "reason": decision.reason}
        # A full disk must not keep the run from going on when there is space again.
        with suppress(OSError):
            token.note("end", job=job, restart=restart, **how, progress=came_to)
    return decision


def _fail(folder: Path, about: Mapping[str, Any], reason: str) -> None:
    """Write into a run's files that it has failed, and into its token the last it said."""
    lines = last_lines(_own_log(folder, about)) or last_lines(_log(folder, about))
    _leave(about, State.FAILED, reason)
    with suppress(OSError):
        read(Path(about["run_dir"]), int(about["number"])).note(
            "failed", job=job_id(), reason=reason, log=lines
        )


def _own_log(folder: Path, about: Mapping[str, Any]) -> str:
    return this_attempt(tail(folder / f"{job_id()}_{about.get('place', 0)}_log.out"))


def _log(folder: Path, about: Mapping[str, Any]) -> str:
    """What this attempt of a run printed. Of runs that share a job, SLURM's words are in files of others too.

    Where no process of the run has begun, those of the script.
    """
    own = _own_log(folder, about)
    if "pack" not in about:
        return own
    script = this_attempt(tail(folder / f"{job_id()}_script_log.out"))
    if not own:
        return script
    others = f"{script}\n{this_attempt(tail(folder / f'{job_id()}_0_log.out'))}"
    words = [line for line in others.splitlines() if OWN_WORDS.match(line) and not OF_A_TASK.search(line)]
    return "\n".join([own, *words])


def progress(run_dir: Path) -> list[int]:
    """How far a run has come, as its state.json says: epochs, and steps of the next one."""
    state = read_json(run_dir / "state.json") or {}
    return [int(state.get("epoch") or 0), int(state.get("step") or 0)]


def stalled(ends: Iterable[Mapping[str, Any]], now: list[int]) -> bool:
    """Whether an attempt that has come so far, and the ones before it, made no step.

    What somebody has launched again begins anew, so a run that was failed for it gets as many attempts.
    """
    came_to = [[0, 0], *(record.get("progress") for record in ends)]
    return len(came_to) >= STALLED and all(before == now for before in came_to[-STALLED:])


def unwritable(folder: Path) -> str:
    """Why no file of some size can be written into a folder; empty where one can.

    A full disk, a quota that is used up, or a file system that was set to read-only.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(bytes(TRIED_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return f"{folder} cannot be written: {error.strerror}"
    return ""


def this_attempt(log: str) -> str:
    """What the last attempt printed of a log; the earlier ones wrote into the same file.

    What a site's TaskProlog prints comes before the line with which the run begins, and is left out.
    """
    log = log[max(log.rfind(SCRIPT), 0) :]
    return log[max(log.rfind(BEGINNING), 0) :]


def _canceller(token: Token, seen: Own | None, log: str) -> str | None:
    """Who cancelled the job, if anybody. While it completes scontrol says no more than that, but its log."""
    mark = token.cancelled
    if mark:
        return str(mark.get("user") or "somebody")
    ended = CANCELLED.search(log) is not None or (seen is not None and seen.state == "CANCELLED")
    return "scancel" if ended else None


def _leave(about: Mapping[str, Any], state: State, reason: str) -> None:
    """Let the run write its ending into its own files."""
    importlib.import_module(about["work"]).leave(Path(about["run_dir"]), state, reason)


def main(folder: Path, exit_code: int, place: int | None = None) -> int:
    """As `end`, but an error of its own is a line of the log, and never the job's last word."""
    try:
        return end(folder, exit_code, place)
    except Exception as error:
        traceback.print_exc()
        print(
            f"ending: {describe(error)}; the run goes on from its last checkpoint when launched again",
            flush=True,
        )
        return exit_code or 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
