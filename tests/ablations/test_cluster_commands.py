"""The commands that talk to a cluster, with stand-ins for SLURM's programs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ablations.cli import main
from ablations.plan import plan_runs
from slurm.files import read_json
from slurm.tokens import claim, current, read
from tests.ablations.fake_training import leave_results
from tests.slurm.fake_slurm import FakeSlurm
from yolor_core.runs.directory import RunDirectory

PROFILE = 'gpus = 1\ncpus = 2\ntime = "10:00:00"\nsetup = ["module load cuda"]\n'
HERE = f"NodeName=n1 Arch=x86_64 NodeAddr=n1 NodeHostName={os.uname().nodename} State=IDLE"

Ablate = Callable[..., Result]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path, monkeypatch)
    fake.answer("scontrol", HERE, to="show node")
    fake.answer("scontrol", "ClusterName = tiny\nMaxArraySize = 1001", to="show config")
    return fake


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(PROFILE)
    return str(path)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def ablate(slurm: FakeSlurm, results: Path) -> Ablate:
    """Run a command on the results folder."""

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments, "--results", str(results)])

    return call


@pytest.fixture
def launched(ablate: Ablate, slurm: FakeSlurm, profile: str) -> Path:
    """Three runs that were submitted as array 7, and where the scripts are."""
    scripts = slurm.accept(7)
    result = ablate("launch", *NAMES, "--profile", "smoke", "--cluster", profile)
    assert result.exit_code == 0, result.output
    return scripts


NAMES = ("csp-fast", "csp-fast.add-fa", "csp-fast.add-pr")


def run_of(results: Path, experiment: str, seed: int = 0) -> RunDirectory:
    planned = plan_runs([experiment], "smoke", [seed], results=results)
    return RunDirectory(next(r.run_dir for r in planned if r.config.experiment == experiment))


def job_of(results: Path, experiment: str) -> str:
    token = current(run_of(results, experiment).path)
    assert token is not None and token.job is not None
    return token.job


def records(result: Result) -> dict[str, dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return {record["run"]: record for record in json.loads(result.stdout)}


def without_time(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_a_dry_run_prints_scripts_and_touches_nothing(
    ablate: Ablate, slurm: FakeSlurm, profile: str, results: Path
) -> None:
    result = ablate("launch", *NAMES, "--profile", "smoke", "--cluster", profile, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "# 3 runs in 1 job" in result.stdout
    assert "#SBATCH --array=0-2%3" in result.stdout
    assert "module load cuda" in result.stdout
    assert result.stdout.count("#!/bin/bash") == 1
    assert not results.exists()
    assert slurm.calls("sbatch") == []


def test_a_dry_run_needs_no_slurm(ablate: Ablate, slurm: FakeSlurm, profile: str, results: Path) -> None:
    slurm.remove("sbatch", "srun", "squeue", "sacct", "scontrol")
    arguments = ("launch", "csp-fast", "--profile", "smoke", "--cluster", profile)
    result = ablate(*arguments, "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    (run,) = json.loads(result.stdout)["runs"]
    assert (run["experiment"], run["job"]) == ("csp-fast", None)
    assert ablate(*arguments, "--dry-run").exit_code == 0
    refused = ablate(*arguments)
    assert refused.exit_code == 2
    assert "login node" in refused.stderr
    assert not results.exists()


def test_runs_that_wait_have_a_script_of_their_own(ablate: Ablate, profile: str) -> None:
    name = "p6-light.add-fa.mul-pr.finetuned"
    result = ablate("launch", name, "--profile", "smoke", "--cluster", profile, "--dry-run")
    assert result.exit_code == 0, result.output
    first, second = result.stdout.split("#!/bin/bash")[1:]
    assert "--dependency" not in first
    assert "--dependency=afterok:JOB" in second


def test_a_launch_submits_freezes_the_code_and_returns(launched: Path, results: Path) -> None:
    assert [path.name for path in launched.iterdir()] == ["7.sh"]
    assert {job_of(results, name) for name in NAMES} == {"7_0", "7_1", "7_2"}
    (launch,) = (results / "launches").iterdir()
    record = read_json(launch / "launch.json") or {}
    assert Path(record["code"], "slurm", "ending.py").is_file()
    assert Path(record["code"]).is_relative_to(results)
    assert record["code"] in (launched / "7.sh").read_text()


def test_a_second_launch_sends_only_what_is_free(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, profile: str, results: Path
) -> None:
    leave_results(run_of(results, "csp-fast"))
    taken = job_of(results, "csp-fast.add-fa")
    slurm.answer("squeue", f"{taken}|PENDING||0:00|Priority")
    result = ablate("launch", *NAMES, "--profile", "smoke", "--cluster", profile, "--json")
    assert result.exit_code == 0, result.output
    runs = {run["experiment"]: run for run in json.loads(result.stdout)["runs"]}
    assert {name: runs[name]["state"] for name in NAMES[:2]} == {
        "csp-fast": "done",
        "csp-fast.add-fa": "queued",
    }
    assert {name: runs[name]["job"] for name in NAMES} == {
        "csp-fast": None,
        "csp-fast.add-fa": None,
        "csp-fast.add-pr": "8",
    }
    token = current(run_of(results, "csp-fast.add-pr").path)
    assert token is not None and (token.number, token.job) == (2, "8")


def test_nothing_is_sent_while_the_queue_does_not_answer(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, profile: str
) -> None:
    slurm.answer("squeue", error="slurm_load_jobs error: Unable to contact slurm controller", code=1)
    result = ablate("launch", *NAMES, "--profile", "smoke", "--cluster", profile)
    assert result.exit_code == 2
    assert "squeue does not answer" in without_time(result.stderr)
    assert [path.name for path in launched.iterdir()] == ["7.sh"]


def test_a_refusal_comes_before_anything_is_written(
    ablate: Ablate, slurm: FakeSlurm, profile: str, results: Path
) -> None:
    slurm.answer(
        "sbatch", error="allocation failure: Invalid account or account/partition combination", code=1
    )
    result = ablate("launch", "csp-fast", "--profile", "smoke", "--cluster", profile)
    assert result.exit_code == 2
    assert "Invalid account" in result.stderr and "`account`" in result.stderr
    assert "Traceback" not in result.output
    assert not results.exists()


def test_a_refusal_at_the_last_moment_is_an_exit_code_and_frees_the_runs(
    ablate: Ablate, slurm: FakeSlurm, profile: str, results: Path
) -> None:
    slurm.answer("sbatch", to="--test-only")
    slurm.answer("sbatch", error="sbatch: error: QOSMaxSubmitJobPerUserLimit", code=1)
    result = ablate("launch", *NAMES, "--profile", "smoke", "--cluster", profile)
    assert result.exit_code == 1
    assert "not sent: 3 runs" in result.stderr and "QOSMaxSubmitJobPerUserLimit" in result.stderr
    views = json.loads(ablate("status", "--json").stdout)
    assert {view["state"] for view in views} == {"not sent"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cluster", "exampel"), "unknown cluster 'exampel'"),
        (("--cluster", "example", "--jobs", "2"), "parallel"),
        (("--cluster", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_bad_clusters_are_named_in_one_line(ablate: Ablate, arguments: tuple[str, ...], message: str) -> None:
    result = ablate("launch", "csp-fast", "--profile", "smoke", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_results_folder_that_sbatch_would_misread_is_refused(
    slurm: FakeSlurm, profile: str, tmp_path: Path
) -> None:
    arguments = ["launch", "csp-fast", "--profile", "smoke", "--cluster", profile]
    result = CliRunner().invoke(main, [*arguments, "--results", str(tmp_path / "50%")])
    assert result.exit_code == 2
    assert "'%'" in result.stderr
    assert slurm.calls("sbatch") == []


def test_the_profiles_results_folder_is_used_unless_one_is_given(
    slurm: FakeSlurm, profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.accept()
    monkeypatch.delenv("ABLATE_RESULTS", raising=False)
    Path(profile).write_text(f'{PROFILE}results = "{tmp_path / "shared"}"\n')
    arguments = ["launch", "csp-fast", "--profile", "smoke", "--cluster", profile]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert len(list((tmp_path / "shared" / "runs").iterdir())) == 1
    assert CliRunner().invoke(main, [*arguments, "--results", str(tmp_path / "mine")]).exit_code == 0
    assert len(list((tmp_path / "mine" / "runs").iterdir())) == 1


def test_status_shows_cluster_runs_with_node_and_reason(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, results: Path
) -> None:
    jobs = [job_of(results, name) for name in NAMES]
    slurm.answer("squeue", f"{jobs[0]}|RUNNING|n17|0:10|None\n{jobs[1]}|PENDING||0:00|Resources")
    slurm.answer("sacct", f"{jobs[2]}|NODE_FAIL|60|cpu=1|n3")
    run_of(results, "csp-fast").write_state("running", epoch=1, epochs=4, seconds=3600.0)
    found = records(ablate("status", "--json"))
    running, waiting, lost = (found[run_of(results, name).path.name] for name in NAMES)
    assert (running["state"], running["node"], running["gpu_hours"]) == ("running", "n17", 1.0)
    assert (waiting["state"], waiting["reason"]) == ("queued", "waits: Resources")
    assert lost["reason"] == "its node was lost"
    lines = ablate("status").stdout.splitlines()
    assert lines[0].split()[-2:] == ["h", "reason"]
    (line,) = (line for line in lines if line.startswith(f"{running['run']} "))
    assert "n17" in line and "1/4" in line
    assert records(ablate("status", "csp-fast.add-fa", "--json")).keys() == {waiting["run"]}


def test_a_hanging_scheduler_does_not_hold_status_up(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, results: Path
) -> None:
    for program in ("squeue", "sacct"):
        slurm.shell(program, "exec sleep 60")
    run_of(results, "csp-fast").write_state("running", epoch=1, epochs=4)
    found = records(ablate("status", "--json"))
    assert found[run_of(results, "csp-fast").path.name]["state"] == "running"


def test_logs_are_those_of_the_last_job(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, results: Path
) -> None:
    run = run_of(results, "csp-fast")
    token = current(run.path)
    assert token is not None and token.log is not None
    slurm.answer("squeue", f"{token.job}|RUNNING|n1|0:10|None")
    nothing = ablate("logs", "csp-fast")
    assert nothing.exit_code == 2
    assert "has written nothing" in nothing.stderr
    token.log.write_text("".join(f"line {k}\n" for k in range(100)))
    token.log.with_name(f"{token.job}_1_log.out").write_text("from the second\n")
    assert ablate("logs", run.path.name, "-n", "2").stdout == "line 98\nline 99\n"
    assert len(ablate("logs", "csp-fast").stdout.splitlines()) == 40
    assert ablate("logs", "csp-fast", "-n", "0").stdout == ""
    assert ablate("logs", "csp-fast", "--rank", "1").stdout == "from the second\n"
    several = ablate("logs", "csp*")
    assert several.exit_code == 2 and "means 3 runs" in several.stderr


def test_following_a_run_that_has_ended_ends(ablate: Ablate, launched: Path, results: Path) -> None:
    token = current(run_of(results, "csp-fast").path)
    assert token is not None and token.log is not None
    token.log.write_text("the end\n")
    assert ablate("logs", "csp-fast", "-f").stdout == "the end\n"


def test_cancel_notes_it_before_it_tells_slurm(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, results: Path
) -> None:
    job, other = job_of(results, "csp-fast"), job_of(results, "csp-fast.add-fa")
    slurm.answer("squeue", f"{job}|RUNNING|n1|0:10|None\n{other}|PENDING||0:00|Priority")
    mark = run_of(results, "csp-fast").path / "submits" / "0001.cancelled.json"
    slurm.shell("scancel", f'[ -e "{mark}" ] || exit 9\nexit 0')
    result = ablate("cancel", "csp-fast")
    assert result.exit_code == 0, result.output
    assert slurm.calls("scancel") == [[job]]
    assert "cancelled 1 runs" in result.stdout
    assert not (run_of(results, "csp-fast.add-fa").path / "submits" / "0001.cancelled.json").exists()
    slurm.answer("scancel")
    result = ablate("cancel", "--all")
    assert "cancelled 2 runs; 1 were not on the cluster" in result.stdout
    assert sorted(slurm.calls("scancel")[-1]) == sorted([job, other])


def test_cancel_wants_names_or_all(ablate: Ablate, launched: Path) -> None:
    for arguments in ([], ["csp-fast", "--all"]):
        result = ablate("cancel", *arguments)
        assert result.exit_code == 2
        assert "--all" in result.stderr
    assert ablate("cancel", "nonsense").exit_code == 2


def test_cancel_says_so_where_the_queue_does_not_answer(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, results: Path
) -> None:
    run_of(results, "csp-fast").write_state("preempted")
    slurm.answer("squeue", error="down", code=1)
    result = ablate("cancel", "csp-fast")
    assert "0 runs; 1 were not on the cluster" not in result.stdout


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


def test_retry_names_runs_that_it_cannot_plan(
    ablate: Ablate, launched: Path, profile: str, results: Path
) -> None:
    RunDirectory(results / "runs" / "local").write_state("failed")
    result = ablate("retry", "local", "--cluster", profile)
    assert "are done, wait or run" not in result.stdout


def test_cost_compares_estimates_with_what_was_booked(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, results: Path
) -> None:
    run = run_of(results, "csp-fast")
    leave_results(run)
    run.write_state("done", seconds=1800.0)
    read(run.path, 1).update(hours=0.5)
    again = claim(run.path, 1, job="9", hours=0.1, experiment="csp-fast", gpus=1)
    assert again is not None
    job = read(run.path, 1).job
    rows = [f"{job}|PREEMPTED|1800|cpu=2,gres/gpu=1|n1", f"{job}|FAILED|900|cpu=2,gres/gpu=1|n1"]
    slurm.answer("sacct", "\n".join([*rows, "9|COMPLETED|900|cpu=2,gres/gpu=1|n1"]))
    found = {record["experiment"]: record for record in json.loads(ablate("cost", "--json").stdout)}
    assert set(found) == set(NAMES)
    mine = found["csp-fast"]
    assert (mine["runs"], mine["done"], mine["estimated"], mine["trained"]) == (1, 1, 0.5, 0.5)
    assert mine["booked"] == pytest.approx(1.0)
    assert mine["ratio"] == pytest.approx(2.0)
    assert (found["csp-fast.add-fa"]["booked"], found["csp-fast.add-fa"]["ratio"]) == (0.0, None)
    lines = ablate("cost").stdout.splitlines()
    assert lines[1].split() == ["csp-fast", "1", "1", "0.50", "0.50", "1.00", "2.00"]
    assert lines[-1].startswith("in all")


def test_cost_without_accounting_shows_estimates_alone(
    ablate: Ablate, slurm: FakeSlurm, launched: Path
) -> None:
    slurm.answer("sacct", error="Slurm accounting storage is disabled", code=1)
    result = ablate("cost")
    assert result.exit_code == 0
    assert "sacct does not answer" in result.stderr
    assert {record["booked"] for record in json.loads(ablate("cost", "--json").stdout)} == {None}


def test_cost_of_nothing_is_said(ablate: Ablate) -> None:
    assert "no submitted runs" in ablate("cost").stdout
    assert json.loads(ablate("cost", "--json").stdout) == []


def test_cost_counts_all_processes_of_runs_without_gpus(
    ablate: Ablate, slurm: FakeSlurm, profile: str, results: Path
) -> None:
    slurm.accept(7)
    Path(profile).write_text("gpus = 0\nprocesses = 4\ncpus = 1\n")
    assert ablate("launch", "csp-fast", "--profile", "smoke", "--cluster", profile).exit_code == 0
    run_of(results, "csp-fast").write_state("preempted", seconds=3600.0)
    slurm.answer("sacct", "7|PREEMPTED|3600|cpu=4,node=1|n1")
    (record,) = json.loads(ablate("cost", "--json").stdout)
    assert record["trained"] == pytest.approx(4.0)
    assert record["booked"] == pytest.approx(4.0)


def test_cluster_profiles_are_listed_and_shown(profile: str) -> None:
    listed = CliRunner().invoke(main, ["cluster", "list"])
    assert "example" in listed.stdout and "testbed.toml" in listed.stdout
    assert {"example", "testbed"} <= set(
        json.loads(CliRunner().invoke(main, ["cluster", "list", "--json"]).stdout)
    )
    shown = json.loads(CliRunner().invoke(main, ["cluster", "show", profile]).stdout)
    assert (shown["setup"], shown["time"], shown["retries"]) == (["module load cuda"], "10:00:00", 2)
    wrong = CliRunner().invoke(main, ["cluster", "show", "exampel"])
    assert wrong.exit_code == 2 and "unknown cluster" in wrong.stderr


def test_a_check_where_there_is_no_slurm_says_what_is_missing(
    ablate: Ablate, slurm: FakeSlurm, profile: str, results: Path
) -> None:
    slurm.remove("sbatch", "scancel")
    result = ablate("cluster", "check", profile, "--json")
    assert result.exit_code == 1
    (finding,) = json.loads(result.stdout)
    assert finding["level"] == "problem"
    assert "sbatch" in finding["words"] and "scancel" in finding["words"] and "srun" not in finding["words"]
    assert not results.exists()


def test_a_check_that_is_refused_says_why(ablate: Ablate, slurm: FakeSlurm, profile: str) -> None:
    slurm.answer("sinfo", "main|infinite|gpu:4|8|32000|up|2")
    slurm.answer("sbatch", "slurm 23.11", to="--version")
    slurm.answer("sbatch", error="sbatch: error: Invalid account", code=1)
    result = ablate("cluster", "check", profile)
    assert result.exit_code == 1
    assert "PROBLEM  submission" in result.stdout and "`account`" in result.stdout


def test_a_check_sends_a_tiny_job_and_remembers_what_it_saw(
    ablate: Ablate, slurm: FakeSlurm, profile: str, results: Path
) -> None:
    scripts = slurm.accept(7)
    slurm.answer("sbatch", "slurm 23.11", to="--version")
    slurm.answer("sinfo", "main|infinite|gpu:4|8|32000|up|2")
    seen = {"host": "n1", "python": "3.11", "torch": "2", "cuda": "12", "gpus": 1, "gpu": "H100", "sum": 8.0}
    answer = results / "clusters" / ".probe-7.json"
    code = '$(set -- "$results"/code/*; printf "%s" "$1")'
    content = json.dumps({**seen, "given": "0", "code": "CODE"}).replace('"', '\\"').replace("CODE", code)
    slurm.shell("squeue", f'results="{results}"\nprintf "%s" "{content}" > "{answer}"\nexit 0')
    result = ablate("cluster", "check", profile)
    assert result.exit_code == 0, result.output
    assert "1 x H100" in result.stdout
    script = (scripts / "7.sh").read_text()
    assert "#SBATCH --time=4" in script  # two minutes to save in, and two to look around
    assert (read_json(results / "clusters" / "mine.json") or {})["shared"] is True
    assert list((results / "launches").iterdir()) == []
    assert not answer.exists()


def test_a_launch_on_this_machine_leaves_what_the_cluster_has(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, results: Path
) -> None:
    slurm.answer(
        "squeue", "7_0|PENDING||0:00|Resources\n7_1|PENDING||0:00|Resources\n7_2|RUNNING|n1|0:05|None\n"
    )
    result = ablate("launch", *NAMES, "--profile", "smoke")
    assert result.exit_code == 1
    assert "3 runs: 0 done, 0 to run" in result.stdout
    assert result.stderr.count("is on a cluster: queued") == 2 and "is on a cluster: running" in result.stderr
    slurm.answer("squeue", error="squeue: error: no answer", code=1)
    slurm.answer("sacct", error="sacct: error: no answer", code=1)
    assert "may be on a cluster" in ablate("launch", NAMES[0], "--profile", "smoke").stderr


@pytest.mark.slow
def test_a_thousand_runs_are_planned_as_arrays_of_what_the_cluster_allows(
    ablate: Ablate, slurm: FakeSlurm, profile: str
) -> None:
    words = (
        "launch",
        "--all",
        "--seeds",
        "53",
        "--profile",
        "paper",
        "--cluster",
        profile,
        "--dry-run",
        "--force",
    )
    result = ablate(*words, "--json", "--data", "shapes")
    planned = records_of(result)
    assert len(planned) == len(set(planned)) == 19 * 53
    text = ablate(*words, "--data", "shapes").stdout
    # 53 fine-tuned runs are jobs of their own; 954 others fit into one array of up to 1,001.
    assert "# 954 runs in 1 job" in text and "# 53 runs in 53 jobs or arrays" in text


def records_of(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [run["run"] for run in json.loads(result.stdout)["runs"]]
