"""Seeds by a rule: what is trained, when it stops, what is written down; trainings have given scores."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ablations.cli import main
from ablations.planned import PlannedRun
from analysis import open_study
from analysis.runs import load_runs
from analysis.statistics.blocks import compare, outcome
from analysis.statistics.stopping import repeated
from slurm.tokens import current
from tests.ablations.cluster_commands.submitted import HERE, PROFILE
from tests.ablations.launched import ARMS, Launches, ap, leave
from tests.slurm.fake_slurm import FakeSlurm


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launches:
    return Launches(tmp_path / "results", monkeypatch)


def scores(seeds: int) -> np.ndarray:
    return np.array([[ap(slug, seed) for seed in range(seeds)] for slug in ARMS])


def widest(seeds: int) -> float:
    return max(each.interval.half_width or np.inf for each in compare(scores(seeds))[1:] if each)


def test_a_precision_is_reached_and_no_sooner(launch: Launches) -> None:
    result = launch("4", "--precision", "0.45", "--json")
    assert result.exit_code == 0, result.output
    seeds = set(launch.seeds().values())
    (n,) = seeds  # one design: all arms to the end
    assert n % 2 == 0 and (len(ARMS) - 1) * (n - 1) >= 25
    assert widest(n) <= 0.45 and (n == 6 or widest(n - 2) > 0.45)
    found = json.loads(result.stdout)
    assert found["ended"] == "every half-width is narrow enough"
    assert found["hours"] == pytest.approx(n * len(ARMS) / 60, abs=1e-3)
    assert [row["half_width"] <= 0.45 for row in found["rows"]] == [True] * 5


def test_stopping_waits_for_the_scatter_to_be_known(launch: Launches) -> None:
    """Three arms: 14 seeds, however narrow the intervals are before."""
    result = launch("csp-fast", "csp-fast.add-fa", "csp-fast.add-pr", "--precision", "50")
    assert result.exit_code == 0, result.output
    assert set(launch.seeds().values()) == {14}
    assert "stopping begins at 14 seeds" in result.stdout


def test_each_arm_stops_at_its_verdict_and_the_control_with_the_last(launch: Launches) -> None:
    result = launch("4", "--until-verdict", "--json")
    assert result.exit_code == 0, result.output
    rows = {row["arm"]: row for row in json.loads(result.stdout)["rows"]}
    seeds = launch.seeds()
    assert all(seeds[arm] == row["seeds"] for arm, row in rows.items())
    assert seeds["csp-fast"] == max(row["seeds"] for row in rows.values())
    assert len({row["seeds"] for row in rows.values()}) > 1 and rows[ARMS[1]]["word"] == "higher"
    # the first look, by the boundaries themselves
    first = repeated((5, 10, 15, 20))[0]
    words = [outcome(c.interval, 0.5, first.sign, first.small) for c in compare(scores(5))[1:] if c]
    at_first = {arm: word for arm, word in zip(ARMS[1:], words, strict=True) if word != "inconclusive"}
    assert at_first == {arm: row["word"] for arm, row in rows.items() if row["seeds"] == 5}
    assert launch.plan()["rule"] == {"looks": [5, 10, 15, 20], "precision": None, "margin": 0.5}


@pytest.mark.parametrize(
    ("rule", "after"), [(("--until-verdict",), 4), (("--until-verdict",), 40), (("--precision", "0.45"), 31)]
)
def test_an_interrupted_launch_goes_on_to_the_same_end(
    launch: Launches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: tuple[str, ...], after: int
) -> None:
    launch.interrupt_after = after
    assert launch("4", *rule).exit_code == 130
    launch.interrupt_after = None
    resumed = json.loads(launch("4", *rule, "--json").stdout)
    undisturbed = Launches(tmp_path / "another", monkeypatch)
    straight = json.loads(undisturbed("4", *rule, "--json").stdout)
    assert resumed["rows"] == straight["rows"] and launch.seeds() == undisturbed.seeds()
    assert launch.trained == undisturbed.trained
    before = launch.trained
    again = json.loads(launch("4", *rule, "--json").stdout)
    assert launch.trained == before and again["rows"] == straight["rows"]


def test_a_plan_is_written_before_the_first_run_and_does_not_change(launch: Launches) -> None:
    launch.interrupt_after = 0
    assert launch("4", "--until-verdict").exit_code == 130
    assert launch.plan()["rule"]["looks"] == [5, 10, 15, 20] and launch.trained == 0
    launch.interrupt_after = None
    for words in (
        ("4", "--until-verdict", "--most", "40"),
        ("4", "--until-verdict", "--margin", "0.3"),
        ("4", "controls", "--until-verdict"),
        ("1", "--precision", "1"),
    ):
        refused = launch(*words)
        assert refused.exit_code == 2 and launch.trained == 0
        assert "looks at 5, 10, 15, 20 seeds" in refused.stderr and "makes false verdicts" in refused.stderr
    assert "go on with --until-verdict --margin 0.5 --most 20 --batch 5 and the 5 comp" in refused.stderr


def test_a_plan_that_no_launch_has_written_is_refused(launch: Launches) -> None:
    assert launch("4", "--until-verdict", "--batch", "2", "--most", "4").exit_code == 0
    (path,) = (launch.results / "stopping").iterdir()
    good, trained = path.read_text(), launch.trained
    cases: tuple[tuple[Callable[[dict[str, Any]], object] | None, str], ...] = (
        (lambda plan: plan.clear(), "schema is None; allowed: 1"),
        (lambda plan: plan["rule"].update(margin=-3), "rule.margin is -3; allowed: AP points above 0"),
        (lambda plan: plan["rule"].update(precision="1"), "rule.precision is '1'; allowed: AP points"),
        (lambda plan: plan["rule"].update(looks=[5, 5]), "rule.looks is [5, 5]; allowed: rising"),
        (lambda plan: plan.update(taken=[4]), "taken is [4]; allowed: the looks [2, 4] from the first on"),
        (
            lambda plan: plan["decided"][0].update(word="better"),
            "decided[0].word is 'better'; allowed: higher;",
        ),
        (lambda plan: plan["decided"][0].update(arm="x"), "decided[0]: arm and control is ('x', 'csp-fast')"),
        (lambda plan: plan["decided"][0].update(low=None), "decided[0].low is None; allowed: a number"),
        (lambda plan: plan["comparisons"][0].pop("signatures"), "comparisons[0] is {'arm': 'csp-fast."),
        (None, ""),
    )
    for change, said in cases:
        plan = json.loads(good)
        if change is not None:
            change(plan)
        path.write_text(json.dumps(plan) if change else good[:-9])
        refused = launch("4", "--until-verdict", "--batch", "2", "--most", "4")
        assert refused.exit_code == 2 and launch.trained == trained
        assert f"{path} cannot be read: {said}" in refused.stderr
        assert "restore it from a copy, or launch with another --results" in refused.stderr
        assert "Remove" not in refused.stderr


def test_looks_are_not_planned_after_the_data(launch: Launches) -> None:
    assert launch("4", "--precision", "50").exit_code == 0
    for path in (launch.results / "stopping").iterdir():
        path.unlink()
    refused = launch("4", "--until-verdict")
    assert refused.exit_code == 2 and "of seeds from 5 on are there already" in refused.stderr
    assert launch("4", "--until-verdict", "--batch", "10").exit_code == 0


def test_a_precision_beyond_the_budget_is_refused_with_the_number(launch: Launches) -> None:
    assert launch("4", "--precision", "50").exit_code == 0  # a pilot of 6 seeds
    before = launch.trained
    refused = launch("4", "--precision", "0.2", "--budget", "1")  # 10 seeds of 6 minutes
    assert refused.exit_code == 2 and launch.trained == before
    assert "--budget 1 buys 10 seeds of 6 arms, which gives ± 0." in refused.stderr
    assert "± 0.2 takes" in refused.stderr and "core-hours" in refused.stderr
    refused = launch("4", "--precision", "0.01")
    assert refused.exit_code == 2 and "--most 100 buys 100 seeds" in refused.stderr


def test_a_spent_budget_ends_it(launch: Launches) -> None:
    result = launch("4", "--until-verdict", "--batch", "2", "--budget", "0.45")
    assert result.exit_code == 0, result.output
    said = r"the budget is spent: ([\d.]+) of 0.45 core-hours, the next runs need ([\d.]+)"
    ((spent, needed),) = re.findall(said, result.stdout)
    assert float(spent) == pytest.approx(sum(launch.seeds().values()) / 60, abs=0.005)
    assert float(spent) <= 0.45 < float(spent) + float(needed)


def test_lost_runs_do_not_keep_it_from_ending(launch: Launches) -> None:
    """One arm always fails, one at every fourth seed."""
    never, sometimes = ARMS[2], ARMS[4]
    launch.score = lambda slug, seed: (
        None if slug == never or (slug == sometimes and seed % 4 == 1) else ap(slug, seed)
    )
    for rule in (("--until-verdict",), ("--precision", "0.8")):
        launch.results = launch.results.with_name(rule[0])
        result = launch("4", *rule, "--json")
        assert result.exit_code == 1, result.output
        found = json.loads(result.stdout)
        rows = {row["arm"]: row for row in found["rows"]}
        assert rows[never]["word"] == "given up" and "too few runs finish" in found["ended"]
        assert rows[sometimes]["lost"] == sum(seed % 4 == 1 for seed in range(rows[sometimes]["seeds"]))
        assert rows[ARMS[1]]["word"] in ("higher", "narrow enough")
    launch.results, launch.score = launch.results.with_name("all"), lambda slug, seed: None
    result = launch("4", "--precision", "0.8")
    assert result.exit_code == 1 and "no run of the last batch has finished" in result.stdout


@pytest.mark.parametrize(("rule", "after"), [(("--until-verdict",), 31), (("--precision", "0.8"), 13)])
def test_a_lost_run_does_not_keep_an_interrupted_launch_from_its_end(
    launch: Launches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: tuple[str, ...], after: int
) -> None:
    def score(slug: str, seed: int) -> float | None:
        return None if (slug, seed) == (ARMS[0], 1) else ap(slug, seed)

    launch.score, launch.interrupt_after = score, after
    assert launch("4", *rule).exit_code == 130
    launch.interrupt_after = None
    resumed = [json.loads(launch("4", *rule, "--json").stdout) for _ in range(2)]
    undisturbed = Launches(tmp_path / "another", monkeypatch)
    undisturbed.score = score
    straight = json.loads(undisturbed("4", *rule, "--json").stdout)
    assert [(each["rows"], each["ended"]) for each in resumed] == [(straight["rows"], straight["ended"])] * 2


def test_a_run_that_was_lost_at_a_look_stays_lost(launch: Launches) -> None:
    """Were it trained again, the look would not come out again, and its rows would lose their verdicts."""
    launch.score = lambda slug, seed: None if (slug, seed) == (ARMS[0], 1) else ap(slug, seed)
    launch.interrupt_after = 31  # beyond the look at 5 seeds
    assert launch("4", "--until-verdict").exit_code == 130
    assert launch.plan()["taken"] == [5]
    launch.interrupt_after, launch.score = None, ap
    launch("4", "--until-verdict")
    controls = load_runs(launch.results).query("experiment == 'csp-fast'")
    assert controls.set_index("seed")["state"].to_dict() == dict.fromkeys(range(20), "done") | {1: "failed"}
    study = open_study(launch.results, "smoke", [4])
    verdicts = study.cells.query("metric == 'AP' and row != 'baseline'")["verdict"]
    assert len(verdicts) == 5 and verdicts.notna().all()


def test_arms_without_scatter_have_intervals_of_no_length(launch: Launches) -> None:
    launch.score = lambda slug, seed: 40.0 + 3 * (slug == ARMS[1])
    rows = json.loads(launch("4", "--until-verdict", "--json").stdout)["rows"]
    assert {row["arm"]: row["word"] for row in rows} == dict.fromkeys(ARMS[1:], "no effect") | {
        ARMS[1]: "higher"
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("4", "--precision", "0"), "--precision is 0"),
        (("4", "--precision", "nan"), "--precision is nan"),
        (("4", "--until-verdict", "--margin", "0"), "--margin is 0; AP points above 0, at most 100"),
        (("4", "--until-verdict", "--margin", "abc"), "--margin is abc; AP points above 0, at most 100"),
        (("4", "--precision", "x"), "--precision is x; AP points above 0, at most 100"),
        (("4", "--precision", "0.3", "--margin", "0.5"), "--margin goes with --until-verdict"),
        (("4", "--until-verdict", "--most", "1"), "--most is 1; at least 2 seeds are needed"),
        (("4", "--until-verdict", "--batch", "30"), "--batch is 30; seeds from 1 to --most, 20, are needed"),
        (("4", "--until-verdict", "--precision", "1"), "say --precision or --until-verdict"),
        (("4", "--precision", "1", "--seeds", "3"), "--seeds is for a fixed number"),
        (("4", "--precision", "1", "--budget", "-1"), "--budget is -1; a number of hours"),
        (("4", "--budget", "3"), "--budget goes with"),
        (("4", "--most", "3"), "--most goes with"),
        (("4", "--precision", "1", "--wait"), "--wait is for a cluster"),
        (("csp-fast.add-fa", "--precision", "1"), "name also what it is compared with: csp-fast\n"),
        (("9", "--precision", "1"), "so there is no interval to wait for; launch with --seeds\n"),
    ],
)
def test_what_makes_no_rule_is_said(launch: Launches, words: tuple[str, ...], said: str) -> None:
    result = launch(*words)
    assert result.exit_code == 2 and said in result.stderr
    assert launch.trained == 0 and not (launch.results / "stopping").exists()


def test_a_dry_run_writes_nothing(launch: Launches) -> None:
    result = launch("4", "--until-verdict", "--dry-run")
    assert result.exit_code == 0 and "5 comparisons of 6 arms until the verdict" in result.stdout
    assert not launch.results.exists()


def test_on_a_cluster_the_same_command_takes_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm, results, profile = FakeSlurm(tmp_path, monkeypatch), tmp_path / "results", tmp_path / "mine.toml"
    slurm.answer("scontrol", HERE, to="show node")
    slurm.answer("scontrol", "ClusterName = tiny\nMaxArraySize = 1001", to="show config")
    profile.write_text(PROFILE)
    words = ("launch", "4", "--until-verdict", "--batch", "3", "--most", "6", "--profile", "smoke")

    def call() -> Result:
        return CliRunner().invoke(main, [*words, "--cluster", str(profile), "--results", str(results)])

    slurm.accept(7)
    first = call()
    assert first.exit_code == 0, first.output
    assert "submitted 18 runs as job 7" in first.stdout
    assert json.loads(next((results / "stopping").iterdir()).read_text())["rule"]["looks"] == [3, 6]
    runs = planned(results, 3)
    jobs = [current(run.run_dir) for run in runs]
    slurm.answer("squeue", "\n".join(f"{job.job}|RUNNING|n1|0:05|n1" for job in jobs if job))
    waiting = call()
    assert "18 runs of the look at 3 seeds go on" in waiting.stdout and waiting.exit_code == 0
    for run in runs:  # one has failed, for good
        lost = run.config.experiment == ARMS[5] and run.config.seed == 1
        leave(run, None if lost else ap(run.config.experiment, run.config.seed))
    slurm.answer("squeue")
    second = call()
    assert second.exit_code == 0, second.output
    assert "look at 3 seeds: half-widths" in second.stdout and "lost, and left out" in second.stderr
    decided = json.loads(next((results / "stopping").iterdir()).read_text())["decided"]
    sent = len(slurm.calls("sbatch"))
    assert 0 < len(decided) < 5 and f"submitted {3 * (6 - len(decided))} runs as job 8" in second.stdout
    for run in planned(results, 6):
        if run.run_dir.exists() and not (run.run_dir / "run.json").exists():
            leave(run, ap(run.config.experiment, run.config.seed))
    last = call()
    assert "all its seeds" in last.stdout and len(slurm.calls("sbatch")) == sent


def planned(results: Path, seeds: int) -> list[PlannedRun]:
    from ablations.plan import plan_runs

    return plan_runs(["4"], "smoke", range(seeds), results=results)
