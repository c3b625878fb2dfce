"""`ablate plan`: seeds and hours from a pilot, against the rules themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ablations.cli import main
from ablations.registry import select
from analysis.runs import load_runs
from analysis.statistics.blocks import fit
from analysis.statistics.stopping import Scatter, half_width, seeds_for_effect, seeds_for_half_width
from tests.analysis.conftest import write_run

ARMS = ("csp-fast", "csp-fast.add-fa", "csp-fast.add-pr")
HOURS = 3 * 9.5 / 3600  # of one seed of the three, as `write_run` has them
PILOT = np.random.default_rng(4).normal(40, 0.5, (3, 4)).round(3)


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("pilot")
    for arm, scores in zip(ARMS, PILOT, strict=True):
        for seed, score in enumerate(scores):
            write_run(results, arm, seed, float(score) / 100)
    return results


def call(results: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["plan", *words, "--results", str(results)])


def plan(results: Path, *words: str) -> dict[str, Any]:
    return dict(json.loads(call(results, "1", "2", *words, "--json").stdout))


def test_a_plan_has_the_seeds_of_the_rules_and_the_hours_of_the_pilot(pilot: Path) -> None:
    found = fit(PILOT)
    scatter = Scatter(found.variance, found.freedom)
    low, high = scatter.bounds()
    of = plan(pilot, "--precision", "0.3")
    assert (of["comparisons"], of["arms"], of["runs"], of["unit"]) == (2, 3, 12, "core-hours")
    assert of["scatter"]["sigma"] == pytest.approx(scatter.sigma, rel=1e-6)
    (row,) = of["half_widths"]
    assert [row[k] for k in ("seeds", "seeds_low", "seeds_high")] == [
        seeds_for_half_width(0.3, sigma, 3) for sigma in (scatter.sigma, low, high)
    ]
    assert row["hours"] == pytest.approx(row["seeds"] * HOURS, abs=1e-3)
    assert [(o["profile"], o["scatter_assumed"], o["unit"]) for o in of["elsewhere"]] == [
        ("proxy", True, "GPU hours"),
        ("paper", True, "GPU hours"),
    ]
    assert [r["half_width"] for r in of["elsewhere"][0]["half_widths"]] == [0.3, 0.2]
    of = plan(pilot, "--effect", "0.5", "--budget", "1")
    assert of["effect"]["seeds"] == seeds_for_effect(0.5, scatter.sigma, 3)
    assert of["budget"]["seeds"] == int(1 / HOURS)
    assert of["budget"]["half_width"] == pytest.approx(half_width(scatter.sigma, 3, int(1 / HOURS)), rel=1e-6)
    text = call(pilot, "1", "2", "--until-verdict").stdout
    assert "looks at 5, 10, 15, 20 seeds" in text and "6 degrees of freedom of 3 arms" in text


def test_a_run_that_shares_no_seed_does_not_hide_the_scatter_of_the_others(tmp_path: Path) -> None:
    for arm, scores in zip(ARMS[:2], PILOT[:2], strict=True):
        for seed, score in enumerate(scores):
            write_run(tmp_path, arm, seed, float(score) / 100)
    before = plan(tmp_path, "--effect", "1")["scatter"]
    write_run(tmp_path, "csp-fast.mul-pr", 9, 0.4)
    assert plan(tmp_path, "--effect", "1")["scatter"] == before and before is not None


def test_core_hours_count_every_thread(pilot: Path) -> None:
    one, four = (
        json.loads(call(pilot, "1", "--effect", "1", *words, "--json").stdout)
        for words in ((), ("--set", "execution.threads=4"))
    )
    assert one["runs"] == four["runs"] == 8
    assert four["hours_so_far"] == pytest.approx(4 * one["hours_so_far"])


def test_a_seed_costs_what_its_rows_continue_too() -> None:
    """Two rows of `controls` continue runs that are rows of Table 8."""
    published = Path(__file__).parents[3] / "results" / "published" / "mini"
    found = json.loads(call(published, "controls", "--effect", "1", "--json").stdout)
    seconds = load_runs(published).groupby("experiment")["seconds"].mean()
    csp = [e.slug for e in select(["controls"]).experiments if e.continues is None]
    assert len(csp) == 7
    assert found["hours_of_a_seed"] > seconds[[*csp, "p6-light", "p6-light.add-fa.mul-pr"]].sum() / 3600


def test_a_pilot_that_knows_no_scatter_says_so(tmp_path: Path) -> None:
    write_run(tmp_path, "csp-fast", 0), write_run(tmp_path, "csp-fast.add-fa", 0)
    assert (
        "two finished seeds of two rows at least are needed" in call(tmp_path, "1", "--until-verdict").stdout
    )
    write_run(tmp_path, "csp-fast", 1), write_run(tmp_path, "csp-fast.add-fa", 1)
    assert "all residuals are 0" in call(tmp_path, "1", "--effect", "1").stdout


def test_a_budget_that_buys_no_interval_is_refused_with_the_smallest_that_does(pilot: Path) -> None:
    refused = call(pilot, "1", "2", "--budget", "1e-9")
    assert refused.exit_code == 2 and "buys 0 seeds of all arms" in refused.stderr
    (smallest,) = re.findall(r"need --budget (\S+) \(core-hours\)", refused.stderr)
    assert 2 * HOURS <= float(smallest) < 2.02 * HOURS
    assert plan(pilot, "1", "2", "--budget", smallest)["budget"]["seeds"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("1", "--effect", "0"), "--effect is 0; AP points"),
        (("1", "--precision", "inf"), "--precision is inf"),
        (("1", "--budget", "nan"), "--budget is nan"),
        (("1", "--effect", "0.2", "--power", "1"), "--power is 1; a number between"),
        (("1", "--effect", "0.2", "--power", "0.05"), "--power is 0.05; a number between 0.05 and 1"),
        (("1", "--power", "0.9"), "--power goes with --effect"),
        (("1", "--precision", "0.3", "--most", "40"), "--most goes with --until-verdict"),
        (("1", "--effect", "1", "--margin", "1"), "--margin goes with --until-verdict"),
        (("1", "--budget", "9", "--batch", "2"), "--batch goes with --until-verdict"),
        (("csp-fast", "--effect", "1"), "nothing here is compared in AP"),
        (("nope", "--effect", "0.2"), "nope"),
    ],
)
def test_what_cannot_be_planned_is_said(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    result = call(tmp_path, *words)
    assert result.exit_code == 2 and said in result.stderr


def test_a_file_of_tables_runs_once(pilot: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from ablations.tables.table1 import TABLE\n"
        "TABLE = replace(TABLE, name='mine')\n"
        f"with open({str(tmp_path / 'ran')!r}, 'a') as file:\n    file.write('.')\n"
    )
    result = call(pilot, str(file))
    assert result.exit_code == 0 and "at proxy and paper" in result.stdout
    assert (tmp_path / "ran").read_text() == "."
