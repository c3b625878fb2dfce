"""The state of a run, from its own files and the scheduler's word."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ablations.display import RunView
from ablations.overview import chosen, overview, view
from slurm.tokens import Token, claim
from slurm.view import Standing
from tests.ablations.fake_training import leave_results
from tests.slurm.fake_slurm import FakeSlurm
from yolor_core.errors import RunError, UnknownNameError
from yolor_core.runs import State
from yolor_core.runs.directory import RunDirectory

OLD = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path, monkeypatch)


def submitted(path: Path, after: int = 0, **content: Any) -> Token:
    token = claim(path, after, **{"written": OLD, "job": "7", **content})
    assert token is not None
    return token


def written(path: Path, state: str | None, **fields: Any) -> None:
    if state is not None:
        RunDirectory(path).write_state(state, **fields)


@pytest.mark.parametrize(
    ("own", "job", "shown"),
    [
        (None, State.QUEUED, "queued"),
        ("running", State.QUEUED, "queued"),  # requeued after its node was lost
        ("preempted", State.QUEUED, "queued"),
        ("failed", State.QUEUED, "queued"),  # submitted anew
        (None, State.RUNNING, "starting"),
        ("preempted", State.RUNNING, "starting"),
        ("running", State.RUNNING, "running"),
        (None, State.UNKNOWN, "queued"),
        ("running", State.UNKNOWN, "running"),
        ("preempted", State.UNKNOWN, "preempted"),
        ("running", State.INTERRUPTED, "interrupted"),
        ("running", State.FAILED, "failed"),
        ("running", State.CANCELLED, "cancelled"),
        ("preempted", State.CANCELLED, "cancelled"),
        (None, State.CANCELLED, "cancelled"),
        ("failed", State.CANCELLED, "failed"),
        ("failed", State.INTERRUPTED, "failed"),
        ("preempted", State.INTERRUPTED, "preempted"),
        (None, State.INTERRUPTED, "failed"),
        (None, State.NOT_SENT, "not sent"),
        ("preempted", State.NOT_SENT, "preempted"),
        ("failed", State.NOT_SENT, "failed"),
        ("running", State.NOT_SENT, "interrupted"),
    ],
)
def test_the_runs_word_and_the_schedulers_make_one_state(
    tmp_path: Path, own: str | None, job: State, shown: str
) -> None:
    written(tmp_path, own)
    assert view(tmp_path, Standing(submitted(tmp_path), job)).state == shown
    if own == "failed":  # because a loss was not finite
        (tmp_path / "nonfinite.json").touch()
        shown = "diverged" if shown == "failed" else shown
        assert view(tmp_path, Standing(submitted(tmp_path, 1), job)).state == shown


@pytest.mark.parametrize(
    "job", [State.QUEUED, State.RUNNING, State.INTERRUPTED, State.NOT_SENT, State.UNKNOWN]
)
def test_a_finished_run_is_done_whatever_the_scheduler_says(tmp_path: Path, job: State) -> None:
    leave_results(RunDirectory(tmp_path))
    assert view(tmp_path, Standing(submitted(tmp_path), job, "n1", "some reason")).state == "done"


def test_a_run_that_was_cancelled_goes_on_until_its_job_ends(tmp_path: Path) -> None:
    written(tmp_path, "preempted")
    token = submitted(tmp_path)
    token.cancel()
    assert view(tmp_path, Standing(token, State.RUNNING)).state == "starting"


def test_runs_of_this_machine_need_no_scheduler(tmp_path: Path, slurm: FakeSlurm) -> None:
    written(tmp_path / "runs" / "a", "running", epoch=3, epochs=24, seconds=75.0)
    written(tmp_path / "runs" / "b", "failed", reason="OSError:  disk\nfull")
    assert [(v.state, v.reason) for v in overview(tmp_path)] == [
        ("interrupted", None),
        ("failed", "OSError: disk full"),
    ]
    assert slurm.calls("squeue") == slurm.calls("sacct") == []


def test_a_saved_run_whose_job_is_about_to_end_is_preempted_and_goes_on(
    tmp_path: Path, slurm: FakeSlurm
) -> None:
    submitted(tmp_path / "runs" / "a")
    RunDirectory(tmp_path / "runs" / "a").write_state("preempted", epoch=3, epochs=24)
    slurm.answer("squeue", "7|COMPLETING|n1|0:10|None")
    (found,) = overview(tmp_path, 5.0)
    assert (found.state, found.submitted, found.going_on) == (State.PREEMPTED, True, True)
    slurm.answer("squeue", "7|PENDING||0:00|PartitionTimeLimit")
    (found,) = overview(tmp_path, 5.0)
    assert found.state is State.QUEUED and "does not pass by itself: `time`" in str(found.reason)


def test_a_run_that_left_the_cluster_and_is_trained_here_runs(tmp_path: Path, slurm: FakeSlurm) -> None:
    path = tmp_path / "runs" / "a"
    submitted(path)
    run = RunDirectory(path)
    with run.lock():
        run.write_state("running", epoch=1, epochs=4)
        (found,) = overview(tmp_path, 5.0)
    assert found.state == "running"


def test_all_runs_cost_one_look_and_finished_ones_none(tmp_path: Path, slurm: FakeSlurm) -> None:
    for k in range(30):
        submitted(tmp_path / "runs" / f"r{k:02}", job=f"7_{k}")
    for k in range(20):
        leave_results(RunDirectory(tmp_path / "runs" / f"r{k:02}"))
    slurm.answer(
        "squeue", "7_20|RUNNING|n1|0:10|None\n7_21|PENDING||0:00|Resources\n7_3|RUNNING|n9|0:10|None"
    )
    slurm.answer("sacct", "\n".join(f"7_{k}|FAILED|9|cpu=1|n1" for k in range(22, 30)))
    views = overview(tmp_path, 5.0)
    assert [v.run for v in views] == [f"r{k:02}" for k in range(30)]
    assert {v.state for v in views[:20]} == {"done"}
    assert [v.state for v in views[20:23]] == ["starting", "queued", "failed"]
    assert (len(slurm.calls("squeue")), len(slurm.calls("sacct"))) == (1, 1)
    for k in range(20, 30):
        leave_results(RunDirectory(tmp_path / "runs" / f"r{k:02}"))
    overview(tmp_path, 5.0)
    assert (len(slurm.calls("squeue")), len(slurm.calls("sacct"))) == (1, 1)


def test_what_is_wrong_with_the_files_of_a_submitted_run_is_told(tmp_path: Path, slurm: FakeSlurm) -> None:
    path = tmp_path / "runs" / "a"
    submitted(path)
    leave_results(RunDirectory(path))
    RunDirectory(path).weights.unlink()
    (found,) = overview(tmp_path, 5.0)
    assert (found.state, found.reason) == ("incomplete", "weights.safetensors is missing")
    (path / "state.json").write_text("{")
    (found,) = overview(tmp_path, 5.0)
    assert found.state == "unreadable" and "state.json" in (found.reason or "")


def test_a_folder_that_is_no_run_is_not_listed(tmp_path: Path, slurm: FakeSlurm) -> None:
    (tmp_path / "runs" / "empty").mkdir(parents=True)
    (tmp_path / "runs" / "file").write_text("")
    assert overview(tmp_path) == []
    assert overview(tmp_path / "nowhere") == []


def test_time_left_and_gpu_hours_follow_from_what_is_spent(tmp_path: Path) -> None:
    written(tmp_path, "running", epoch=1, epochs=4, seconds=900.0, step=0, steps=10)
    token = submitted(tmp_path, gpus=8)
    running = view(tmp_path, Standing(token, State.RUNNING, "n[1-2]"))
    assert running.left == pytest.approx(2700)
    assert running.gpu_hours == pytest.approx(8 * 0.25)
    assert running.node == "n[1-2]"
    queued = view(tmp_path, Standing(token, State.QUEUED, "", "Resources"))
    assert (queued.left, queued.node, queued.reason) == (None, "", "waits: Resources")


def test_the_reason_of_a_failure_is_the_runs_own_where_it_has_one(tmp_path: Path) -> None:
    written(tmp_path, "failed", reason="ValueError: too wide")
    token = submitted(tmp_path)
    assert view(tmp_path, Standing(token, State.INTERRUPTED, "", "its job 7 is gone")).reason == (
        "ValueError: too wide"
    )
    written(tmp_path, "running")
    lost = view(tmp_path, Standing(token, State.INTERRUPTED, "", "its node was lost"))
    assert (lost.state, lost.reason) == ("interrupted", "its node was lost")
    written(tmp_path, "failed", reason="ValueError: too wide")
    again = view(tmp_path, Standing(token, State.QUEUED, "", "Priority"))
    assert again.reason == "waits: Priority"


def test_a_record_for_json_has_no_token(tmp_path: Path) -> None:
    written(tmp_path, "preempted")
    record = view(tmp_path, Standing(submitted(tmp_path), State.QUEUED)).record()
    assert "token" not in record
    assert (record["run_dir"], record["job"], record["state"]) == (str(tmp_path), "7", "queued")


def named(*names: str) -> list[RunView]:
    return [RunView(name, Path("/results/runs") / name, State.DONE) for name in names]


RUNS = named(
    "csp-fast-mini-s0-0123456789",
    "csp-fast-mini-s1-1123456789",
    "csp-fast.add-fa-mini-s0-2123456789",
    "p6-light-mini-s0-3123456789",
)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["csp-fast"], [0, 1]),  # the experiment, not those whose names begin so
        (["csp-fast.add-fa"], [2]),
        (["csp-fast-mini-s1"], [1]),
        (["csp*"], [0, 1, 2]),
        (["*-s0-*"], [0, 2, 3]),
        (["p6"], [3]),
        (["/results/runs/p6-light-mini-s0-3123456789"], [3]),
        (["p6", "csp-fast.add-fa", "p6-light"], [3, 2]),
        (["csp-fast-mini-s0-0123456789"], [0]),
    ],
)
def test_names_mean_runs_experiments_and_patterns(names: list[str], found: list[int]) -> None:
    assert chosen(RUNS, names) == [RUNS[k] for k in found]


def test_a_name_that_means_nothing_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="csp-fst"):
        chosen(RUNS, ["p6", "csp-fst"])
    with pytest.raises(UnknownNameError, match="''"):  # of a variable that is not set: not every run
        chosen(RUNS, [""])
    with pytest.raises(RunError, match="no runs here; --results"):
        chosen([], ["csp-fst"])
