"""Checks of one published run: what its own files and the annotations of its data say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from ablations.table import ALL_DETECTION
from analysis.published.checks import Check, columns, same_score, same_value
from analysis.published.detections import read_detections
from analysis.published.publish import PICTURES, pictures_of
from yolor_core.config import CocoConfig, RunConfig, ShapesConfig
from yolor_core.data.fingerprint import data_fingerprint
from yolor_core.data.images import ImageSet
from yolor_core.data.layout import coco_config, splits
from yolor_core.data.load import load_images
from yolor_core.errors import RunError, YolorError
from yolor_core.evaluation.coco import evaluate_boxes
from yolor_core.identity import canonical_json, written_signature
from yolor_core.runs.directory import RunDirectory
from yolor_core.tasks import TASKS

OTHER_TASKS = tuple(name for name in TASKS if name != "detection")
NO_DATA = "the dataset is not here; --data PATH names it"
NO_OUTPUTS = "detections do not hold what they are computed from"
OF_A_RUN = (  # what is checked of every run, and why some of it may be not derived again
    ("signatures and run ids, from the configurations", ""),
    ("data fingerprints", NO_DATA),
    ("images and boxes of the data (dataset.json)", "the file or the dataset is not here"),
    ("COCO's twelve numbers, by pycocotools from the detections", f"no detections, or {NO_DATA}"),
    ("AP of each class", f"no detections, or {NO_DATA}"),
    ("images and detections", f"no detections, or {NO_DATA}"),
    ("scores of the last epoch (metrics.jsonl)", ""),
    ("other tasks' scores", NO_OUTPUTS),
)
Json = dict[str, Any]


def of_photographs(runs: Iterable[Path], data: Path) -> list[CocoConfig]:
    """The folder `data` with the splits that runs were trained on, where it has them; else with its own."""
    named = set()
    for path in runs:
        with suppress(YolorError):  # a damaged run is told of by its own checks
            said = ((RunDirectory(path).read_run() or {}).get("config") or {}).get("data") or {}
            if said.get("kind") == "coco":
                named.add((str(said.get("train")), str(said.get("val"))))
    found = (_in_folder(CocoConfig(root=str(data), train=t, val=v), data) for t, v in sorted(named))
    return list(dict.fromkeys(found)) or [coco_config(data)]


def _in_folder(data: CocoConfig, root: Path) -> CocoConfig:
    """The same splits in the folder `root` where it has them, else its own two."""
    own = {data.train, data.val} <= {*splits(root)}
    return data.model_copy(update={"root": str(root)}) if own else coco_config(root)


def check_run(path: Path, data: Path | None = None) -> list[Check]:
    """Check one run, by `OF_A_RUN`. A file that is missing or damaged is a difference that names it."""
    return RunChecks(path, data).made()


class RunChecks:
    """The checks of one run. root: where photographs that it was trained on are."""

    def __init__(self, path: Path, root: Path | None) -> None:
        self.run, self.name, self.root = RunDirectory(path), path.name, root
        self.all = [Check(*each) for each in OF_A_RUN]
        self.identity, self.data, self.boxes, *scores, self.last, self.others = self.all
        self.numbers, self.classes, self.counts = scores

    def made(self) -> list[Check]:
        """All of them."""
        run = self.run
        state = self._read(run.state, run.read_state) or {}
        record = self._read(run.run, run.read_run)
        failed = state.get("state") == "failed"  # it is published for what became of it alone
        evaluation = None if failed else self._read(run.evaluation, run.read_evaluation)
        for part in ("detection", "per_class", *OTHER_TASKS):
            if evaluation is not None and not isinstance(evaluation.get(part, {}), dict | None):
                said = f"{part} is {evaluation[part]!r:.40}; scores by name are needed"
                self.numbers.fail(f"{self.name}/{run.evaluation.name}: {said}")
                evaluation = None
        if evaluation is not None:
            with self._naming(self.last, run.metrics):
                self._last_epoch(evaluation, state)
        if record is not None:
            with self._naming(self.identity, run.run):
                self._identity(record)
            with self._naming(self.data, run.run):
                if not failed:
                    self._data(record)
        if record is not None and evaluation is not None:
            with self._naming(self.numbers, run.detections):
                self._scores(record, evaluation)
        return self.all

    def _read(self, file: Path, read: Callable[[], Json | None]) -> Json | None:
        found = None
        with self._naming(self.identity, file):
            if (found := read()) is None:
                raise RunError(f"{file} is missing")
        return found

    @contextmanager
    def _naming(self, check: Check, file: Path) -> Iterator[None]:
        """What goes wrong is a difference that names the file."""
        name = f"{self.name}/{file.name}"
        try:
            yield
        except KeyError as error:
            check.fail(f"{name} lacks {error}")
        except YolorError as error:
            said = str(error).removeprefix(f"{file} ").split(". Remove the file, or")[0]
            check.fail(f"{name} {said}" if said != str(error) else f"{name}: {said}")
        except (OSError, TypeError, ValueError, AttributeError, OverflowError) as error:
            check.fail(f"{name} cannot be checked: {type(error).__name__}: {error}")

    def _identity(self, record: Json) -> None:
        """Of the configuration as it is written, so that a later version of the code finds the same."""
        config = record["config"]
        again = written_signature(config["science"], record["schema"])
        key = canonical_json([again, config["seed"], record["fingerprint"]])
        digest = hashlib.sha256(key.encode()).hexdigest()[:10]
        run = f"{config['experiment']}-{config['science']['profile']}-s{config['seed']}-{digest}"
        for what, old, new in (
            ("signature", record["signature"], again),
            ("run id", record["run"], run),
            ("folder", self.name, record["run"]),
            *((column, record[column], config[column]) for column in ("experiment", "seed")),
        ):
            self.identity.compare(f"{self.name}: {what}", old, new)

    def _config(self, record: Json) -> RunConfig:
        config = RunConfig.from_json(json.dumps(record["config"]))
        if self.root is None or isinstance(config.data, ShapesConfig):
            return config
        return config.model_copy(update={"data": _in_folder(config.data, self.root)})

    def _data(self, record: Json) -> None:
        config = self._config(record)
        images = _images(config.data)
        if images is None or not self.run.dataset.is_file():  # which older runs have not
            self.boxes.not_derived += 1
        if images is None:
            self.data.not_derived += 1
            return
        both = [each.fingerprint for each in images[:2]]
        again = hashlib.sha256(json.dumps(both).encode()).hexdigest()
        if isinstance(config.data, CocoConfig) and record["fingerprint"] != again:
            again = data_fingerprint(config.data)  # of annotations in version 0.1.0
        self.data.compare(self.name, record["fingerprint"], again)
        self.data.compare(f"{self.name}: classes", record["classes"], list(images[0].names))
        pictures = self.run.path.parents[1] / PICTURES
        with self._naming(self.data, pictures):
            if isinstance(config.data, CocoConfig) and pictures.is_file():
                new = columns(pictures_of(images[2]).to_csv(index=False))
                self.data.compare(pictures.name, columns(pictures.read_text(encoding="utf-8")), new)
        with self._naming(self.boxes, self.run.dataset):
            if self.run.dataset.is_file():
                old = json.loads(self.run.dataset.read_text(encoding="utf-8"))
                new = json.loads(_summary(config.data, config.science.evaluation.size))
                self.boxes.compare(f"{self.name}/{self.run.dataset.name}", old, new, same_value)

    def _scores(self, record: Json, evaluation: Json) -> None:
        config = self._config(record)
        images, file = _images(config.data), self.run.detections
        if images is None or not file.is_file():
            if images is not None and config.science.model.detection:
                self.numbers.fail(f"{self.name}/{file.name} is missing")
            self.numbers.not_derived += len(evaluation.get("detection") or {})
            self.classes.not_derived += len(evaluation.get("per_class") or {})
            self.counts.not_derived += 2
            return
        found = evaluate_boxes(images[2], read_detections(file))
        for check, part, of in ((self.numbers, "detection", ""), (self.classes, "per_class", "AP of ")):
            known = evaluation.get(part) or {}
            for key in dict.fromkeys([*found[part], *known]):
                place = f"{self.name}: {of}{key}"
                check.compare(place, known.get(key), found[part].get(key), same_score)
        for key in ("images", "detections"):
            self.counts.compare(f"{self.name}: {key}", evaluation.get(key), found[key])

    def _last_epoch(self, evaluation: Json, state: Json) -> None:
        """The last line of metrics.jsonl has the numbers of evaluation.json."""
        lines, detection = self.run.read_metrics(), evaluation.get("detection") or {}
        if not lines:
            raise RunError(f"{self.run.metrics} is missing")
        last, epochs = lines[-1], [line.get("epoch") for line in lines]
        compared = {key: (last[key], detection.get(key)) for key in ALL_DETECTION if key in last}
        compared["epochs"] = state.get("epoch"), last.get("epoch")
        compared["epochs planned"] = state.get("epoch"), state.get("epochs")
        compared["lines"] = epochs, list(range(1, len(lines) + 1))
        if state.get("ap") is not None:
            compared[f"AP in {self.run.state.name}"] = state["ap"], detection.get("AP")
        for task in OTHER_TASKS:
            scores = {f"{task}/{key}": value for key, value in (evaluation.get(task) or {}).items()}
            scores = {key: value for key, value in scores.items() if isinstance(value, int | float)}
            self.others.not_derived += len(scores)
            compared |= {key: (last[key], value) for key, value in scores.items() if key in last}
        for what, (old, new) in compared.items():
            self.last.compare(f"{self.name}: {what}", old, new)


@cache
def _images(data: ShapesConfig | CocoConfig) -> tuple[ImageSet, ImageSet, Json] | None:
    """Both splits of a run's data and the annotations of the second; None where it is not on this machine."""
    try:
        train, val = load_images(data, "train"), load_images(data, "val")
    except (YolorError, OSError):
        if isinstance(data, ShapesConfig):
            raise
        return None
    return train, val, val.coco


@cache
def _summary(data: ShapesConfig | CocoConfig, size: int) -> str:
    """What dataset.json of a run has to be, as JSON."""
    from yolor_core.data.batches import summarise  # imports torch

    images = _images(data)
    assert images is not None, "asked for only where the data are"
    train, val = images[0], images[1].with_classes(images[0].names, images[0].report.source)
    return json.dumps({"train": summarise(train, size), "val": summarise(val, size)})
