"""Which runs count, cells, uncertainties, captions and notes, from runs written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablations.costs import Cost
from ablations.experiments import ADD_FA, ADD_PR, CSP_FAST
from ablations.registry import everything, table_named
from ablations.table import Row, Table
from analysis.design import compared
from analysis.published.summary import summary
from analysis.report.verdicts import headline, verdict_lines, warnings
from analysis.runs import load_runs
from analysis.statistics.blocks import dunnett_critical
from analysis.study import open_study
from analysis.tables.cells import Cell
from analysis.tables.fill import FilledTable, MixedRunsError, fill_table, footnotes, tidy
from analysis.tables.formats import FORMATS, render
from tests.analysis.conftest import write_run
from yolor_core.errors import ConfigError

Fabricate = Callable[..., str]
DIVERGED = (
    "NonFiniteError: loss/box is not finite at epoch 1, step 2; images [3]. The last checkpoint is untouched"
)
CLASSIFICATION = {"mAP": 0.5, "F1_micro": 0.6, "F1_macro": 0.4, "images": 200}
EMBEDDING = {"recall@1": 0.7, "mAP": 0.3, "AUC": 0.8, "queries": 100}


def filled(results: Path, name: str = "1", **options: object) -> FilledTable:
    return fill_table(table_named(name), "mini", load_runs(results), **options)  # type: ignore[arg-type]


def test_one_seed_gives_percentages_and_differences(tmp_path: Path, fabricate: Fabricate) -> None:
    base = fabricate("csp-fast", ap=0.400)
    variant = fabricate("csp-fast.add-fa", ap=0.412)
    table = filled(tmp_path)
    cell = table.cell("+ iFA", "AP")
    assert (cell.value, cell.delta) == (pytest.approx(41.2), pytest.approx(1.2))
    assert (cell.paper, cell.paper_delta, cell.std, cell.delta_std) == (47.9, 0.1, None, None)
    assert (cell.seeds, cell.runs, cell.profile) == ((0,), (variant,), "mini")
    first = table.cell("baseline", "AP50")
    assert first.value == pytest.approx(41.0)
    assert (first.delta, first.paper_delta, first.runs) == (None, None, (base,))
    assert set(table.status.values()) == {"measured"}
    frame = tidy([table, filled(tmp_path, "7")])
    assert len(frame) == 2 * 6 + 4 * 3 and set(frame["status"]) == {"measured", "not run", "not counted"}


def test_differences_use_the_seeds_that_both_have(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate("csp-fast.add-fa", 2, 0.90)
    alone = filled(tmp_path).cell("+ iFA", "AP")
    assert (alone.value, alone.delta, alone.paper_delta) == (pytest.approx(90), None, 0.1)
    fabricate("csp-fast", 0, 0.40)
    assert filled(tmp_path).cell("+ iFA", "AP").delta is None
    fabricate("csp-fast", 1, 0.50)
    fabricate("csp-fast.add-fa", 1, 0.51)
    cell = filled(tmp_path).cell("+ iFA", "AP")
    assert (cell.delta, cell.delta_std, cell.seeds) == (pytest.approx(1.0), None, (1, 2))
    assert filled(tmp_path, seeds=[1]).cell("baseline", "AP").value == pytest.approx(50)
    assert filled(tmp_path, seeds=[7]).cell("baseline", "AP").value is None


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ({"state": "queued"}, "queued"),
        ({"state": "running"}, "running"),
        ({"state": "failed"}, "failed (1 of 1)"),
        ({"state": "preempted"}, "preempted"),
        ({"ap": None}, "done, but not evaluated"),
        ({"AP": None}, "done, but there was no box to score in its validation data"),
    ],
)
def test_only_finished_runs_count(
    tmp_path: Path, fabricate: Fabricate, run: dict[str, object], said: str
) -> None:
    name = fabricate("csp-fast", **run)
    if "AP" in run:
        nothing = {"detection": dict.fromkeys(("AP", "AP50")), "images": 5}
        (tmp_path / "runs" / name / "evaluation.json").write_text(json.dumps(nothing))
    table = filled(tmp_path)
    assert table.cell("baseline", "AP").value is None
    assert table.status == {"baseline": said, "+ iFA": "not run"}


def test_runs_of_other_profiles_and_overrides_do_not_count(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate("csp-fast", overrides=("train.epochs=3",))
    assert filled(tmp_path).cell("baseline", "AP").value is None
    other = filled(tmp_path, overrides=["train.epochs=3"])
    assert other.cell("baseline", "AP").value == pytest.approx(40)
    assert "with train.epochs=3" in other.caption
    paper = fill_table(table_named("1"), "paper", load_runs(tmp_path))
    assert paper.cell("baseline", "AP").value is None
    assert "no finished runs" in paper.caption and "not comparable" not in paper.caption


def test_a_metric_that_a_run_lacks_is_missing_alone(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate("csp-fast", APL=None)
    table = filled(tmp_path)
    assert (table.cell("baseline", "APL").value, table.cell("baseline", "APL").runs) == (None, ())
    assert table.cell("baseline", "APM").value is not None
    assert table.status["baseline"] == "measured"


@pytest.mark.parametrize(
    ("field", "message"),
    [("source_hash", "different yolor_core sources"), ("fingerprint", "different data")],
)
def test_mixed_runs_are_refused_unless_allowed_and_never_paired_on_different_data(
    tmp_path: Path, fabricate: Fabricate, field: str, message: str
) -> None:
    fabricate("csp-fast", **{field: "1" * 64})
    fabricate("csp-fast.add-pr", **{field: "2" * 64})
    assert filled(tmp_path, "1").cell("baseline", "AP").value is not None  # Table 1 has but one of them
    with pytest.raises(MixedRunsError, match=rf"{message}: 11111111 \(csp-fast-.*\); 22222222 \(") as caught:
        filled(tmp_path, "2")
    assert "table 2" in str(caught.value) and "--mixed" in str(caught.value)
    table = filled(tmp_path, "2", mixed=True)
    assert table.cell("+ iPR", "AP").value is not None
    assert (table.cell("+ iPR", "AP").delta is None) == (field == "fingerprint")
    assert "11111111" in table.caption and "22222222" in table.caption


def test_caption_states_profile_data_seeds_and_source(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate("csp-fast", 0)
    fabricate("csp-fast", 3)
    caption = filled(tmp_path).caption
    for part in (
        "Table 1: Feature alignment (section 5.2)",
        "YOLOv4-CSP-fast at 128 px",
        "profile mini",
        "not comparable with the paper's numbers in absolute terms",
        "shapes, 640 + 500 images (ffffffff)",
        "seeds 0, 3",
        "yolor_core aaaaaaaa",
        "from the scatter of all arms and seeds of the study",
        "no effect beyond 0.5: the 90 % interval lies within ± that",
        "* holds for all comparisons of the study at once",
    ):
        assert part in caption


def test_counts_come_from_the_full_size_models(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate("p6-light")
    costs = {"p6-light": Cost(100, 10.0, 10.0), "p6-light.add-fa.mul-pr": Cost(104, 10.25, 10.5)}
    table = filled(tmp_path, "7", costs=costs)
    cell = table.cell("implicit 2", "parameters")
    assert (cell.value, cell.delta, cell.seeds, cell.runs) == (104, 4, (), ())
    assert table.cell("implicit 2", "MFLOPs").value == 10.25
    assert table.cell("implicit 1", "MFLOPs").value is None
    assert table.marks == {("implicit 2", "MFLOPs"): "†"}
    assert "10.5000" in table.notes[0]


GAINS = {  # in AP, of four seeds
    "csp-fast.add-fa": [1.0, 1.2, 1.1, 1.3],
    "csp-fast.mul-fa": [-2.0, -1.9, -2.2, -2.1],
    "csp-fast.cat-fa": [0.1, -0.1, 0.2, -0.1],
    "csp-fast.add-pr": [0.7, -0.2, 0.3, 0.5],
}


@pytest.fixture
def gains(tmp_path: Path, fabricate: Fabricate) -> Path:
    """Runs of Table 4 whose × iPR has not run."""
    for seed, ap in enumerate([0.400, 0.420, 0.450, 0.430]):
        fabricate("csp-fast", seed, ap)
        for slug, gain in GAINS.items():
            fabricate(slug, seed, ap + gain[seed] / 100)
    return tmp_path


def test_intervals_are_those_of_the_block_design_and_the_rows_own_stand_beside(gains: Path) -> None:
    table = filled(gains, "4")
    ap = np.array([[0.0] * 4, *GAINS.values()])  # what the seeds share falls out
    residual = ap - ap.mean(0) - ap.mean(1)[:, None] + ap.mean()
    error, freedom = np.sqrt((residual**2).sum() / 12 * 2 / 4), 12
    critical = {0.95: stats.t.ppf(0.975, freedom), 0.9: stats.t.ppf(0.95, freedom)}
    pooled = 0
    for slug, gain in GAINS.items():
        cell = next(c for c in table.cells if (c.metric, c.experiment) == ("AP", slug))
        low, high = stats.ttest_1samp(gain, 0).confidence_interval(0.95)
        assert (cell.row_low, cell.row_high) == pytest.approx((low, high), abs=1e-9)
        assert cell.delta == pytest.approx(np.mean(gain)) and cell.pairs == 4
        assert cell.delta_std == pytest.approx(np.std(gain, ddof=1))
        if cell.method != "pooled":
            assert cell.method == "own spreads" and cell.all_low is None
            continue
        pooled += 1
        reach = critical[0.95] * error
        assert (cell.delta_low, cell.delta_high) == pytest.approx(
            (np.mean(gain) - reach, np.mean(gain) + reach)
        )
        assert cell.leaves == pytest.approx(abs(np.mean(gain)) + reach)
        assert cell.all_low is not None and cell.delta_low is not None and cell.all_low < cell.delta_low
        t = (0.5 - abs(np.mean(gain))) / error
        assert cell.p_small == pytest.approx(stats.t.sf(t, freedom))
        assert cell.p == pytest.approx(2 * stats.t.sf(abs(np.mean(gain)) / error, freedom))
    assert pooled >= 2
    assert any("of the unpaired variance" in note for note in table.notes)


def test_rows_at_once_are_those_with_one_control_in_that_score(tmp_path: Path) -> None:
    """In Table 3x the control of a classification score is the task alone, and of AP the baseline."""
    random, table = np.random.default_rng(1), table_named("3x")
    for row in table.rows:
        for seed in range(3):
            tasks = row.experiment.tasks if row.experiment else ()
            own = {"classification": CLASSIFICATION, "embedding": EMBEDDING}
            scores = {
                task: {k: v + random.normal(0, 0.01) if v < 1 else v for k, v in own[task].items()}
                for task in tasks
                if task in own
            }
            write_run(tmp_path, row.slug, seed, 0.4 + random.normal(0, 0.01), scores=scores)
    found = open_study(tmp_path, tables=["3x"]).cells.query("delta.notna() and method == 'pooled'")
    for (metric, _), cells in found.groupby(["metric", "against"]):
        reach = (cells["all_high"] - cells["delta"]) / (cells["delta_high"] - cells["delta"])
        pairs = [pair for pair in compared(table, metric) if pair[0] in set(cells["experiment"])]
        for cell, ratio in zip(cells.itertuples(), reach, strict=True):
            of = next(control for arm, control in pairs if arm == cell.experiment)
            rows = sum(control == of for _, control in compared(table, metric))
            critical = dunnett_critical(rows, cell.freedom) / stats.t.ppf(0.975, cell.freedom)
            assert ratio == pytest.approx(critical), (metric, cell.row)
    ratios = found.query("metric == 'cls mAP'").groupby("against").size()
    assert ratios.max() >= 2


def test_words_are_of_a_row_and_marks_of_all_comparisons_of_the_study(gains: Path) -> None:
    table = filled(gains, "4")
    cells = [cell for cell, _ in table.variants]
    assert len(cells) == 5  # × iPR has not run, and counts
    for name in ("p", "p_small"):
        known = sorted((getattr(c, name), getattr(c, f"{name}_holm")) for c in cells if c.p is not None)
        worst = 0.0
        for rank, (p, corrected) in enumerate(known):
            worst = max(worst, min(1.0, (5 - rank) * p))
            assert corrected == pytest.approx(worst)
    words = {cell.experiment: (cell.verdict, cell.marked) for cell in cells}
    assert words["csp-fast.add-fa"] == ("higher", "higher") and words["csp-fast.mul-fa"] == ("lower", "lower")
    assert words["csp-fast.mul-pr"] == (None, None)
    cell = table.cell("⊕ iFA", "AP")
    assert cell.verdict == "no effect" and cell.marked in ("no effect", None)
    assert table.cell("⊕ iFA", "AP50").verdict == "inconclusive"  # no margin but for AP
    assert table.cell("⊕ iFA", "AP50").p_small is table.cell("⊕ iFA", "AP50").p_holm is None
    narrow = fill_table(table_named("4"), "mini", load_runs(gains), margin=0.05)
    assert narrow.cell("⊕ iFA", "AP").verdict == "inconclusive"
    with pytest.raises(ConfigError, match="a margin of 0 AP"):
        fill_table(table_named("4"), "mini", load_runs(gains), margin=0)
    study = open_study(gains, tables=["4"])
    assert headline(study) == (
        "5 comparisons in AP: 1 higher, 1 lower, 1 no effect beyond 0.5 AP, 1 inconclusive, 1 without an "
        "interval yet. A word counts if it holds for all 5 at once (Holm)."
    )


def test_what_cannot_be_compared_is_no_comparison(gains: Path) -> None:
    base, variant = Row("base", CSP_FAST, "nothing"), CSP_FAST.plus(ADD_FA)
    rows = (
        Row("theirs", None, "quoted"),
        replace(base, against="theirs"),
        Row("again", CSP_FAST, "the same training", against="base"),
        Row("+ iFA", variant, "a vector", against="base"),
        Row("+ iFA, again", variant, "the same vector", against="base"),
    )
    table = Table("own", "Mine", rows, metrics=("AP",))
    assert compared(table) == [(variant.slug, CSP_FAST.slug)]
    study = replace(open_study(gains, tables=["1"]), tables=(table,))
    assert headline(study) == (
        "1 comparison in AP: 1 higher, 0 lower, 0 no effect beyond 0.5 AP, 0 inconclusive. A word counts if "
        "it holds for all 1 at once (Holm)."
    )
    assert [line.cell.row for line in verdict_lines(study)] == ["+ iFA", "+ iFA, again"]
    for each in (study.filled["own"], fill_table(table, "mini", load_runs(gains))):
        for cell in (each.cell("+ iFA", "AP"), each.cell("+ iFA, again", "AP")):
            assert cell.p is not None and cell.p_holm == cell.p


def test_comparisons_of_a_table_that_is_refused_are_told_apart(tmp_path: Path, fabricate: Fabricate) -> None:
    for seed in range(3):
        for slug in ("csp-fast", "csp-fast.add-fa"):
            fabricate(slug, seed, 0.4 + 0.01 * seed * (slug > "csp-fast"))
        fabricate("p6-light", seed)
        fabricate("p6-light.add-fa.mul-pr", seed, source_hash="b" * 64)
    said = headline(open_study(tmp_path, tables=["1", "8"]))
    assert ", 2 of tables that would mix runs. " in said and "do not show" not in said


def test_the_summary_tells_lost_runs_of_rows_that_are_called_the_same(
    tmp_path: Path, fabricate: Fabricate
) -> None:
    for seed in range(3):
        for slug in ("csp-fast", "csp-fast.add-fa", "p6-light"):
            fabricate(slug, seed, 0.4 + 0.01 * seed)
    lose(tmp_path, fabricate("csp-fast", 3), DIVERGED)
    for seed in (3, 4):
        lose(tmp_path, fabricate("p6-light", seed), DIVERGED)
    text = summary(open_study(tmp_path, tables=["1", "8"]))
    assert "(csp-fast: 3 of 4; diverged (1 of 4); p6-light: 3 of 5; diverged (2 of 5))." in text


def test_captions_say_what_an_asterisk_holds_for(gains: Path) -> None:
    every = "* holds for all comparisons of the study at once (Holm)"
    part = "* holds for the one comparison of the tables printed here, not of the whole study, at once (Holm)"
    known = [each.name for each in everything().tables]
    assert every in open_study(gains, tables=known).filled["1"].caption
    assert every in open_study(gains, tables=["4"]).filled["4"].caption  # the others have no further runs
    study = open_study(gains, tables=["1"])
    assert part in study.filled["1"].caption and every not in study.filled["1"].caption
    assert part in filled(gains, "1").caption
    assert "of the whole study" in study.family


def test_a_row_without_a_validation_loss_says_why(tmp_path: Path, fabricate: Fabricate) -> None:
    table = replace(table_named("1"), metrics=("AP", "val loss"))
    lines = tuple({"val/loss": loss} for loss in (2.0, 1.5))
    runs = {
        (slug, seed): fabricate(slug, seed, 0.4 + seed / 50 + (slug > "csp-fast") * seed / 90, cosines=lines)
        for slug in ("csp-fast", "csp-fast.add-fa")
        for seed in range(4)
    }
    damaged = tmp_path / "runs" / runs["csp-fast", 1] / "metrics.jsonl"
    damaged.write_text('{"val/loss": 2.0}\n{"val')
    table_of = fill_table(table, "mini", load_runs(tmp_path))
    assert [table_of.cell("+ iFA", metric).pairs for metric in table.metrics] == [4, 3]
    (note,) = (note for note in table_of.notes if note.startswith(f"No val loss of {damaged.parent.name}: "))
    assert "metrics.jsonl" in note
    text = render([table_of], "text")
    assert "Δ, 4 pairs" in text and " (3 pairs)" in text
    for run in runs.values():
        (tmp_path / "runs" / run / "metrics.jsonl").write_text('{"epoch": 1}\n')
    older = fill_table(table, "mini", load_runs(tmp_path))
    assert any("and 5 more: their metrics.jsonl does not have it" in note for note in older.notes)
    assert set(tidy([older]).query("metric == 'val loss'")["status"]) == {"not recorded"}


def test_lost_runs_take_their_bound_off_the_margin(tmp_path: Path, fabricate: Fabricate) -> None:
    for place, slug in enumerate(("csp-fast", "csp-fast.add-fa", "csp-fast.add-pr")):
        for seed in range(10):
            run = fabricate(slug, seed, 0.4 + 0.0012 * ((place + 2) * seed * seed % 7 - 3))
            if place == 1 and seed > 7:
                lose(tmp_path, run, DIVERGED)
    cell = filled(tmp_path).cell("+ iFA", "AP")
    assert cell.bound is not None and cell.pairs == 8 and cell.half_width is not None
    assert cell.delta is not None and cell.delta_high is not None and cell.freedom is not None
    error = (cell.delta_high - cell.delta) / stats.t.ppf(0.975, cell.freedom)
    t = (0.5 - cell.bound - abs(cell.delta)) / error
    assert cell.p_small == pytest.approx(stats.t.sf(t, cell.freedom))
    (line,) = verdict_lines(open_study(tmp_path, tables=["1"]))
    assert f"they take {cell.bound:.2f} off the margin of 0.5" in line.note


def test_an_arm_without_variance_and_one_seed_only_are_defined(tmp_path: Path, fabricate: Fabricate) -> None:
    for seed in range(3):
        for slug in ("csp-fast", "csp-fast.add-fa", "csp-fast.mul-fa"):
            fabricate(slug, seed, 0.4)
        fabricate("csp-fast.add-pr", seed, 0.4 + 0.001 * seed)
    fabricate("csp-fast.mul-pr", 0, 0.41)
    table = filled(tmp_path, "4")
    cell = table.cell("+ iFA", "AP")
    assert cell.delta == 0 and cell.verdict in ("no effect", "inconclusive") and cell.p == 1
    one = table.cell("× iPR", "AP")
    assert (one.pairs, one.delta, one.verdict, one.delta_low, one.shows) == (
        1,
        pytest.approx(1.0),
        None,
        None,
        None,
    )
    for form in FORMATS:
        assert "+ iFA" in render([table], form)


def lose(results: Path, run: str, reason: str) -> None:
    folder = results / "runs" / run
    (folder / "state.json").write_text(json.dumps({"state": "failed", "reason": reason}))
    (folder / "evaluation.json").unlink(missing_ok=True)


def test_runs_that_were_lost_are_told_from_runs_that_were_not_made(
    tmp_path: Path, fabricate: Fabricate
) -> None:
    for seed in (0, 1):
        lose(tmp_path, fabricate("csp-fast", seed), DIVERGED)
    for seed, reason in ((0, DIVERGED), (1, "RunError: out of memory at batch 8")):
        lose(tmp_path, fabricate("csp-fast.add-fa", seed), reason)
    table = filled(tmp_path)
    assert table.status == {"baseline": "diverged (2 of 2)", "+ iFA": "diverged (1 of 2), failed (1 of 2)"}
    for form in FORMATS:
        assert "diverged (1 of 2), failed (1 of 2)" in render([table], form)
    narrow = render([table], "text", 50)
    assert max(map(len, narrow.splitlines())) <= 50 and " diverged (1 of 2), failed  " in narrow


def test_numbers_of_the_runs_that_were_not_lost_are_said_to_be_conditional(
    tmp_path: Path, fabricate: Fabricate
) -> None:
    for seed in range(5):
        fabricate("csp-fast", seed)
        run = fabricate("csp-fast.add-fa", seed, 0.4 + 0.01 * seed)
        if seed > 2:
            lose(tmp_path, run, DIVERGED)
    table = filled(tmp_path)
    assert table.cell("+ iFA", "AP").pairs == 3
    for form in FORMATS:
        assert "of the runs that finished" in (text := render([table], form)) and "diverged (2 of 5)" in text
    assert any("conditional" in note for note in table.notes)
    study = open_study(tmp_path, "mini", ["1"])
    (line,) = verdict_lines(study)
    assert "of the runs that finished: + iFA 3 of 5; diverged (2 of 5)" in line.note
    assert any(said.startswith("2 runs have diverged: ") for said in warnings(study))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> FilledTable:
    """Table 3x with runs of the baseline, of JDC and JDE, of both controls, and of + iJDC."""
    folder = tmp_path_factory.mktemp("tasks")
    write_run(folder, "csp", ap=0.40)
    write_run(folder, "csp.classification-alone", scores={"classification": CLASSIFICATION})
    write_run(folder, "csp.embedding-alone", scores={"embedding": EMBEDDING})
    for slug, ap, score, cosines in (
        ("csp.jdc", 0.39, 0.48, (-0.2, 0.1)),
        ("csp.jdc.implicit", 0.41, 0.53, (0.05, None)),
    ):
        epochs = tuple({} if c is None else {"conflict/detection-classification": c} for c in cosines)
        scores = {"classification": CLASSIFICATION | {"mAP": score}}
        write_run(folder, slug, ap=ap, scores=scores, cosines=epochs)
    write_run(folder, "csp.jde", ap=0.38, scores={"embedding": EMBEDDING | {"AUC": 0.75}})
    assert filled(folder, "1").notes == ()  # tables of detection alone say nothing of other tasks
    return filled(folder, "3x")


def test_each_score_is_compared_with_its_own_control(tasks: FilledTable) -> None:
    assert tasks.status["C alone"] == tasks.status["E alone"] == "measured"
    assert tasks.status["C alone + i"] == "not run"
    for row, metric, value, delta in (
        ("JDC", "AP", 39.0, -1.0),
        ("JDC", "cls mAP", 48.0, -2.0),
        ("JDE", "emb AUC", 75.0, -5.0),
        ("+ iJDC", "cls mAP", 53.0, 5.0),
        ("+ iJDC", "AP", 41.0, 2.0),
        ("+ iJDC", "task cosine", 0.05, 0.1),  # no percentage
    ):
        cell = tasks.cell(row, metric)
        assert (cell.value, cell.delta) == (pytest.approx(value), pytest.approx(delta)), (row, metric)
    assert tasks.cell("JDC", "task cosine").value == pytest.approx(-0.05)
    assert tasks.cell("C alone", "cls mAP").delta is None
    detection, tags = tasks.cell("JDC", "AP"), tasks.cell("JDC", "cls mAP")
    assert (detection.paper, detection.paper_delta, tags.paper, tags.paper_delta) == (47.7, -0.3, None, None)


def test_a_missing_task_is_a_dash_with_its_reason(tasks: FilledTable) -> None:
    cell = tasks.cell("C alone", "AP")
    assert (cell.value, cell.lacks, tasks.cell("JDC", "AP").lacks) == (None, "detection", None)
    rows = "baseline; C alone; C alone + i; JDC; + iJDC; + iJDC Markov"
    assert f"– because the model has no embedding: {rows}." in tasks.notes
    second = "– because the model has no second task: baseline; C alone;"
    assert any(note.startswith(second) for note in tasks.notes)
    status = tidy([tasks]).set_index(["row", "metric"])["status"]
    assert status["C alone", "AP"] == "no detection"
    assert status["C alone + i", "cls mAP"] == "not run"
    assert status["C alone + i", "emb mAP"] == "no embedding"
    assert status["JDC", "cls mAP"] == "measured"


START = "Differences (Δ) are against the first row, "
SAID = {
    "3": f"{START}baseline, but: + iJDC against JDC; + iJDE against JDE.",
    "6x": f"{START}baseline, but: + miFA against + iFA.",
    "7": f"{START}baseline 1, but: implicit 2 against baseline 2.",
    "A1": f"{START}Y4-SSS, but: Y4-SSSS, YOLOR against Y4-SSSS; U5R5-S, YOLOR against U5R5-S.",
    "controls": f"{START}baseline, but: faster bias against + iPR; frozen iFA against + iFA; "
    "folded iFA against + iFA; fine-tuned implicit P6 against fine-tuned P6.",
}


@pytest.mark.parametrize("table", everything().tables, ids=lambda table: table.name)
def test_a_table_says_what_its_rows_are_against_where_that_is_not_the_first(
    table: Table, tmp_path: Path
) -> None:
    found = fill_table(table, "mini", load_runs(tmp_path))
    said = [note for note in found.notes if note.startswith(START)]
    if table.name != "3x":
        assert said == ([SAID[table.name]] if table.name in SAID else [])
        return
    # Its tasks have a control each, and rows name the task.
    (note,) = said
    parts = note.removesuffix(".").split(": ", 1)[1].split("; ")
    assert {"JDC against C alone in classification", "JDE against E alone in embedding"} <= set(parts)
    assert {"C alone + i against C alone", "+ iJDC against JDC"} <= set(parts)
    assert not any(part.startswith(("C alone against", "E alone against")) for part in parts)
    cells = tidy([found]).set_index(["row", "metric"])["against"]
    assert cells["JDC", "AP"] == "baseline" and cells["JDC", "cls mAP"] == "C alone"
    for alone in (("C alone", "AP"), ("C alone", "cls mAP"), ("JDC", "task cosine"), ("baseline", "AP")):
        assert pd.isna(cells[alone])


def test_a_table_of_ones_own_says_it_too_in_every_format(tmp_path: Path) -> None:
    base, variant = Row("base", CSP_FAST, "nothing"), Row("with iFA", CSP_FAST.plus(ADD_FA), "a vector")
    both = Row("both", CSP_FAST.plus(ADD_FA, ADD_PR), "two vectors", against="with iFA")
    table = Table("own", "My rows", (base, variant, both), metrics=("AP", "AP50"))
    own = fill_table(table, "mini", load_runs(tmp_path))
    sentence = f"{START}base, but: both against with iFA."
    for form in ("text", "markdown", "html"):
        assert sentence in render([own], form)
    assert sentence.replace("Δ", r"$\Delta$") in render([own], "latex")
    against = {"base": None, "with iFA": "base", "both": "with iFA"}
    assert {(r["row"], r["against"]) for r in json.loads(render([own], "json"))} == set(against.items())
    csv = render([own], "csv").splitlines()
    assert sum(line.startswith("own,both,") and line.endswith(",with iFA,not run") for line in csv) == 2


def notes(*cells: Cell, wanted: Sequence[int] = ()) -> tuple[str, ...]:
    table = Table("own", "Mine", (Row("baseline", CSP_FAST, "nothing"),), metrics=("AP",))
    return footnotes(table, cells, {}, wanted)[0]


def ap(row: str, seeds: tuple[int, ...], left: float | None = None) -> Cell:
    return Cell("1", row, row, "AP", "mini", seeds=seeds, variance_left=left)


def test_rows_that_lack_seeds_are_named() -> None:
    rows = {"baseline": (0, 1, 2), "a": (0, 2), "b": (0, 2), "c": (1,), "not run": ()}
    (note,) = notes(*(ap(row, seeds) for row, seeds in rows.items()))
    assert note.startswith("Not every row has every seed: a; b without 1. c without 0, 2. ")
    assert notes(ap("baseline", (0, 1)), ap("a", (0, 1)), ap("not run", ())) == notes() == ()
    assert notes(ap("a", (0, 1)), wanted=(0, 1, 2, 3)) == ("Asked for, but in no row: seeds 2, 3.",)
    assert notes(ap("not run", ()), wanted=(0, 1)) == notes(ap("a", (0, 1)), wanted=(0,)) == ()


def test_a_pairing_that_did_not_help_says_so() -> None:
    (one,), (two,) = notes(ap("a", (0, 1), 0.8)), notes(ap("a", (0, 1), 0.8), ap("b", (0, 1), 1.2))
    assert "has left 80 % of" in one and "not helped" not in one
    assert "left 80 to 120 % of" in two and "above 100 %, it has not helped" in two
