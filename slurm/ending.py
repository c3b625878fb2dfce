"""What becomes of a run when the processes of its job are gone. The job's script calls this:

    python -m slurm.ending FOLDER EXIT_CODE

FOLDER is that of the array; the exit code is srun's. One place decides, in a process that no failure of a
rank can touch:

| how the attempt ended | what follows |
|---|---|
| done; or another submission has the run | nothing |
| saved itself, asked to by a signal (preemption, time limit) | back to the queue, at most `requeues` times |
| cancelled, by `ablate cancel` or `scancel` | it stays as it is; the next launch goes on |
| an error that would come again (configuration, data, not finite) | failed, with the reason |
| out of memory, as far as the log says so | failed: the same would happen again |
| anything else: a crash, a rank that died or hung | back to the queue, at most `retries` times, then failed |

A lost node, and a preemption or time limit that leaves no time to save, end the whole job, this too; SLURM
itself then puts it back (except after the time limit), and it goes on from its last checkpoint.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm import scheduler
from slurm.files import TOO_LITTLE, last_lines, out_of_memory, tail
from slurm.scheduler import ClusterError
from slurm.tokens import Token, read
from slurm.worker import entry, job_id, restarts, superseded
from yolor_core.runs.life import State

BEGINNING = "Starting with SlurmJobEnvironment"  # submitit says so first
# SLURM adds DUE TO PREEMPTION, TIME LIMIT and so on where it was not a person.
CANCELLED = re.compile(r"\*\*\* JOB \S+ ON \S+ CANCELLED AT \S+ \*\*\*")


CRASH, ELSEWHERE = "crash", "elsewhere"  # it may be tried again; another submission has the run


@dataclass(frozen=True)
class Verdict:
    """What to do: "leave", "requeue" or "fail"; and what the attempt has come to: a state, or one above."""

    action: str
    kind: str
    reason: str = ""


def judge(
    outcomes: list[dict[str, Any]],
    exit_code: int,
    cancelled: str | None,
    log: str,
    preemptions: int,
    crashes: int,
    requeues: int,
    retries: int,
) -> Verdict:
    """Decide about an attempt that is over.

    Args:
        outcomes: what its processes left (see `Token.ended`).
        exit_code: srun's.
        cancelled: who cancelled the run, if anybody.
        log: the end of what it printed.
        preemptions, crashes: how often this submission was requeued before, by kind.
        requeues, retries: how often it may be.
    """
    states = [str(outcome.get("state")) for outcome in outcomes]
    failures = [outcome for outcome in outcomes if outcome.get("state") == State.FAILED]
    final = [outcome for outcome in failures if outcome.get("final")]
    if exit_code == 0 and State.DONE in states:
        return Verdict("leave", State.DONE)
    if ELSEWHERE in states:
        return Verdict("leave", ELSEWHERE)
    if cancelled or State.CANCELLED in states:
        return Verdict("leave", State.CANCELLED, f"cancelled by {cancelled}; launch again to go on")
    if final:
        return Verdict("fail", State.FAILED, str(final[0].get("reason")))
    if State.PREEMPTED in states and not failures:
        if preemptions < requeues:
            return Verdict("requeue", State.PREEMPTED)
        often = f"{preemptions} time{'' if preemptions == 1 else 's'}"
        return Verdict("fail", State.FAILED, f"restarted {often}, as often as `requeues` allows")
    if out_of_memory(log):
        return Verdict("fail", State.FAILED, TOO_LITTLE)
    # A rank that lost another one knows less than the one that was lost.
    first = min(failures, key=lambda outcome: "rank" in str(outcome.get("reason")), default=None)
    reason = str(first.get("reason")) if first else _exit(exit_code)
    if crashes < retries:
        return Verdict("requeue", CRASH, reason)
    retried = f"{crashes} {'retry' if crashes == 1 else 'retries'}"
    return Verdict("fail", State.FAILED, f"{reason} (after {retried})" if crashes else reason)


def _exit(code: int) -> str:
    if code > 128:
        return f"a process was killed by signal {code - 128} without a word"
    return f"the processes ended with exit code {code} without a word"


def end(folder: Path, exit_code: int) -> int:
    """Judge this job's attempt and carry the verdict out; returns the job's own exit code."""
    job, restart, about = job_id(), restarts(), entry(folder)
    run_dir, number = Path(about["run_dir"]), int(about["number"])
    if superseded(run_dir, number, str(about["launch"])):
        print("ending: elsewhere -> leave", flush=True)
        return 1  # what waits for this run must not take it for done
    token = read(run_dir, number)
    # The job's id may not be in the token yet.
    own_log = folder / f"{job}_0_log.out"
    log = tail(own_log)
    log = log[max(log.rfind(BEGINNING), 0) :]  # earlier attempts wrote into the same file
    earlier = [record.get("kind") for record in token.attempts() if record.get("event") == "end"]
    crashes = earlier.count(CRASH)
    verdict = judge(
        token.outcomes(restart),
        exit_code,
        _canceller(token, job, log),
        log,
        max(restart - crashes, 0),
        crashes,
        int(about["requeues"]),
        int(about["retries"]),
    )
    print(f"ending: {verdict.kind} {verdict.reason} -> {verdict.action}", flush=True)
    token.note("end", job=job, restart=restart, kind=verdict.kind, exit=exit_code, reason=verdict.reason)
    if verdict.action == "leave":
        if verdict.kind == State.CANCELLED:
            _leave(about, State.PREEMPTED, verdict.reason)
            return 1
        return exit_code if verdict.kind == State.DONE else exit_code or 1
    if verdict.action == "requeue":
        try:
            scheduler.requeue(job)
            return 1
        except ClusterError as error:
            state = scheduler.own_state(job)
            if state in scheduler.WAITING:  # SLURM was quicker: a lost node, or a preemption
                return 1
            verdict = Verdict(
                "fail", State.FAILED, f"{verdict.reason or verdict.kind}, and not requeued: {error}"
            )
    lines = last_lines(log)
    _leave(about, State.FAILED, verdict.reason)
    token.note("failed", job=job, reason=verdict.reason, log=lines)
    return exit_code or 1


def _canceller(token: Token, job: str, log: str) -> str | None:
    """Who cancelled the job, if anybody. While it completes scontrol says no more than that, but its log."""
    mark = token.cancelled
    if mark:
        return str(mark.get("user") or "somebody")
    ended = CANCELLED.search(log) is not None or scheduler.own_state(job) == "CANCELLED"
    return "scancel" if ended else None


def _leave(about: Mapping[str, Any], state: State, reason: str) -> None:
    """Let the run write its ending into its own files."""
    importlib.import_module(about["work"]).leave(Path(about["run_dir"]), state, reason)


if __name__ == "__main__":
    sys.exit(end(Path(sys.argv[1]), int(sys.argv[2])))
