"""When a study may stop: against published boundaries, multivariate normal integrals and simulations."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.blocks import compare, outcome
from analysis.statistics.stopping import (
    Look,
    Scatter,
    course,
    critical_values,
    first_look,
    half_width,
    repeated,
    repeated_p,
    seeds_for_effect,
    seeds_for_half_width,
)

MARGIN = 0.5
EARLY = (3, 5, 7, 9, 11, 13, 15, 17, 19, 20)


@pytest.mark.parametrize("looks", [(5, 10, 15, 20), (3, 4, 20), (2, 7)])
@pytest.mark.parametrize("alpha", [0.05, 0.10])
def test_all_looks_together_spend_alpha_and_each_its_share(looks: tuple[int, ...], alpha: float) -> None:
    """By the integral of the joint normal distribution of the looks, which knows no recursion."""
    z = np.array(critical_values(looks, alpha))
    for k in range(1, len(looks) + 1):
        of = np.array(looks[:k], float)
        covariance = np.sqrt(np.minimum.outer(of, of) / np.maximum.outer(of, of))
        inside = stats.multivariate_normal.cdf(
            z[:k],
            cov=covariance,
            lower_limit=-z[:k],
            abseps=1e-7,
            maxpts=400_000,
            rng=np.random.default_rng(0),
        )
        assert 1 - inside == pytest.approx(alpha * (looks[k - 1] / looks[-1]) ** 2, abs=2e-6)


def test_boundaries_are_those_of_the_reference(stats_reference: Path) -> None:
    of = json.loads((stats_reference / "verdicts.json").read_text())["stopping"]
    rows = [row for row in of["other_looks"]["rows"] if row["spending"] == "t^2"]
    for row in rows:
        words = row["looks"]
        looks = tuple(range(5, 41, 5)) if "..." in words else tuple(int(word) for word in words.split(", "))
        assert critical_values(looks, 0.05) == pytest.approx(row["z_95"], abs=1.2e-3)  # found on a grid
        assert critical_values(looks, 0.10) == pytest.approx(row["z_90"], abs=1.2e-3)
        if row["delta"] in ("0", "0.5", "1.0"):
            found = course(float(row["delta"]), row["sigma"], 14, repeated(looks), MARGIN)
            assert found.seeds == pytest.approx(row["mean_seeds"], rel=0.03)
            assert found.inconclusive == pytest.approx(row["inconclusive"], abs=0.015)
    early = of["up_to_20"]["boundaries"]["alpha spending t^2, from 3"]
    for level, name in ((lambda look: look.sign, "t_95"), (lambda look: look.small, "t_90")):
        t = [stats.t.ppf(0.5 + level(look) / 2, 13 * (look.seeds - 1)) for look in repeated(EARLY)]
        assert t == pytest.approx(early[f"{name}_pooled_14_arms"], abs=1.2e-3)


def false_words(looks: tuple[Look, ...], effect: float, studies: int) -> tuple[float, float]:
    """Share of rows with a false word, and its standard error; an arm stops at its verdict.

    14 arms of σ = 0.4 and seeds that differ by 1, as launched: a row's verdict is by `compare`.
    """
    rng = np.random.default_rng(7)
    shares = []
    for _ in range(studies):
        to_come = rng.normal(0, 0.4, (14, looks[-1].seeds)) + rng.normal(0, 1, looks[-1].seeds)
        to_come[1:] += effect
        ap = np.full(to_come.shape, np.nan)
        going, before, false = list(range(1, 14)), 0, 0
        for look in looks:
            new = np.ix_([0, *going], range(before, look.seeds))
            ap[new] = to_come[new]
            before = look.seeds
            found = compare(ap[:, : look.seeds])
            for arm in list(going):
                each = found[arm]
                assert each is not None
                word = outcome(each.interval, MARGIN, look.sign, look.small)
                if word != "inconclusive":
                    going.remove(arm)
                    false += ("small" in word or word == "no effect") if effect else word != "no effect"
        shares.append(false / 13)
    return float(np.mean(shares)), float(np.std(shares) / math.sqrt(studies))


def test_repeated_intervals_keep_their_error_where_plain_ones_do_not() -> None:
    for effect in (0.0, MARGIN):
        share, error = false_words(repeated(EARLY), effect, 60)
        assert share <= 0.05 + 2 * error
    share, error = false_words(tuple(Look(seeds) for seeds in EARLY), 0.0, 60)
    assert share > 0.10 and share - 2 * error > 0.05


def test_repeated_p_values_are_the_error_that_rejects_at_their_look() -> None:
    looks = (5, 10, 15, 20)
    for alpha in (0.05, 0.10, 3e-7, 0.003, 0.031, 0.4):
        for seeds, z in zip(looks, critical_values(looks, alpha), strict=True):
            near = {"rel": 1e-9} if alpha in (0.05, 0.10) else {"rel": 5e-4}
            assert repeated_p(2 * stats.norm.sf(z), looks, seeds) == pytest.approx(alpha, **near)
    assert repeated_p(1e-4, looks, 5) == pytest.approx(1e-4 * (20 / 5) ** 2, rel=5e-4)  # alpha (5/20)²
    assert (repeated_p(0.0, looks, 5), repeated_p(1.0, looks, 20)) == (0.0, 1.0)
    assert all(repeated_p(0.02, (3, 4, 20), seeds) > 0.02 for seeds in (3, 4, 20))


def test_repeated_p_values_hold_whenever_one_stops() -> None:
    looks, studies = (5, 10, 15, 20), 4_000
    sums = np.random.default_rng(5).normal(0, 1, (studies, 20)).cumsum(1)
    p = 2 * stats.norm.sf(np.abs(sums[:, np.array(looks) - 1]) / np.sqrt(looks))
    for alpha in (0.05, 0.2):
        smallest = [
            min(repeated_p(float(each), looks, n) for each, n in zip(row, looks, strict=True))
            for row in p[p.min(1) < alpha]
        ]
        error = math.sqrt(alpha * (1 - alpha) / studies)
        assert np.mean([value < alpha for value in smallest]) * len(smallest) / studies == pytest.approx(
            alpha, abs=3 * error
        )


def test_stopping_at_a_half_width_begins_where_the_scatter_is_known() -> None:
    assert [first_look(arms) for arms in (2, 3, 4, 6, 14, 40)] == [26, 14, 10, 6, 3, 3]
    for arms in (2, 5, 14):
        first = first_look(arms)
        assert (arms - 1) * (first - 1) >= 25
    with pytest.raises(ValueError, match="1 arms"):
        first_look(1)


def test_stopping_at_a_half_width_misses_little_from_there_on() -> None:
    rng, missed, studies = np.random.default_rng(2), 0, 20_000
    differences = rng.normal(0, 1, (studies, 60))  # of two arms: paired t
    n = np.arange(1, 61)
    mean = differences.cumsum(1) / n
    spread = np.sqrt(np.maximum((differences**2).cumsum(1) - n * mean**2, 0) / np.maximum(n - 1, 1))
    half = stats.t.ppf(0.975, np.maximum(n - 1, 1)) * spread / np.sqrt(n)
    for wanted in (0.3, 0.4):
        narrow = (half <= wanted) & (n >= first_look(2))
        narrow[:, -1] = True
        at = narrow.argmax(1)
        every = np.arange(studies)
        missed = max(missed, int((np.abs(mean[every, at]) > half[every, at]).sum()))
    assert missed / studies < 0.06


def test_seeds_of_a_plan_are_the_fewest_that_will_do() -> None:
    seeds = seeds_for_half_width(0.3, 0.4, 14)
    assert seeds is not None
    assert half_width(0.4, 14, seeds) <= 0.3 < half_width(0.4, 14, seeds - 1)
    assert half_width(0.4, 14, 20) == pytest.approx(stats.t.ppf(0.975, 13 * 19) * 0.4 * math.sqrt(0.1))
    assert seeds_for_half_width(5.0, 0.4, 2) == 26 and seeds_for_half_width(1e-3, 1.0, 14) is None
    shown = seeds_for_effect(0.5, 0.4, 14)
    assert shown is not None
    powers = []
    for n in (shown - 1, shown):
        df, shift = 13 * (n - 1), 0.5 / (0.4 * math.sqrt(2 / n))
        powers.append(stats.nct.sf(stats.t.ppf(0.975, df), df, shift))
    assert powers[0] < 0.8 <= powers[1]
    assert half_width(0.4, 14, 1) == math.inf


def test_the_scatter_of_a_pilot_has_an_interval_that_covers() -> None:
    variances = stats.chi2.rvs(13, size=4000, random_state=1) / 13  # of a true σ of 1
    covered = sum(low <= 1 <= high for low, high in (Scatter(float(v), 13).bounds() for v in variances))
    assert covered / 4000 == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("looks", [(), (1, 5), (5, 5), (10, 5)])
def test_looks_that_are_none_are_refused(looks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="they rise, from 2 on"):
        repeated(looks)
