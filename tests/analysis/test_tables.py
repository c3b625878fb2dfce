"""Cells, uncertainties and captions from runs written by hand."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy import stats

from ablations.costs import Cost
from ablations.registry import table_named
from analysis.report.tables import Links
from analysis.report.verdicts import verdict_lines
from analysis.report.warnings import warnings
from analysis.runs import load_runs
from analysis.study import open_study
from analysis.tables.fill import FilledTable, MixedRunsError, fill_table, tidy
from analysis.tables.formats import FORMATS, render

Fabricate = Callable[..., str]


def filled(results: Path, name: str = "1", **options: object) -> FilledTable:
    return fill_table(table_named(name), "mini", load_runs(results), **options)  # type: ignore[arg-type]


def test_one_seed_gives_percentages_and_differences(tmp_path: Path, fabricate: Fabricate) -> None:
    base = fabricate("csp-fast", ap=0.400)
    variant = fabricate("csp-fast.add-fa", ap=0.412)
    table = filled(tmp_path)
    cell = table.cell("+ iFA", "AP")
    assert cell.value == pytest.approx(41.2)
    assert cell.delta == pytest.approx(1.2)
    assert (cell.paper, cell.paper_delta) == (47.9, 0.1)
    assert (cell.std, cell.delta_std) == (None, None)
    assert (cell.seeds, cell.runs, cell.profile) == ((0,), (variant,), "mini")
    first = table.cell("baseline", "AP50")
    assert first.value == pytest.approx(41.0)
    assert (first.delta, first.paper_delta, first.runs) == (None, None, (base,))
    assert set(table.status.values()) == {"measured"}


def test_several_seeds_give_mean_deviation_and_paired_difference(
    tmp_path: Path, fabricate: Fabricate
) -> None:
    base, variant = [0.40, 0.42, 0.45], [0.41, 0.44, 0.455]
    for seed in range(3):
        fabricate("csp-fast", seed, base[seed])
        fabricate("csp-fast.add-fa", seed, variant[seed])
    cell = filled(tmp_path).cell("+ iFA", "AP")
    paired = [100 * (v - b) for v, b in zip(variant, base, strict=True)]
    assert cell.value == pytest.approx(100 * statistics.mean(variant))
    assert cell.std == pytest.approx(100 * statistics.stdev(variant))
    assert cell.delta == pytest.approx(statistics.mean(paired))
    assert cell.delta_std == pytest.approx(statistics.stdev(paired))
    assert cell.seeds == (0, 1, 2)


def test_differences_use_the_seeds_that_both_have(tmp_path: Path, fabricate: Fabricate) -> None:
    for seed, ap in ((0, 0.40), (1, 0.50)):
        fabricate("csp-fast", seed, ap)
    for seed, ap in ((1, 0.51), (2, 0.90)):
        fabricate("csp-fast.add-fa", seed, ap)
    cell = filled(tmp_path).cell("+ iFA", "AP")
    assert cell.delta == pytest.approx(1.0)
    assert cell.delta_std is None
    assert cell.seeds == (1, 2)


def test_without_a_common_seed_there_is_no_difference(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate("csp-fast", 0)
    fabricate("csp-fast.add-fa", 1)
    assert filled(tmp_path).cell("+ iFA", "AP").delta is None


def test_seeds_can_be_chosen(tmp_path: Path, fabricate: Fabricate) -> None:
    for seed, ap in ((0, 0.1), (1, 0.2)):
        fabricate("csp-fast", seed, ap)
    assert filled(tmp_path, seeds=[1]).cell("baseline", "AP").value == pytest.approx(20)
    assert filled(tmp_path, seeds=[7]).cell("baseline", "AP").value is None


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("queued", "queued"),
        ("running", "running"),
        ("failed", "failed (1 of 1)"),
        ("preempted", "preempted"),
    ],
)
def test_only_finished_runs_count(tmp_path: Path, fabricate: Fabricate, state: str, said: str) -> None:
    fabricate("csp-fast", state=state)
    table = filled(tmp_path)
    assert table.cell("baseline", "AP").value is None
    assert table.status["baseline"] == said
    assert table.status["+ iFA"] == "not run"


def test_a_finished_run_without_evaluation_says_so(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate("csp-fast", ap=None)
    assert filled(tmp_path).status["baseline"] == "done, but not evaluated"


def test_runs_of_other_profiles_and_overrides_do_not_count(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate("csp-fast", overrides=("train.epochs=3",))
    assert filled(tmp_path).cell("baseline", "AP").value is None
    other = filled(tmp_path, overrides=["train.epochs=3"])
    assert other.cell("baseline", "AP").value == pytest.approx(40)
    assert "with train.epochs=3" in other.caption
    runs = load_runs(tmp_path)
    assert fill_table(table_named("1"), "paper", runs).cell("baseline", "AP").value is None


def test_a_metric_that_a_run_lacks_is_missing_alone(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate("csp-fast", APL=None)
    table = filled(tmp_path)
    assert table.cell("baseline", "APL").value is None
    assert table.cell("baseline", "APL").runs == ()
    assert table.cell("baseline", "APM").value is not None
    assert table.status["baseline"] == "measured"


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        (
            "source_hash",
            ("1" * 64, "2" * 64),
            r"different yolor_core sources: 11111111 \(csp-fast-.*\); 22222222 \(",
        ),
        ("fingerprint", ("1" * 64, "2" * 64), r"different data: 11111111 \(csp-fast-.*\); 22222222 \("),
    ],
)
def test_mixed_runs_are_refused_unless_allowed(
    tmp_path: Path, fabricate: Fabricate, field: str, values: tuple[str, str], message: str
) -> None:
    fabricate("csp-fast", **{field: values[0]})
    fabricate("csp-fast.add-fa", **{field: values[1]})
    with pytest.raises(MixedRunsError, match=message) as caught:
        filled(tmp_path)
    assert "--mixed" in str(caught.value)
    table = filled(tmp_path, mixed=True)
    assert table.cell("+ iFA", "AP").value is not None
    assert values[0][:8] in table.caption
    assert values[1][:8] in table.caption


def test_runs_on_different_data_are_never_paired(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate("csp-fast", fingerprint="1" * 64)
    fabricate("csp-fast.add-fa", fingerprint="2" * 64)
    assert filled(tmp_path, mixed=True).cell("+ iFA", "AP").delta is None


def test_a_run_of_another_table_does_not_make_this_one_mixed(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate("csp-fast", source_hash="1" * 64)
    fabricate("csp-fast.add-pr", source_hash="2" * 64)
    assert filled(tmp_path, "1").cell("baseline", "AP").value is not None
    with pytest.raises(MixedRunsError, match="table 2"):
        filled(tmp_path, "2")


def test_caption_states_profile_data_seeds_and_source(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate("csp-fast", 0)
    fabricate("csp-fast", 3)
    caption = filled(tmp_path).caption
    for part in (
        "Table 1: Feature alignment (section 5.2)",
        "YOLOv4-CSP-fast at 160 px",
        "profile mini",
        "not comparable with the paper's numbers in absolute terms",
        "shapes, 640 + 200 images (ffffffff)",
        "seeds 0, 3",
        "yolor_core aaaaaaaa",
        "paired by seed",
    ):
        assert part in caption
    assert "no finished runs" in fill_table(table_named("1"), "paper", load_runs(tmp_path)).caption
    assert "not comparable" not in fill_table(table_named("1"), "paper", load_runs(tmp_path)).caption


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


def test_tidy_has_one_line_per_cell(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate("csp-fast")
    frame = tidy([filled(tmp_path, "1"), filled(tmp_path, "7")])
    assert len(frame) == 2 * 6 + 4 * 3
    assert set(frame["status"]) == {"measured", "not run", "counted"}


def test_intervals_corrections_and_verdicts_are_those_of_the_paired_t_test(
    tmp_path: Path, fabricate: Fabricate
) -> None:
    base = [0.400, 0.420, 0.450, 0.430]
    gains = {
        "csp-fast.add-fa": [0.010, 0.012, 0.011, 0.013],
        "csp-fast.mul-fa": [-0.020, -0.019, -0.022, -0.021],
        "csp-fast.cat-fa": [0.010, -0.010, 0.020, -0.005],
    }
    for seed, ap in enumerate(base):
        fabricate("csp-fast", seed, ap)
        for slug, gain in gains.items():
            fabricate(slug, seed, ap + gain[seed])
    table = filled(tmp_path, "4")
    cells = {c.experiment: c for c in table.cells if c.metric == "AP" and c.experiment in gains}
    p_values = {}
    for slug, gain in gains.items():
        cell, reference = cells[slug], stats.ttest_1samp([100 * g for g in gain], 0)
        low, high = reference.confidence_interval(0.95)
        assert (cell.delta_low, cell.delta_high) == pytest.approx((low, high), abs=1e-9)
        p_values[slug] = reference.pvalue
        assert cell.p == pytest.approx(reference.pvalue)
    variants = sum(c.metric == "AP" and c.paper_delta is not None for c in table.cells)
    assert variants > 3  # the others have not run yet, and count
    ordered = sorted(p_values, key=p_values.__getitem__)
    worst = 0.0
    for rank, slug in enumerate(ordered):
        worst = max(worst, min(1.0, (variants - rank) * p_values[slug]))
        assert cells[slug].p_holm == pytest.approx(worst)
    assert cells["csp-fast.cat-fa"].verdict == "undecided"
    signs = {slug: cells[slug].verdict for slug in ("csp-fast.add-fa", "csp-fast.mul-fa")}
    for slug, word in signs.items():
        paper = cells[slug].paper_delta
        assert paper is not None and paper != 0
        same = (paper > 0) == (gains[slug][0] > 0)
        assert word == ("same sign" if same else "opposite sign")
    assert "verdicts compare signs only" in table.caption
    assert any("of the unpaired variance" in note for note in table.notes)


def lose(results: Path, run: str, reason: str) -> None:
    folder = results / "runs" / run
    (folder / "state.json").write_text(json.dumps({"state": "failed", "reason": reason}))
    (folder / "evaluation.json").unlink(missing_ok=True)


DIVERGED = (
    "NonFiniteError: loss/box is not finite at epoch 1, step 2; images [3]. The last checkpoint is untouched"
)


def test_runs_that_were_lost_are_told_from_runs_that_were_not_made(
    tmp_path: Path, fabricate: Fabricate
) -> None:
    for seed, reason in enumerate((DIVERGED, DIVERGED)):
        lose(tmp_path, fabricate("csp-fast", seed), reason)
    for seed, reason in ((0, DIVERGED), (1, "RunError: out of memory at batch 8")):
        lose(tmp_path, fabricate("csp-fast.add-fa", seed), reason)
    table = filled(tmp_path)
    assert table.status == {"baseline": "diverged (2 of 2)", "+ iFA": "diverged (1 of 2), failed (1 of 2)"}
    for form in FORMATS:
        assert "diverged (1 of 2), failed (1 of 2)" in render([table], form)


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
    (line,) = verdict_lines(study, Links({}, {}))
    assert line.why.endswith("(of the runs that finished: + iFA 3 of 5; diverged (2 of 5))")
    assert any(said.startswith("2 runs have diverged: ") for said in warnings(study))


def test_a_finished_run_without_a_box_to_score_says_so(tmp_path: Path, fabricate: Fabricate) -> None:
    run = fabricate("csp-fast")
    nothing = {"detection": dict.fromkeys(("AP", "AP50")), "images": 5}
    (tmp_path / "runs" / run / "evaluation.json").write_text(json.dumps(nothing))
    assert filled(tmp_path).status["baseline"] == "done, but there was no box to score in its validation data"
