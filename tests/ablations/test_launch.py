"""`ablate launch` with a stand-in for training: what it starts, skips, reports and returns."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from ablations import local_launch
from ablations.cli import main
from ablations.plan import plan_runs, visible_gpus
from ablations.planned import PlannedRun
from ablations.profiles import profile_named
from analysis.runs import load_runs
from slurm.local import Job, Outcome
from tests.ablations.fake_training import attempts, leave_results
from yolor_core.config import ShapesConfig
from yolor_core.data.fingerprint import annotation_fingerprint
from yolor_core.data.layout import coco_config
from yolor_core.data.shapes.dataset import write_dataset
from yolor_core.runs.directory import RunDirectory

Launch = Callable[..., Result]


@pytest.fixture
def launching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """Run `ablate launch` at the smoke profile; `kinds` maps experiments to how their training ends."""

    def start(*arguments: str, kinds: Mapping[str, str] | None = None) -> Result:
        def as_job(run: PlannedRun) -> Job:
            kind = (kinds or {}).get(run.config.experiment, "done")
            run.run_dir.mkdir(parents=True, exist_ok=True)
            (run.run_dir / "kind").write_text(kind)
            return Job(run.run_id, run.run_dir, "tests.ablations.fake_training", run.after)

        monkeypatch.setattr(local_launch, "as_job", as_job)
        return CliRunner().invoke(
            main, ["launch", *arguments, "--profile", "smoke", "--results", str(tmp_path), "--jobs", "2"]
        )

    return start


def directory(results: Path, experiment: str, seed: int = 0) -> RunDirectory:
    (run,) = (
        r
        for r in plan_runs([experiment], "smoke", [seed], results=results)
        if r.config.experiment == experiment
    )
    return RunDirectory(run.run_dir)


def records(result: Result) -> dict[str, dict[str, Any]]:
    return {record["experiment"]: record for record in json.loads(result.stdout)}


def test_a_second_launch_runs_only_what_is_missing_or_failed(launching: Launch, tmp_path: Path) -> None:
    names = ("csp-fast", "csp-fast.add-fa", "csp-fast.add-pr", "csp-fast.mul-fa")
    kinds = {"csp-fast.add-fa": "raise", "csp-fast.add-pr": "die"}
    first = launching(*names[:3], kinds=kinds)
    assert first.exit_code == 1
    assert "ValueError: too wide" in first.stderr
    second = launching(*names)
    assert second.exit_code == 0, second.output
    assert "4 runs: 1 done, 3 to run" in second.stdout
    assert [attempts(directory(tmp_path, name)) for name in names] == [1, 2, 2, 1]
    third = launching(*names)
    assert third.exit_code == 0
    assert "4 runs: 4 done, 0 to run" in third.stdout
    assert [attempts(directory(tmp_path, name)) for name in names] == [1, 2, 2, 1]


def test_a_killed_run_is_failed_with_its_reason_in_its_state(launching: Launch, tmp_path: Path) -> None:
    result = launching("csp-fast", "csp-fast.add-fa", "--json", kinds={"csp-fast": "die"})
    assert result.exit_code == 1
    state = directory(tmp_path, "csp-fast").read_state()
    assert state is not None
    assert state["state"] == "failed"
    assert "killed" in state["reason"]
    outcome = records(result)
    assert (outcome["csp-fast"]["outcome"], outcome["csp-fast.add-fa"]["outcome"]) == ("failed", "done")


def test_a_run_that_diverged_is_called_so_everywhere(launching: Launch, tmp_path: Path) -> None:
    result = launching("csp-fast", "--json", kinds={"csp-fast": "diverge"})
    assert (result.exit_code, records(result)["csp-fast"]["outcome"]) == (1, "diverged")
    assert "diverged   csp-fast" in result.stderr and "\ndiverged: csp-fast" in result.stderr
    again = records(launching("csp-fast", "--dry-run", "--json"))["csp-fast"]
    assert (again["state"], again["action"]) == ("diverged", "resume")
    status = CliRunner().invoke(main, ["status", "--json", "--results", str(tmp_path)])
    assert [record["state"] for record in json.loads(status.stdout)] == ["diverged"]
    assert list(load_runs(tmp_path)["state"]) == ["diverged"]


def test_a_run_that_continues_a_failed_one_is_not_started(launching: Launch, tmp_path: Path) -> None:
    result = launching("8", "--json", kinds={"p6-light.add-fa.mul-pr": "raise"})
    assert result.exit_code == 1
    outcome = records(result)["p6-light.add-fa.mul-pr.finetuned"]
    assert outcome["outcome"] == "skipped"
    assert outcome["after"] in outcome["reason"]
    assert attempts(directory(tmp_path, "p6-light.add-fa.mul-pr.finetuned")) == 0


def test_a_dry_run_touches_nothing(launching: Launch, tmp_path: Path) -> None:
    result = launching("--all", "--dry-run", "--json", "--seeds", "0,1")
    assert result.exit_code == 0
    plan = json.loads(result.stdout)
    assert len(plan) == 38
    assert {record["action"] for record in plan} == {"start"}
    assert {record["seed"] for record in plan} == {0, 1}
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_says_what_happens_to_every_run(launching: Launch, tmp_path: Path) -> None:
    states = {
        "csp-fast": "done",
        "csp-fast.add-fa": "failed",
        "csp-fast.add-pr": "preempted",
        "csp-fast.mul-fa": "running",
    }
    for name, state in states.items():
        if state == "done":
            leave_results(directory(tmp_path, name))
        else:
            directory(tmp_path, name).write_state(state)
    names = [*states, "csp-fast.cat-fa"]
    assert "time unknown" in launching(*names, "--dry-run").stdout.splitlines()[-1]
    plan = records(launching(*names, "--dry-run", "--json"))
    assert [plan[name]["action"] for name in names] == ["keep", "resume", "resume", "resume", "start"]
    assert plan["csp-fast.mul-fa"]["state"] == "interrupted"
    with directory(tmp_path, "csp-fast.mul-fa").lock():
        plan = records(launching(*names, "--dry-run", "--json"))
    assert plan["csp-fast.mul-fa"]["action"] == "wait"


def test_a_damaged_state_fails_that_run_alone_and_is_left_to_the_user(
    launching: Launch, tmp_path: Path
) -> None:
    broken = directory(tmp_path, "csp-fast")
    broken.path.mkdir(parents=True)
    broken.state.write_bytes(b"\xff[")
    names = ("csp-fast", "csp-fast.add-fa")
    plan = launching(*names, "--dry-run")
    assert plan.exit_code == 0
    assert f"{broken.state} cannot be read: not text" in plan.stderr
    assert "Remove the file" in plan.stderr
    assert "refuse" in plan.stdout
    result = launching(*names, "--json")
    assert result.exit_code == 1
    outcome = records(result)
    assert [outcome[name]["outcome"] for name in names] == ["failed", "done"]
    assert str(broken.state) in outcome["csp-fast"]["reason"]
    assert broken.state.read_bytes() == b"\xff["
    assert (attempts(broken), attempts(directory(tmp_path, "csp-fast.add-fa"))) == (0, 1)


@pytest.mark.parametrize("name", ["run.json", "evaluation.json", "weights.safetensors"])
def test_a_finished_run_that_lost_a_file_is_run_again(launching: Launch, tmp_path: Path, name: str) -> None:
    run = directory(tmp_path, "csp-fast")
    leave_results(run)
    assert "1 run: 1 done" in launching("csp-fast", "--dry-run").stdout
    (run.path / name).unlink()
    result = launching("csp-fast")
    assert result.exit_code == 0, result.output
    assert f"{name} is missing; it is trained again" in result.stderr
    assert "other code" not in result.stderr
    assert attempts(run) == 1
    assert run.complete()


def test_other_code_is_told_only_where_the_record_says_so(launching: Launch, tmp_path: Path) -> None:
    run = directory(tmp_path, "csp-fast")
    leave_results(run)
    assert "other code" not in launching("csp-fast").stderr
    run.run.write_text('{"source_hash": "abc"}')
    assert "1 finished run was made by other code" in launching("csp-fast").stderr


def test_a_full_disk_does_not_end_the_launch_when_an_ending_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    job = Job("a", tmp_path, "ablations.worker")
    local_launch.write_ending(job, Outcome("failed", "killed"))
    assert (RunDirectory(tmp_path).read_state() or {})["reason"] == "killed"
    monkeypatch.setattr(RunDirectory, "write_state", full)
    local_launch.write_ending(job, Outcome("failed", "killed"))


def test_a_job_is_labelled_with_experiment_and_seed(tmp_path: Path) -> None:
    (run,) = plan_runs(["csp-fast"], "smoke", [3], results=tmp_path)
    assert local_launch.as_job(run).label == "csp-fast s3"


def test_train_names_a_damaged_state(tmp_path: Path) -> None:
    broken = directory(tmp_path, "csp-fast")
    broken.path.mkdir(parents=True)
    broken.state.write_text("")
    arguments = ["train", "csp-fast", "--profile", "smoke", "--results", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert f"ablate: {broken.state} cannot be read: it is empty" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--all"),
        (("csp-fst",), "csp-fast"),
        (("table10",), "unknown table 'table10'"),
        (("csp-fast", "--seeds", "x"), "seeds"),
        (("csp-fast", "--set", "train.epoch=3"), "train.epochs"),
        (("nowhere.py",), "nowhere.py"),
    ],
)
def test_bad_input_is_named_in_one_line(launching: Launch, arguments: tuple[str, ...], message: str) -> None:
    result = launching(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_folder_that_cannot_be_written_is_named_before_anything_starts(
    launching: Launch, tmp_path: Path
) -> None:
    (tmp_path / "runs").write_text("a file stands in the folder's place")
    result = launching("csp-fast")
    assert result.exit_code == 2
    assert str(tmp_path / "runs") in result.stderr and "--results" in result.stderr
    assert "started" not in result.output and "failed" not in result.output


def test_gpus_are_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-7")
    assert visible_gpus() == ("2", "GPU-7")
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert visible_gpus() == ()


def test_runs_at_a_time_follow_cores_threads_and_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    plan = plan_runs(["csp-fast"], "smoke", results=tmp_path)
    assert local_launch.fitting(plan) == 8
    assert local_launch.fitting(plan_runs(["csp-fast"], "smoke", overrides=["execution.threads=3"])) == 2
    assert local_launch.at_a_time(8) == "8 at a time"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert local_launch.fitting(plan) == 2
    assert [local_launch.at_a_time(n) for n in (2, 5)] == ["2 at a time", "5 at a time, up to 3 on each GPU"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data of profile smoke as a folder."""
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    data = profile_named("smoke").data
    assert isinstance(data, ShapesConfig)
    write_dataset(data, tmp_path / "folder")
    return tmp_path / "folder"


def finished_on(results: Path, data: str, fingerprint: str | None = None) -> PlannedRun:
    """A finished run of csp-fast that says what it was trained on."""
    (run,) = plan_runs(["csp-fast"], "smoke", results=results, data=data, fingerprint=fingerprint)
    leave_results(RunDirectory(run.run_dir))
    RunDirectory(run.run_dir).run.write_text(json.dumps({"config": json.loads(run.config.to_json())}))
    return run


def darken(picture: Path) -> None:
    """Other pixels in a lossless file of the same name."""
    with Image.open(picture) as image:
        changed = image.point(lambda value: value // 2)
    changed.save(picture)


def test_a_run_taken_over_from_other_data_is_told_with_both_places(
    launching: Launch, tmp_path: Path, folder: Path
) -> None:
    finished_on(tmp_path, "shapes")
    result = launching("csp-fast", "--data", str(folder), "--dry-run")
    assert "1 run: 1 done, 0 to run" in result.stdout
    assert "was trained on the shapes drawn on demand" in result.stderr
    darken(next((folder / "val").iterdir()))
    result = launching("csp-fast", "--data", str(folder), "--dry-run")
    assert "1 run: 0 done, 1 to run" in result.stdout
    assert "it counts" not in result.stderr

    finished_on(tmp_path, str(folder))
    result = launching("csp-fast", "--data", str(folder), "--dry-run")
    assert "1 run: 1 done, 0 to run" in result.stdout
    assert "it counts" not in result.stderr
    moved = folder.rename(tmp_path / "moved")
    result = launching("csp-fast", "--data", str(moved), "--dry-run")
    assert "1 run: 1 done, 0 to run" in result.stdout
    (told,) = [line for line in result.stderr.splitlines() if "it counts" in line]
    assert str(folder) in told and str(moved) in told
    darken(next((moved / "train").iterdir()))
    assert "1 run: 0 done, 1 to run" in launching("csp-fast", "--data", str(moved), "--dry-run").stdout


def test_runs_that_did_not_write_down_their_pictures_do_not_count_and_are_named(
    launching: Launch, tmp_path: Path, folder: Path
) -> None:
    darken(next((folder / "val").iterdir()))
    old = annotation_fingerprint(coco_config(folder))
    earlier = finished_on(tmp_path, str(folder), old)
    result = launching("csp-fast", "--data", str(folder))
    assert "1 run: 0 done, 1 to run" in result.stdout
    assert str(earlier.run_dir) in result.stderr
    assert f"`ablate tables --fingerprint {old[:8]}`" in result.stderr
    again = launching("csp-fast", "--data", str(folder))
    assert "1 run: 1 done, 0 to run" in again.stdout
    assert "do not count" not in again.stderr
