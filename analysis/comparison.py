"""Two models on the same validation images: where they differ, and how sure the images let us be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.resampled import bca_interval, percentile_interval
from analysis.statistics.seeds import TIE, tied
from yolor_core.evaluation.engine import (
    Matches,
    PairedBootstrap,
    Resampled,
    compress,
    paired_bootstrap,
    resample,
    score,
)
from yolor_core.tasks.registry import COCO_NUMBERS

DEFINED = 0.9  # of the resamples
BLOCK = 256  # images left out at a time, to keep the weights small


@dataclass(frozen=True)
class Difference:
    """One score of both models, in percent; None where it is undefined."""

    name: str
    a: float | None
    b: float | None
    delta: float | None = None
    percentile: tuple[float, float] | None = None  # 95 %
    bca: tuple[float, float] | None = None  # 95 %


@dataclass(frozen=True)
class Comparison:
    """All that a comparison of two models says."""

    metrics: tuple[Difference, ...]
    classes: tuple[Difference, ...]  # AP of each, the largest differences first
    images: tuple[tuple[int, float], ...]  # image id, its part in the difference of AP; the largest first
    resamples: int
    image_count: int
    warnings: tuple[str, ...]


def compare(a: Matches, b: Matches, resamples: int, seed: int = 0, threads: int = 1) -> Comparison:
    """Score two models on the same images and on the same resamples of them.

    Args:
        a, b: of both models on the same truth; the difference is b - a.
        resamples: of the images.
        seed: of the draws.
        threads: to work on.

    Raises:
        DataError: the models were not scored on the same images, categories and boxes.
    """
    drawn = paired_bootstrap(a, b, resamples, seed, threads, per_class=True)
    without = [leave_one_out(each) for each in (a, b)]
    metrics = tuple(_metric(name, drawn, without) for name in COCO_NUMBERS)
    classes = _classes(score(a)["per_class"], score(b)["per_class"], drawn)
    influence = _influence(drawn, without)
    order = sorted(np.flatnonzero(influence), key=lambda i: -round(abs(float(influence[i])), 9))
    images = tuple((int(a.image_ids[i]), float(influence[i])) for i in order)
    return Comparison(metrics, classes, images, resamples, len(a.image_ids), tuple(drawn.warnings))


def leave_one_out(matches: Matches) -> Resampled:
    """The scores without each image in turn, images by rising id."""
    events, images = compress(matches), len(matches.image_ids)
    parts = []
    for start in range(0, images, BLOCK):
        some = range(start, min(start + BLOCK, images))
        weights = np.ones((len(some), images), np.uint8)
        weights[np.arange(len(some)), list(some)] = 0
        parts.append(resample(events, weights, per_class=False))
    return Resampled.join(parts)


def _metric(name: str, drawn: PairedBootstrap, without: list[Resampled]) -> Difference:
    a, b = _percent(drawn.a[name]), _percent(drawn.b[name])
    if a is None or b is None:
        return Difference(name, a, b)
    delta, resampled = float(_settled(b - a)), _settled(100 * drawn.difference(name))
    left_out = 100 * (without[1].metrics[name] - without[0].metrics[name])
    if not _tells(resampled, delta):
        return Difference(name, a, b, delta)
    bca = bca_interval(delta, resampled, left_out)
    return Difference(name, a, b, delta, percentile_interval(resampled), bca)


def _classes(
    a: Mapping[str, float | None], b: Mapping[str, float | None], drawn: PairedBootstrap
) -> tuple[Difference, ...]:
    found = []
    for index, name in enumerate(drawn.resampled_a.names):
        first, second = _percent(a[name]), _percent(b[name])
        if first is None or second is None:
            found.append(Difference(name, first, second))
            continue
        delta = float(_settled(second - first))
        values = _settled(
            100 * (drawn.resampled_b.per_class[:, index] - drawn.resampled_a.per_class[:, index])
        )
        interval = percentile_interval(values) if _tells(values, delta) else None
        found.append(Difference(name, first, second, delta, interval))
    return tuple(sorted(found, key=lambda each: -round(abs(each.delta or 0.0), 9)))


def _settled(difference: ArrayLike) -> NDArray[np.float64]:
    """With 0 for what is 0 but for rounding, which would be printed as -0.00."""
    return np.where(tied(difference, 0), 0.0, difference)


def _tells(resampled: NDArray[np.float64], observed: float) -> bool:
    """Whether resamples say how sure a difference is: most of them have such boxes, and they differ."""
    defined = resampled[np.isfinite(resampled)]
    return len(defined) >= DEFINED * len(resampled) and (observed == 0 or bool(np.ptp(defined) > TIE))


def _influence(drawn: PairedBootstrap, without: list[Resampled]) -> NDArray[np.float64]:
    """What each image adds to the difference of AP (percent): the difference less that without the image."""
    a, b = drawn.a["AP"], drawn.b["AP"]
    if a is None or b is None:
        return np.zeros(len(without[0].metrics["AP"]))
    return _settled(100 * np.nan_to_num((b - a) - (without[1].metrics["AP"] - without[0].metrics["AP"])))


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
