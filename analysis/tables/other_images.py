"""The second target of a table: its effects on images like these, from the detections of all its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablations.table import ALL_DETECTION
from analysis.comparison import DEFINED, stored, stored_detections
from analysis.statistics.images import on_images_like_these
from analysis.tables.cells import FAMILY, Cell
from analysis.tables.fill import UNASKED, FilledTable
from yolor_core.errors import RunError
from yolor_core.evaluation.engine import Matches, Truth, bootstrap, match, score
from yolor_core.evaluation.engine.bootstrap import FEW_IMAGES
from yolor_core.runs.directory import RunDirectory

Scores = dict[str, NDArray[np.float64]]  # metric -> (resamples + 1,), the first on the images themselves
Arm = dict[tuple[int, str], Scores]  # of an experiment's runs, by seed and data


def resampled_scores(paths: Sequence[Path], resamples: int, seed: int, threads: int) -> dict[Path, Scores]:
    """Every run's scores (fractions) on its images, and on resamples of them that all runs share.

    Raises RunError for a run without detections, DataError where runs were evaluated on different images.
    """
    truths: dict[str, Truth] = {}
    matches: list[Matches] = []
    for path in paths:
        data = str((RunDirectory(path).read_run() or {}).get("fingerprint"))
        if data in truths:
            detections = stored_detections(path)
        else:
            content, detections = stored(path)
            truths[data] = Truth.read(content)
        matches.append(match(truths[data], detections))
    drawn = bootstrap(matches, resamples, seed, threads)
    found: dict[Path, Scores] = {}
    for path, each, values in zip(paths, matches, drawn, strict=True):
        own = score(each)["detection"]
        written = ((RunDirectory(path).read_evaluation() or {}).get("detection") or {}).get("AP")
        if own["AP"] is None or written is None or abs(own["AP"] - written) > 1e-6:
            raise RunError(
                f"{path}: its detections have AP {own['AP']} on today's annotations, {written} was written; "
                "the data have changed since, so other images cannot be drawn from them"
            )
        found[path] = {
            name: np.concatenate([[np.nan if own[name] is None else own[name]], values.metrics[name]])
            for name in ALL_DETECTION
        }
    return found


def with_other_images(
    filled: FilledTable, resamples: int = 1_000, seed: int = 0, threads: int = 1
) -> FilledTable:
    """The table with the interval of every difference on images like these, where it has two pairs or more.

    Args:
        filled: of `fill_table`.
        resamples: of the validation images, shared by all runs of the table.
        seed: of the draws.
        threads: to work on.
    """
    wanted = {name for cell in filled.cells for name in cell.runs}
    arms = {
        each.slug: runs[runs["run"].isin(wanted)]
        for each in filled.table.experiments
        if "detection" in each.tasks and not (runs := filled.runs[each.slug]).empty
    }
    if not arms:
        return filled
    used = pd.concat(arms.values())
    scores = resampled_scores([Path(path) for path in used["path"]], resamples, seed, threads)
    by_seed = {slug: _by_seed(runs, scores) for slug, runs in arms.items()}
    images = int(used["images"].dropna().iloc[0]) if used["images"].notna().any() else 0
    rows = {row.label: row for row in filled.table.rows}
    cells = []
    for cell in filled.cells:
        base = filled.table.baseline(rows[cell.row], cell.metric).slug
        own, other = by_seed.get(cell.experiment or "", {}), by_seed.get(base or "", {})
        cells.append(_widened(cell, own, other, images))
    if all(cell.images_low is None for cell in cells):
        return filled
    notes = filled.notes
    if repeated := [cell.row for cell in cells if cell.method == "repeated" and cell.metric == FAMILY]:
        notes = (
            *notes,
            f"Δ on other images has not paid for looks, and is left out of {'; '.join(repeated)}.",
        )
    if images < FEW_IMAGES:
        few = f"Only {images} images: a bootstrap over fewer than {FEW_IMAGES} understates how they scatter."
        notes = (*notes, few)
    said = (
        "Δ on other images: the effect on images like these, training and images both random (crossed "
        f"bootstrap, {resamples} resamples shared by all runs, Satterthwaite's degrees of freedom)"
    )
    facts = (*(fact for fact in filled.facts if fact != UNASKED), said)
    return replace(filled, cells=tuple(cells), notes=notes, facts=facts)


def _by_seed(runs: pd.DataFrame, scores: Mapping[Path, Scores]) -> Arm:
    return {
        (int(seed), str(fingerprint)): scores[Path(path)]
        for seed, fingerprint, path in runs[["seed", "fingerprint", "path"]].itertuples(index=False)
    }


def _widened(cell: Cell, own: Arm, other: Arm, images: int) -> Cell:
    shared = sorted(own.keys() & other.keys())
    if cell.method in (None, "repeated") or cell.metric not in ALL_DETECTION or len(shared) < 2:
        return cell
    differences = 100 * np.stack([own[key][cell.metric] - other[key][cell.metric] for key in shared])
    observed, drawn = differences[:, 0], differences[:, 1:].T
    defined = np.isfinite(drawn).all(axis=1)
    if not np.isfinite(observed).all() or defined.mean() < DEFINED:
        return cell
    interval = on_images_like_these(observed, drawn[defined], images)
    return replace(cell, images_low=interval.low, images_high=interval.high, images_p=interval.p)
