"""What tables, summaries and published folders make of rows whose seeds were added by a rule."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ablations.cli import main
from analysis.published import publish as publishing
from analysis.published.manifest import PublishError, read_manifest, write_manifest
from analysis.published.summary import lacking, summary
from analysis.published.verify import check_looks, check_texts
from analysis.report.verdicts import headline, verdict_lines
from analysis.statistics.blocks import Comparison, compare, outcome
from analysis.statistics.stopping import repeated
from analysis.study import Study, no_costs, open_study
from analysis.tables.cells import Cell
from tests.ablations.launched import Launches, ap, leave

BASE, FA, PR = ARMS = ("csp-fast", "csp-fast.add-fa", "csp-fast.add-pr")
RULE = ("--until-verdict", "--batch", "3", "--most", "6", "--margin", "0.2")  # not the one of tables
EARLY, LAST = repeated((3, 6))
Change = Callable[[dict[str, Any]], object]


def launched(results: Path, *rule: str, arms: tuple[str, ...] = ARMS, stop: int | None = None) -> Path:
    """+ iFA, of +3 AP, stops at the first look; + iPR, of +0.4, has no verdict after the last."""
    with pytest.MonkeyPatch.context() as patch:
        launch = Launches(results, patch)
        launch.interrupt_after = stop
        assert launch(*arms, *rule).exit_code == (0 if stop is None else 130)
    return results


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return launched(tmp_path_factory.mktemp("launched") / "results", *RULE)


@pytest.fixture
def results(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(whole, tmp_path / "results")


@pytest.fixture(autouse=True)
def no_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "drawings", lambda study: [])
        yield


def study_of(results: Path, *tables: str, **further: Any) -> Study:
    return open_study(results, "smoke", tables or ("1", "2"), **further)


def row(study: Study, table: str) -> Cell:
    return study.filled[table].variants[0][0]


def tables(results: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["tables", *words, "--profile", "smoke", "--results", str(results)])


def plan(results: Path) -> Path:
    (path,) = (results / "stopping").iterdir()
    return path


def change(path: Path, edit: Change) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def by_hand(seeds: dict[str, int], look: int, level: float) -> list[Comparison | None]:
    """The comparisons at a look, from the scores themselves: each arm has its first so many seeds."""
    scores = [[ap(arm, seed) if seed < seeds[arm] else np.nan for seed in range(look)] for arm in ARMS]
    return compare(np.array(scores), 0, level)


def test_rows_have_the_repeated_interval_and_the_verdict_of_their_look(whole: Path) -> None:
    study = study_of(whole)
    decided = {each["arm"]: each for each in json.loads(plan(whole).read_text())["decided"]}
    assert (decided[FA]["seeds"], decided[PR]["seeds"]) == (3, 6)
    asked = {BASE: 6, FA: 3, PR: 6}
    for table, arm, look, place in (("1", FA, EARLY, 1), ("2", PR, LAST, 2)):
        cell, was = row(study, table), decided[arm]
        assert (cell.method, cell.verdict, cell.pairs) == ("repeated", was["word"], was["finished"])
        assert (cell.delta, cell.delta_low, cell.delta_high) == pytest.approx(
            (was["delta"], was["low"], was["high"])
        )
        again, plain = (by_hand(asked, look.seeds, level)[place] for level in (look.sign, 0.95))
        assert again is not None and plain is not None
        assert (cell.delta_low, cell.row_high) == pytest.approx((again.interval.low, again.row.high))
        assert (plain.interval.low or 0) - (cell.delta_low or 0) > 0.02
        assert (plain.interval.p or 0) < (cell.p or 0) and cell.all_low is None
        assert ((cell.p or 0) < 0.05) == (cell.verdict or "").startswith(("higher", "lower"))
        found = study.design.compare(arm, BASE)
        assert found is not None and (found.method, found.interval.low) == ("repeated", cell.delta_low)
    assert row(study, "1").verdict == "higher" and row(study, "2").verdict == "inconclusive"


def test_the_rule_is_said_once_and_every_row_says_how_it_stands(whole: Path) -> None:
    said = (
        "seeds were added until the verdict, margin ± 0.2 AP, looks at 3, 6 seeds, 6 at most, and interval, "
        "p and verdict are those of the look at which the row stopped, widened so that a word is false with "
        "at most 5 % over all looks."
    )
    text = tables(whole, "1", "2").stdout
    assert text.count(said) == 1 and "p, beyond 0.2 " in text and "p, beyond 0.5" not in text
    assert "+ iFA stopped at the look at 3 seeds." in text
    assert "+ iPR has no verdict after the look at 6 seeds." in text
    records = json.loads(tables(whole, "1", "--format", "json").stdout)
    assert [each["method"] for each in records if each["metric"] == "AP"] == [None, "repeated"]
    narrow = CliRunner().invoke(
        main, ["tables", "1", "--profile", "smoke", "--results", str(whole)], env={"COLUMNS": "70"}
    )
    assert "ᵛ: repeated, since the row stops at its verdict." in narrow.stdout
    study = study_of(whole)
    assert said in headline(study) and said in summary(study)
    assert "1 higher, 0 lower, 0 no effect beyond 0.2 AP, 1 inconclusive" in headline(study)
    assert [line.note for line in verdict_lines(study)] == [
        "stopped at the look at 3 seeds",
        "has no verdict after the look at 6 seeds",
    ]
    assert lacking(study) == []  # seeds that no rule has asked for are not missing


def test_a_precision_keeps_plain_intervals_and_says_why_once(tmp_path: Path) -> None:
    launched(tmp_path, "--precision", "50", "--batch", "7")
    text = tables(tmp_path, "1", "2").stdout
    said = "until every half-width is at most 50 AP, at most 100 seeds, a rule that looks at no sign, so that"
    assert text.count(said) == 1 and "repeated" not in text
    asked = dict.fromkeys(ARMS, 14)
    for table, place in (("1", 1), ("2", 2)):
        plain, cell = by_hand(asked, 14, 0.95)[place], row(study_of(tmp_path), table)
        assert plain is not None and cell.method == plain.method
        assert cell.delta_low == pytest.approx(plain.interval.low)


def test_a_row_that_is_open_has_the_interval_of_the_last_look_or_none(tmp_path: Path) -> None:
    first = launched(tmp_path / "first", *RULE, stop=4)
    cell = row(study_of(first), "1")
    assert cell.delta is not None and (cell.delta_low, cell.method, cell.verdict) == (None, None, None)
    assert "+ iFA no interval before the first look, at 3 seeds" in tables(first, "1").stdout
    second = launched(tmp_path / "second", *RULE, stop=12)  # two arms of three go on, to seed 4
    cell, again = row(study_of(second), "2"), by_hand(dict.fromkeys(ARMS, 3), 3, EARLY.sign)[2]
    assert again is not None and cell.pairs == 3 and cell.delta_low == pytest.approx(again.interval.low)
    assert cell.verdict == "inconclusive" == outcome(again.interval, 0.2, EARLY.sign, EARLY.small)
    assert "+ iPR open since the look at 3 seeds" in tables(second, "2").stdout


def test_runs_that_another_launch_adds_have_no_part_in_a_verdict(results: Path) -> None:
    from ablations.plan import plan_runs

    before = [row(study_of(results), table) for table in ("1", "2")]
    for run in plan_runs(list(ARMS), "smoke", range(9), results=results):
        if not run.run_dir.exists():
            leave(run, 10.0)
    after = [row(study_of(results), table) for table in ("1", "2")]
    assert [(c.delta, c.delta_low, c.p, c.pairs, c.verdict) for c in before] == [
        (c.delta, c.delta_low, c.p, c.pairs, c.verdict) for c in after
    ]
    assert before[0].value != after[0].value


def test_a_look_whose_runs_are_not_all_here_gives_no_interval(results: Path) -> None:
    for study in (study_of(results, seeds=[0, 1, 2]), study_of(results, seeds=[0, 1])):
        cell = row(study, "2")
        assert cell.delta is not None and cell.delta_low is None and cell.verdict is None
    early = study_of(results, seeds=[0, 1, 2])
    assert row(early, "1").verdict == "higher"  # its look was at these
    (note,) = [line.note for line in verdict_lines(early) if line.table == "2"]
    assert note == "no interval, for of the look at 6 seeds 6 runs are not here, e.g. csp-fast seed 3"
    shutil.rmtree(next((results / "runs").glob(f"{FA}-smoke-s1-*")))
    cell = row(study_of(results), "1")
    assert cell.delta is not None and cell.delta_low is None
    with pytest.raises(PublishError, match=r"1 run is not here, e.g. csp-fast.add-fa seed 1\. Publish from"):
        publish(results, results / "out")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda c: c["decided"][0].update(low=0.5), r"give higher, \+\d.* says higher, .*\(\+0\.50 to"),
        (lambda c: c["decided"][0].update(word="lower"), r"the runs here give higher, .* says lower"),
        (lambda c: c["decided"].pop(0), r"at the look at 3 seeds the runs here give higher.* says open"),
        (lambda c: c["rule"].update(looks=[3, 9]), r"at the look at 3 seeds the runs here give higher"),
    ],
)
def test_a_plan_that_was_changed_gives_no_interval(results: Path, edit: Change, said: str) -> None:
    def changed(content: dict[str, Any]) -> None:
        if edit(content) is None and content["rule"]["looks"] == [3, 9]:
            content.update(taken=[3], decided=content["decided"][:1])

    change(plan(results), changed)
    study = study_of(results)
    assert row(study, "1").delta_low is None and row(study, "1").verdict is None
    (note,) = study.filled["1"].notes[:1]
    assert note.startswith("+ iFA no interval, for at the look at 3 seeds")
    with pytest.raises(PublishError, match=said):
        publish(results, results / "out")


def test_a_plan_that_cannot_be_read_is_an_error(results: Path) -> None:
    change(plan(results), lambda content: content["comparisons"].pop())
    refused = tables(results, "1")
    assert refused.exit_code == 2 and "restore it from a copy" in refused.stderr
    good = json.loads(plan(results).read_text()) | {"taken": [], "decided": []}
    plan(results).write_text(json.dumps(good))
    refused = tables(results, "1")
    assert refused.exit_code == 2 and f"the name is '{plan(results).name}'; allowed: " in refused.stderr


@pytest.mark.parametrize("other", ["data", "profile", "settings"])
def test_a_plan_of_other_runs_says_nothing_of_these(results: Path, other: str) -> None:
    from ablations.plan import plan_runs
    from analysis.runs import load_runs

    if other == "data":
        for path in (results / "runs").glob("*/run.json"):
            change(path, lambda record: record.update(fingerprint="b" * 64))
        study = study_of(results)
    elif other == "profile":
        change(plan(results), lambda content: content.update(profile="mini"))
        study = study_of(results)
    else:
        setting = ("train.optimiser.lr0=0.02",)
        for run in plan_runs(list(ARMS), "smoke", range(3), setting, results=results):
            leave(run, ap(run.config.experiment, run.config.seed))
        study = study_of(results, overrides=setting, everything=load_runs(results))
    assert study.rules == [] and study.filled["1"].stopped == {}
    assert row(study, "1").method in ("pooled", "own spreads") and row(study, "1").delta_low is not None


def test_runs_of_two_plans_have_no_interval(results: Path) -> None:
    """Of other data: what `--mixed` allows."""
    from analysis.plan_file import plan_name

    for path in list((results / "runs").iterdir()):
        copy = shutil.copytree(path, path.with_name(f"{path.name[:-10]}bbbbbbbbbb"))
        change(copy / "run.json", lambda record, run=copy.name: record.update(fingerprint="b" * 64, run=run))
    content = json.loads(plan(results).read_text()) | {"fingerprint": "b" * 64}
    (results / "stopping" / plan_name(content)).write_text(json.dumps(content))
    cell = row(study_of(results, mixed=True), "1")
    assert cell.delta is not None and cell.delta_low is None
    assert "two plans of stopping hold for its runs" in study_of(results, mixed=True).filled["1"].notes[0]


def publish(results: Path, out: Path, *names: str) -> Path:
    """Of runs that say no commit."""
    names = names or ("1",)
    study = study_of(results, *names)
    publishing.publish(study, publishing.Made("smoke", names), out, dirty=True)
    return out


def test_a_published_folder_has_the_plan_and_all_that_its_looks_were_taken_at(
    whole: Path, tmp_path: Path
) -> None:
    out = publish(whole, tmp_path / "out")
    assert plan(out).read_bytes() == plan(whole).read_bytes()
    made, files = read_manifest(out)
    assert f"stopping/{plan(whole).name}" in files
    assert len(list((out / "runs").iterdir())) == 15  # + iPR too: in no table here, and in the first look
    looks = check_looks(out)
    assert (looks.done, looks.differences) == (3, []) and "looks of the plans" in looks.line
    checks = check_texts(out, made, no_costs)
    assert [check.differences + check.wording for check in checks] == [[]] * len(checks)
    text = (out / "summary.md").read_text()
    assert "| repeated |" in text and "stopped at the look at 3 seeds" in text


@pytest.mark.parametrize("damage", ["gone", "cut", "edited", "runs"])
def test_a_plan_that_is_missing_or_damaged_is_found(whole: Path, tmp_path: Path, damage: str) -> None:
    out = publish(whole, tmp_path / "out")
    name, text = plan(out).name, plan(out).read_text()
    made, _ = read_manifest(out)
    if damage == "gone":
        plan(out).unlink()
    elif damage == "cut":
        plan(out).write_text(text[:-9])
    elif damage == "edited":
        change(plan(out), lambda content: content["decided"][0].update(high=9.0))
    else:
        shutil.rmtree(next((out / "runs").glob(f"{PR}-smoke-s0-*")))
    verified = CliRunner().invoke(main, ["verify", str(out), "--processes", "1"])
    assert verified.exit_code == 1
    if damage != "runs":
        what = "is missing" if damage == "gone" else "is not what manifest.json says"
        assert f"stopping/{name} {what}" in verified.output
    write_manifest(out, made)  # somebody writes the manifest again
    if damage == "gone":  # then the tables are others
        differences = [each for check in check_texts(out, made, no_costs) for each in check.differences]
        assert any("repeated" in each for each in differences)
        return
    said = {"cut": "cannot be read", "edited": "the runs here give higher", "runs": "1 run is not here, e.g."}
    (found,) = check_looks(out).differences[:1]
    assert name in found and said[damage] in found
