"""What a process of a run does: train, or not, and leave word how it ended; and signals, which set a flag."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm import worker
from slurm.files import replace_json
from slurm.submission import ROOT
from slurm.tokens import Token, claim, current
from slurm.worker import StopFlag, held_back, job, job_id, restarts, stop_on, superseded


class Does:
    """A module whose work does what a test says."""

    def __init__(self, what: Callable[[Callable[[], bool]], str]) -> None:
        self.what, self.calls = what, 0

    def work(self, run_dir: Path, stop: Callable[[], bool]) -> str:
        self.calls += 1
        return self.what(stop)


class FinalError(Exception):
    """One that would come again."""

    final = True


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """An attempt is the last thing that a process does, and leaves its signals as it needs them."""
    former = {signum: signal.getsignal(signum) for signum in worker.STOPS}
    yield
    for signum, handler in former.items():
        signal.signal(signum, handler)


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Token:
    """The first submission of a run, in the first process of job 7_2."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    made = claim(tmp_path / "run", 0, job="7_2", launch="mine")
    assert made is not None
    return made


def folder(token: Token, work: str, code: str = "") -> str:
    """That of an array, in which the token's job has index 2."""
    about = {"run_dir": str(token.run_dir), "number": token.number, "launch": "mine", "work": work}
    about |= {"code": code}
    jobs = [{}, {}, about | {"variables": {"ABLATE_TEST_NOTE": "set"}}]
    replace_json(token.run_dir.parent / "array" / "jobs.json", {"jobs": jobs})
    return str(token.run_dir.parent / "array")


def call(token: Token, work: Does, code: str = "") -> int:
    """The exit code of the process."""
    sys.modules["work_of_a_test"] = work  # type: ignore[assignment]
    return job(Path(folder(token, "work_of_a_test", code)))


def ended(token: Token, restart: int = 0) -> list[tuple[int, str]]:
    return [(outcome["rank"], outcome["state"]) for outcome in token.outcomes(restart)]


@pytest.mark.parametrize("state", ["done", "preempted"])
def test_a_process_leaves_how_it_ended(token: Token, state: str) -> None:
    assert call(token, Does(lambda stop: state)) == 0
    assert ended(token) == [(0, state)]
    (start,) = token.attempts()
    assert (start["event"], start["job"], start["node"], start["restart"]) == ("start", "7_2", "n[1-2]", 0)


def test_only_the_first_process_notes_the_start(token: Token, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "3")
    call(token, Does(lambda stop: "done"))
    assert token.attempts() == []
    assert ended(token) == [(3, "done")]


def test_attempts_are_told_apart_by_the_restart(token: Token, monkeypatch: pytest.MonkeyPatch) -> None:
    call(token, Does(lambda stop: "preempted"))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    call(token, Does(lambda stop: "done"))
    assert ended(token, 1) == [(0, "done")]
    assert [record["restart"] for record in token.attempts()] == [0, 1]


def test_a_run_that_was_submitted_anew_is_left_alone(
    token: Token, capsys: pytest.CaptureFixture[str]
) -> None:
    assert claim(token.run_dir, 1, job="88", user="bob") is not None
    work = Does(lambda stop: "done")
    assert call(token, work) == 0
    assert work.calls == 0
    assert "does not count any more" in capsys.readouterr().out


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_file_system_that_does_not_answer_says_nothing_of_a_submission(
    token: Token, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    launch = str(token.content.get("launch"))
    assert not superseded(token.run_dir, 1, launch) and superseded(token.run_dir, 2, launch)
    for place in ("os.listdir", "pathlib.Path.read_text"):
        with monkeypatch.context() as patch:
            patch.setattr(place, fails)
            assert not superseded(token.run_dir, 2, "another")
    shutil.rmtree(token.run_dir)
    assert superseded(token.run_dir, 1, launch)


def test_a_run_whose_folder_was_begun_anew_is_left_alone(token: Token) -> None:
    """Its first submission has the same number, but is another one."""
    shutil.rmtree(token.run_dir)
    work = Does(lambda stop: "done")
    assert call(token, work) == 0
    assert claim(token.run_dir, 0, job="88", launch="theirs") is not None
    assert call(token, work) == 0
    assert work.calls == 0


def test_a_run_that_is_begun_anew_meanwhile_ends_without_writing(
    token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LOOK_SECONDS", 0.0)
    left: list[int] = []

    def leave(code: int) -> None:
        left.append(code)
        raise SystemExit(code)

    monkeypatch.setattr(worker.os, "_exit", leave)

    def train(stop: Callable[[], bool]) -> str:
        assert not stop()
        shutil.rmtree(token.run_dir)
        stop()
        raise AssertionError("it went on")

    with pytest.raises(SystemExit):
        call(token, Does(train))
    assert left == [0] and not token.run_dir.exists()


def test_a_job_writes_down_its_id_where_its_launch_could_not(token: Token) -> None:
    token.update(job=None)
    call(token, Does(lambda stop: "done"))
    now = current(token.run_dir)
    assert now is not None and now.job == "7_2"


def test_a_cancelled_run_is_not_started(token: Token) -> None:
    token.cancel()
    work = Does(lambda stop: "done")
    assert call(token, work) == 0
    assert (work.calls, ended(token)) == (0, [(0, "cancelled")])


def test_a_run_that_is_cancelled_alone_ends_by_itself(token: Token, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM ends only the whole job, in which other runs may go on."""
    monkeypatch.setattr(worker, "LOOK_SECONDS", 0.0)

    def until_asked(stop: Callable[[], bool]) -> str:
        assert not stop()
        token.cancel()
        stop()
        return "preempted" if stop() else "done"

    assert call(token, Does(until_asked)) == 0
    assert ended(token) == [(0, "preempted")]


def pack(token: Token, monkeypatch: pytest.MonkeyPatch, place: int, restart: int = 0) -> Does:
    """Process `place` of a job that three runs share, of which the token's is the second."""
    work = Does(lambda stop: "done")
    sys.modules["work_of_a_test"] = work  # type: ignore[assignment]
    monkeypatch.setenv("SLURM_PROCID", str(place))
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    line = {"array_job": 2, "pack": 3, "work": "work_of_a_test", "launch": "mine"}
    mine = {"run_dir": str(token.run_dir), "number": token.number, "place": 1}
    folder = token.run_dir.parent / "array"
    jobs = [{"array_job": 1}, line | {"place": 0}, line | mine, line | {"place": 2}]
    replace_json(folder / "jobs.json", {"jobs": jobs})
    assert job(folder) == 0
    return work


def test_each_process_of_a_shared_job_trains_a_run_of_its_own(
    token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    token.update(job=None)
    assert pack(token, monkeypatch, 1).calls == 1
    assert ended(token) == [(0, "done")]  # the first process of the run, and the only one
    assert os.environ["SLURM_STEP_NUM_TASKS"] == "1"
    now = current(token.run_dir)
    assert now is not None and (now.job, now.place, now.pack) == ("7_2", 1, 3)
    assert pack(token, monkeypatch, 3).calls == 0  # the last job of an array may have fewer runs


@pytest.mark.parametrize(
    ("kind", "calls"), [("crash", 1), ("preempted", 1), ("done", 0), ("failed", 0), ("cancelled", 0)]
)
def test_a_shared_job_that_starts_again_goes_on_with_the_runs_that_are_not_over(
    token: Token, monkeypatch: pytest.MonkeyPatch, kind: str, calls: int
) -> None:
    token.note("start", restart=0)
    token.note("end", restart=0, kind=kind)
    assert pack(token, monkeypatch, 1, restart=1).calls == calls
    assert len(ended(token, 1)) == calls


@pytest.mark.parametrize(
    ("error", "final", "reason"),
    [
        (ValueError("the width\nis negative"), False, "ValueError: the width is negative"),
        (FinalError("no such folder"), True, "no such folder"),  # which would come again
    ],
)
def test_an_error_is_left_in_words_and_is_the_exit_code(
    token: Token, capsys: pytest.CaptureFixture[str], error: Exception, final: bool, reason: str
) -> None:
    def fail(stop: Callable[[], bool]) -> str:
        raise error

    assert call(token, Does(fail)) == 1
    (outcome,) = token.outcomes(0)
    assert (outcome["state"], outcome["final"], outcome["reason"]) == ("failed", final, reason)
    assert "in fail" in capsys.readouterr().err


def test_work_that_returns_nonsense_has_failed(token: Token) -> None:
    assert call(token, Does(lambda stop: "nonsense")) == 1
    (outcome,) = token.outcomes(0)
    assert (outcome["state"], outcome["final"]) == ("failed", True)
    assert "nonsense" in outcome["reason"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR2])
def test_the_schedulers_signals_ask_the_run_to_stop(token: Token, signum: signal.Signals) -> None:
    def until_asked(stop: Callable[[], bool]) -> str:
        assert not stop()
        os.kill(os.getpid(), signum)
        return "preempted" if stop() else "done"

    assert call(token, Does(until_asked)) == 0
    assert ended(token) == [(0, "preempted")]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_after_the_end_does_not_kill_the_process_on_its_way_out(
    token: Token, signum: signal.Signals
) -> None:
    """Python takes its handlers away while it ends; what is ignored stays ignored."""
    code = (
        "import os, signal, sys\n"
        "from types import SimpleNamespace\n"
        "from slurm import worker\n"
        "sys.modules['work_of_a_test'] = SimpleNamespace(work=lambda run_dir, stop: 'done')\n"
        "class Late:\n"
        "    def __del__(self, kill=os.kill, me=os.getpid()):\n"
        f"        kill(me, {int(signum)})\n"
        "late = Late()\n"
        "sys.modules['late'] = late\n"
        f"raise SystemExit(worker.job(worker.Path({folder(token, 'work_of_a_test')!r})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, ended(token)) == (0, [(0, "done")]), done.stderr


def test_the_profiles_variables_are_set_for_the_run(token: Token, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABLATE_TEST_NOTE", "before")
    seen: list[str | None] = []

    def look(stop: Callable[[], bool]) -> str:
        seen.append(os.environ.get("ABLATE_TEST_NOTE"))
        return "done"

    call(token, Does(look))
    assert seen == ["set"]


def test_the_job_is_named_as_sbatch_names_it(token: Token, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (job_id(), restarts()) == ("7_2", 0)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID")
    assert (job_id(), restarts()) == ("9", 3)


def test_a_process_of_other_code_than_the_frozen_does_not_train(token: Token, tmp_path: Path) -> None:
    """As where a site's TaskProlog sets PYTHONPATH."""
    work = Does(lambda stop: "done")
    assert call(token, work, str(tmp_path)) == 1
    (outcome,) = token.outcomes(0)
    assert (work.calls, outcome["state"], outcome["final"]) == (0, "failed", True)
    assert str(ROOT) in outcome["reason"] and str(tmp_path) in outcome["reason"]
    link = tmp_path / "link"
    link.symlink_to(ROOT)
    assert call(token, work, str(link)) == 0
    assert call(token, work, str(tmp_path / "gone")) == 1


def test_a_process_that_cannot_leave_word_says_it_in_the_log(
    token: Token, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Token, "ended", full)
    assert call(token, Does(lambda stop: "preempted")) == 1
    assert "ablate: preempted: OSError: [Errno 28] No space left on device" in capsys.readouterr().out


def test_a_signal_that_the_shell_before_us_ignored_is_heard(token: Token) -> None:
    former = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        test_the_schedulers_signals_ask_the_run_to_stop(token, signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, former)


def test_a_rank_that_fails_is_gone_at_once(token: Token, tmp_path: Path) -> None:
    """What waits at exit, as a library for a rank that has died, does not keep it."""
    (tmp_path / "work_that_fails.py").write_text(
        "import atexit, time\natexit.register(time.sleep, 600)\n"
        "def work(run_dir, stop):\n    raise ValueError('too wide')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "slurm.worker", folder(token, "work_that_fails")],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "too wide" in done.stderr
    assert token.outcomes(0)[0]["reason"] == "ValueError: too wide"


def test_a_signal_only_sets_the_flag_and_the_handler_goes_back() -> None:
    former = signal.getsignal(signal.SIGUSR1)
    with stop_on(signal.SIGUSR1) as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop()
    assert signal.getsignal(signal.SIGUSR1) is former


def test_signals_within_a_second_are_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([10.0, 10.2, 12.0])
    monkeypatch.setattr("slurm.worker.time.monotonic", lambda: next(moments))
    flag = StopFlag()
    counts = []
    for _ in range(3):
        flag.handle(signal.SIGTERM, None)
        counts.append(flag.requests)
    assert counts == [1, 1, 2]


def test_an_ignored_signal_stays_ignored() -> None:
    former = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with stop_on(signal.SIGUSR1) as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not stop()
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_with_once_a_second_interrupt_interrupts() -> None:
    with stop_on(signal.SIGINT, once=True) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # at once: the same request
        assert stop.requests == 1
        stop.last -= 2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_process_started_while_signals_are_held_back_never_sees_them() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('alive')"
    with held_back(signal.SIGINT):
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.stdout == "alive\n"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
