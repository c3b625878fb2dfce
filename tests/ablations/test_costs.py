"""Parameters and MFLOPs to the last digit, what a table says a row costs, GPU hours of runs to come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ablations.costs import PUBLISHED, Estimator, count_images, local_estimates, model_cost
from ablations.launch_report import local_time
from ablations.plan import plan_runs
from ablations.planned import PlannedRun
from ablations.registry import paper, table_named
from ablations.table import Row, Table
from slurm.tokens import claim
from tests.ablations.fake_training import leave_results
from yolor_core.config import CocoConfig, ShapesConfig
from yolor_core.identity import signature
from yolor_core.models import count
from yolor_core.runs.directory import RunDirectory

COUNTABLE = [(t, r) for t in paper().tables for r in t.rows if r.extra_parameters is not None]


@pytest.mark.parametrize("row", table_named("7").rows, ids=lambda row: row.label)
def test_table_7_is_equal_to_the_paper_to_the_last_digit(row: Row) -> None:
    cost, printed = model_cost(row.experiment), table_named("7").paper()[row.label]
    assert cost.parameters == printed["parameters"]
    assert cost.mflops == printed["MFLOPs"]


def test_counting_every_level_differs_for_the_four_level_model_alone() -> None:
    costs = [model_cost(row.experiment) for row in table_named("7").rows]
    extra = [round(cost.mflops_all_levels - cost.mflops, 4) for cost in costs]
    assert extra == [0, 0, 0, round(255 * 20 * 20 / 1e6, 4)]  # P6 of 1280 pixels is 20 x 20 cells


@pytest.mark.parametrize(("table", "row"), COUNTABLE, ids=[f"{t.name}-{r.label}" for t, r in COUNTABLE])
def test_stated_extra_parameters_are_those_of_the_model(table: Table, row: Row) -> None:
    base = table.baseline(row)
    extra = model_cost(row.experiment).parameters - model_cost(base.experiment).parameters
    assert row.extra_parameters == extra


def planned(results: Path, experiment: str, seed: int = 0, profile: str = "smoke") -> PlannedRun:
    runs = plan_runs([experiment], profile, [seed], results=results)
    return next(run for run in runs if run.config.experiment == experiment)


def finish(run: PlannedRun, seconds: float, **more: Any) -> None:
    """Leave a run as if it had taken so long, on `ranks` devices."""
    directory = RunDirectory(run.run_dir)
    leave_results(directory)
    directory.write_state("done", seconds=seconds)
    record = {
        "signature": signature(run.config.science),
        "config": run.config.model_dump(mode="json"),
        **more,
    }
    directory.run.write_text(json.dumps(record))


def test_without_finished_runs_flops_and_the_profiles_speed_decide(tmp_path: Path) -> None:
    run = planned(tmp_path, "csp-fast")
    science, data = run.config.science, run.config.data
    assert isinstance(data, ShapesConfig)
    forward = 1e6 * count(science.model, science.train.size, 80).mflops
    images = data.train_images // science.train.keep_one_in
    expected = 3 * forward * images * science.train.epochs / 2e12  # forward, and twice as much backward
    estimate = Estimator(tmp_path, 2.0)(run)
    assert not estimate.measured
    assert estimate.seconds == pytest.approx(expected)
    assert estimate.hours == pytest.approx(expected / 3600)
    assert estimate.epoch * science.train.epochs == pytest.approx(estimate.seconds)
    assert Estimator(tmp_path, 4.0)(run).seconds == pytest.approx(expected / 2)


def test_finished_seeds_of_an_experiment_tell_what_the_next_takes(tmp_path: Path) -> None:
    finish(planned(tmp_path, "csp-fast", 0), 100.0, ranks=1)
    finish(planned(tmp_path, "csp-fast", 1), 50.0, ranks=4)  # four devices: as much as 200 of one
    shared = planned(tmp_path, "csp-fast", 3)
    finish(shared, 600.0)  # a quarter of a device: as much as 150
    claim(shared.run_dir, 0, job="7", place=1, pack=4)
    estimate = Estimator(tmp_path, 1.0)(planned(tmp_path, "csp-fast", 2))
    assert estimate.measured
    assert estimate.seconds == pytest.approx(150.0)


def test_other_experiments_of_a_profile_tell_the_speed(tmp_path: Path) -> None:
    known, asked = planned(tmp_path, "csp-fast"), planned(tmp_path, "p6-light")
    finish(known, 100.0)
    estimator, guess = Estimator(tmp_path, 1.0), Estimator(tmp_path / "none", 1.0)
    ratio = guess(asked).seconds / guess(known).seconds
    assert ratio != pytest.approx(1.0)
    assert estimator(asked).measured
    assert estimator(asked).seconds == pytest.approx(100.0 * ratio)


def test_runs_of_another_profile_do_not_count(tmp_path: Path) -> None:
    finish(planned(tmp_path, "csp-fast"), 100.0)
    assert not Estimator(tmp_path, 1.0)(planned(tmp_path, "csp-fast", profile="mini")).measured


def test_a_run_that_continues_another_takes_its_own_phases_only(tmp_path: Path) -> None:
    name = "p6-light.add-fa.mul-pr.finetuned"
    run = planned(tmp_path, name)
    assert run.after is not None
    phases = run.config.science.train.phases
    estimate = Estimator(tmp_path, 1.0)(run)
    assert estimate.seconds / estimate.epoch == pytest.approx(sum(phase.epochs for phase in phases[1:]))


def test_finished_runs_that_continue_another_are_no_measure(tmp_path: Path) -> None:
    """Their seconds are those of the other one too."""
    name = "p6-light.add-fa.mul-pr.finetuned"
    finish(planned(tmp_path, name, 0), 100.0, continues="p6-light.add-fa.mul-pr-smoke-s0-0123456789")
    assert not Estimator(tmp_path, 1.0)(planned(tmp_path, name, 1)).measured


@pytest.mark.parametrize("content", ["{", "[1]", "{}", '{"config": {"science": 1}}'])
def test_damaged_and_foreign_runs_are_passed_over(tmp_path: Path, content: str) -> None:
    other = planned(tmp_path, "csp-fast.add-fa")
    finish(other, 100.0)
    RunDirectory(other.run_dir).run.write_text(content)
    assert not Estimator(tmp_path, 1.0)(planned(tmp_path, "csp-fast")).measured


def test_unfinished_runs_do_not_count(tmp_path: Path) -> None:
    other = planned(tmp_path, "csp-fast", 1)
    finish(other, 100.0)
    RunDirectory(other.run_dir).write_state("running", seconds=50.0)
    assert not Estimator(tmp_path, 1.0)(planned(tmp_path, "csp-fast")).measured


def test_images_are_counted_by_their_files(tmp_path: Path) -> None:
    for split, number in (("train", 5), ("val", 2)):
        (tmp_path / "images" / split).mkdir(parents=True)
        for k in range(number):
            (tmp_path / "images" / split / f"{k}.jpg").write_bytes(b"")
    assert count_images(CocoConfig(root=str(tmp_path), train="train", val="val")) == (5, 2)
    assert count_images(ShapesConfig(train_images=7, val_images=3)) == (7, 3)


def test_images_of_packs_alone_are_taken_for_cocos(tmp_path: Path) -> None:
    data = CocoConfig(root=str(tmp_path / "none"), train="train2017", val="val2017")
    assert count_images(data) == (118_287, 5_000)


def test_time_here_is_that_of_finished_runs_else_of_the_published_study(tmp_path: Path) -> None:
    runs = [planned(tmp_path, name, profile="mini") for name in ("csp-fast", "csp-fast.add-fa")]
    found, whose = local_estimates(runs, tmp_path)
    published = [
        json.loads((path / "state.json").read_text())["seconds"]
        for path in (PUBLISHED / "mini" / "runs").glob("csp-fast-mini-*")
    ]
    assert whose == "the published study" and len(published) > 1
    assert found[runs[0].run_id].seconds == pytest.approx(sum(published) / len(published))
    for run, seconds in zip(runs, (60.0, 90.0), strict=True):
        finish(planned(tmp_path, run.config.experiment, seed=1, profile="mini"), seconds)
    found, whose = local_estimates(runs, tmp_path)
    assert whose == "finished runs in this folder"
    assert [found[run.run_id].seconds for run in runs] == [60, 90]
    assert local_time(found, whose, 1) == "about 2 minutes, as fast as finished runs in this folder"
    first = {runs[0].run_id: found[runs[0].run_id]}
    assert local_time(first, whose, 2).startswith("about 60 s"), "one run takes its own time"
    assert local_estimates([planned(tmp_path, "csp-fast")], tmp_path / "none") == ({}, "")
    assert local_time({}, "", 1).startswith("time unknown")
