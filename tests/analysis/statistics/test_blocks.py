"""Arms × seeds against values by R and Python, exact distributions, and simulated coverage."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.blocks import (
    Comparison,
    at_level,
    compare,
    dunnett_critical,
    dunnett_level,
    equivalence_p,
    fit,
    outcome,
    own_variances,
    smallest_shown,
    spread_p,
    survivors_bound,
)
from analysis.statistics.seeds import Interval, student

LAYOUTS = ("real_14x3", "sim_14x2", "sim_14x3", "sim_14x10", "sim_4x5", "unequal_14x5")


@pytest.fixture
def reference(stats_reference: Path) -> dict[str, Any]:
    return json.loads((stats_reference / "reference.json").read_text())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_fit_and_the_row_by_itself_are_those_of_r(reference: dict[str, Any], layout: str) -> None:
    of = reference["layouts"][layout]
    ap = np.array(of["input"]["ap"])
    found = fit(ap)
    assert found.freedom == of["pooled"]["df"]
    assert found.estimates[1:] == pytest.approx(of["pooled"]["estimate"], abs=1e-9)
    assert found.errors[1:] * math.sqrt(found.variance) == pytest.approx(of["pooled"]["se"], abs=1e-9)
    for place, each in enumerate(compare(ap)[1:]):
        assert each is not None
        assert each.row.low == pytest.approx(of["row_t"]["lower"][place], abs=1e-9)
        assert each.row.p == pytest.approx(of["row_t"]["p"][place], abs=1e-9)
        if each.method == "pooled":
            assert each.interval.low == pytest.approx(of["pooled"]["lower"][place], abs=1e-9)
            assert each.interval.high == pytest.approx(of["pooled"]["upper"][place], abs=1e-9)
            assert each.interval.p == pytest.approx(of["pooled"]["p"][place], abs=1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_comparisons_at_once_are_dunnetts_on_the_block_design(
    reference: dict[str, Any], layout: str
) -> None:
    of = reference["layouts"][layout]["dunnett"]
    ap = np.array(reference["layouts"][layout]["input"]["ap"])
    found, count = fit(ap), len(ap) - 1
    assert dunnett_critical(count, found.freedom) == pytest.approx(of["critical"], abs=1e-8)
    t = np.abs(found.estimates[1:]) / (found.errors[1:] * math.sqrt(found.variance))
    assert [1 - dunnett_level(each, count, found.freedom) for each in t] == pytest.approx(of["p"], abs=1e-9)


def test_dunnetts_value_for_one_comparison_is_students() -> None:
    assert dunnett_critical(1, 4) == pytest.approx(stats.t.ppf(0.975, 4), abs=1e-9)


def test_critical_values_of_other_designs(reference: dict[str, Any]) -> None:
    for name, value in reference["dunnett_critical_95_two_sided"].items():
        comparisons, freedom = (int(part.split()[0]) for part in name.split(", "))
        assert dunnett_critical(comparisons, freedom) == pytest.approx(value, abs=1e-8), name


def scores(
    rng: np.random.Generator, arms: int, seeds: int, spreads: dict[int, float] | None = None
) -> np.ndarray:
    scale = np.ones(arms)
    for arm, spread in (spreads or {}).items():
        scale[arm] = spread
    return rng.normal(size=seeds) + scale[:, None] * rng.normal(size=(arms, seeds))


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_the_test_of_spreads_has_uniform_p_where_they_are_equal(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    p = np.concatenate([spread_p(scores(rng, 6, seeds))[:1] for _ in range(2_000)])
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_own_variances_are_unbiased() -> None:
    rng = np.random.default_rng(0)
    # 20 seeds, so that cutting at 0 does not matter
    found = np.mean([own_variances(scores(rng, 8, 20, {0: 1, 3: 3.0, 5: 0.5})) for _ in range(800)], 0)
    expected = np.array([1, 1, 1, 9, 1, 0.25, 1, 1])
    assert found == pytest.approx(expected, rel=0.06, abs=0.06)


def covered(each: Interval) -> bool:
    return each.low is not None and each.high is not None and each.low <= 0 <= each.high


# Coverage in per cent of 20,000 simulated tables of 14 arms: of the first row by the rule and pooled.
COVERAGE = [
    (2, "equal", 96.8, 94.9),
    (3, "equal", 97.0, 95.3),
    (3, "arm", 93.3, 72.8),
    (3, "control", 93.3, 72.0),
    (5, "arm", 94.8, 72.4),
    (5, "control", 94.8, 72.6),
    (10, "equal", 95.8, 94.7),
    (10, "arm", 94.7, 72.5),
    (10, "heavy", 97.5, 95.0),
    (5, "lost", 96.5, 95.0),  # a fifth of the arm's runs, by how hard the seed is; as with none lost
]


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "kind", "rule", "alone"), COVERAGE)
def test_coverage_is_that_of_the_reference_simulation(
    seeds: int, kind: str, rule: float, alone: float
) -> None:
    """Our own simulation of 500 tables; the tolerance is three of its standard errors and a point."""
    rng, repetitions = np.random.default_rng(1), 500
    spread = {"arm": {1: 3.0}, "control": {0: 3.0}}.get(kind, {})
    by_rule, pooled = 0, 0
    for _ in range(repetitions):
        ap = scores(rng, 14, seeds, spread)
        if kind == "heavy":
            ap = rng.standard_t(4, (14, seeds))
        if kind == "lost":
            hard = ap.mean(0) + rng.normal(size=seeds)
            ap[1, np.argsort(hard)[: seeds // 5]] = np.nan
        first = compare(ap)[1]
        assert first is not None
        by_rule += covered(first.interval)
        found = fit(ap)
        error = float(found.errors[1]) * math.sqrt(found.variance)
        pooled += covered(student(float(found.estimates[1]), error, found.freedom, 3))
    for got, expected in ((by_rule, rule), (pooled, alone)):
        error = 100 * math.sqrt(expected / 100 * (1 - expected / 100) / repetitions)
        assert abs(100 * got / repetitions - expected) <= 3 * error + 1


def test_a_lost_run_is_counted_and_costs_no_bias_from_its_seed() -> None:
    rng = np.random.default_rng(3)
    ap = scores(rng, 5, 6)
    ap[:, 2] -= 40.0  # a hard seed, at which arm 3 was lost
    ap[3, 2] = np.nan
    found = compare(ap)
    third = found[3]
    assert third is not None and third.lost == 1 and third.row.n == 5
    assert abs(third.interval.mean) < 3  # the plain means differ by 8
    design = [[float(a == arm) for arm in (1, 2, 3, 4)] + [float(s == seed) for seed in range(6)]
              for a in range(5) for s in range(6) if np.isfinite(ap[a, s])]  # fmt: skip
    expected = np.linalg.lstsq(np.array(design), ap[np.isfinite(ap)], rcond=None)[0][:4]
    assert fit(ap).estimates[1:] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ap", "method"),
    [
        ([[1.0, 2.0], [2.0, 4.0]], "row"),  # two arms: everything is the paired t
        ([[1.0, 2.0, np.nan], [2.0, np.nan, 4.0], [3.0, 1.0, 2.0]], "row"),  # one seed that all have
        ([[1.0], [2.0], [3.0]], "row"),
    ],
)
def test_too_little_for_spreads_leaves_the_row_by_itself(ap: list[list[float]], method: str) -> None:
    found = compare(np.array(ap))
    assert found[0] is None
    assert all(isinstance(each, Comparison) and each.method == method for each in found[1:])


def test_what_is_missing_or_without_scatter_is_defined() -> None:
    nan = float("nan")
    found = compare(np.array([[1.0, 2.0, 3.0], [nan, nan, nan], [1.5, 2.5, 3.5], [1.0, 2.5, 2.0]]))
    assert found[0] is None and found[1] is None and found[2] is not None and found[3] is not None
    same = compare(np.tile([1.0, 2.0, 3.0], (4, 1)))[1]
    assert same is not None and (same.interval.low, same.interval.high, same.interval.p) == (0, 0, 1)
    with pytest.raises(ValueError, match="1 of 2 arms have no finished run"):
        fit(np.array([[1.0, 2.0], [nan, nan]]))


def test_words_of_a_row_and_what_it_could_have_shown() -> None:
    of = {mean: student(mean, 0.15, 26, 3) for mean in (0.0, 0.33, 0.45, 1.0, -1.0)}
    assert [outcome(each, 0.5) for each in of.values()] == [
        "no effect", "higher", "higher", "higher", "lower",
    ]  # fmt: skip
    assert outcome(student(0.25, 0.1, 26, 3), 0.5) == "higher, small"
    assert outcome(student(0.2, 0.4, 26, 3), 0.5) == "inconclusive"
    # two one-sided tests at 5 % and a 90 % interval inside the margin are one thing
    low, high = at_level(of[0.0], 0.90)
    edge = max(-low, high)
    assert equivalence_p(of[0.0], edge) == pytest.approx(0.05)
    # noncentral t: the effect found in 80 % of all tables
    effect = smallest_shown(of[0.0])
    reach = stats.t.ppf(0.975, 26)
    assert stats.nct.sf(reach, 26, effect / 0.15) == pytest.approx(0.8, abs=1e-3)
    # one degree of freedom: |Z + δ| > t |Z'|
    shift, reach = smallest_shown(student(0.0, 1.0, 1, 2)), stats.t.ppf(0.975, 1)
    z = np.random.default_rng(2).normal(size=(2, 400_000))
    assert np.mean(abs(z[0] + shift) > reach * abs(z[1])) == pytest.approx(0.8, abs=0.003)


def test_how_far_survivors_can_mislead() -> None:
    assert [round(survivors_bound(q, 1.0), 3) for q in (0.05, 0.10, 0.20)] == [0.109, 0.195, 0.350]
    draws = np.sort(np.random.default_rng(5).normal(size=400_000))
    assert draws[len(draws) // 5 :].mean() == pytest.approx(survivors_bound(0.2, 1.0), abs=0.005)


def test_an_arm_that_has_just_begun_does_not_cost_the_others_their_pooling() -> None:
    ap = scores(np.random.default_rng(8), 6, 5)
    ap[4, 1:] = np.nan  # one seed so far
    ap[5] = np.nan
    ap = np.hstack([ap, np.full((6, 2), np.nan)])
    ap[5, 5:] = 1.0, 2.0  # seeds that no other arm has
    found = compare(ap)
    without = compare(ap[:4, :5])
    assert [each and each.method for each in found[:4]] == [each and each.method for each in without]
    assert "pooled" in {each.method for each in found if each}
    one = found[4]
    assert one is not None and one.method == "row" and one.interval.low is None and one.lost == 4 + 2 + 2
    assert found[5] is None
    none_lost = compare(ap, lost=np.zeros(ap.shape, bool))
    assert none_lost[4] is not None and (none_lost[4].lost, none_lost[4].bound) == (0, 0)
