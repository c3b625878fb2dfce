"""Planning from pilot runs: seeds for an effect, an effect for a budget."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from scipy import stats

from ablations.cli import main
from ablations.registry import table_named
from analysis.runs import load_runs
from analysis.statistics.seeds import power
from analysis.tables.fill import FilledTable, fill_table
from analysis.tables.seeds_needed import for_budget, for_effect, hours_to_come, seed_hours

Fabricate = Callable[..., str]
GAINS = {"csp-fast.add-fa": [0.010, 0.013, 0.008]}
HOUR = 9.5 / 3600  # what the fabricated runs took


def pilot(results: Path, fabricate: Fabricate) -> FilledTable:
    for seed in range(3):
        fabricate("csp-fast", seed, 0.4 + 0.01 * seed)
        for slug, gain in GAINS.items():
            fabricate(slug, seed, 0.4 + 0.01 * seed + gain[seed])
    return fill_table(table_named("1"), "mini", load_runs(results))


def test_the_plan_has_the_promised_power_and_one_seed_less_has_not(
    tmp_path: Path, fabricate: Fabricate
) -> None:
    filled = pilot(tmp_path, fabricate)
    (plan,) = for_effect(filled, 0.2)
    spread = statistics.stdev(100 * gain for gain in GAINS["csp-fast.add-fa"])
    assert (plan.pairs, plan.spread) == (3, pytest.approx(spread))
    assert plan.sigma == pytest.approx(spread * math.sqrt(2 / stats.chi2.ppf(0.2, 2)))
    assert plan.seeds is not None and plan.sigma is not None
    assert power(plan.seeds, 0.2, plan.sigma) >= 0.8 > power(plan.seeds - 1, 0.2, plan.sigma)
    assert plan.hours == pytest.approx(2 * HOUR)
    assert hours_to_come(filled, [plan]) == pytest.approx(2 * HOUR * (plan.seeds - 3))


def test_a_budget_buys_whole_seeds_of_the_whole_table(tmp_path: Path, fabricate: Fabricate) -> None:
    filled = pilot(tmp_path, fabricate)
    assert seed_hours(filled) == pytest.approx(2 * HOUR)
    (plan,) = for_budget(filled, 10.9 * 2 * HOUR)
    assert plan.seeds == 13 and plan.effect is not None and plan.sigma is not None
    assert power(13, plan.effect, plan.sigma) == pytest.approx(0.8, abs=1e-6)


def test_a_family_is_planned_for_the_worst_case_of_its_correction(
    tmp_path: Path, fabricate: Fabricate
) -> None:
    pilot(tmp_path, fabricate)
    for seed in range(3):
        for number, slug in enumerate(("csp-fast.mul-fa", "csp-fast.cat-fa")):
            fabricate(slug, seed, 0.4 + 0.01 * seed + [0.002, 0.004, -0.001][seed] * (1 + number))
    runs = load_runs(tmp_path)
    filled = fill_table(table_named("4"), "mini", runs)
    plans = {plan.experiment: plan for plan in for_effect(filled, 0.2)}
    planned = [plan for plan in plans.values() if plan.seeds is not None]
    assert len(planned) == 3 and len(plans) > 3
    for plan in planned:
        assert plan.seeds is not None and plan.sigma is not None
        assert power(plan.seeds, 0.2, plan.sigma, 0.05 / len(plans)) >= 0.8
    missing = [plan for plan in plans.values() if plan.seeds is None]
    assert all("pilot pairs; at least 2" in (plan.problem or "") for plan in missing)


def call(results: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["plan", *words, "--results", str(results)])


def test_the_command_prints_rows_and_hours(tmp_path: Path, fabricate: Fabricate) -> None:
    pilot(tmp_path, fabricate)
    result = call(tmp_path, "1", "--effect", "0.2")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1].startswith("+ iFA")
    assert "hours of one GPU (or one process, without GPUs) to come" in result.stdout
    record = json.loads(call(tmp_path, "table1", "--budget", "1", "--json").stdout)["rows"][0]
    assert record["seeds"] == 3 + int(1 / (2 * HOUR))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("1",), "say --effect or --budget"),
        (("1", "--effect", "0.2", "--budget", "1"), "say --effect or --budget"),
        (("1", "--effect", "0"), "--effect is 0.0"),
        (("1", "--effect", "-1"), "--effect is -1.0"),
        (("1", "--budget", "nan"), "--budget is nan"),
        (("1", "--budget", "inf"), "--budget is inf"),
        (("1", "--effect", "inf"), "--effect is inf"),
        (("1", "--effect", "0.2", "--power", "1"), "--power 1.0"),
        (("nope", "--effect", "0.2"), "nope"),
    ],
)
def test_what_cannot_be_planned_is_said(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    result = call(tmp_path, *words)
    assert result.exit_code == 2 and said in result.stderr


def test_without_pilot_runs_there_is_no_plan(tmp_path: Path) -> None:
    result = call(tmp_path, "1", "--effect", "0.2")
    assert result.exit_code == 0
    assert "0 pilot pairs; at least 2 are needed" in result.stdout


def test_a_pilot_without_scatter_has_no_plan(tmp_path: Path, fabricate: Fabricate) -> None:
    for seed in range(3):
        fabricate("csp-fast", seed, 0.0)
        fabricate("csp-fast.add-fa", seed, 0.0)
    for words in (("--effect", "0.2"), ("--budget", "1")):
        shown = call(tmp_path, "1", *words).stdout
        assert "the pilot's differences are all equal" in shown


def test_runs_with_other_settings_neither_count_nor_pay(tmp_path: Path, fabricate: Fabricate) -> None:
    filled = pilot(tmp_path, fabricate)
    before = hours_to_come(filled, for_effect(filled, 0.2))
    for seed in range(20):
        for slug in ("csp-fast", "csp-fast.add-fa"):
            fabricate(slug, seed, 0.4, overrides=("train.batch=16",))
    after = fill_table(table_named("1"), "mini", load_runs(tmp_path))
    assert hours_to_come(after, for_effect(after, 0.2)) == before
