"""Two models on the same validation images: where they differ, and how sure the images let us be."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.errors import NothingToShow
from analysis.published.detections import read_detections
from analysis.runs import percent
from analysis.statistics.images import bca_interval, percentile_interval
from analysis.statistics.seeds import TIE, tied
from analysis.tables.cells import FAMILY
from analysis.tables.fill import FilledTable
from yolor_core.config import RunConfig
from yolor_core.data.annotations import check_same_classes, class_labels
from yolor_core.data.load import load_images
from yolor_core.errors import DataError, RunError, some_of
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.engine import (
    Matches,
    PairedBootstrap,
    Resampled,
    check_detections,
    compress,
    match,
    paired_bootstrap,
    resample,
    score,
)
from yolor_core.runs.directory import RunDirectory
from yolor_core.tasks import COCO_NUMBERS

DEFINED = 0.9  # of the resamples: below it an interval would be of those alone that have such boxes
BLOCK = 256  # images left out at a time, to keep the weights small
Content = dict[str, Any]  # of an annotation file


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
    a, b = percent(drawn.a[name]), percent(drawn.b[name])
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
        first, second = percent(a[name]), percent(b[name])
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


def compare_runs(
    a: Path | str, b: Path | str, resamples: int = 1_000, seed: int = 0, threads: int = 1
) -> Comparison:
    """`compare` two finished runs (their folders) on the validation images of both.

    Raises NothingToShow where a run has no detections, or the images are not the same.

    Example:
        >>> from analysis import load_runs
        >>> runs = load_runs("results/published/mini").query("seed == 0").set_index("experiment")["path"]
        >>> found = compare_runs(runs["csp-fast"], runs["csp-fast.add-fa"], resamples=100)
        >>> found.metrics[0].name, round(found.metrics[0].a, 2), round(found.metrics[0].delta, 2)
        ('AP', 61.87, 0.01)
    """
    a, b = Path(a), Path(b)
    try:
        a_matches, b_matches = (match(*stored(path)) for path in (a, b))
        return compare(a_matches, b_matches, resamples, seed, threads)
    except (RunError, DataError) as error:
        raise NothingToShow(f"{a.name} and {b.name} cannot be compared: {error}") from None


def stored(folder: Path) -> tuple[Content, Detections]:
    """The annotations that a finished run was evaluated on, and its detections.

    Raises RunError where it has none.
    """
    detections = stored_detections(folder)
    record = RunDirectory(folder).read_run() or {}
    config = RunConfig.from_json(json.dumps(record["config"]))
    return load_images(config.data, "val").coco, detections


def stored_detections(folder: Path) -> Detections:
    """The detections of a finished run. Raises RunError where it has none."""
    run = RunDirectory(folder)
    if run.read_run() is None or not run.detections.is_file():
        raise RunError(f"{folder} has no {run.detections.name}; only finished runs that detect have")
    return read_detections(run.detections)


def renumbered(detections: Detections, own: Content, other: Content, where: str, whose: str) -> Detections:
    """Detections with the ids of another annotation file: classes are matched by name, images by file name.

    `own` is the content of the file that the ids are of, `other` that of the file `where`; `whose` says in
    messages what was scored on `own`. Raises DataError where the detections do not belong to `own`, the
    classes differ, or an image is not in `other`.
    """
    check_detections(own, detections)
    labels = [
        class_labels({each["id"]: each["name"] for each in file["categories"]}) for file in (own, other)
    ]
    check_same_classes(list(labels[1].values()), list(labels[0].values()), where, whose)
    classes = {label: key for key, label in labels[1].items()}
    files = {each["file_name"]: each["id"] for each in other["images"] if "file_name" in each}
    names = {each["id"]: each["file_name"] for each in own["images"]}
    shown, place = np.unique(detections.image_id, return_inverse=True)
    missing = [names[image] for image in shown.tolist() if names[image] not in files]
    if missing:
        raise DataError(f"{where} lacks images that {whose} has: {some_of(missing)}")
    images = np.array([files[names[image]] for image in shown.tolist()], np.int64)
    category = np.array([classes[labels[0][key]] for key in detections.category_id.tolist()], np.int64)
    return replace(detections, image_id=images[place], category_id=category)


def most_different(filled: Iterable[FilledTable]) -> tuple[Path, Path]:
    """The folders of a baseline's run and a variant's: of the row whose AP differs most, the lowest seed.

    Raises NothingToShow where no row and its baseline have finished on the same seed and data.
    """
    found = [
        (abs(cell.delta), each.runs[base.slug], each.runs[cell.experiment])
        for each in filled
        for cell, base in each.variants
        if cell.delta is not None and cell.experiment is not None and base.slug is not None
    ]
    if not found:
        raise NothingToShow("No row and its baseline have both finished with the same seed yet.")
    _, base_runs, runs = max(found, key=lambda one: one[0])
    first = paired(base_runs, runs).dropna(subset=[FAMILY, f"{FAMILY} other"]).iloc[0]
    return Path(first["path"]), Path(first["path other"])


def paired(runs: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Runs beside others of the same seed and data, whose columns end in ` other`; by seed."""
    both = runs.merge(others, on=["seed", "fingerprint"], suffixes=("", " other"))
    return both.sort_values(["seed", "run", "run other"], ignore_index=True)
