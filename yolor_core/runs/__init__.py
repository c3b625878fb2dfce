"""The run directory, the only contract between training and analysis; here the words for where a run stands.

And what a scheduler's word adds to the run's own.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a run stands. state.json holds `WRITTEN`; `RunDirectory.life` says all of these but SKIPPED."""

    MISSING = "missing"  # nobody has begun it
    QUEUED = "queued"  # waits for a node, or for its turn on this machine
    NOT_SENT = "not sent"  # the scheduler refused it, or its launch was interrupted
    STARTING = "starting"  # its job runs and has not written yet
    RUNNING = "running"
    PREEMPTED = "preempted"  # asked to stop, and saved
    INTERRUPTED = "interrupted"  # its processes are gone without a word
    CANCELLED = "cancelled"
    SKIPPED = "skipped"  # its launch ended before its turn came
    FAILED = "failed"
    DIVERGED = "diverged"  # failed because a loss or a gradient was not finite
    DONE = "done"
    INCOMPLETE = "incomplete"  # finished, but files that a finished run is good for are lost
    UNREADABLE = "unreadable"  # its record is damaged
    UNKNOWN = "unknown"  # it was submitted, and the scheduler does not answer


WRITTEN = (State.QUEUED, State.RUNNING, State.DONE, State.FAILED, State.PREEMPTED)
GOING_ON = (State.QUEUED, State.STARTING, State.RUNNING)  # by itself, without a new launch
LOST = (State.DIVERGED, State.FAILED)  # ended without results


def combined(own: State | None, job: State) -> State:
    """The state of a submitted run that is not done.

    Args:
        own: the word in its folder; None where there is none. It may be that of an earlier attempt.
        job: what the scheduler alone says of the run's last submission: QUEUED, RUNNING, UNKNOWN, NOT_SENT,
            CANCELLED, FAILED (certainly), or INTERRUPTED (its job is gone, and the run may know more).
    """
    match job:
        case State.QUEUED:
            return State.QUEUED
        case State.RUNNING:
            return State.RUNNING if own is State.RUNNING else State.STARTING
        case State.UNKNOWN:
            return own or State.QUEUED
        case State.CANCELLED:
            return own if own in LOST else State.CANCELLED
    if own is None:
        return State.NOT_SENT if job is State.NOT_SENT else State.FAILED
    if own is State.RUNNING:
        return State.FAILED if job is State.FAILED else State.INTERRUPTED
    return own
