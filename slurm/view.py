"""What became of submitted runs, from their tokens and one look at the scheduler for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm import ClusterError, scheduler
from slurm.files import NO_TIME, TOO_LATE, TOO_LITTLE, last_lines, out_of_memory, read_json, tail
from slurm.scheduler import Seen
from slurm.tokens import AGAIN, Token, current, user
from slurm.worker import placed
from yolor_core.runs import GOING_ON, State


@dataclass(frozen=True)
class Standing:
    """A submitted run as the scheduler sees it.

    `state` is QUEUED (also while a launch is submitting it), RUNNING, UNKNOWN (squeue did not answer, or the
    job is `hidden`), or one of those in which its job is gone: NOT_SENT, CANCELLED, FAILED (by the
    scheduler's word), INTERRUPTED (the run may know more), DONE (nobody has to be asked).
    """

    token: Token
    state: State
    node: str = ""
    reason: str = ""
    ending: bool = False  # its processes are over, and SLURM is not done with it yet
    hidden: bool = False  # of another user, whose jobs this cluster does not show

    @property
    def taken(self) -> bool:
        """Whether a new launch has to leave it alone."""
        return self.state in (*GOING_ON, State.UNKNOWN)


ENDINGS = {
    "NODE_FAIL": "its node was lost",
    "TIMEOUT": TOO_LATE,
    "OUT_OF_MEMORY": TOO_LITTLE,
    "CANCELLED": "cancelled",
    "DEADLINE": "the scheduler's deadline passed",
    "BOOT_FAIL": "its node did not boot",
    "PREEMPTED": "preempted, and not put back in the queue",
}


def look_at(run_dirs: Iterable[Path], seconds: float) -> dict[Path, Standing]:
    """The submitted ones among these runs, with few commands, which get so many seconds each."""
    tokens = [token for run_dir in run_dirs if (token := current(run_dir)) is not None]
    # In this order: what a launch has sent before it ended is in the token or in the queue.
    sending = {token.run_dir for token in tokens if token.being_sent}
    tokens = [token if token.job or token.withdrawn else token.again() for token in tokens]
    sent = [token for token in tokens if token.job]
    queued, past = scheduler.look([str(token.job) for token in sent], seconds)
    others = [token for token in sent if _unseen_of_another(token, queued, past)]
    hidden = {token.run_dir for token in others} if others and scheduler.hides_jobs(seconds) else set()
    lost = [token for token in tokens if not token.job and not token.withdrawn]
    named: Mapping[str, Seen] | None = {}
    if lost:
        try:
            named = scheduler.queue_named({token.name for token in lost}, seconds)
        except ClusterError:
            named = None
    return {
        token.run_dir: _hidden(token)
        if token.run_dir in hidden
        else _standing(token, queued, past)
        if token.job
        else _unsent(token, named, token.run_dir in sending)
        for token in tokens
    }


def _unseen_of_another(
    token: Token, queued: Mapping[str, Seen] | None, past: Mapping[str, Seen] | None
) -> bool:
    """Whether nobody names another user's job that has not ended as far as the run's own files say."""
    job = str(token.job)
    remembered = (past or {}).get(job)
    unseen = queued is not None and job not in queued and (remembered is None or remembered.alive)
    return unseen and token.user != user() and not token.cancelled and token.ended_as in (None, *AGAIN)


def _hidden(token: Token) -> Standing:
    why = f"its job {token.job} is {token.user}'s, and this cluster shows nobody the jobs of others"
    return Standing(token, State.UNKNOWN, reason=why, hidden=True)


def _standing(token: Token, queued: Mapping[str, Seen] | None, past: Mapping[str, Seen] | None) -> Standing:
    job = str(token.job)
    seen = (queued or {}).get(job)
    remembered = (past or {}).get(job)
    if seen is not None and seen.alive:
        if token.pack > 1 and (own := _in_a_pack(token, seen)) is not None:
            return own
        state = State.QUEUED if seen.waiting else State.RUNNING
        return Standing(token, state, seen.node, seen.reason, seen.state == "COMPLETING")
    if seen is not None and seen.state == scheduler.UNCLEAR:
        return Standing(token, State.UNKNOWN, reason="squeue and scontrol do not agree")
    if queued is None and (remembered is None or remembered.alive):
        return Standing(token, State.UNKNOWN, reason="squeue did not answer")
    ended = remembered or seen or Seen(job, "")
    state = {"CANCELLED": State.CANCELLED, "OUT_OF_MEMORY": State.FAILED}.get(ended.state, State.INTERRUPTED)
    why = _why(token, ended.state)
    attempts = token.attempts()
    if attempts and attempts[-1].get("kind") == State.CANCELLED:
        state, why = State.CANCELLED, str(attempts[-1].get("reason") or "cancelled")
    elif "_" in job and not attempts and past is not None and (remembered is None or remembered.waiting):
        # One of an array's jobs that is cancelled alone while it waits is in no row of the accounting.
        state, why = State.CANCELLED, "cancelled before it began"
    state = State.CANCELLED if token.cancelled else state
    return Standing(token, state, ended.node, why)


def _in_a_pack(token: Token, seen: Seen) -> Standing | None:
    """How a run stands that is over before its job is, or that waits for the others; None: as its job."""
    kind = token.ended_as
    if token.cancelled and (seen.waiting or kind is not None):
        return Standing(token, State.CANCELLED, seen.node, _why(token, ""))
    if kind is None or (kind in AGAIN and seen.waiting):
        return None
    if kind in AGAIN:
        return Standing(token, State.QUEUED, seen.node, "the other runs of its job")
    state = State.CANCELLED if kind == State.CANCELLED else State.INTERRUPTED
    return Standing(token, state, seen.node, str(token.attempts()[-1].get("reason") or kind))


def _unsent(token: Token, named: Mapping[str, Seen] | None, sending: bool) -> Standing:
    if token.withdrawn:
        return Standing(token, _gone(token), reason=token.withdrawn)
    for job, seen in (named or {}).items():
        if (
            seen.reason == token.name
            and seen.alive
            and _line(token)[0] in (None, int(job.partition("_")[2] or 0))
        ):
            content = {**token.content, "job": job, **placed(_line(token)[1])}
            return _standing(Token(token.run_dir, token.number, content), {job: seen}, None)
    if sending:
        return Standing(token, State.QUEUED, reason=f"{token.user} is submitting it")
    if named is None:
        return Standing(token, State.UNKNOWN, reason="squeue did not answer")
    return Standing(token, _gone(token), reason="the launch was interrupted before it was sent")


def _gone(token: Token) -> State:
    return State.CANCELLED if token.cancelled else State.NOT_SENT


def _line(token: Token) -> tuple[int | None, dict[str, Any]]:
    """The job's number in its array and what is written of the run there, before the array is sent."""
    jobs = (read_json(Path(str(token.content.get("folder"))) / "jobs.json") or {}).get("jobs") or []
    for index, run in enumerate(jobs):
        if isinstance(run, dict) and run.get("run") == token.run_dir.name:
            return int(run.get("array_job", index)), run
    return None, {}


def _why(token: Token, word: str) -> str:
    """Why a job is gone, for a run whose own files do not say."""
    if mark := token.cancelled:
        return f"cancelled by {mark.get('user')}"
    if word == "TIMEOUT" and not token.attempts():
        return NO_TIME
    if word in ENDINGS:
        return ENDINGS[word]
    log = tail(token.log)
    if out_of_memory(log):
        return TOO_LITTLE
    lines = last_lines(log, 1)
    gone = f"its job {token.job} is gone" + (f" ({word})" if word else "")
    return f"{gone}; last line: {lines[0]}" if lines else gone
