"""What is said about a submitted run, from its token and the scheduler's answers."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from slurm.tokens import Token, claim, process_mark
from slurm.view import Standing, look_at
from tests.slurm.fake_slurm import FakeSlurm
from yolor_core.runs import State

OLD = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path, monkeypatch)


def token(root: Path, name: str = "a", **content: Any) -> Token:
    made = claim(root / name, 0, **{"name": "ablate-x-0", "process": "", "written": OLD, **content})
    assert made is not None
    return made


def seen(*tokens: Token) -> Standing:
    found = look_at([token.run_dir for token in tokens], 5.0)
    return found[tokens[0].run_dir]


def test_runs_that_were_never_submitted_are_not_asked_about(tmp_path: Path, slurm: FakeSlurm) -> None:
    assert look_at([tmp_path / "a", tmp_path / "b"], 5.0) == {}
    assert slurm.calls("squeue") == slurm.calls("sacct") == []


def test_many_runs_cost_one_question_each_to_queue_and_accounting(tmp_path: Path, slurm: FakeSlurm) -> None:
    tokens = [token(tmp_path, str(k), job=f"7_{k}") for k in range(50)]
    slurm.answer("squeue", "\n".join(f"7_{k}|RUNNING|n{k}|0:10|None" for k in range(50)))
    found = look_at([token.run_dir for token in tokens], 5.0)
    assert [found[token.run_dir].node for token in tokens] == [f"n{k}" for k in range(50)]
    assert (len(slurm.calls("squeue")), len(slurm.calls("sacct"))) == (1, 1)


@pytest.mark.parametrize(
    ("squeue", "state", "taken"),
    [
        ("7|PENDING||0:00|Priority", State.QUEUED, True),
        ("7|REQUEUED||0:00|None", State.QUEUED, True),
        ("7|CONFIGURING|n1|0:00|None", State.QUEUED, True),
        ("7|RUNNING|n1|0:10|None", State.RUNNING, True),
        ("7|COMPLETING|n1|0:10|None", State.RUNNING, True),
        ("7|SUSPENDED|n1|0:10|None", State.RUNNING, True),
        ("7|EXPEDITING|n1|0:10|None", State.RUNNING, True),  # a word of SLURM 25.11
        ("7|FAILED|n1|0:10|NonZeroExitCode", State.INTERRUPTED, False),
        ("", State.INTERRUPTED, False),
    ],
)
def test_the_queue_says_where_a_job_is(
    tmp_path: Path, slurm: FakeSlurm, squeue: str, state: State, taken: bool
) -> None:
    slurm.answer("squeue", squeue)
    found = seen(token(tmp_path, job="7"))
    assert (found.state, found.taken) == (state, taken)
    assert found.ending == ("COMPLETING" in squeue)


def test_the_queue_goes_before_an_accounting_that_lags(tmp_path: Path, slurm: FakeSlurm) -> None:
    slurm.answer("squeue", "7|PENDING||0:00|BeginTime")
    slurm.answer("sacct", "7|PREEMPTED|100|cpu=1|n1")
    assert seen(token(tmp_path, job="7")).state is State.QUEUED
    slurm.answer("squeue", "")
    slurm.answer("sacct", "7|RUNNING|100|cpu=1|n1")
    assert seen(token(tmp_path, "b", job="7")).state is State.INTERRUPTED


@pytest.mark.parametrize(
    ("word", "state", "reason"),
    [
        ("NODE_FAIL", State.INTERRUPTED, "its node was lost"),
        ("TIMEOUT", State.INTERRUPTED, "time limit"),
        ("FAILED", State.INTERRUPTED, "its job 7 is gone (FAILED)"),
        ("OUT_OF_MEMORY", State.FAILED, "memory_gb"),
        ("CANCELLED by 1000", State.CANCELLED, "cancelled"),
    ],
)
def test_the_accounting_says_why_a_job_is_gone(
    tmp_path: Path, slurm: FakeSlurm, word: str, state: State, reason: str
) -> None:
    slurm.answer("sacct", f"7|{word}|100|cpu=1|n1")
    mine = token(tmp_path, job="7")
    mine.note("start", restart=0)
    found = seen(mine)
    assert (found.state, found.node) == (state, "n1")
    assert reason in found.reason


def test_a_job_is_gone_when_queue_and_accounting_agree_and_else_asked_for_again(
    tmp_path: Path, slurm: FakeSlurm
) -> None:
    """squeue may be cut short, with exit code 0; scontrol's lines are those of SLURM 22.05."""
    waiting = token(tmp_path, job="8_2")
    shown = "JobId=8 ArrayJobId=8 ArrayTaskId=0,2%1 ArrayTaskThrottle=1 JobName=q UserId=root(0) "
    slurm.answer("scontrol", f"{shown}JobState=PENDING Reason=JobHeldUser Dependency=(null)", to="show job")
    for accounting in ("", "8_[0,2%1]|PENDING|0||None assigned"):
        slurm.answer("sacct", accounting)
        assert (seen(waiting).state, seen(waiting).reason) == (State.QUEUED, "JobHeldUser")
    # One that was cancelled alone is in neither, nor in the accounting.
    alone = seen(token(tmp_path, "b", job="8_1"))
    assert (alone.state, alone.reason, alone.taken) == (State.CANCELLED, "cancelled before it began", False)
    slurm.answer("scontrol", error="Unable to contact slurm controller", code=1, to="show job")
    assert (seen(waiting).state, seen(waiting).taken) == (State.UNKNOWN, True)
    slurm.answer("scontrol", error="slurm_load_jobs error: Invalid job id specified", code=1, to="show job")
    assert not seen(waiting).taken
    slurm.answer("sacct", "8_2|FAILED|9|cpu=1|n1")  # that is past and will not change
    asked = len(slurm.calls("scontrol"))
    assert seen(waiting).state is State.INTERRUPTED and len(slurm.calls("scontrol")) == asked


def test_a_cancelled_run_is_cancelled_without_accounting(tmp_path: Path, slurm: FakeSlurm) -> None:
    slurm.answer("sacct", error="disabled", code=1)
    mine = token(tmp_path, job="7")
    mine.note("start", restart=0)
    mine.note("end", restart=0, kind="cancelled", reason="cancelled by scancel; launch again to go on")
    assert (seen(mine).state, seen(mine).reason[:20]) == (State.CANCELLED, "cancelled by scancel")


@pytest.mark.parametrize(
    ("kind", "queue", "cancelled", "state", "taken"),
    [
        (None, "RUNNING", False, State.RUNNING, True),
        ("crash", "RUNNING", False, State.QUEUED, True),
        ("crash", "PENDING", False, State.QUEUED, True),
        ("crash", "RUNNING", True, State.CANCELLED, False),
        ("failed", "RUNNING", False, State.INTERRUPTED, False),  # its own files say that it has failed
        ("cancelled", "RUNNING", True, State.CANCELLED, False),
        (None, "RUNNING", True, State.RUNNING, True),  # it saves itself
        (None, "PENDING", True, State.CANCELLED, False),
    ],
)
def test_a_run_that_shares_its_job_may_be_over_before_it(
    tmp_path: Path,
    slurm: FakeSlurm,
    kind: str | None,
    queue: str,
    cancelled: bool,
    state: State,
    taken: bool,
) -> None:
    mine = token(tmp_path, job="7", pack=3, place=1)
    if kind is not None:
        mine.note("start", restart=0)
        mine.note("end", restart=0, kind=kind, reason="why")
    if cancelled:
        mine.cancel()
    slurm.answer("squeue", f"7|{queue}|n1|0:10|Priority")
    found = seen(mine)
    assert (found.state, found.taken) == (state, taken)
    assert (kind, queue) != ("crash", "RUNNING") or cancelled or found.reason == "the other runs of its job"


def test_a_time_limit_before_and_after_a_run_began_is_told(tmp_path: Path, slurm: FakeSlurm) -> None:
    slurm.answer("sacct", "7|TIMEOUT|60|cpu=1|n1")
    mine = token(tmp_path, job="7")
    assert "`setup` takes longer" in seen(mine).reason
    mine.note("start", restart=0)
    assert "signal_delay" in seen(mine).reason


def test_without_accounting_the_log_says_why(tmp_path: Path, slurm: FakeSlurm) -> None:
    slurm.answer("sacct", error="disabled", code=1)
    (tmp_path / "array").mkdir()
    log = tmp_path / "array" / "7_0_log.out"
    mine = token(tmp_path, job="7", folder=str(tmp_path / "array"))
    assert seen(mine).reason == "its job 7 is gone"
    log.write_text("epoch 1\nSegmentation fault\n")
    assert seen(mine).reason == "its job 7 is gone; last line: Segmentation fault"
    log.write_text("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0\n")
    assert "memory_gb" in seen(mine).reason
    mine.cancel()
    assert seen(mine).state is State.CANCELLED and seen(mine).reason.startswith("cancelled by ")


def test_a_queue_that_does_not_answer_leaves_a_run_taken(tmp_path: Path, slurm: FakeSlurm) -> None:
    slurm.answer("squeue", error="down", code=1)
    mine = token(tmp_path, job="7")
    assert (seen(mine).state, seen(mine).taken) == (State.UNKNOWN, True)
    slurm.answer("sacct", "7|PENDING|0||None assigned")
    assert seen(mine).state is State.UNKNOWN
    slurm.answer("sacct", "7|FAILED|100|cpu=1|n1")  # that is past and will not change
    assert (seen(mine).state, seen(mine).taken) == (State.INTERRUPTED, False)


@pytest.mark.parametrize(
    ("user", "private", "kind", "state"),
    [
        ("ann", "jobs,usage", None, State.UNKNOWN),
        ("ann", "jobs", "preempted", State.UNKNOWN),  # it may wait in the queue again
        ("ann", "jobs", "failed", State.INTERRUPTED),  # the run's own files say that it is over
        ("ann", "usage", None, State.INTERRUPTED),
        (None, "jobs", None, State.INTERRUPTED),
    ],
)
def test_a_job_that_a_cluster_hides_is_not_taken_for_gone(
    tmp_path: Path, slurm: FakeSlurm, user: str | None, private: str, kind: str | None, state: State
) -> None:
    """With PrivateData=jobs squeue, sacct and scontrol name nobody's jobs but one's own."""
    slurm.answer("scontrol", error="slurm_load_jobs error: Invalid job id specified", code=1, to="show job")
    slurm.answer("scontrol", f"PrivateData             = {private}", to="show config")
    mine = token(tmp_path, job="7", **({"user": user} if user else {}))
    mine.note("start", restart=0)
    if kind:
        mine.note("end", restart=0, kind=kind, reason="")
    found = seen(mine)
    assert (found.state, found.hidden) == (state, state is State.UNKNOWN)
    assert not found.hidden or "ann" in found.reason
    slurm.answer("squeue", "7|RUNNING|n1|0:10|None")  # an operator sees all jobs
    assert (seen(mine).state, seen(mine).hidden) == (State.RUNNING, False)


def test_a_run_that_was_refused_is_free(tmp_path: Path, slurm: FakeSlurm) -> None:
    why = "sbatch refused a: Invalid qos"
    found = seen(token(tmp_path, withdrawn=why))
    assert (found.state, found.taken, found.reason) == (State.NOT_SENT, False, why)
    assert slurm.calls("squeue") == []


def test_a_launch_that_was_killed_on_this_machine_leaves_its_runs_free_at_once(
    tmp_path: Path, slurm: FakeSlurm
) -> None:
    now = datetime.now(UTC).isoformat()
    mine = token(tmp_path, written=now, process=process_mark(os.getpid()), user="ann")
    assert (seen(mine).state, seen(mine).taken, "ann" in seen(mine).reason) == (State.QUEUED, True, True)
    number, boot, began = process_mark(os.getpid()).split(":")
    gone = mine.update(process=f"{number}:{boot}:{int(began) - 1}")
    assert (seen(gone).state, seen(gone).taken) == (State.NOT_SENT, False)


def test_what_a_launch_sends_while_it_is_looked_at_is_not_free(
    tmp_path: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = token(tmp_path)
    slurm.answer("squeue", "7|PENDING||0:00|Priority")

    def sent(self: Token) -> bool:  # and has ended, by the time that it is asked for
        mine.update(job="7")
        return False

    monkeypatch.setattr(Token, "being_sent", property(sent))
    assert seen(mine).state is State.QUEUED


def test_a_launch_that_died_between_token_and_id_is_looked_up_by_name(
    tmp_path: Path, slurm: FakeSlurm
) -> None:
    mine = token(tmp_path)
    slurm.answer("squeue", "7_0|PENDING||0:00|ablate-x-0")
    assert (seen(mine).state, seen(mine).taken) == (State.QUEUED, True)
    slurm.answer("squeue", "7_0|RUNNING|n1|0:10|ablate-x-0")
    assert seen(mine).taken
    for gone in ("7_0|FAILED|n1|0:10|ablate-x-0", "7_0|RUNNING|n1|0:10|ablate-y-0", ""):
        slurm.answer("squeue", gone)
        assert (seen(mine).state, seen(mine).taken) == (State.NOT_SENT, False)
    slurm.answer("squeue", error="down", code=1)
    assert (seen(mine).state, seen(mine).taken) == (State.UNKNOWN, True)


def test_only_the_last_submission_counts(tmp_path: Path, slurm: FakeSlurm) -> None:
    token(tmp_path, job="7")
    second = claim(tmp_path / "a", 1, job="8", written=OLD)
    assert second is not None
    slurm.answer("squeue", "7|RUNNING|n1|0:10|None\n8|PENDING||0:00|Priority")
    found = seen(second)
    assert (found.token.number, found.state, found.reason) == (2, State.QUEUED, "Priority")
