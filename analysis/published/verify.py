"""Making every number of a published folder again, and comparing it with what is published."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ablations.table import ALL_DETECTION
from analysis.published.build import Costs, payload, reopened
from analysis.published.detections import read_detections
from analysis.published.evidence import counted_runs, evidence
from analysis.published.figures import figure_data
from analysis.published.manifest import (
    MANIFEST,
    PROVENANCE,
    SUMMARY,
    Made,
    contents,
    read_manifest,
)
from analysis.published.summary import summary
from yolor_core.config import RunConfig
from yolor_core.data.images import ImageSet
from yolor_core.data.load import load_images
from yolor_core.errors import YolorError
from yolor_core.evaluation.coco import evaluate_boxes
from yolor_core.identity import run_id, signature
from yolor_core.runs.directory import RunDirectory

SHOWN = 3  # differences named of a check
OTHER_TASKS = ("classification", "embedding")


@dataclass
class Check:
    """One kind of comparison: how many were made, and those that failed."""

    name: str
    done: int = 0
    differences: list[str] = field(default_factory=list)
    not_derived: int = 0
    why: str = ""  # they are not derived again

    def compare(self, what: str, published: object, again: object) -> None:
        """Count a comparison; where it fails, remember both values."""
        self.done += 1
        if published != again or type(published) is not type(again):
            self.differences.append(f"{what}: {published!r} is published, {again!r} was found")

    def fail(self, what: str) -> None:
        """Count a comparison that could not be made, or failed."""
        self.done += 1
        self.differences.append(what)

    @property
    def line(self) -> str:
        """`COCO's twelve numbers: 168 compared, all equal`."""
        skipped = f"; {self.not_derived} not re-derived ({self.why})" if self.not_derived else ""
        if not self.differences and not self.done:
            return f"ok      {self.name}: none compared{skipped}"
        if not self.differences:
            return f"ok      {self.name}: {self.done} compared, all equal{skipped}"
        named = "".join(f"\n        {each}" for each in self.differences[:SHOWN])
        more = len(self.differences) - SHOWN
        rest = f"\n        and {more} more" if more > 0 else ""
        return f"DIFFERS {self.name}: {len(self.differences)} of {self.done} compared{skipped}{named}{rest}"


def verify(folder: Path, costs: Costs) -> Iterator[Check]:
    """Check a published folder; yields every kind of check when it is finished.

    Args:
        folder: written by `analysis.published.build.publish`.
        costs: counts the parameters and FLOPs of a table.

    Raises:
        PublishError: the folder is no published one.
    """
    made, files = read_manifest(folder)
    yield _files(folder, {name: dict(each) for name, each in files.items()})
    paths = sorted(path for path in (folder / "runs").glob("*") if path.is_dir())
    yield from _runs(paths)
    yield from _texts(folder, made, costs)


def _files(folder: Path, files: dict[str, dict[str, Any]]) -> Check:
    check = Check(f"files, by hash and size ({MANIFEST})")
    found = contents(folder)
    for name in sorted({*files, *found}):
        if name not in found:
            check.fail(f"{name} is missing")
        elif name not in files:
            check.fail(f"{name} is not in {MANIFEST}")
        else:
            check.compare(name, files[name], found[name])
    return check


def _runs(paths: Sequence[Path]) -> Iterator[Check]:
    absent = "no detections, or the dataset is not here"
    identity = Check("signatures and run ids, from the configurations")
    data = Check("data fingerprints", why="the dataset is not here")
    numbers = Check("COCO's twelve numbers, by pycocotools from the detections", why=absent)
    classes = Check("AP of each class", why=absent)
    counts = Check("images and detections", why=absent)
    last = Check("scores of the last epoch (metrics.jsonl)")
    others = Check("other tasks' scores", why="detections do not hold what they are computed from")
    for path in paths:
        try:
            _run(RunDirectory(path), identity, data, (numbers, classes, counts), last, others)
        except (YolorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            identity.fail(f"{path.name} cannot be checked: {type(error).__name__}: {error}")
    yield from (identity, data, numbers, classes, counts, last, others)


def _run(
    run: RunDirectory,
    identity: Check,
    data: Check,
    scores: tuple[Check, Check, Check],
    last: Check,
    others: Check,
) -> None:
    name, record, evaluation = run.path.name, run.read_run() or {}, run.read_evaluation() or {}
    config = RunConfig.from_json(json.dumps(record["config"]))
    identity.compare(f"{name}: signature", record["signature"], signature(config.science))
    identity.compare(f"{name}: run id", record["run"], run_id(config, str(record["fingerprint"])))
    identity.compare(f"{name}: folder", name, record["run"])
    for column, again in (("experiment", config.experiment), ("seed", config.seed)):
        identity.compare(f"{name}: {column}", record[column], again)
    _last_epoch(name, run, evaluation, last)
    _other_tasks(name, evaluation, run.read_metrics(), others, last)
    images = _images(config.data.model_dump_json(), config)
    numbers, classes, counts = scores
    detection = evaluation.get("detection") or {}
    if images is None:
        data.not_derived += 1
    else:
        splits = [each.fingerprint for each in images]
        again = hashlib.sha256(json.dumps(splits).encode()).hexdigest()
        data.compare(name, record["fingerprint"], again)
    if images is None or not run.detections.is_file():
        if config.science.model.detection and images is not None:
            numbers.fail(f"{name}: {run.detections.name} is missing")
        numbers.not_derived += len(detection)
        classes.not_derived += len(evaluation.get("per_class") or {})
        counts.not_derived += 2
        return
    found = evaluate_boxes(images[1].coco, read_detections(run.detections))
    for key in sorted({*detection, *found["detection"]}):
        numbers.compare(f"{name}: {key}", detection.get(key), found["detection"].get(key))
    per_class = evaluation.get("per_class") or {}
    for key in sorted({*per_class, *found["per_class"]}):
        classes.compare(f"{name}: AP of {key}", per_class.get(key), found["per_class"].get(key))
    for key in ("images", "detections"):
        counts.compare(f"{name}: {key}", evaluation.get(key), found[key])


def _last_epoch(name: str, run: RunDirectory, evaluation: dict[str, Any], check: Check) -> None:
    """The last line of metrics.jsonl has the numbers of evaluation.json."""
    lines = run.read_metrics()
    if not lines:
        check.fail(f"{name}: {run.metrics.name} is missing or empty")
        return
    for key in ALL_DETECTION:
        if key in lines[-1]:
            check.compare(f"{name}: {key}", lines[-1][key], (evaluation.get("detection") or {}).get(key))
    state = run.read_state() or {}
    check.compare(f"{name}: epochs", state.get("epoch"), lines[-1].get("epoch"))
    check.compare(f"{name}: lines", len(lines), lines[-1].get("epoch"))


def _other_tasks(
    name: str, evaluation: dict[str, Any], lines: list[dict[str, Any]], others: Check, last: Check
) -> None:
    for task in OTHER_TASKS:
        for key, value in (evaluation.get(task) or {}).items():
            if isinstance(value, int | float):
                others.not_derived += 1
                if lines and f"{task}/{key}" in lines[-1]:
                    last.compare(f"{name}: {task}/{key}", lines[-1][f"{task}/{key}"], value)


def _images(key: str, config: RunConfig) -> tuple[ImageSet, ImageSet] | None:
    """Both splits of a run's data; None where the dataset is not on this machine."""
    return _load(key, config.data.kind, config.model_dump_json())


@cache
def _load(key: str, kind: str, config: str) -> tuple[ImageSet, ImageSet] | None:
    data = RunConfig.from_json(config).data
    try:
        return load_images(data, "train"), load_images(data, "val")
    except (YolorError, OSError):
        if kind == "shapes":
            raise
        return None


def _texts(folder: Path, made: Made, costs: Costs) -> Iterator[Check]:
    tables = Check("tables in every format, made again from the runs")
    verdicts = Check(f"verdicts ({SUMMARY})")
    origin = Check(f"where each cell comes from ({PROVENANCE})")
    drawn = Check("data of the figures")
    study = reopened(folder, made, costs)
    if study.refused or counted_runs(study).empty:
        reason = "; ".join(study.refused.values()) or "no finished runs"
        tables.fail(f"the tables cannot be made: {reason}")
        yield tables
        return
    again = evidence(study)
    published = {path.relative_to(folder).as_posix() for path in (folder / "tables").glob("*")}
    for name in sorted({*published, *again} - {PROVENANCE}):
        _text(tables, folder, name, again.get(name))
    yield tables
    _text(verdicts, folder, SUMMARY, summary(study, payload(folder)))
    yield verdicts
    _text(origin, folder, PROVENANCE, again[PROVENANCE])
    yield origin
    data = figure_data(study)
    for name in sorted({*data, *(path.relative_to(folder).as_posix() for path in _csv(folder))}):
        _text(drawn, folder, name, data.get(name))
    yield drawn


def _csv(folder: Path) -> list[Path]:
    return [path for path in (folder / "figures").glob("*") if ".csv" in path.name]


def _text(check: Check, folder: Path, name: str, again: str | bytes | None) -> None:
    """Compare a file, byte by byte, with what it should be; names the first line that differs."""
    path = folder / name
    if again is None or not path.is_file():
        check.fail(f"{name} is {'missing' if again is not None else 'not made from these runs'}")
        return
    raw, wanted = path.read_bytes(), again.encode() if isinstance(again, str) else again
    check.done += 1
    if raw == wanted:
        return
    pairs = zip_longest(raw.splitlines(), wanted.splitlines())
    line = next((n for n, (a, b) in enumerate(pairs, 1) if a != b), 0)
    check.differences.append(f"{name}: line {line} differs from what the runs give")
