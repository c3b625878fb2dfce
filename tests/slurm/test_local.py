"""Jobs on this machine: how many at a time, in which order, and what becomes of the unlucky ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slurm.local import Job, Outcome, longest_first, run_jobs
from slurm.worker import StopFlag
from tests.slurm.fakes import Recorder, job, moments, notes, until


def test_no_more_jobs_than_allowed_run_at_a_time_and_nothing_but_logs_is_left(tmp_path: Path) -> None:
    jobs = [job(tmp_path, name, after="done-before", steps=4) for name in "abcd"]
    outcomes = run_jobs(jobs, 2, Recorder(), StopFlag())
    assert [outcomes[name].state for name in "abcd"] == ["done"] * 4
    spans = [moments(j.run_dir) for j in jobs]
    together = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
    assert max(together) <= 2
    left = {path.suffix for path in (tmp_path / "a" / "logs").rglob("*") if path.is_file()}
    assert left == {".out", ".err"}


def test_jobs_start_longest_first_and_after_what_they_need(tmp_path: Path) -> None:
    jobs = [
        job(tmp_path, "short", cost=1),
        job(tmp_path, "long", cost=5),
        job(tmp_path, "second", after="first", cost=4),
        job(tmp_path, "first", cost=2),
    ]
    recorder = Recorder()
    run_jobs(jobs, 1, recorder, StopFlag())
    assert recorder.names("started") == ["first", "long", "second", "short"]
    assert moments(tmp_path / "first")[1] < moments(tmp_path / "second")[0]


def test_jobs_find_the_suite_where_the_current_folder_has_packages_of_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("slurm", "analysis"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('somebody else')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    assert run_jobs([job(tmp_path, "one")], 1, Recorder(), StopFlag())["one"] == Outcome("done")
    assert (os.environ["PYTHONPATH"], os.environ.get("PYTHONSAFEPATH")) == ("somewhere", None)


def test_failures_are_told_apart_and_do_not_stop_the_others(tmp_path: Path) -> None:
    jobs = [
        job(tmp_path, "killed", kind="die"),
        job(tmp_path, "raised", kind="raise"),
        job(tmp_path, "dependent", after="raised"),
        job(tmp_path, "fine", steps=5),
        job(tmp_path, "nonsense", kind="nonsense"),
        Job("unknown", tmp_path, "no_such_module"),
    ]
    outcomes = run_jobs(jobs, 6, Recorder(), StopFlag())
    assert "nonsense" in (outcomes["nonsense"].reason or "")
    assert outcomes["unknown"].reason == "ModuleNotFoundError: No module named 'no_such_module'"
    assert outcomes["fine"] == Outcome("done")
    assert outcomes["raised"].state == "failed"
    assert outcomes["raised"].reason == "ValueError: the width is negative"
    assert any("in work" in line for line in outcomes["raised"].log)
    assert outcomes["killed"].state == "failed"
    assert "killed" in (outcomes["killed"].reason or "")
    assert outcomes["killed"].log == ("about to allocate",)
    assert outcomes["dependent"] == Outcome("skipped", "needs raised, which is failed")
    assert notes(tmp_path / "dependent") == []


def test_a_request_to_stop_lets_jobs_save_and_a_second_launch_resumes(tmp_path: Path) -> None:
    quick = job(tmp_path, "quick", steps=1)
    slow = job(tmp_path, "slow", steps=60)
    never = job(tmp_path, "never", after="slow")
    stop = StopFlag()

    def ask(recorder: Recorder) -> None:
        if "end" in notes(quick.run_dir) and (slow.run_dir / "steps").exists():
            stop.requests = 1

    outcomes = run_jobs([quick, slow, never], 2, Recorder(ask), stop)
    assert outcomes["quick"].state == "done"
    assert outcomes["slow"].state == "preempted"
    assert outcomes["never"] == Outcome("skipped", "not started")
    saved = int((slow.run_dir / "steps").read_text())
    assert 0 < saved < 60

    again = [job(tmp_path, "slow", steps=saved + 3), never]
    outcomes = run_jobs(again, 2, Recorder(), StopFlag())
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    assert notes(slow.run_dir) == ["start", "saved", "start", "end"]
    assert int((slow.run_dir / "steps").read_text()) == saved + 3


def test_a_second_request_kills_a_job_that_does_not_listen(tmp_path: Path) -> None:
    deaf = job(tmp_path, "deaf", steps=10_000, kind="deaf")
    stop = StopFlag()
    ticks = 0

    def ask(recorder: Recorder) -> None:
        nonlocal ticks
        if (deaf.run_dir / "steps").exists():
            ticks += 1
            stop.requests = 1 if ticks < 15 else 2

    outcomes = run_jobs([deaf], 1, Recorder(ask), stop)
    assert ticks >= 15
    assert outcomes["deaf"].state == "preempted"
    assert "killed on request" in (outcomes["deaf"].reason or "")
    steps = (deaf.run_dir / "steps").read_text()
    assert subprocess.run(["sleep", "0.3"]).returncode == 0
    assert (deaf.run_dir / "steps").read_text() == steps


def test_work_that_is_done_elsewhere_is_waited_for(tmp_path: Path) -> None:
    answers = iter(["elsewhere", "elsewhere", "done"])
    recorder = Recorder()
    outcomes = run_jobs([job(tmp_path, "a")], 1, recorder, StopFlag(), claim=lambda _: next(answers))
    assert outcomes["a"] == Outcome("done")
    assert recorder.names("waiting") == ["a", "a"]
    assert notes(tmp_path / "a") == []


def test_a_job_that_finds_its_work_taken_goes_back_to_waiting(tmp_path: Path) -> None:
    answers = iter(["start", "done"])
    recorder = Recorder()
    work = job(tmp_path, "a", kind="elsewhere")
    outcomes = run_jobs([work], 1, recorder, StopFlag(), claim=lambda _: next(answers))
    assert [kind for kind, _ in recorder.events] == ["started", "waiting", "done"]
    assert outcomes["a"] == Outcome("done")


def test_a_claim_that_raises_fails_its_own_job_only(tmp_path: Path) -> None:
    def claim(job: Job) -> str:
        if job.name == "bad" or (job.name == "late" and (job.run_dir / "notes").exists()):
            raise ValueError(f"{job.name}: state.json is damaged")
        return "start"

    jobs = [job(tmp_path, "bad"), job(tmp_path, "late", kind="raise"), job(tmp_path, "good", steps=20)]
    outcomes = run_jobs(jobs, 3, Recorder(), StopFlag(), claim=claim)
    assert outcomes["bad"] == Outcome("failed", "ValueError: bad: state.json is damaged")
    late = outcomes["late"]
    assert (late.state, late.reason) == ("failed", "ValueError: the width is negative")
    assert outcomes["good"].state == "done"


def test_a_start_that_fails_fails_its_own_job_only(tmp_path: Path) -> None:
    bad, good = job(tmp_path, "bad"), job(tmp_path, "good", steps=10)
    (bad.run_dir / "logs").write_text("in the way of the folder of logs")
    outcomes = run_jobs([good, bad, job(tmp_path, "after", after="bad")], 2, Recorder(), StopFlag())
    states = {name: outcome.state for name, outcome in outcomes.items()}
    assert states == {"good": "done", "bad": "failed", "after": "skipped"}
    assert "logs" in (outcomes["bad"].reason or "")


def test_a_watcher_that_raises_at_an_end_stops_no_other_job(tmp_path: Path) -> None:
    class Full(Recorder):
        def ended(self, job: Job, outcome: Outcome) -> None:
            super().ended(job, outcome)
            if job.name != "good":
                raise OSError("disk full")

    jobs = [job(tmp_path, "bad", kind="raise"), job(tmp_path, "told", steps=1)]
    jobs += [job(tmp_path, "good", steps=20)]
    outcomes = run_jobs(jobs, 3, Full(), StopFlag())
    assert outcomes["bad"].state == "failed"
    assert outcomes["bad"].reason == "ValueError: the width is negative; then OSError: disk full"
    assert (outcomes["told"].state, outcomes["good"].state) == ("done", "done")


def test_jobs_are_spread_over_the_devices(tmp_path: Path) -> None:
    jobs = [job(tmp_path, name, steps=20) for name in "ab"]
    run_jobs(jobs, 2, Recorder(), StopFlag(), devices=("3", "GPU-5"))
    seen = {(j.run_dir / "notes").read_text().split()[2] for j in jobs}
    assert seen == {"3", "GPU-5"}


DRIVER = """
import signal, sys
from pathlib import Path
from slurm.local import run_jobs
from slurm.worker import stop_on
from tests.slurm import fakes

root = Path(sys.argv[1])
jobs = [fakes.job(root, name, steps=2000) for name in "ab"]
with stop_on(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as stop:
    outcomes = run_jobs(jobs, 2, fakes.Recorder(), stop)
print(sorted((name, outcome.state) for name, outcome in outcomes.items()))
"""


def start_driver(root: Path) -> subprocess.Popen[str]:
    """A launcher in a process group of its own, as a shell starts it in a terminal."""
    (root / "driver.py").write_text(DRIVER)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(root)}
    return subprocess.Popen(
        [sys.executable, str(root / "driver.py"), str(root)],
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )


def working(root: Path) -> bool:
    return all((root / name / "steps").exists() for name in "ab")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_process_group_lets_all_jobs_save(
    tmp_path: Path, signum: signal.Signals
) -> None:
    driver = start_driver(tmp_path)
    until(lambda: working(tmp_path))
    os.killpg(driver.pid, signum)  # what a terminal does at Ctrl-C
    output, _ = driver.communicate(timeout=30)
    assert output.strip() == "[('a', 'preempted'), ('b', 'preempted')]"
    assert [notes(tmp_path / name)[-1] for name in "ab"] == ["saved", "saved"]


def test_jobs_of_a_killed_launcher_save_and_stop(tmp_path: Path) -> None:
    driver = start_driver(tmp_path)
    until(lambda: working(tmp_path))
    driver.kill()
    until(lambda: all(notes(tmp_path / name)[-1] == "saved" for name in "ab"))
    driver.communicate(timeout=30)


def make(name: str, cost: float, after: str | None = None) -> Job:
    return Job(name, Path(name), "nothing", after, cost)


def test_a_chain_counts_as_one_long_job_and_equal_costs_keep_their_order() -> None:
    jobs = [make("a", 3), make("tail", 2, after="head"), make("head", 2), make("b", 3.5)]
    assert [job.name for job in longest_first(jobs)] == ["head", "b", "a", "tail"]
    assert [job.name for job in longest_first([make(name, 0) for name in "cab"])] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("jobs", "parallel", "why"),
    [
        ([make("a", 1)], 0, "parallel is 0"),
        ([make("a", 1, after="b"), make("b", 1, after="a")], 1, "circle: a, b"),
        ([make("a", 1), make("a", 2)], 1, "share a name: a"),
    ],
)
def test_jobs_that_could_not_all_be_run_are_refused(jobs: list[Job], parallel: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        run_jobs(jobs, parallel, Recorder(), StopFlag())
