"""Which runs of a study stand beside each other, and what becomes of those that are missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analysis import load_runs, open_study
from analysis.design import Design
from analysis.statistics.blocks import survivors_bound

STUDY = Path(__file__).parents[2] / "results" / "published" / "mini"
Fabricate = Callable[..., str]


def test_runs_give_the_pooled_intervals_of_r(
    stats_reference: Path, tmp_path: Path, fabricate: Fabricate
) -> None:
    of = json.loads((stats_reference / "reference.json").read_text())["layouts"]["real_14x3"]
    arms = of["input"]["arms"]
    for arm, scores in zip(arms, of["input"]["ap"], strict=True):
        for seed, ap in enumerate(scores):
            fabricate(arm, seed, ap / 100)
    runs = load_runs(tmp_path)
    design = Design({slug: runs[runs["experiment"] == slug] for slug in arms})
    (layout,) = design.layouts().values()
    assert layout.arms == tuple(arms) and layout.scores == pytest.approx(np.array(of["input"]["ap"]))
    pooled = 0
    for place, arm in enumerate(arms[1:]):
        found = design.compare(arm, arms[0])
        assert found is not None and found.lost == 0 and found.bound == 0
        assert (found.row.low, found.row.p) == pytest.approx(
            (of["row_t"]["lower"][place], of["row_t"]["p"][place])
        )
        if found.method == "pooled":
            pooled += 1
            ends = of["pooled"]["lower"][place], of["pooled"]["upper"][place]
            assert (found.interval.low, found.interval.high) == pytest.approx(ends, abs=1e-9)
    assert pooled > 6


def test_an_interval_is_the_same_whichever_tables_are_asked_for() -> None:
    one, all_ = (open_study(STUDY, tables=names).design for names in (["1"], ["1", "5", "7", "controls"]))
    for column in ("AP", "AP50"):
        assert one.compare("csp-fast.add-fa", "csp-fast", column) == all_.compare(
            "csp-fast.add-fa", "csp-fast", column
        )
    assert {len(layout.arms) for layout in one.layouts().values()} == {24}


def fill(
    fabricate: Fabricate, arms: tuple[str, ...] = ("csp-fast", "csp-fast.add-fa", "csp-fast.add-pr")
) -> None:
    for place, arm in enumerate(arms):
        for seed in range(5):
            fabricate(arm, seed, 0.3 + 0.01 * ((7 * place + 3 * seed + place * seed) % 5))


def lose(results: Path, run: str) -> None:
    folder = results / "runs" / run
    (folder / "state.json").write_text(
        json.dumps({"state": "failed", "reason": "RunError: out of memory at batch 8"})
    )
    (folder / "evaluation.json").unlink()


def test_a_diverged_run_is_lost_and_one_that_was_not_made_is_not(
    tmp_path: Path, fabricate: Fabricate
) -> None:
    fill(fabricate)
    lose(tmp_path, fabricate("csp-fast.add-fa", 4))
    fabricate("csp-fast", 7)  # a seed that the others do not have yet
    design = open_study(tmp_path, tables=["1"]).design
    found, whole = (design.compare(f"csp-fast.{name}", "csp-fast") for name in ("add-fa", "add-pr"))
    assert found is not None and found.lost == 1 and found.row.n == 4
    assert whole is not None and whole.lost == 0 and whole.bound == 0
    assert found.method == "pooled" and found.interval.error is not None
    # σ of one run: the pair that has all five seeds has error σ √(2/5)
    assert whole.interval.error is not None
    assert found.bound == pytest.approx(survivors_bound(1 / 5, whole.interval.error * (5 / 2) ** 0.5))


def test_other_code_and_other_data_are_other_layouts(tmp_path: Path, fabricate: Fabricate) -> None:
    fill(fabricate)
    before = open_study(tmp_path, tables=["1"]).design.compare("csp-fast.add-fa", "csp-fast")
    for arm in ("csp-fast", "csp-fast.add-pr"):
        for seed in range(10, 15):
            fabricate(arm, seed, 0.9 * seed / 20, source_hash="b" * 64)
    design = open_study(tmp_path, tables=["1"]).design
    assert len(design.layouts()) == 2
    mixed = design.compare("csp-fast.add-pr", "csp-fast")
    assert mixed is not None and mixed.method == "row" and mixed.row.n == 10
    of = [each for each in design.layouts().values() if "csp-fast.add-fa" in each.arms]
    assert len(of) == 1 and of[0].compare("csp-fast.add-fa", "csp-fast") == before


def test_one_experiment_under_two_names_is_one_arm(tmp_path: Path, fabricate: Fabricate) -> None:
    fill(fabricate)
    runs = load_runs(tmp_path)
    frames = dict(iter(runs.groupby("experiment")))
    once, twice = Design(frames), Design(frames | {"again": frames["csp-fast.add-pr"]})
    assert once.compare("csp-fast.add-fa", "csp-fast") == twice.compare("csp-fast.add-fa", "csp-fast")
    assert twice.compare("again", "csp-fast") == once.compare("csp-fast.add-pr", "csp-fast")
    assert Design({}).compare("a", "b") is None and once.compare("a", "csp-fast") is None
