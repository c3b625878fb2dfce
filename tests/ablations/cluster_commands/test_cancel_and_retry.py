"""`ablate cancel` and `ablate retry`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slurm.files import read_json, replace_json
from slurm.tokens import Token, read
from tests.ablations.cluster_commands.submitted import Ablate, job_of, run_of
from tests.ablations.fake_training import leave_results
from tests.slurm.fake_slurm import FakeSlurm
from yolor_core.runs.directory import RunDirectory


def test_cancel_notes_it_when_slurm_has_taken_the_order_and_repeats_that(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, results: Path
) -> None:
    job, other = job_of(results, "csp-fast"), job_of(results, "csp-fast.add-fa")
    slurm.answer("squeue", f"{job}|RUNNING|n1|0:10|None\n{other}|PENDING||0:00|Priority")
    mark = run_of(results, "csp-fast").path / "submits" / "0001.cancelled.json"
    slurm.shell("scancel", f'[ -e "{mark}" ] && echo late >> {results}/late\nexit 0')
    result = ablate("cancel", "csp-fast")
    assert result.exit_code == 0, result.output
    # The second order ends a job that was put back in the queue before it was noted.
    assert slurm.calls("scancel") == [[job], [job]] and (results / "late").read_text() == "late\n"
    assert mark.exists() and "cancelled 1 run" in result.stdout
    assert not (run_of(results, "csp-fast.add-fa").path / "submits" / "0001.cancelled.json").exists()
    slurm.answer("scancel")
    result = ablate("cancel", "--all")
    assert "cancelled 2 runs; 1 other was not on the cluster" in result.stdout
    assert sorted(slurm.calls("scancel")[-1]) == sorted([job, other])


def test_a_run_that_shares_its_job_is_cancelled_alone_and_the_job_with_the_last(
    ablate: Ablate, slurm: FakeSlurm, shared: str, results: Path
) -> None:
    slurm.answer("squeue", "7|RUNNING|n1|0:10|None")
    assert ablate("cancel", "csp-fast").stdout == "cancelled 1 run\n"
    run = run_of(results, "csp-fast")
    assert read(run.path, 1).cancelled and not slurm.calls("scancel")  # its process sees the mark
    read(run.path, 1).note("end", kind="cancelled", reason="as its job says")
    (record,) = (r for r in json.loads(ablate("status", "--json").stdout) if r["run"] == run.path.name)
    assert (record["state"], record["reason"][:12]) == ("cancelled", "cancelled by")
    assert ablate("retry", "csp-fast").stdout.startswith("submitted 1 run as job 8")
    slurm.answer("squeue", "7|RUNNING|n1|0:10|None\n8|PENDING||0:00|Priority")
    assert "cancelled 2 runs" in ablate("cancel", "csp-fast.add-fa", "csp-fast.add-pr").stdout
    assert slurm.calls("scancel") == [["7"], ["7"]]


def test_cancel_wants_names_or_all(ablate: Ablate, launched: Path) -> None:
    for arguments in ([], ["csp-fast", "--all"]):
        result = ablate("cancel", *arguments)
        assert result.exit_code == 2
        assert "--all" in result.stderr
    assert ablate("cancel", "nonsense").exit_code == 2


def test_cancel_reaches_runs_that_may_be_there_while_the_queue_does_not_answer(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, results: Path
) -> None:
    run_of(results, "csp-fast").write_state("preempted")
    slurm.answer("squeue", error="down", code=1)
    slurm.answer("sacct", error="down", code=1)
    result = ablate("cancel", "csp-fast")
    assert result.stdout == "cancelled 1 run\n"
    assert slurm.calls("scancel")[0] == [job_of(results, "csp-fast")]


def test_a_run_is_not_cancelled_where_slurm_does_not_take_the_order(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, results: Path
) -> None:
    job = job_of(results, "csp-fast")
    slurm.answer("squeue", f"{job}|RUNNING|n1|0:10|None")
    slurm.answer("scancel", error="scancel: error: Unable to contact slurm controller", code=1)
    result = ablate("cancel", "csp-fast")
    assert result.exit_code == 2 and "Unable to contact slurm controller" in result.stderr
    assert not list(results.glob("runs/*/submits/*.cancelled.json"))


def test_a_run_in_a_folder_that_cannot_be_written_is_cancelled(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Token) -> None:
        raise OSError(30, "Read-only file system")

    slurm.answer("squeue", f"{job_of(results, 'csp-fast')}|RUNNING|n1|0:10|None")
    monkeypatch.setattr(Token, "cancel", refuse)
    result = ablate("cancel", "csp-fast")
    assert result.exit_code == 0 and "cancelled 1 run" in result.stdout
    assert "cannot be noted: Read-only file system" in result.stderr


def test_other_users_runs_are_named_with_their_owners(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, results: Path
) -> None:
    mine, theirs = job_of(results, "csp-fast"), job_of(results, "csp-fast.add-fa")
    read(run_of(results, "csp-fast.add-fa").path, 1).update(user="ann")
    slurm.answer("squeue", f"{mine}|RUNNING|n1|0:10|None\n{theirs}|PENDING||0:00|Priority")
    slurm.answer(
        "scancel", error=f"Kill job error on job id {theirs}: Access/permission denied", code=1, to=theirs
    )
    result = ablate("cancel", "--all")
    assert result.exit_code == 1
    assert "is ann's: Kill job error" in result.stderr and "cancelled 1 run" in result.stdout
    (mark,) = results.glob("runs/*/submits/*.cancelled.json")
    assert mark.parent.parent == run_of(results, "csp-fast").path


def test_retry_submits_failed_runs_with_their_own_profile(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, profile: str, results: Path
) -> None:
    Path(profile).unlink()  # what they were sent with is in the launch's folder
    leave_results(run_of(results, "csp-fast"))
    run_of(results, "csp-fast.add-fa").write_state("failed", reason="ValueError: too wide")
    slurm.answer("squeue", f"{job_of(results, 'csp-fast.add-pr')}|RUNNING|n1|0:10|None")
    result = ablate("retry", "--failed")
    assert result.exit_code == 0, result.output
    assert job_of(results, "csp-fast.add-fa") == "8"
    assert sorted(path.name for path in launched.iterdir()) == ["7.sh", "8.sh"]
    assert "module load cuda" in (launched / "8.sh").read_text()
    slurm.answer("squeue", "8|PENDING||0:00|Priority\n7_2|RUNNING|n1|0:10|None\n7_1|RUNNING|n1|0:10|None")
    assert "nothing to retry" in ablate("retry", "--failed").stdout


def test_retry_of_a_run_whose_predecessor_is_done_starts_at_once(
    ablate: Ablate, slurm: FakeSlurm, profile: str, results: Path
) -> None:
    first, second = "p6-light.add-fa.mul-pr", "p6-light.add-fa.mul-pr.finetuned"
    scripts = slurm.accept(7)
    assert ablate("launch", second, "--profile", "smoke", "--cluster", profile).exit_code == 0
    leave_results(run_of(results, first))
    run_of(results, second).write_state("failed", reason="ValueError: too wide")
    result = ablate("retry", "--failed")
    assert result.exit_code == 0, result.output
    assert job_of(results, second) == "9"
    assert "--dependency" not in (scripts / "9.sh").read_text()


def test_retry_of_a_run_that_is_at_work_sends_nothing(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, results: Path
) -> None:
    slurm.answer("squeue", f"{job_of(results, 'csp-fast')}|RUNNING|n1|0:10|None")
    result = ablate("retry", "csp-fast")
    assert result.exit_code == 0, result.output
    assert "nothing to retry" in result.stdout
    assert [path.name for path in launched.iterdir()] == ["7.sh"]


def test_retry_of_a_run_of_this_machine_asks_for_a_profile(
    ablate: Ablate, launched: Path, results: Path
) -> None:
    RunDirectory(results / "runs" / "local").write_state("failed")
    result = ablate("retry", "local")
    assert result.exit_code == 2
    assert "--cluster" in result.stderr
    assert ablate("retry").exit_code == 2


def test_retry_of_a_run_that_another_version_has_sent_asks_for_a_profile(
    ablate: Ablate, launched: Path, results: Path
) -> None:
    (path,) = results.glob("launches/*/launch.json")
    record = read_json(path) or {}
    replace_json(path, record | {"cluster": record["cluster"] | {"nice": 100}})
    result = ablate("retry", "csp-fast")
    assert result.exit_code == 2
    assert "launch.json holds no profile" in result.stderr and "--cluster" in result.stderr


def test_retry_names_runs_that_it_cannot_plan(
    ablate: Ablate, launched: Path, profile: str, results: Path
) -> None:
    RunDirectory(results / "runs" / "local").write_state("failed")
    result = ablate("retry", "local", "--cluster", profile)
    assert result.exit_code == 1
    assert "left out: local: its planned.json is missing or damaged" in result.stderr
    assert [path.name for path in launched.iterdir()] == ["7.sh"]
