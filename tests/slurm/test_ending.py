"""What becomes of a run when its job's processes are gone."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from slurm import ending
from slurm.ending import Decision, decide, end, main
from slurm.files import BEGINNING, TOO_LATE
from slurm.scheduler import Own
from slurm.tokens import AGAIN, Token, claim
from tests.slurm.fake_slurm import FakeSlurm


def outcome(rank: int, state: str, reason: str = "", final: bool = False) -> dict[str, Any]:
    return {"rank": rank, "restart": 0, "state": state, "reason": reason, "final": final}


DONE, SAVED = outcome(0, "done"), outcome(0, "preempted")
CRASH = outcome(0, "failed", "ValueError: too wide")


NODE_LOST, PUT_BACK, RUNS = Own("NODE_FAIL", 0), Own("COMPLETING", 1), Own("COMPLETING", 0)
LIMIT = "slurmstepd-n1: error: *** JOB 50 ON n1 CANCELLED AT 2026-11-28T23:28:34 DUE TO TIME LIMIT ***"
BANNER = "Welcome! Jobs that run out of memory are killed.\n"
OOM = "slurmstepd: error: Detected 1 oom_kill event"
LEFT, AGAIN_SAVED, AGAIN_CRASHED, FAILS = (
    ("leave", "cancelled"), ("requeue", "preempted"), ("requeue", "crash"), ("fail", "failed"),
)  # fmt: skip


def decided(outcomes: list[dict[str, Any]], code: int, **given: Any) -> Decision:
    usual = {"cancelled": None, "log": "", "preemptions": 0, "crashes": 0, "requeues": 5, "retries": 2}
    return decide(outcomes, code, **usual | given)


ENDINGS: dict[str, tuple[list[dict[str, Any]], int, dict[str, Any], tuple[str, str]]] = {
    "done": ([DONE], 0, {}, ("leave", "done")),
    "two done": ([DONE, outcome(1, "done")], 0, {}, ("leave", "done")),
    "done before it was cancelled": ([DONE], 0, {"cancelled": "ann"}, ("leave", "done")),
    "submitted anew": ([outcome(0, "elsewhere")], 0, {}, ("leave", "elsewhere")),
    "saved": ([SAVED], 0, {}, AGAIN_SAVED),
    "crashes do not count as restarts": ([SAVED], 0, {"crashes": 9}, AGAIN_SAVED),
    "the last restart": ([SAVED], 0, {"preemptions": 4}, AGAIN_SAVED),
    "restarted too often": ([SAVED], 0, {"preemptions": 5}, FAILS),
    "saved as it was cancelled": ([SAVED], 0, {"cancelled": "ann"}, LEFT),
    "crashed as it was cancelled": ([CRASH], 1, {"cancelled": "ann"}, LEFT),
    "cancelled before it began": ([], 143, {"cancelled": "scancel"}, LEFT),
    "found the mark": ([outcome(0, "cancelled")], 0, {}, LEFT),
    "crashed": ([CRASH], 1, {}, AGAIN_CRASHED),
    "restarts do not count as crashes": ([CRASH], 1, {"preemptions": 9}, AGAIN_CRASHED),
    "the last retry": ([CRASH], 1, {"crashes": 1}, AGAIN_CRASHED),
    "crashed too often": ([CRASH], 1, {"crashes": 2}, FAILS),
    "no retries": ([CRASH], 1, {"retries": 0}, FAILS),
    "one saved and one crashed": ([SAVED, CRASH], 1, {}, AGAIN_CRASHED),
    "one done and one that died silently": ([DONE], 1, {}, AGAIN_CRASHED),
    "comes again": ([outcome(0, "failed", "no such key", True)], 1, {}, FAILS),
    "killed": ([], 137, {"seen": RUNS}, AGAIN_CRASHED),
    "killed, and SLURM says nothing": ([], 137, {}, AGAIN_CRASHED),
    "memory": ([], 1, {"log": "slurmstepd: error: Detected 1 oom-kill event"}, FAILS),
    "memory of a GPU": ([CRASH], 1, {"log": "CUDA Out Of Memory"}, FAILS),
    # What SLURM has done is told from a crash.
    "requeued by an administrator": ([], 143, {"seen": PUT_BACK}, ("leave", "preempted")),
    "saved and requeued": ([SAVED], 0, {"seen": PUT_BACK}, ("leave", "preempted")),
    "a rank that lost the other": ([CRASH], 1, {"seen": PUT_BACK}, ("leave", "preempted")),
    "an earlier restart": ([], 9, {"seen": PUT_BACK, "restart": 1}, AGAIN_CRASHED),
    "node down and srun says 0": ([], 0, {"seen": NODE_LOST}, AGAIN_SAVED),
    "lost too many nodes": ([CRASH], 1, {"seen": NODE_LOST, "preemptions": 5}, FAILS),
    "done and requeued": ([DONE], 0, {"seen": PUT_BACK}, ("leave", "done")),
    "not wanted": ([], 9, {"seen": PUT_BACK, "cancelled": "ann"}, LEFT),
    "a site's banner": ([], 1, {"began": False, "log": BANNER}, AGAIN_CRASHED),
    "memory before the run began": ([], 1, {"began": False, "log": f"{BANNER}{OOM}"}, FAILS),
    "no time to save": ([], 1, {"log": LIMIT}, AGAIN_CRASHED),
    "no time to begin": ([], 1, {"began": False, "log": LIMIT}, FAILS),
    "no program": ([], 127, {"began": False}, FAILS),
    "a run may end with 127": ([], 127, {}, AGAIN_CRASHED),
    "a full disk": ([CRASH], 1, {"unwritable": "full", "crashes": 2}, AGAIN_SAVED),
    "a full disk may pass": ([outcome(0, "failed", "full", True)], 1, {"unwritable": "full"}, AGAIN_SAVED),
    "or not": ([CRASH], 1, {"unwritable": "full", "preemptions": 5}, FAILS),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_the_ending_of_an_attempt_decides_what_comes_next(how: str) -> None:
    outcomes, code, given, expected = ENDINGS[how]
    decision = decided(outcomes, code, **given)
    assert (decision.action, decision.kind) == expected


def test_reasons_why_no_run_was_started_name_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "`setup` takes longer than its `time`" in reason([], 1, began=False, log=LIMIT)
    assert reason([], 1, log=LIMIT, crashes=0, retries=0) == TOO_LATE
    slurm = FakeSlurm(tmp_path, monkeypatch)
    assert "`environment` or `container`" in reason([], 127, began=False)
    assert "`environment` or `container`" in reason([], 126, began=False)
    slurm.remove("srun")
    assert "srun is not on the PATH" in reason([], 127, began=False)


# As the worker and the real SLURM 22.05 wrote it: a TaskProlog's welcome, a killed process, an attempt after.
LOG = """ablate: job script begins, restart 0, on n1
Jobs that run out of memory are killed.
ablate: run begins, restart 0, on n1
epoch  9/80  box 0.0583
srun: error: n1: task 0: Killed
ending: crash a process was killed by signal 9 without a word -> requeue
ablate: job script begins, restart 1, on n1
Jobs that run out of memory are killed.
"""


def test_only_what_the_attempt_itself_printed_is_judged() -> None:
    assert ending.this_attempt(LOG).splitlines() == LOG.splitlines()[-2:]
    began = f"{LOG}ablate: run begins, restart 1, on n1\nepoch 10/80\n"
    assert ending.this_attempt(began).splitlines() == began.splitlines()[-2:]
    assert ending.this_attempt("the end of a long log\n") == "the end of a long log\n"


@pytest.mark.parametrize(
    "line",
    [
        "slurmstepd-n1: error: *** JOB 50 ON n1 CANCELLED AT 2026-11-28T23:28:34 ***",  # SLURM 22.05
        # In the logs of two sites of March 2026, whose version they do not say.
        "[2026-03-30T19:37:26.096] error: *** JOB 50 ON n1 CANCELLED AT 2026-03-30T19:37:26 "
        "DUE to SIGNAL Terminated ***",
    ],
)
def test_a_cancellation_is_known_by_the_words_of_old_and_new_versions(line: str) -> None:
    assert ending.CANCELLED.search(line) and ending.OWN_WORDS.match(line)
    assert not ending.TIME_LIMIT.search(line)
    assert not ending.CANCELLED.search(LIMIT) and not ending.OWN_WORDS.match("[1, 2] error: mine")


def reason(outcomes: list[dict[str, Any]], code: int, **given: Any) -> str:
    return decided(outcomes, code, **{"crashes": 2} | given).reason


def test_reasons_say_what_happened() -> None:
    assert reason([CRASH], 1) == "ValueError: too wide (after 2 retries)"
    assert reason([], 139, crashes=0, retries=0) == "a process was killed by signal 11 without a word"
    assert reason([], 3, crashes=0, retries=0) == "the processes ended with exit code 3 without a word"
    assert "memory_gb" in reason([], 1, log="std::bad_alloc: Cannot allocate memory")
    assert reason([CRASH], 1, crashes=1, retries=1) == "ValueError: too wide (after 1 retry)"
    assert reason([SAVED], 0, preemptions=5) == "restarted 5 times, as often as `requeues` allows"
    assert "cancelled by ann" in reason([], 143, cancelled="ann")
    assert reason([CRASH, outcome(1, "failed", "train.lr: no such key", True)], 1) == "train.lr: no such key"


def test_the_rank_that_was_the_cause_gives_the_reason() -> None:
    lost = outcome(0, "failed", "RunError: rank 1 does not answer")
    cause = outcome(1, "failed", "ZeroDivisionError: division by zero")
    assert reason([lost, cause], 1, crashes=0) == "ZeroDivisionError: division by zero"


class Job:
    """A job that is over: index 1 of array 50."""

    def __init__(self, root: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.run_dir, self.left = root / "array", root / "run", root / "run" / "left.json"
        self.slurm, self.monkeypatch = slurm, monkeypatch
        token = claim(self.run_dir, 0, folder=str(self.folder), name="ablate-x-0", launch="x")
        assert token is not None
        self.token: Token = token
        self.folder.mkdir()
        about = {"run": "run", "run_dir": str(self.run_dir), "number": 1, "launch": "x"}
        about |= {"requeues": 5, "retries": 2, "work": "tests.slurm.fakes"}
        other = {"run": "other", "run_dir": str(root / "other"), "number": 3, "launch": "x"}
        (self.folder / "jobs.json").write_text(json.dumps({"jobs": [other, about]}))
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "50")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
        monkeypatch.setenv("SLURM_JOB_ID", "52")
        self.restart(0)
        self.state("RUNNING")

    def restart(self, count: int) -> None:
        self.monkeypatch.setenv("SLURM_RESTART_COUNT", str(count))

    def state(self, word: str, restarts: int = 0) -> None:
        shown = f"JobId=52 ArrayJobId=50\n   JobState={word} Reason=None\n   Requeue=1 Restarts={restarts}"
        self.slurm.answer("scontrol", shown, to="show job")

    def log(self, text: str) -> None:
        (self.folder / "50_1_0_log.out").write_text(text)

    def ends(self) -> list[str]:
        return [record["kind"] for record in self.token.attempts() if record["event"] == "end"]

    def requeued(self) -> int:
        return self.slurm.calls("scontrol").count(["requeue", "50_1"])

    def how_left(self) -> list[str] | None:
        return json.loads(self.left.read_text()) if self.left.exists() else None


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    return Job(tmp_path, FakeSlurm(tmp_path, monkeypatch), monkeypatch)


def test_a_finished_job_is_left_alone(job: Job) -> None:
    job.token.ended(0, 0, state="done")
    assert end(job.folder, 0) == 0
    assert (job.ends(), job.requeued(), job.how_left()) == (["done"], 0, None)


def test_attempts_that_never_come_to_a_step_are_not_repeated_for_ever(job: Job) -> None:
    jobs = job.folder / "jobs.json"
    jobs.write_text(jobs.read_text().replace('"requeues": 5', '"requeues": 99'))
    # The fourth one makes three steps; five that make none follow.
    for restart, step in enumerate([0, 0, 0, 3, 3, 3, 3, 3, 3]):
        assert job.ends() == ["preempted"] * restart and job.requeued() == restart
        (job.run_dir / "state.json").write_text(json.dumps({"epoch": 0, "step": step}))
        job.restart(restart)
        job.token.ended(0, restart, state="preempted")
        end(job.folder, 0)
    assert job.ends()[-1] == "failed" and job.requeued() == 8
    assert job.how_left() is not None and "before a step of training" in str(job.how_left())


def test_a_saved_run_goes_back_to_the_queue_and_says_no_last_word(job: Job) -> None:
    job.token.ended(0, 0, state="preempted")
    assert end(job.folder, 0) != 0  # or jobs that wait for this one would start
    assert (job.ends(), job.requeued(), job.how_left()) == (["preempted"], 1, None)


def test_crashes_are_counted_over_attempts_until_the_run_fails(job: Job) -> None:
    codes = []
    for restart in range(3):
        job.restart(restart)
        job.token.ended(0, restart, state="failed", reason=f"ValueError: {restart}")
        codes.append(end(job.folder, 1))
    assert 0 not in codes
    assert job.requeued() == 2
    assert job.ends() == ["crash", "crash", "failed"]
    assert job.how_left() == ["failed", "ValueError: 2 (after 2 retries)"]


def test_what_an_earlier_attempt_left_is_not_this_ones_ending(job: Job) -> None:
    job.token.ended(0, 0, state="preempted")
    job.restart(1)
    end(job.folder, 137)
    assert job.ends() == ["crash"]


def test_an_earlier_attempts_log_is_not_this_ones(job: Job) -> None:
    begin = f"{BEGINNING}, restart 0, on n1\n"
    job.token.note("start", restart=0)
    job.log(f"{begin}CUDA out of memory\n{begin}Segmentation fault\n")
    end(job.folder, 139)
    assert job.ends() == ["crash"]
    job.log(f"{begin}fine\n{begin}CUDA out of memory\n")
    end(job.folder, 1)
    assert job.ends() == ["crash", "failed"]


def test_restarts_by_the_scheduler_count_as_preemptions(job: Job) -> None:
    job.restart(5)  # lost nodes, which left no record
    job.token.ended(0, 5, state="preempted")
    assert end(job.folder, 0) != 0
    assert (job.ends(), job.requeued()) == (["failed"], 0)
    assert (job.how_left() or [""])[0] == "failed"


def test_a_restart_after_a_crash_is_no_preemption(job: Job) -> None:
    for _ in range(2):
        job.token.note("end", kind="crash")
    job.restart(6)  # two after crashes, four after lost nodes
    job.token.ended(0, 6, state="preempted")
    end(job.folder, 0)
    assert (job.ends(), job.requeued()) == (["crash", "crash", "preempted"], 1)


@pytest.mark.parametrize("by", ["ablate cancel", "scancel"])
def test_a_cancelled_run_can_go_on_later(job: Job, by: str) -> None:
    if by == "scancel":
        job.state("CANCELLED")
    else:
        job.token.cancel()
    job.token.ended(0, 0, state="preempted")
    assert end(job.folder, 0) != 0
    assert (job.ends(), job.requeued()) == (["cancelled"], 0)
    assert (job.how_left() or [""])[0] == "preempted"


def test_a_refused_requeue_is_a_failure_with_slurms_words(job: Job) -> None:
    job.slurm.answer("scontrol", error="Requested operation is presently disabled", code=1, to="requeue")
    job.token.ended(0, 0, state="preempted")
    job.log("epoch 1\nepoch 2\n")
    assert end(job.folder, 0) != 0
    state, reason = job.how_left() or ["", ""]
    assert state == "failed"
    assert "Requested operation is presently disabled" in reason
    (last,) = [record for record in job.token.attempts() if record["event"] == "failed"]
    assert last["log"] == ["epoch 1", "epoch 2"]


def test_a_job_that_slurm_requeues_in_this_moment_is_not_requeued_twice(job: Job) -> None:
    requeued = job.slurm.folder / "requeued"
    again = f"[ -e {requeued} ] && echo Restarts=1 || echo Restarts=0"
    job.slurm.shell("scontrol", f"echo JobState=COMPLETING; {again}", to="show job")
    job.slurm.shell("scontrol", f"touch {requeued}; echo Job is pending execution >&2; exit 1", to="requeue")
    job.token.ended(0, 0, state="preempted")
    assert end(job.folder, 0) != 0
    assert job.how_left() is None


def test_a_full_disk_keeps_no_run_from_going_on(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Token, "note", full)
    monkeypatch.setattr(ending, "unwritable", lambda folder: f"{folder} cannot be written: No space left")
    assert end(job.folder, 1) != 0
    assert (job.requeued(), job.how_left()) == (1, None)
    job.restart(5)
    assert end(job.folder, 1) != 0
    assert job.requeued() == 1 and (job.how_left() or [""])[0] == "failed"


def test_a_folder_in_which_nothing_can_be_written_says_why(tmp_path: Path) -> None:
    assert ending.unwritable(tmp_path) == "" and not list(tmp_path.iterdir())
    if os.getuid() == 0:  # of a megabyte half fits
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(tmp_path)], check=True)
        try:
            assert ending.unwritable(tmp_path) == f"{tmp_path} cannot be written: No space left on device"
            subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
            assert "Read-only file system" in ending.unwritable(tmp_path)
        finally:
            subprocess.run(["umount", str(tmp_path)], check=True)


def test_an_ending_that_fails_itself_says_so_in_a_line(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    (job.folder / "jobs.json").unlink()
    assert main(job.folder, 0) == 1
    assert "ending: " in capsys.readouterr().out


def test_a_submission_that_was_replaced_is_not_requeued(job: Job) -> None:
    """Nor does it count as done: another run may wait for it."""
    assert claim(job.run_dir, 1, launch="theirs") is not None
    assert end(job.folder, 0) == 1
    assert (job.ends(), job.requeued(), job.how_left()) == ([], 0, None)


class Shared(Job):
    """A job that three runs share, the first of which is `token`'s; its processes have ended, one by one."""

    def __init__(self, root: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(root, slurm, monkeypatch)
        (_, about) = json.loads((self.folder / "jobs.json").read_text())["jobs"]
        self.tokens, runs = [], []
        for place, name in enumerate("abc"):
            token = claim(root / name, 0, folder=str(self.folder), launch="x", pack=3, place=place)
            assert token is not None
            self.tokens.append(token)
            own = {"run": name, "run_dir": str(root / name), "array_job": 1, "place": place, "pack": 3}
            runs.append(about | own)
        (self.folder / "jobs.json").write_text(json.dumps({"jobs": [{"array_job": 0}, *runs]}))

    def attempt(self, restart: int, *outcomes: str | None, codes: tuple[int, ...] = (0, 0, 0)) -> int:
        """How each process ended (None: without a word); what the job returns at its end."""
        self.restart(restart)
        for place, (token, outcome) in enumerate(zip(self.tokens, outcomes, strict=True)):
            if token.ended_as in (None, *AGAIN):
                token.note("start", restart=restart)
            if outcome is not None:
                token.ended(0, restart, state=outcome, reason="ValueError: no", final=outcome == "failed")
            assert end(self.folder, codes[place], place) == 0
        return end(self.folder, 0)

    def kinds(self) -> list[list[str]]:
        return [[r["kind"] for r in token.attempts() if r["event"] == "end"] for token in self.tokens]

    def how_each_was_left(self) -> list[str | None]:
        paths = [token.run_dir / "left.json" for token in self.tokens]
        return [json.loads(path.read_text())[0] if path.exists() else None for path in paths]


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:
    return Shared(tmp_path, FakeSlurm(tmp_path, monkeypatch), monkeypatch)


def test_runs_that_share_a_job_end_each_by_itself(shared: Shared) -> None:
    assert shared.attempt(0, "done", "failed", None, codes=(0, 1, 137)) == 1
    assert (shared.kinds(), shared.requeued()) == ([["done"], ["failed"], ["crash"]], 1)
    assert shared.how_each_was_left() == [None, "failed", None]
    assert shared.attempt(1, None, None, "preempted") == 1
    assert (shared.kinds(), shared.requeued()) == ([["done"], ["failed"], ["crash", "preempted"]], 2)
    # It ends well when all are over: a run that waits looks at the one that it continues.
    assert shared.attempt(2, None, None, "done") == 0
    assert (shared.kinds()[2], shared.requeued()) == (["crash", "preempted", "done"], 2)
    assert shared.how_each_was_left() == [None, "failed", None]


def test_crashes_of_one_run_are_not_those_of_the_others_in_its_job(shared: Shared) -> None:
    for restart in range(3):
        shared.attempt(restart, "preempted", None, "preempted", codes=(0, 139, 0))
    assert shared.kinds()[1] == ["crash", "crash", "failed"]
    assert shared.kinds()[0] == shared.kinds()[2] == ["preempted"] * 3
    assert shared.requeued() == 3
    assert shared.how_each_was_left() == [None, "failed", None]


def test_a_run_of_a_shared_job_is_judged_anew_by_what_slurm_says_at_the_end(shared: Shared) -> None:
    (shared.folder / "50_1_2_log.out").write_text("epoch 1\n")
    said = (
        "slurmstepd-n1: error: Detected 1 oom_kill event in StepId=52.0.\nsrun: error: n1: task 2: Killed\n"
    )

    def judged(words: str, *outcomes: str | None) -> int:
        for place, (token, outcome) in enumerate(zip(shared.tokens, outcomes, strict=True)):
            token.note("start", restart=0)
            if outcome:
                token.ended(0, 0, state=outcome)
            end(shared.folder, 0 if outcome else 137, place)
        (shared.folder / "50_1_0_log.out").write_text(words)
        return end(shared.folder, 0)

    assert judged(f"epoch 1\n{said}", "preempted", "done", None) == 1
    assert shared.kinds() == [["preempted"], ["done"], ["crash", "failed"]]
    (failed,) = (r for r in shared.tokens[2].attempts() if r["event"] == "failed")
    assert "memory_gb" in failed["reason"] and failed["log"] == ["epoch 1"]


def test_scancel_of_a_shared_job_cancels_all_its_runs_that_are_not_over(shared: Shared) -> None:
    for place, outcome in enumerate(["done", "preempted", "preempted"]):
        shared.tokens[place].note("start", restart=0)
        shared.tokens[place].ended(0, 0, state=outcome)
        end(shared.folder, 0, place)
    shared.state("CANCELLED")
    assert end(shared.folder, 0) == 0
    assert shared.kinds() == [["done"], ["preempted", "cancelled"], ["preempted", "cancelled"]]
    assert shared.requeued() == 0


def test_runs_of_a_shared_job_that_slurm_does_not_take_back_have_failed(shared: Shared) -> None:
    shared.slurm.answer("scontrol", error="Requested operation is presently disabled", code=1, to="requeue")
    assert shared.attempt(0, "done", "preempted", "preempted") == 0
    assert shared.how_each_was_left() == [None, "failed", "failed"]
