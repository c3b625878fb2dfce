"""The second target of a table: its effects on images like these, from the detections of all its runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablations.registry import as_overrides, resolve
from ablations.table import ALL_DETECTION
from analysis.cells import Cell
from analysis.published.detections import read_detections
from analysis.statistics.crossed import on_images_like_these
from analysis.tables import UNASKED, FilledTable
from yolor_core.config import RunConfig
from yolor_core.data.annotations import check_same_classes, class_labels, some_of
from yolor_core.data.load import load_images
from yolor_core.errors import DataError, RunError
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.engine import Matches, Truth, bootstrap, check_detections, match, score
from yolor_core.evaluation.engine.checks import FEW_IMAGES
from yolor_core.identity import signature
from yolor_core.runs.directory import RunDirectory

DEFINED = 0.9  # of the resamples: below it an interval would be of those alone that have such boxes
Content = dict[str, Any]  # of an annotation file
Scores = dict[str, NDArray[np.float64]]  # metric -> (resamples + 1,), the first on the images themselves


def stored(folder: Path) -> tuple[dict[str, Any], Detections]:
    """The annotations that a finished run was evaluated on, and its detections.

    Raises RunError where it has none.
    """
    run = RunDirectory(folder)
    record = run.read_run()
    if record is None or not run.detections.is_file():
        raise RunError(f"{folder} has no {run.detections.name}; only finished runs that detect have")
    config = RunConfig.from_json(json.dumps(record["config"]))
    return load_images(config.data, "val").coco, read_detections(run.detections)


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


def resampled_scores(paths: Sequence[Path], resamples: int, seed: int, threads: int) -> dict[Path, Scores]:
    """Every run's scores (fractions) on its images, and on resamples of them that all runs share.

    Raises RunError for a run without detections, DataError where runs were evaluated on different images.
    """
    truths: dict[str, Truth] = {}
    matches: list[Matches] = []
    for path in paths:
        record = RunDirectory(path).read_run() or {}
        content, detections = stored(path)
        truth = truths.setdefault(str(record.get("fingerprint")), Truth.read(content))
        matches.append(match(truth, detections))
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
    filled: FilledTable,
    runs: pd.DataFrame,
    overrides: Sequence[Any] = (),
    resamples: int = 1_000,
    seed: int = 0,
    threads: int = 1,
) -> FilledTable:
    """The table with the interval of every difference on images like these, where it has two pairs or more.

    Args:
        filled: of `fill_table`.
        runs: those that the table was filled from.
        overrides: as for `fill_table`.
        resamples: of the validation images, shared by all runs of the table.
        seed: of the draws.
        threads: to work on.
    """
    profile = filled.cells[0].profile
    known = [row for row in filled.table.rows if row.experiment is not None]
    signatures = {
        row.slug: signature(resolve(row.experiment, profile, as_overrides(overrides)))
        for row in known
        if row.experiment is not None and "detection" in row.experiment.tasks
    }
    wanted = {name for cell in filled.cells for name in cell.runs}
    used = runs[runs["run"].isin(wanted) & runs["signature"].isin(signatures.values())]
    if used.empty:
        return filled
    scores = resampled_scores([Path(path) for path in used["path"]], resamples, seed, threads)
    arms = {slug: _by_seed(used[used["signature"] == each], scores) for slug, each in signatures.items()}
    images = int(used["images"].dropna().iloc[0]) if used["images"].notna().any() else 0
    cells = tuple(_widened(filled, cell, arms, images) for cell in filled.cells)
    if all(cell.images_low is None for cell in cells):
        return filled
    notes = filled.notes
    if images < FEW_IMAGES:
        few = f"Only {images} images: a bootstrap over fewer than {FEW_IMAGES} understates how they scatter."
        notes = (*notes, few)
    said = filled.caption.replace(f"; {UNASKED}", "")
    return replace(filled, cells=cells, notes=notes, caption=f"{said} {caption(resamples)}")


def caption(resamples: int) -> str:
    """What has to be said about the second target."""
    return (
        "Δ on other images: the effect on images like these, training and images both random (crossed "
        f"bootstrap, {resamples} resamples shared by all runs, Satterthwaite's degrees of freedom)."
    )


def _by_seed(used: pd.DataFrame, scores: Mapping[Path, Scores]) -> dict[tuple[int, str], Scores]:
    return {
        (int(seed), str(fingerprint)): scores[Path(path)]
        for seed, fingerprint, path in used[["seed", "fingerprint", "path"]].itertuples(index=False)
    }


def _widened(
    filled: FilledTable, cell: Cell, arms: Mapping[str | None, Mapping[tuple[int, str], Scores]], images: int
) -> Cell:
    if cell.pairs < 2 or cell.metric not in ALL_DETECTION:
        return cell
    row = next(row for row in filled.table.rows if row.label == cell.row)
    own, other = arms.get(row.slug, {}), arms.get(filled.table.baseline(row, cell.metric).slug, {})
    shared = sorted(own.keys() & other.keys())
    if len(shared) < 2:
        return cell
    differences = 100 * np.stack([own[key][cell.metric] - other[key][cell.metric] for key in shared])
    observed, drawn = differences[:, 0], differences[:, 1:].T
    defined = np.isfinite(drawn).all(axis=1)
    if not np.isfinite(observed).all() or defined.mean() < DEFINED:
        return cell
    drawn = drawn[defined]
    interval = on_images_like_these(observed, drawn, images)
    return replace(cell, images_low=interval.low, images_high=interval.high, images_p=interval.p)
