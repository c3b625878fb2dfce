"""`ablate launch --cluster`: what is sent, what is refused, and what is left alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ablations.cli import main
from slurm.files import read_json
from slurm.tokens import current
from tests.ablations.cluster_commands.submitted import NAMES, PROFILE, Ablate, job_of, run_of
from tests.ablations.fake_training import leave_results
from tests.slurm.fake_slurm import FakeSlurm


def without_time(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_a_dry_run_prints_scripts_and_touches_nothing(
    ablate: Ablate, slurm: FakeSlurm, profile: str, results: Path
) -> None:
    result = ablate("launch", *NAMES, "--profile", "smoke", "--cluster", profile, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "# 3 runs in 3 jobs" in result.stdout
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


def test_runs_that_share_a_gpu_are_counted_with_their_jobs(ablate: Ablate, profile: str) -> None:
    Path(profile).write_text(f"{PROFILE}runs_per_gpu = 2\n")
    words = ("launch", "csp-fast", "p6-light.add-fa.mul-pr.finetuned", "--seeds", "3", "--profile", "smoke")
    result = ablate(*words, "--cluster", profile, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "9 runs in 5 jobs, up to 2 on each GPU (runs_per_gpu); they share its hours" in result.stdout
    heads = [line for line in result.stdout.splitlines() if line.startswith("# ") and " in " in line]
    alone = "# 1 run in 1 job, each after the one it continues"
    assert heads == ["# 6 runs in 3 jobs", alone, "# 2 runs in 1 job, each after the one it continues"]
    assert re.search(r"^in all +9 +0 +0 +9 ", result.stdout, re.MULTILINE)
    first, second, third = result.stdout.split("#!/bin/bash")[1:]
    assert ["ntasks-per-node=2" in script for script in (first, second, third)] == [True, False, True]


def test_a_limit_is_held_against_the_runs_that_share_a_job_not_against_those_that_could(
    ablate: Ablate, profile: str
) -> None:
    # At that speed an epoch takes half an hour: two runs side by side have time for one, sixteen have not.
    Path(profile).write_text('runs_per_gpu = 16\ntime = "04:00:00"\ntflops = 0.087\n')
    words = ("--profile", "proxy", "--data", "shapes", "--cluster", profile, "--dry-run")
    result = ablate("launch", "8", *words)
    assert result.exit_code == 0, result.output
    refused = ablate("launch", "8", "--seeds", "16", *words)
    assert refused.exit_code != 0 and "is shorter than an epoch" in refused.stderr


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


def test_a_run_of_somebody_whose_jobs_the_cluster_hides_is_left_to_them(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, profile: str, results: Path
) -> None:
    theirs = current(run_of(results, "csp-fast").path)
    assert theirs is not None
    theirs.update(user="ann")
    run_of(results, "csp-fast").write_state("running", epoch=3)
    config = "ClusterName = tiny\nMaxArraySize = 1001\nPrivateData = jobs"
    slurm.answer("scontrol", config, to="show config")
    result = ablate("launch", *NAMES[:2], "--profile", "smoke", "--cluster", profile)
    assert result.exit_code == 1
    assert f"its job {theirs.job} is ann's" in without_time(result.stderr)
    assert (job_of(results, "csp-fast"), job_of(results, "csp-fast.add-fa")) == (theirs.job, "8")


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


def test_a_results_folder_in_a_variable_that_is_not_set_is_refused(
    slurm: FakeSlurm, profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.accept()
    for name in ("ABLATE_RESULTS", "TEAM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    Path(profile).write_text(f'{PROFILE}results = "$TEAM/results"\n')
    result = CliRunner().invoke(main, ["launch", "csp-fast", "--profile", "smoke", "--cluster", profile])
    assert result.exit_code == 2 and "'$TEAM/results': a variable of it is not set" in result.stderr
    assert not Path("$TEAM").exists()


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
    assert "# 954 runs in 954 jobs" in text and "# 53 runs in 53 jobs, each after" in text


def records_of(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [run["run"] for run in json.loads(result.stdout)["runs"]]
