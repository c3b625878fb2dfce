"""Arms × seeds as a randomised block design: every comparison with the control, from the scatter of all runs.

A run scores `ap = arm + seed + residual`. Where all arms scatter alike, the residual pooled over them knows
the scatter far better than the differences of one row do: (arms - 1)(seeds - 1) degrees of freedom instead
of seeds - 1. Where the arm or the control of a row scatters otherwise than the rest, pooling would mislead;
such a row uses the two arms' own variances (Grubbs 1948). Scores are in points; the interval of a row by
itself, `seeds.over_seeds` of its differences, stands beside either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq
from scipy.special import ndtr, stdtr, stdtrit

from analysis.statistics.seeds import LEVEL, Interval, over_seeds, student

Method = Literal["pooled", "own spreads", "row", "repeated"]  # the last of `analysis.design.Stop`
MARGIN = 0.5  # AP: below it an effect is none that anybody would act upon
ODD = (
    0.20  # p of an arm's spread below which a row is not pooled; 5 % would miss too many odd arms at 3 seeds
)
NODES = 240  # of the quadrature, in each of its two dimensions


@dataclass(frozen=True)
class Comparison:
    """An arm less its control."""

    interval: Interval  # by `method`
    method: Method
    row: Interval  # of the paired differences by themselves
    lost: int = 0  # runs of the arm or its control that ended without a score
    bound: float = 0.0  # by how much these can have moved the mean of the others, see `survivors_bound`


@dataclass(frozen=True)
class Fit:
    """Least squares of `ap ~ arm + seed` on the runs that there are."""

    estimates: NDArray[np.float64]  # (arms,) each less the control, 0 for the control itself
    errors: NDArray[np.float64]  # (arms,) their standard errors in units of the residual's standard deviation
    variance: float  # of the residual
    freedom: int  # its degrees of freedom


def fit(ap: NDArray[np.floating], control: int = 0) -> Fit:
    """The additive model of an (arms, seeds) array; NaN where a run is missing.

    Unbiased where a run was lost because of its seed; where it was lost because of its own result, nothing
    that looks at survivors alone can be.

    Raises:
        ValueError: an arm without a run, or runs that are too few or hang together too little to tell arms,
            seeds and residual apart.
    """
    arms, seeds = ap.shape
    arm, seed = np.nonzero(np.isfinite(ap))
    if len(set(arm.tolist())) < arms:
        raise ValueError(f"{arms - len(set(arm.tolist()))} of {arms} arms have no finished run")
    others = [a for a in range(arms) if a != control]
    design = np.zeros((len(arm), arms - 1 + seeds))
    for column, a in enumerate(others):
        design[:, column] = arm == a
    design[np.arange(len(arm)), arms - 1 + seed] = 1
    design = design[:, design.any(0)]
    scores = ap[arm, seed].astype(np.float64)
    found, _, rank, _ = np.linalg.lstsq(design, scores, rcond=None)
    freedom = len(scores) - int(rank)
    if rank < design.shape[1] or freedom < 1:
        raise ValueError(
            f"{len(scores)} runs of {arms} arms and {seeds} seeds leave nothing to estimate scatter by"
        )
    residual = scores - design @ found
    dust = 1e-12 * float(np.abs(scores).max())  # what rounding leaves of a scatter or an effect of 0
    residual[np.abs(residual) < dust] = 0
    squares = float((residual**2).sum())
    estimates, errors = np.zeros(arms), np.zeros(arms)
    estimates[others] = np.where(np.abs(found[: arms - 1]) < dust, 0, found[: arms - 1])
    errors[others] = np.sqrt(np.diag(np.linalg.inv(design.T @ design))[: arms - 1])
    return Fit(estimates, errors, squares / freedom, freedom)


def arm_squares(ap: NDArray[np.floating]) -> NDArray[np.float64]:
    """S_a: the sum of squares of each arm's residuals (arms,) in a complete (arms, seeds) array."""
    residual = ap - ap.mean(1, keepdims=True) - ap.mean(0, keepdims=True) + ap.mean()
    residual[np.abs(residual) < 1e-12 * np.abs(ap).max()] = 0
    return np.asarray((residual**2).sum(1))


def spread_p(ap: NDArray[np.floating]) -> NDArray[np.float64]:
    """(arms,) p of each arm's spread being that of the others, against being larger.

    With u_a = S_a A / (A - 1), F_a = [u_a / (n - 1)] / [(RSS - u_a) / ((A - 2)(n - 1))] is exactly
    F(n - 1, (A - 2)(n - 1)) where all A arms scatter alike, at any number n of seeds from 2.

    Raises ValueError for fewer than three arms or two seeds.
    """
    arms, seeds = ap.shape
    if arms < 3 or seeds < 2:
        raise ValueError(
            f"{arms} arms and {seeds} seeds; at least three and two are needed to compare spreads"
        )
    squares = arm_squares(ap)
    own = squares * arms / (arms - 1)
    rest = np.maximum(squares.sum() - own, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(own > 0, own * (arms - 2) / rest, 0.0)
    return np.asarray(stats.f.sf(ratio, seeds - 1, (arms - 2) * (seeds - 1)))


def own_variances(ap: NDArray[np.floating]) -> NDArray[np.float64]:
    """(arms,) the residual variance of each arm by itself (Grubbs 1948), not below 0.

    σ_a² = [S_a / (n - 1) - RSS / ((n - 1) A (A - 1))] / (1 - 2 / A), for three arms or more.
    """
    arms, seeds = ap.shape
    squares = arm_squares(ap)
    shared = squares.sum() / ((seeds - 1) * arms * (arms - 1))
    return np.asarray(np.maximum((squares / (seeds - 1) - shared) / (1 - 2 / arms), 0.0))


def compare(
    ap: NDArray[np.floating],
    control: int = 0,
    level: float = LEVEL,
    lost: NDArray[np.bool_] | None = None,
) -> list[Comparison | None]:
    """Every arm less the control, in the order of the arms; None for the control and where nothing is known.

    Args:
        ap: (arms, seeds), in points; NaN where a run is missing.
        control: which arm.
        level: of confidence, for each comparison by itself.
        lost: (arms, seeds) the missing runs that may be so because of their own result; by default all whose
            seed some arm has.

    A row is pooled unless its arm's or its control's spread has p < `ODD`; spreads are compared over seeds
    that the two and as many others as possible have. Two arms, or seeds too few to compare spreads, leave the
    paired t. An arm that shares no seed with the control has no comparison.
    """
    ap = np.asarray(ap, np.float64)
    there = np.isfinite(ap)
    gone = ~there & (there.any(0) if lost is None else lost)
    share = gone.sum(1) / np.maximum((gone | there).sum(1), 1)
    joined = connected(there, control)
    place = np.cumsum(joined) - 1
    by_itself: Method = "row"
    whole: Fit | None = None
    found: list[Comparison | None] = []
    for a in range(len(ap)):
        row = _row(ap[a] - ap[control], level) if a != control else None
        if row is None:
            found.append(None)
            continue
        part = _complete(there & joined[:, None], a, control)
        # σ of one run of the arm and of the control
        spreads = [0.0 if row.error is None else row.error * math.sqrt(row.n / 2)] * 2
        interval, method = row, by_itself
        if part is not None:
            whole = whole or fit(ap[joined], int(place[control]))
            arms, seeds = part
            complete = ap[arms][:, seeds]
            i, c = arms.index(a), arms.index(control)
            mean, error = float(whole.estimates[place[a]]), float(whole.errors[place[a]])
            p, own = spread_p(complete), own_variances(complete)
            if min(p[i], p[c]) >= ODD:
                spreads = [math.sqrt(whole.variance)] * 2
                interval = student(mean, error * spreads[0], whole.freedom, row.n, level)
                method = "pooled"
            elif (total := float(own[i] + own[c])) > 0:
                spreads = [math.sqrt(own[i]), math.sqrt(own[c])]
                freedom = total**2 / ((own[i] ** 2 + own[c] ** 2) / (len(seeds) - 1))
                # `error` is √(2/n) on a complete table, where this is (σ_a² + σ_0²) / n
                interval = student(mean, error * math.sqrt(total / 2), freedom, row.n, level)
                method = "own spreads"
        bound = sum(survivors_bound(share[x], s) for x, s in zip((a, control), spreads, strict=True))
        found.append(Comparison(interval, method, row, int(gone[[a, control]].sum()), bound))
    return found


def _row(differences: NDArray[np.float64], level: float) -> Interval | None:
    known = differences[np.isfinite(differences)]
    return over_seeds(known.tolist(), level) if len(known) else None


def connected(there: NDArray[np.bool_], control: int) -> NDArray[np.bool_]:
    """(arms,) those that seeds join to the control, one by way of another: they can be fitted with it."""
    joined = np.zeros(len(there), bool)
    more = joined.copy()
    more[control] = there[control].any()
    while more.any():
        joined |= more
        more = there[:, there[joined].any(0)].any(1) & ~joined
    return joined


def _complete(there: NDArray[np.bool_], arm: int, control: int) -> tuple[list[int], list[int]] | None:
    """Arms with these two among them, and seeds that all of them have: what leaves most degrees of freedom.

    None for fewer than three arms or two seeds. Arms join in the order of how many of the seeds they have.
    """
    arms, shared = [arm, control], there[arm] & there[control]
    counts = (there & shared).sum(1)
    best, most = None, 0
    for other in sorted(set(range(len(there))) - {arm, control}, key=lambda each: -counts[each]):
        arms, shared = [*arms, other], shared & there[other]
        if (freedom := (len(arms) - 1) * (int(shared.sum()) - 1)) > most:
            best, most = (sorted(arms), np.flatnonzero(shared).tolist()), freedom
    return best


def at_level(interval: Interval, level: float) -> tuple[float, float]:
    """The ends of the interval at another level. Raises ValueError where it has no error."""
    if interval.error is None:
        raise ValueError("one pair has no interval")
    reach = float(stdtrit(interval.freedom, 0.5 + level / 2)) * interval.error
    return interval.mean - reach, interval.mean + reach


@lru_cache(maxsize=1024)
def dunnett_critical(comparisons: int, freedom: float, level: float = LEVEL) -> float:
    """c for which all intervals `estimate ± c · se` of comparisons with one control hold at once.

    Two-sided, correlation 1/2: a complete table (Dunnett 1955), by quadrature to 1e-9.
    """
    return float(
        brentq(lambda c: dunnett_level(c, comparisons, freedom) - level, 0.5, 200, xtol=1e-12, rtol=1e-13)
    )


def dunnett_level(critical: float, comparisons: int, freedom: float) -> float:
    """P(|T_i| ≤ critical for all comparisons at once); 1 less this is Dunnett's adjusted p of a |t|."""
    z, wz, s, ws = _nodes(freedom)
    reach = critical * s[:, None]
    # T_i = (Z_i - Z_0) / (√2 s): given Z_0 and s the comparisons are independent
    inside = ndtr(math.sqrt(2) * reach - z) - ndtr(-math.sqrt(2) * reach - z)
    return float(ws @ inside**comparisons @ wz)


@lru_cache(maxsize=64)
def _nodes(freedom: float) -> tuple[NDArray[np.float64], ...]:
    """Nodes and weights for the control's normal error, and for the scale s = √(χ² / freedom)."""
    x, w = np.polynomial.legendre.leggauss(NODES)
    z = 9.0 * x
    low, high = (
        math.sqrt(v / freedom) for v in (stats.chi2.ppf(1e-15, freedom), stats.chi2.isf(1e-15, freedom))
    )
    s = low + (high - low) * (x + 1) / 2
    density = 2 * freedom * s * stats.chi2.pdf(freedom * s**2, freedom)
    return z, 9.0 * w * stats.norm.pdf(z), s, (high - low) / 2 * w * density


def equivalence_p(interval: Interval, margin: float) -> float:
    """p of two one-sided tests that the effect lies within ± margin (Schuirmann 1987).

    Raises ValueError where the interval has no error.
    """
    if interval.error is None:
        raise ValueError("one pair has no interval")
    room = margin - abs(interval.mean)
    if interval.error == 0:
        return 0.0 if room > 0 else 1.0
    return float(stdtr(interval.freedom, -room / interval.error))


def smallest_shown(interval: Interval, power: float = 0.8, alpha: float = 1 - LEVEL) -> float:
    """The smallest effect that a comparison with this error would have shown with the power given."""
    if interval.error is None:
        raise ValueError("one pair has no interval")
    if interval.error == 0:
        return 0.0
    critical = float(stdtrit(interval.freedom, 1 - alpha / 2))
    _, _, s, weights = _nodes(interval.freedom)  # noncentral t; scipy's is NaN at 1 degree of freedom

    def missed(shift: float) -> float:
        return float(weights @ (ndtr(shift - critical * s) + ndtr(-shift - critical * s))) - power

    high = critical + 2.0
    while missed(high) < 0:
        high *= 1.5
    return float(brentq(missed, 1e-6, high)) * interval.error


def largest_possible(interval: Interval) -> float:
    """The largest effect, in either direction, that the interval leaves possible."""
    if interval.low is None or interval.high is None:
        return math.inf
    return max(abs(interval.low), abs(interval.high))


Outcome = Literal["higher", "lower", "no effect", "higher, small", "lower, small", "inconclusive"]


def outcome(
    interval: Interval, margin: float | None = None, sign: float = LEVEL, small: float = 2 * LEVEL - 1
) -> Outcome:
    """What a comparison says by itself: a sign by the 95 % interval, smallness by the 90 % interval.

    Each is false with at most 5 %: "higher" or "lower" where the 95 % interval excludes 0, "no effect"
    (beyond the margin) where the 90 % interval lies inside ± margin, both where both hold. Without a margin
    nothing is small. One look of several has higher levels, `sign` and `small` (`statistics.stopping`).
    """
    if interval.error is None:
        return "inconclusive"
    low, high = at_level(interval, sign)
    within = margin is not None and equivalence_p(interval, margin) < (1 - small) / 2
    return word((low > 0) - (high < 0), within)


def word(sign: int, small: bool) -> Outcome:
    """The outcome of a sign (1, -1, or 0 where none is shown), and of an effect shown to be small."""
    if sign > 0:
        return "higher, small" if small else "higher"
    if sign < 0:
        return "lower, small" if small else "lower"
    return "no effect" if small else "inconclusive"


def survivors_bound(lost: float, sigma: float) -> float:
    """By how much survivors can mislead about the mean where the lowest share `lost` of the runs was lost.

    φ(z_q) / (1 - q) · σ for a share q, z_q the normal value exceeded with q: the mean of a normal sample
    without its lowest part. An equivalence claim uses its margin less this.
    """
    if not 0 <= lost < 1:
        raise ValueError(f"a share of {lost} runs lost; at least 0 and below 1 is needed")
    return 0.0 if lost == 0 else float(stats.norm.pdf(stats.norm.isf(lost)) / (1 - lost)) * sigma
