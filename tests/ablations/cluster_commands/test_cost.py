"""`ablate cost`: estimates beside what the cluster has booked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slurm.tokens import claim, read
from tests.ablations.cluster_commands.submitted import NAMES, Ablate, run_of
from tests.ablations.fake_training import leave_results
from tests.slurm.fake_slurm import FakeSlurm


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


def test_runs_that_share_a_gpu_share_its_hours(
    ablate: Ablate, slurm: FakeSlurm, shared: str, results: Path
) -> None:
    assert "3 runs in 1 job, up to 3 on each GPU (runs_per_gpu); they share its hours" in shared
    run = run_of(results, "csp-fast")
    leave_results(run)
    run.write_state("done", seconds=5400.0)
    slurm.answer("sacct", "7|COMPLETED|7200|cpu=8,gres/gpu=1|n1")
    found = {record["experiment"]: record for record in json.loads(ablate("cost", "--json").stdout)}
    assert found["csp-fast"]["trained"] == pytest.approx(0.5)
    assert [found[name]["booked"] for name in NAMES] == pytest.approx([2 / 3] * 3)


def test_cost_without_accounting_shows_estimates_alone(
    ablate: Ablate, slurm: FakeSlurm, launched: Path
) -> None:
    slurm.answer("sacct", error="Slurm accounting storage is disabled", code=1)
    result = ablate("cost")
    assert result.exit_code == 0
    assert "sacct does not answer" in result.stderr
    assert {record["booked"] for record in json.loads(ablate("cost", "--json").stdout)} == {None}


def test_cost_of_nothing_is_said(ablate: Ablate, results: Path) -> None:
    missing = ablate("cost")
    assert missing.exit_code == 2 and str(results) in missing.stderr
    results.mkdir()
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
