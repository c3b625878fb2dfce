"""Does a measured effect agree with the paper's?

The paper's difference is itself one run per arm, rounded to 0.1 AP. So it is compared with a prediction
interval for one more pair of runs, rounded: that holds equally often for every number of seeds. The rule "the
paper's Δ lies in our confidence interval" would fail more often the more seeds are run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from analysis.statistics.seeds import LEVEL, Interval

Word = Literal["reproduced", "not reproduced", "undecided", "same sign", "opposite sign"]
ROUNDING = 2 * 0.1**2 / 12  # variance of two cells rounded to 0.1 AP, in AP²
NEGLIGIBLE = 0.2  # AP: an effect of 0 in the paper is reproduced by an interval within ± this


@dataclass(frozen=True)
class Verdict:
    """A word about an effect, and why in a few words."""

    word: Word
    why: str


def agreement(ours: Interval, paper: float, spread: float, baseline_spread: float) -> bool:
    """Whether |Δ̄ - Δ_paper| ≤ t_{n-1} · √(SE² + s_p²), s_p² = s_a² + s_b² + 2 · 0.1² / 12.

    Args:
        ours: the mean difference over at least two seeds, in AP.
        paper: its difference, in AP.
        spread, baseline_spread: standard deviations over seeds of the two arms, in AP; they stand for the
            paper's own runs.
    """
    if ours.error is None:
        raise ValueError("a difference of one seed has no error to compare with")
    predicted = ours.error**2 + spread**2 + baseline_spread**2 + ROUNDING
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, ours.n - 1)) * np.sqrt(predicted)
    return bool(abs(ours.mean - paper) <= reach)


def judge(ours: Interval, paper: float, spread: float, baseline_spread: float) -> Verdict:
    """The verdict on a cell at the paper's own scale; arguments as for `agreement`.

    - "reproduced": consistent, and our interval excludes 0 with the paper's sign; for a paper's effect of 0,
      our interval lies within ± 0.2.
    - "not reproduced": inconsistent, or significant with the opposite sign.
    - "undecided": everything else, one seed included.
    """
    if ours.low is None or ours.high is None:
        return Verdict("undecided", "one seed has no interval")
    sign = np.sign(ours.low) if np.sign(ours.low) == np.sign(ours.high) else 0.0
    if sign and paper and sign == -np.sign(paper):
        return Verdict("not reproduced", "significant with the opposite sign")
    if not agreement(ours, paper, spread, baseline_spread):
        return Verdict("not reproduced", "farther from the paper's than runs scatter")
    if paper == 0:
        if max(abs(ours.low), abs(ours.high)) <= NEGLIGIBLE:
            return Verdict("reproduced", f"within ± {NEGLIGIBLE} AP of no effect")
        return Verdict("undecided", f"the interval is wider than ± {NEGLIGIBLE} AP")
    if sign:
        return Verdict("reproduced", "consistent, and the interval excludes 0")
    return Verdict("undecided", "consistent, but the interval holds 0")


def judge_sign(ours: Interval, paper: float) -> Verdict:
    """The verdict at a reduced profile, where only the sign can be compared."""
    if ours.low is None or ours.high is None:
        return Verdict("undecided", "one seed has no interval")
    sign = np.sign(ours.low) if np.sign(ours.low) == np.sign(ours.high) else 0.0
    if paper == 0 or not sign:
        return Verdict("undecided", "the interval holds 0" if not sign else "the paper's effect is 0")
    if sign == np.sign(paper):
        return Verdict("same sign", "the interval excludes 0 with the paper's sign")
    return Verdict("opposite sign", "the interval excludes 0 with the opposite sign")
