"""Verdicts on the paper's cells: the rule, and how often it errs."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.statistics.seeds import agreement, judge, judge_sign, over_seeds


@pytest.mark.parametrize(
    ("differences", "paper", "word"),
    [
        ([0.48, 0.52, 0.5], 0.5, "reproduced"),
        ([0.1, 0.9, 0.5], 0.5, "undecided"),  # consistent, but 0 is in it
        ([-0.48, -0.52, -0.5], 0.5, "not reproduced"),  # significant with the opposite sign
        ([2.0, 2.01, 1.99], 0.5, "not reproduced"),  # too far
        ([0.02, -0.03, 0.01], 0.0, "reproduced"),
        ([0.3, -0.3, 0.1], 0.0, "undecided"),
        ([0.5], 0.5, "undecided"),
    ],
)
def test_each_word_has_its_case(differences: list[float], paper: float, word: str) -> None:
    assert judge(over_seeds(differences), paper, 0.1, 0.1).word == word


@pytest.mark.parametrize(
    ("differences", "paper", "word"),
    [
        ([4.8, 5.2, 5.0], 0.1, "same sign"),
        ([-4.8, -5.2, -5.0], 0.1, "opposite sign"),
        ([-4.8, 5.2, 5.0], 0.1, "undecided"),
        ([4.8, 5.2, 5.0], 0.0, "undecided"),
        ([4.8], 0.1, "undecided"),
    ],
)
def test_at_a_reduced_profile_only_the_sign_counts(differences: list[float], paper: float, word: str) -> None:
    assert judge_sign(over_seeds(differences), paper).word == word


@pytest.mark.parametrize("n", [3, 5, 10, 40])
def test_a_true_effect_of_the_paper_is_found_consistent_whatever_the_number_of_seeds(n: int) -> None:
    random = np.random.default_rng(n)
    agreed = []
    for _ in range(3000):
        baseline, variant = random.normal(0, 0.15, n), random.normal(0.3, 0.15, n)
        # One run per arm, each printed with one decimal.
        paper = round(51 + random.normal(0.3, 0.15), 1) - round(51 + random.normal(0, 0.15), 1)
        ours = over_seeds(variant - baseline)
        agreed.append(agreement(ours, paper, variant.std(ddof=1), baseline.std(ddof=1)))
    # At few seeds the rule errs on the safe side (99 % at three): t has n - 1 degrees of freedom.
    assert 0.93 < np.mean(agreed) < 0.995


def test_the_rule_of_the_interval_would_fail_more_often_the_more_seeds_are_run() -> None:
    random = np.random.default_rng(0)
    inside = {}
    for n in (5, 100):
        found = []
        for _ in range(1500):
            ours = over_seeds(random.normal(0.3, 0.15 * np.sqrt(2), n))
            paper = round(random.normal(0.3, 0.15 * np.sqrt(2)), 1)
            assert ours.low is not None and ours.high is not None
            found.append(ours.low <= paper <= ours.high)
        inside[n] = np.mean(found)
    assert inside[5] > 0.5 and inside[100] < 0.3


def test_one_seed_has_nothing_to_agree_with() -> None:
    with pytest.raises(ValueError, match="one seed"):
        agreement(over_seeds([0.1]), 0.1, 0.1, 0.1)
