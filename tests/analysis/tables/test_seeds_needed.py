"""From pilot runs to a study: seeds for an effect, an effect for a budget."""

from __future__ import annotations

import json
import math
import shutil
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
from tests.analysis.conftest import write_run

GAINS = {
    "csp-fast.add-fa": [0.010, 0.013, 0.008],
    "csp-fast.mul-fa": [0.002, 0.004, -0.001],
    "csp-fast.cat-fa": [0.004, 0.008, -0.002],
}
HOUR = 9.5 / 3600  # what the fabricated runs took


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of the baseline of Tables 1 and 4 and of three variants; one of them is in Table 1."""
    results = tmp_path_factory.mktemp("pilot")
    for seed in range(3):
        write_run(results, "csp-fast", seed, 0.4 + 0.01 * seed)
        for slug, gain in GAINS.items():
            write_run(results, slug, seed, 0.4 + 0.01 * seed + gain[seed])
    return results


def filled(results: Path, name: str = "1") -> FilledTable:
    return fill_table(table_named(name), "mini", load_runs(results))


def call(results: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["plan", *words, "--results", str(results)])


def test_the_seeds_have_the_promised_power_and_one_less_has_not(pilot: Path) -> None:
    table = filled(pilot)
    (needs,) = for_effect(table, 0.2)
    spread = statistics.stdev(100 * gain for gain in GAINS["csp-fast.add-fa"])
    assert (needs.pairs, needs.spread) == (3, pytest.approx(spread))
    assert needs.sigma == pytest.approx(spread * math.sqrt(2 / stats.chi2.ppf(0.2, 2)))
    assert needs.seeds is not None and needs.sigma is not None
    assert power(needs.seeds, 0.2, needs.sigma) >= 0.8 > power(needs.seeds - 1, 0.2, needs.sigma)
    assert needs.hours == pytest.approx(2 * HOUR)
    assert hours_to_come(table, [needs]) == pytest.approx(2 * HOUR * (needs.seeds - 3))


def test_a_budget_buys_whole_seeds_of_the_whole_table(pilot: Path) -> None:
    table = filled(pilot)
    assert seed_hours(table) == pytest.approx(2 * HOUR)
    (needs,) = for_budget(table, 10.9 * 2 * HOUR)
    assert needs.seeds == 13 and needs.effect is not None and needs.sigma is not None
    assert power(13, needs.effect, needs.sigma) == pytest.approx(0.8, abs=1e-6)


def test_a_family_is_planned_for_the_worst_case_of_its_correction(pilot: Path) -> None:
    rows = for_effect(filled(pilot, "4"), 0.2)
    known = [row for row in rows if row.seeds is not None]
    assert len(known) == 3 and len(rows) > 3
    for row in known:
        assert row.seeds is not None and row.sigma is not None
        assert power(row.seeds, 0.2, row.sigma, 0.05 / len(rows)) >= 0.8
    missing = [row for row in rows if row.seeds is None]
    assert all("0 pilot pairs; at least 2" in (row.problem or "") for row in missing)


def test_the_command_prints_rows_and_hours(pilot: Path) -> None:
    result = call(pilot, "1", "--effect", "0.2")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1].startswith("+ iFA")
    assert "hours of one GPU (or one process, without GPUs) to come" in result.stdout
    record = json.loads(call(pilot, "table1", "--budget", "1", "--json").stdout)["rows"][0]
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


def test_a_pilot_without_scatter_or_runs_says_so(tmp_path: Path, fabricate: Callable[..., str]) -> None:
    empty = call(tmp_path, "1", "--effect", "0.2")
    assert empty.exit_code == 0 and "0 pilot pairs; at least 2 are needed" in empty.stdout
    for seed in range(3):
        fabricate("csp-fast", seed, 0.0)
        fabricate("csp-fast.add-fa", seed, 0.0)
    for words in (("--effect", "0.2"), ("--budget", "1")):
        assert "the pilot's differences are all equal" in call(tmp_path, "1", *words).stdout


def test_runs_with_other_settings_neither_count_nor_pay(tmp_path: Path, pilot: Path) -> None:
    shutil.copytree(pilot, tmp_path, dirs_exist_ok=True)
    for seed in range(20):
        for slug in ("csp-fast", "csp-fast.add-fa"):
            write_run(tmp_path, slug, seed, 0.4, overrides=("train.batch=16",))
    before, after = filled(pilot), filled(tmp_path)
    expected = hours_to_come(before, for_effect(before, 0.2))
    assert hours_to_come(after, for_effect(after, 0.2)) == expected
