"""The checks of one published run, from its own files and the annotations of its data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from ablations.table import ALL_DETECTION
from analysis.published.checks import Check
from analysis.published.detections import read_detections
from analysis.published.differences import Found, json_differences
from yolor_core.config import CocoConfig, RunConfig, ShapesConfig
from yolor_core.data.fingerprint import data_fingerprint
from yolor_core.data.images import ImageSet
from yolor_core.data.load import load_images
from yolor_core.errors import YolorError
from yolor_core.evaluation.coco import evaluate_boxes
from yolor_core.identity import canonical_json
from yolor_core.runs.directory import RunDirectory
from yolor_core.tasks import TASKS

OTHER_TASKS = tuple(name for name in TASKS if name != "detection")
ABSENT = "no detections, or the dataset is not here"
Json = dict[str, Any]


@dataclass
class RunChecks:
    """What is checked of every run."""

    identity: Check = field(default_factory=lambda: Check("signatures and run ids, from the configurations"))
    data: Check = field(default_factory=lambda: Check("data fingerprints", why="the dataset is not here"))
    boxes: Check = field(
        default_factory=lambda: Check(
            "images and boxes of the data (dataset.json)", why="the file or the dataset is not here"
        )
    )
    numbers: Check = field(
        default_factory=lambda: Check("COCO's twelve numbers, by pycocotools from the detections", why=ABSENT)
    )
    classes: Check = field(default_factory=lambda: Check("AP of each class", why=ABSENT))
    counts: Check = field(default_factory=lambda: Check("images and detections", why=ABSENT))
    last: Check = field(default_factory=lambda: Check("scores of the last epoch (metrics.jsonl)"))
    others: Check = field(
        default_factory=lambda: Check(
            "other tasks' scores", why="detections do not hold what they are computed from"
        )
    )

    @property
    def all(self) -> tuple[Check, ...]:
        """In the order in which they are told."""
        return tuple(getattr(self, each.name) for each in fields(self))


def check_run(path: Path) -> RunChecks:
    """Check one run. A file that is missing or damaged is a difference that names it."""
    checks, run = RunChecks(), RunDirectory(path)
    content: dict[str, Json] = {}
    wanted = [(run.state, run.read_state), (run.run, run.read_run), (run.evaluation, run.read_evaluation)]
    for file, read in wanted:
        if file == run.evaluation and content.get(run.state.name, {}).get("state") == "failed":
            continue  # it is published for what became of it alone
        if (found := _tried(checks.identity, path, file, read)) is not None:
            content[file.name] = found
    record, evaluation = content.get(run.run.name), content.get(run.evaluation.name)
    for part in ("detection", "per_class", *OTHER_TASKS):
        if evaluation is not None and not isinstance(evaluation.get(part, {}), dict | None):
            said = f"{part} is {evaluation[part]!r:.40}; scores by name are needed"
            checks.numbers.fail(f"{path.name}/{run.evaluation.name}: {said}")
            evaluation = None
    if evaluation is not None:
        state = content.get(run.state.name) or {}
        _tried(checks.last, path, run.metrics, lambda: _last_epoch(run, evaluation, state, checks))
    if record is not None:
        _tried(checks.identity, path, run.run, lambda: _identity(path.name, record, checks.identity))
        if content.get(run.state.name, {}).get("state") != "failed":
            _tried(checks.data, path, run.run, lambda: _data(run, record, checks))
    if record is not None and evaluation is not None:
        _tried(checks.numbers, path, run.detections, lambda: _scores(run, record, evaluation, checks))
    return checks


def _tried(check: Check, folder: Path, file: Path, read: Callable[[], Json | None]) -> Json | None:
    """What `read` gives; None, and a difference that names the file, where that fails."""
    name = f"{folder.name}/{file.name}"
    try:
        found = read()
    except KeyError as error:
        check.fail(f"{name} lacks {error}")
    except YolorError as error:
        said = str(error).removeprefix(f"{file} ").split(". Remove the file, or")[0]
        check.fail(f"{name} {said}" if said != str(error) else f"{name}: {said}")
    except (OSError, TypeError, ValueError, AttributeError, OverflowError) as error:
        check.fail(f"{name} cannot be checked: {type(error).__name__}: {error}")
    else:
        if found is None:
            check.fail(f"{name} is missing")
        return found
    return None


def _identity(name: str, record: Json, check: Check) -> Json:
    """Of the configuration as it is written, so that a later version of the code finds the same."""
    config = record["config"]
    content = {"schema": record["schema"], "science": config["science"]}
    again = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    check.compare(f"{name}: signature", record["signature"], again)
    key = canonical_json([again, config["seed"], record["fingerprint"]])
    digest = hashlib.sha256(key.encode()).hexdigest()[:10]
    run = f"{config['experiment']}-{config['science']['profile']}-s{config['seed']}-{digest}"
    check.compare(f"{name}: run id", record["run"], run)
    check.compare(f"{name}: folder", name, record["run"])
    for column in ("experiment", "seed"):
        check.compare(f"{name}: {column}", record[column], config[column])
    return record


def _data(run: RunDirectory, record: Json, checks: RunChecks) -> Json:
    name, config = run.path.name, RunConfig.from_json(json.dumps(record["config"]))
    images = _images(config.data)
    if images is None:
        checks.data.not_derived += 1
        checks.boxes.not_derived += 1
        return record
    splits = [each.fingerprint for each in images]
    again = hashlib.sha256(json.dumps(splits).encode()).hexdigest()
    if (
        isinstance(config.data, CocoConfig) and record["fingerprint"] != again
    ):  # of annotations in version 0.1.0
        again = data_fingerprint(config.data)
    checks.data.compare(name, record["fingerprint"], again)
    checks.data.compare(f"{name}: classes", record["classes"], list(images[0].names))

    def boxes() -> Json:
        published = json.loads(run.dataset.read_text(encoding="utf-8"))
        found = Found()
        summary = _summary(config.data, config.science.evaluation.size)
        json_differences(published, json.loads(summary), f"{name}/{run.dataset.name}", found)
        checks.boxes.add(found)
        return record

    if not run.dataset.is_file():  # older runs have none
        checks.boxes.not_derived += 1
    else:
        _tried(checks.boxes, run.path, run.dataset, boxes)
    return record


def _scores(run: RunDirectory, record: Json, evaluation: Json, checks: RunChecks) -> Json:
    name, config = run.path.name, RunConfig.from_json(json.dumps(record["config"]))
    images = _images(config.data)
    detection, per_class = evaluation.get("detection") or {}, evaluation.get("per_class") or {}
    if images is None or not run.detections.is_file():
        if images is not None and config.science.model.detection:
            checks.numbers.fail(f"{name}/{run.detections.name} is missing")
        checks.numbers.not_derived += len(detection)
        checks.classes.not_derived += len(per_class)
        checks.counts.not_derived += 2
        return record
    found = evaluate_boxes(_annotations(config.data), read_detections(run.detections))
    for key in dict.fromkeys([*found["detection"], *detection]):
        checks.numbers.score(f"{name}: {key}", detection.get(key), found["detection"].get(key))
    for key in dict.fromkeys([*found["per_class"], *per_class]):
        checks.classes.score(f"{name}: AP of {key}", per_class.get(key), found["per_class"].get(key))
    for key in ("images", "detections"):
        checks.counts.compare(f"{name}: {key}", evaluation.get(key), found[key])
    return record


def _last_epoch(run: RunDirectory, evaluation: Json, state: Json, checks: RunChecks) -> Json | None:
    """The last line of metrics.jsonl has the numbers of evaluation.json."""
    name, lines, check = run.path.name, run.read_metrics(), checks.last
    if not lines:
        return None
    last, detection = lines[-1], evaluation.get("detection") or {}
    for key in ALL_DETECTION:
        if key in last:
            check.compare(f"{name}: {key}", last[key], detection.get(key))
    check.compare(f"{name}: epochs", state.get("epoch"), last.get("epoch"))
    check.compare(f"{name}: epochs planned", state.get("epoch"), state.get("epochs"))
    check.compare(f"{name}: lines", [line.get("epoch") for line in lines], list(range(1, len(lines) + 1)))
    if state.get("ap") is not None:
        check.compare(f"{name}: AP in {run.state.name}", state["ap"], detection.get("AP"))
    for task in OTHER_TASKS:
        for key, value in (evaluation.get(task) or {}).items():
            if isinstance(value, int | float):
                checks.others.not_derived += 1
                if f"{task}/{key}" in last:
                    check.compare(f"{name}: {task}/{key}", last[f"{task}/{key}"], value)
    return evaluation


@cache
def _images(data: ShapesConfig | CocoConfig) -> tuple[ImageSet, ImageSet] | None:
    """Both splits of a run's data; None where the dataset is not on this machine."""
    try:
        return load_images(data, "train"), load_images(data, "val")
    except (YolorError, OSError):
        if isinstance(data, ShapesConfig):
            raise
        return None


@cache
def _annotations(data: ShapesConfig | CocoConfig) -> Json:
    """Of the validation images; `evaluate_boxes` leaves them as they are."""
    images = _images(data)
    if images is None:
        raise ValueError("the dataset is not here")
    return images[1].coco


@cache
def _summary(data: ShapesConfig | CocoConfig, size: int) -> str:
    """What dataset.json of a run has to be, as JSON."""
    from yolor_core.data.summary import summarise  # imports torch

    images = _images(data)
    if images is None:
        raise ValueError("the dataset is not here")
    train, val = images
    val = val.with_classes(train.names, train.report.source)
    return json.dumps({"train": summarise(train, size), "val": summarise(val, size)})
