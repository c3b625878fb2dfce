"""When a study may stop, and how many seeds that takes.

At a half-width: stopping looks at the scatter alone, never at a difference, and the plain intervals keep
their 95 % where the scatter is known well enough when stopping begins. At a verdict: stopping looks at the
differences, so the intervals have to be wider at every look (repeated intervals: Jennison and Turnbull 1984),
by spending α·(n/N)² of the error until n of at most N seeds (Lan and DeMets 1983; Kim and DeMets 1987).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq
from scipy.special import ndtr, stdtrit

from analysis.statistics.blocks import smallest_shown
from analysis.statistics.seeds import ALPHA, LEVEL, POWER, student

Floats = NDArray[np.float64]

FREEDOM = 25  # of the residual, from which stopping at a half-width misses at most 5.6 % instead of 5
LEAST = 3  # seeds
MOST_SEEDS = 10_000
NODES = 200  # of the quadrature over the sum so far; 1e-9 in the critical values
LEAST_ALPHA = 1e-12  # of repeated p values
DRAWS = 20_000  # of a row, where its seeds until a verdict are simulated


def first_look(arms: int) -> int:
    """The fewest seeds at which stopping at a half-width may begin: (arms - 1)(seeds - 1) ≥ `FREEDOM`.

    With less the scatter is known so roughly that stopping where it looks small makes intervals miss: two
    arms from 3 seeds on miss in 9 % of all studies. Raises ValueError for fewer than two arms.
    """
    if arms < 2:
        raise ValueError(f"{arms} arms; two at least are needed for a comparison")
    return max(LEAST, 1 + math.ceil(FREEDOM / (arms - 1)))


@dataclass(frozen=True)
class Look:
    """What an interval has to hold at one look to be a verdict: levels of confidence, two-sided."""

    seeds: int
    sign: float = LEVEL  # for "higher" and "lower"
    small: float = 2 * LEVEL - 1  # for "no effect beyond the margin"


def repeated(looks: Sequence[int]) -> tuple[Look, ...]:
    """The looks of a plan, after so many seeds each, with the levels of their repeated intervals.

    The last is N. A t interval at such a level has the tail of the normal critical value at its own degrees
    of freedom. Raises ValueError where looks do not rise, or begin below 2.
    """
    numbers = tuple(looks)
    if not numbers or numbers[0] < 2 or any(b <= a for a, b in pairwise(numbers)):
        raise ValueError(f"looks at {', '.join(map(str, numbers)) or 'no'} seeds: they rise, from 2 on")
    plain = Look(0)
    return tuple(
        Look(n, repeated_level(numbers, n, plain.sign), repeated_level(numbers, n, plain.small))
        for n in numbers
    )


def repeated_level(looks: tuple[int, ...], seeds: int, level: float = LEVEL) -> float:
    """That an interval at the look at so many seeds needs, for those of all looks to hold with `level`."""
    edge = critical_values(looks, round(1 - level, 12))[looks.index(seeds)]
    return 1 - 2 * float(ndtr(-edge))


@lru_cache
def critical_values(looks: tuple[int, ...], alpha: float) -> tuple[float, ...]:
    """|z| beyond which a two-sided test that spends alpha·(n/N)² rejects at each look, N being the last.

    By the recursion of Armitage, McPherson and Rowe (1969): the density of the sum over seeds of a normal
    difference, among the studies that have gone on, is carried from look to look by quadrature.
    """
    x, w = np.polynomial.legendre.leggauss(NODES)
    # Of the sum at the last look, in standard deviations of one seed: where, and how likely.
    at, mass = np.zeros(1), np.ones(1)
    found: list[float] = []
    spent, before = 0.0, 0
    for seeds in looks:
        step, share = math.sqrt(seeds - before), alpha * (seeds / looks[-1]) ** 2

        def too_much(edge: float, at: Floats = at, mass: Floats = mass, step: float = step) -> float:
            return float(mass @ (ndtr((at - edge) / step) + ndtr((-at - edge) / step)))

        edge = float(brentq(lambda e, f=too_much, a=share - spent: f(e) - a, 0.0, 40 * math.sqrt(seeds)))
        there = edge * x
        mass = edge * w * (stats.norm.pdf((there[:, None] - at) / step) / step @ mass)
        at, spent, before = there, share, seeds
        found.append(edge / math.sqrt(seeds))
    return tuple(found)


def repeated_p(p: float, looks: tuple[int, ...], seeds: int) -> float:
    """The repeated p value of a two-sided test with this p at the look at so many seeds.

    The smallest alpha whose spending rejects at this look (Jennison and Turnbull 1984): below 0.05 where
    the repeated 95 % interval excludes the hypothesis. Not below `LEAST_ALPHA`, but for p = 0.
    """
    if p == 0:
        return 0.0
    alphas, boundaries = _boundaries(looks)
    edges, z = boundaries[:, looks.index(seeds)], float(stats.norm.isf(p / 2))
    if z <= edges[-1]:
        return 1.0
    return float(np.exp(PchipInterpolator(edges[::-1], np.log(alphas[::-1]))(min(z, edges[0]))))


@lru_cache
def _boundaries(looks: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Rising alphas, 0.05 and 0.10 among them, and their (alphas, looks) critical values."""
    alphas = np.array(sorted({*np.geomspace(LEAST_ALPHA, 0.99, 60), ALPHA, 2 * ALPHA}))
    return alphas, np.array([critical_values(looks, float(alpha)) for alpha in alphas])


@dataclass(frozen=True)
class Scatter:
    """The residual of a run, in the units of the scores."""

    variance: float
    freedom: float

    @property
    def sigma(self) -> float:
        """Its standard deviation."""
        return math.sqrt(self.variance)

    def bounds(self, level: float = LEVEL) -> tuple[float, ...]:
        """The interval of the standard deviation: by χ² of the residual's degrees of freedom."""
        squares, tail = self.variance * self.freedom, (1 - level) / 2
        return tuple(math.sqrt(squares / stats.chi2.ppf(p, self.freedom)) for p in (1 - tail, tail))


def half_width(sigma: float, arms: int, seeds: int, level: float = LEVEL) -> float:
    """Of a difference of two of the arms, from the residual pooled over all; infinite below two seeds."""
    if seeds < 2 or arms < 2:
        return math.inf
    return float(stdtrit((arms - 1) * (seeds - 1), 0.5 + level / 2)) * sigma * math.sqrt(2 / seeds)


def seeds_for_half_width(half: float, sigma: float, arms: int) -> int | None:
    """The fewest seeds at which it is reached and stopping may begin; None above `MOST_SEEDS`."""
    return _fewest(lambda seeds: half_width(sigma, arms, seeds) <= half, first_look(arms))


def seeds_for_effect(
    effect: float, sigma: float, arms: int, power: float = POWER, alpha: float = ALPHA
) -> int | None:
    """The fewest seeds that show an effect with the power wanted; None above `MOST_SEEDS`.

    By the noncentral t distribution at the pooled residual's degrees of freedom.
    """

    def shown(seeds: int) -> bool:
        error = sigma * math.sqrt(2 / seeds)
        return smallest_shown(student(0, error, (arms - 1) * (seeds - 1), seeds), power, alpha) <= effect

    return _fewest(shown, 2)


def _fewest(enough: Callable[[int], bool], first: int) -> int | None:
    low, high = first - 1, first
    while not enough(high):
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high if high <= MOST_SEEDS else None


@dataclass(frozen=True)
class Course:
    """How a row fares that is looked at until its verdict stands."""

    seeds: float  # on average
    inconclusive: float  # share of the studies that end without a verdict


def course(effect: float, sigma: float, arms: int, looks: Sequence[Look], margin: float) -> Course:
    """Of a row whose true effect this is, by simulation; scatter is taken as known, its t values are not."""
    random = np.random.default_rng(0)
    total = np.zeros(DRAWS)
    seeds, going, before = np.zeros(DRAWS), np.ones(DRAWS, bool), 0
    for look in looks:
        total += random.normal(0, math.sqrt(2 * (look.seeds - before)) * sigma, DRAWS)
        before = look.seeds
        difference, error = effect + total / look.seeds, sigma * math.sqrt(2 / look.seeds)
        freedom = (arms - 1) * (look.seeds - 1)
        sign, small = (float(stdtrit(freedom, 0.5 + level / 2)) * error for level in (look.sign, look.small))
        seeds[going] = look.seeds
        going &= (np.abs(difference) <= sign) & (np.abs(difference) + small >= margin)
    return Course(float(seeds.mean()), float(going.mean()))
