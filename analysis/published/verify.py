"""Making every number of a published folder again, and comparing it with what is published.

CSV, JSON and Parquet are compared number by number, so that the last digit of a sum may be another on another
processor. Texts for readers are made again too: by the code that published them they have to come out the
same to the byte. Other code may word them otherwise; then the measured numbers in them are compared alone.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import math
import multiprocessing
import re
import signal
import zlib
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.plan import MANIFEST, cores
from ablations.table import ALL_DETECTION
from analysis.errors import NothingToShow
from analysis.figures.style import words, words_in
from analysis.published import publish as published
from analysis.published.detections import read_detections
from analysis.published.publish import Files, Made, PublishError
from analysis.published.summary import PROVENANCE, SUMMARY, counted_runs, evidence, summary
from analysis.report.files import csv_file
from analysis.runs import load_runs
from analysis.stopping import FOLDER as PLANS
from analysis.stopping import REMEDY, Plan
from analysis.study import Costs, Study
from yolor_core.config import CocoConfig, RunConfig, ShapesConfig
from yolor_core.data.fingerprint import data_fingerprint
from yolor_core.data.images import ImageSet
from yolor_core.data.layout import coco_config, splits
from yolor_core.data.load import load_images
from yolor_core.errors import RunError, YolorError
from yolor_core.evaluation.coco import evaluate_boxes
from yolor_core.identity import canonical_json, written_signature
from yolor_core.runs import LOST
from yolor_core.runs.directory import RunDirectory
from yolor_core.tasks import TASKS

OTHER_TASKS = tuple(name for name in TASKS if name != "detection")
# Columns and keys that the code words; what stands in others is a fact.
WORDED = frozenset({"table", "row", "status", "why", "lacks", "against"})
# A measured number in a text has decimals, and is not that of a section.
MEASURED = re.compile(r"(?<![\w.])(?<!section )[+-]?\d+\.\d+(?:e[+-]?\d+)?(?!\w)")
PRINTED = 6  # significant digits in the data of the figures
SHOWN = 3  # differences named of a check
FEWEST = 4  # tasks for each process, which needs seconds to start
NO_DATA = "the dataset is not here; --data PATH names it"
SVG = ".svg"
NO_OUTPUTS = "detections do not hold what they are computed from"
UNREADABLE = (ValueError, OSError, EOFError, zlib.error, csv.Error, RecursionError)
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
Close = Callable[[str, float, float], bool]  # key, published number, number found again -> equal


def same_score(_: str, a: float, b: float) -> bool:
    """Whether scores are equal that were summed from the same detections."""
    return math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12)


def same_value(_: str, a: float, b: float) -> bool:
    """Whether numbers are equal that were computed from scores; NaN equals NaN."""
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(a) and math.isnan(b))


def same_printed(exact: pd.DataFrame) -> Close:
    """Whether a number of a figure is that of the frame, rounded to the digits in which it is printed.

    What is 0 but for rounding is measured by the largest number of its column.
    """
    numbers = exact.select_dtypes("number")
    dust = {str(name): 1e-12 * float(column.abs().max()) for name, column in numbers.items()}

    def close(column: str, a: float, b: float) -> bool:
        if not math.isfinite(b):
            return same_value(column, a, b)
        half = 0.5 * 10.0 ** (math.floor(math.log10(abs(b))) - PRINTED + 1) if b else 0.0
        return abs(a - b) <= half + max(1e-9 * abs(b), dust.get(column, 0.0))

    return close


@dataclass
class Check:
    """One kind of comparison: how many were made, and what they found."""

    name: str
    why: str = ""  # some numbers are not derived again
    done: int = 0
    not_derived: int = 0
    differences: list[str] = field(default_factory=list)
    wording: list[str] = field(default_factory=list)  # other words around the same numbers

    def fail(self, what: str) -> None:
        """Count a comparison that could not be made, or failed."""
        self.done += 1
        self.differences.append(what)

    def compare(
        self, place: str, old: Any, new: Any, close: Close | None = None, worded: Container[str] = WORDED
    ) -> None:
        """Count a comparison of a published JSON value with the one found again.

        Args:
            place: where they are, for messages.
            old, new: the values; numbers that `new` has as floats are compared by `close`.
            worded: keys of texts that the code words.
        """

        def walk(place: str, key: str, a: Any, b: Any) -> None:
            if isinstance(a, dict) and isinstance(b, dict):
                if a and b and not a.keys() & b.keys():
                    self.differences.append(f"{place}: no column is the same")
                for each in dict.fromkeys([*b, *a]):
                    if each in a and each in b:
                        walk(f"{place}: {each}", each, a[each], b[each])
                    else:  # another version of the code may have others
                        said = "not published" if each in b else "made no more"
                        self.wording.append(f"{place}: {each} is {said}")
            elif isinstance(a, list) and isinstance(b, list):
                if len(a) != len(b):
                    self.differences.append(f"{place}: {len(a)} values are published, not {len(b)}")
                for count, (x, y) in enumerate(zip(a, b, strict=False), 1):
                    walk(f"{place}, {count}", key, x, y)
            elif a != b or isinstance(a, bool) != isinstance(b, bool):
                number = isinstance(a, int | float) and isinstance(b, float) and not isinstance(a, bool)
                if not (number and close is not None and close(key, a, b)):
                    words = key in worded and a and b and isinstance(a, str) and isinstance(b, str)
                    (self.wording if words else self.differences).append(_unequal(place, a, b))

        self.done += 1
        walk(place, "", old, new)

    def file(self, name: str, old: bytes, new: bytes, frame: pd.DataFrame | None = None) -> None:
        """Count a comparison of a published file with the same made again; of a figure, from its `frame`."""
        try:
            if old == new:
                self.done += 1
            elif frame is not None:
                frame = frame.astype(dict.fromkeys(frame.select_dtypes("float32"), "float64"))
                exact = columns(frame.to_csv(index=False, lineterminator="\n"))
                self.compare(name, loaded(name, old), exact, same_printed(frame), frame.columns)
            elif isinstance(again := loaded(name, new), str):
                self._text(name, loaded(name, old), again)
            else:
                self.compare(name, loaded(name, old), again, same_value)
        except UNREADABLE as error:
            self.fail(f"{name} cannot be read: {type(error).__name__}: {error}")

    def _text(self, name: str, old: str, new: str) -> None:
        self.done += 1
        start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(new))
        place = f"{name}: line {old.count(chr(10), 0, start) + 1}"
        self.wording.append(_unequal(place, old[start:], new[start:]))
        had, has = (Counter(MEASURED.findall(text)) for text in (old, new))
        if had != has:
            gone, come = (" ".join((a - b).elements()) for a, b in ((had, has), (has, had)))
            self.differences.append(_unequal(f"{name}: numbers", gone, come))

    def join(self, other: Check) -> None:
        """Take over what the same check found elsewhere."""
        self.done += other.done
        self.not_derived += other.not_derived
        self.differences += other.differences
        self.wording += other.wording

    @property
    def line(self) -> str:
        """`ok      COCO's twelve numbers: 168 compared, all equal`."""
        found = self.differences or self.wording
        word, equal = "ok     ", f"{self.done} compared, all equal" if self.done else "none compared"
        if self.differences:
            s = "s" if len(found) != 1 else ""
            word, equal = "DIFFERS", f"{len(found)} difference{s} in {self.done} compared"
        elif self.wording:
            word, equal = "WORDING", f"{self.done} compared, numbers equal"
        skipped = f"; {self.not_derived} not re-derived ({self.why})" if self.not_derived else ""
        more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        return "\n        ".join([f"{word} {self.name}: {equal}{skipped}", *found[:SHOWN], *more])


def _unequal(place: str, old: object, new: object) -> str:
    return f"{place}: {old!r:.80} is published, {new!r:.80} was found"


def loaded(name: str, data: bytes) -> Any:
    """What a file holds: JSON, the columns of a CSV file, else a text. Raises one of UNREADABLE."""
    text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
    if name.endswith(".json"):
        return json.loads(text)
    return columns(text) if name.endswith((".csv", ".csv.gz")) else text


def columns(text: str) -> dict[str, list[int | float | str]]:
    """The columns of a CSV file, numbers as numbers. Raises one of UNREADABLE."""
    head, *rows = list(csv.reader(io.StringIO(text), strict=True))
    if wrong := [number for number, row in enumerate(rows, 2) if len(row) != len(head)]:
        raise ValueError(f"line {wrong[0]} has not {len(head)} values")
    return {name: [_value(row[place]) for row in rows] for place, name in enumerate(head)}


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def verify(
    folder: Path, costs: Costs, processes: int | None = None, data: Path | None = None
) -> Iterator[Check]:
    """Check a published folder; yields every kind of check, in a fixed order.

    Args:
        folder: written by `analysis.published.publish.publish`.
        costs: counts the parameters and FLOPs of a table; a function of a module, for other processes.
        processes: that share the work; by default as many as there are cores.
        data: folder of the photographs that runs were trained on, by default that of their name here.

    Raises:
        PublishError: the folder is no published one, or a process was ended from outside.
        DataError: `data` is no folder in COCO's layout, or lacks pictures.
    """
    made, files = published.read_manifest(folder)
    paths = sorted(path for path in (folder / "runs").glob("*") if path.is_dir())
    if data is not None:  # else it would only be said that the dataset is not here
        for config in of_photographs(paths, data):
            for split in ("train", "val"):
                load_images(config, split)
    yield _files(folder, files)
    if (folder / PLANS).is_dir():
        yield check_looks(folder)
    # The texts first, because they take longest.
    tasks = [(check_texts, folder, made, costs), *((check_run, path, data) for path in paths)]
    try:
        texts, *runs = run_tasks(tasks, processes)
    except BrokenProcessPool:
        raise PublishError(
            "a process of the check was ended from outside, perhaps for want of memory; nothing is decided"
        ) from None
    for place, (name, why) in enumerate(OF_A_RUN):
        check = Check(name, why)
        for run in runs:
            check.join(run[place])
        yield check
    same_code = made.sources == published.code_hash()
    for check in texts:
        if same_code:  # then other words are differences too
            check.differences, check.wording = check.differences + check.wording, []
        yield check


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


def conclusion(folder: Path, checks: Sequence[Check]) -> str:
    """What the checks of a folder say together, in a line that begins with its name."""
    if count := sum(len(check.differences) for check in checks):
        return f"{folder}: {count} difference{'s' if count != 1 else ''}"
    said = f"{folder}: verified"
    if left := [check for check in checks if check.not_derived and check.why != NO_OUTPUTS]:
        reasons = "; ".join(dict.fromkeys(check.why for check in left))
        said += f" but for {sum(check.not_derived for check in left)} values not re-derived ({reasons})"
    if count := sum(len(check.wording) for check in checks):
        commit = published.read_manifest(folder)[0].commit or "unknown"
        said += (
            f"; {count} place{'s are' if count != 1 else ' is'} worded or laid out otherwise by this version "
            f"of the code. Published by commit {commit}, which compares that too"
        )
    return said


def run_tasks(tasks: Sequence[tuple[Any, ...]], processes: int | None = None) -> list[Any]:
    """What each task, a function and its arguments, returns; by default on all cores, if there is enough.

    An interruption ends the processes.
    """
    count = max(1, min(cores(), len(tasks) // FEWEST)) if processes is None else processes
    if count == 1:
        return [function(*arguments) for function, *arguments in tasks]
    # A fork would copy the locks of the threads that numpy and pyarrow have started.
    context, quiet = multiprocessing.get_context("spawn"), (signal.SIGINT, signal.SIG_DFL)
    with ProcessPoolExecutor(count, context, signal.signal, quiet) as pool:
        try:
            return [each.result() for each in [pool.submit(*task) for task in tasks]]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _files(folder: Path, files: Files) -> Check:
    check, found = Check(f"files, by hash and size ({MANIFEST})"), published.contents(folder)
    for name in sorted({*files, *found}):
        if name not in found:
            check.fail(f"{name} is missing")
        elif name not in files:
            check.fail(f"{name} is not in {MANIFEST}")
        elif dict(files[name]) != found[name]:
            old, new = files[name].get("bytes"), found[name]["bytes"]
            said = "its bytes are others" if old == new else f"{new} bytes, not {old}"
            check.fail(f"{name} is not what {MANIFEST} says: {said}")
        else:
            check.done += 1
    return check


def check_looks(folder: Path) -> Check:
    """Every look of every plan, taken again at the runs."""
    check, runs = Check(f"looks of the plans, taken again at the runs ({PLANS})"), load_runs(folder)
    for path in sorted((folder / PLANS).iterdir()):
        try:
            plan = Plan.read(path)
        except RunError as error:
            check.fail(str(error).split(f". {REMEDY}")[0])
            continue
        check.done += sum(len(plan.going(look)) for look in plan.looks)
        for pair, why in plan.astray(runs).items():
            check.differences.append(f"{PLANS}/{path.name}: {' against '.join(pair)}: {why}")
    return check


# What follows from the runs together: tables, provenance, summary, data of the figures.


def check_texts(folder: Path, made: Made, costs: Costs) -> list[Check]:
    """Make every text of a published folder again and compare it."""
    rows = Check("runs, each behind a row of a table")
    tables = Check("tables in every format, made again from the runs")
    verdicts = Check(f"verdicts ({SUMMARY})")
    origin = Check(f"where each cell comes from ({PROVENANCE})")
    drawn = Check("data of the figures, and their captions")
    try:
        study = published.reopened(folder, made, costs)
        if study.refused:
            tables.fail(f"the tables cannot be made: {'; '.join(study.refused.values())}")
            return [rows, tables]
        lost = study.runs[study.runs["state"].isin(LOST)]  # published so that tables say so
        counted = {*counted_runs(study)["run"], *lost["run"]}
        for plan in published.plans_behind(study):
            counted |= {*plan.runs(study.everything)["run"]}
        for path in sorted((folder / "runs").glob("*")):
            rows.done += 1
            if path.name not in counted:
                rows.differences.append(f"runs/{path.name} has the settings of no row, or is not finished")
        if not counted:
            tables.fail(
                "no run has the settings that the tables have in this version of the code; check out "
                f"commit {made.commit or 'of provenance.csv'}, which published them"
            )
            return [rows, tables]
        texts = evidence(study) | {SUMMARY: summary(study)}
        again = {name: (text.encode(), None) for name, text in texts.items()} | _figures(drawn, study)
        found = {path.relative_to(folder).as_posix() for path in folder.glob("tables/*")}
        found |= {path.relative_to(folder).as_posix() for path in folder.glob("figures/*")}
        for name in sorted({*found, *again}):
            figure = name.startswith("figures/")
            check = drawn if figure else {SUMMARY: verdicts, PROVENANCE: origin}.get(name, tables)
            if name in again and (folder / name).is_file():
                old = (folder / name).read_bytes()
                if name.endswith(SVG):  # what is drawn has its numbers in the file beside it
                    old = words_in(old.decode(errors="replace")).encode()
                check.file(name, old, *again[name])
            else:
                said = f"{name} is {'missing' if name in again else 'not made from these runs'}"
                check.done += 1  # another version of the code may draw others
                (check.wording if figure else check.differences).append(said)
    except Exception as error:  # whatever a damaged file leads to, the other checks are told
        drawn.fail(f"cannot be made from these runs: {type(error).__name__}: {error}")
    return [rows, tables, verdicts, origin, drawn]


def _figures(check: Check, study: Study) -> dict[str, tuple[bytes, pd.DataFrame | None]]:
    """Of every figure that shows something, as a report has it.

    {path in the folder: content and numbers}; of an SVG file its `words` alone.
    """
    found: dict[str, tuple[bytes, pd.DataFrame | None]] = {}
    for drawing in published.published_drawings(study):
        try:
            frame = drawing.data(study)
            name, content = csv_file(frame, drawing.csv)
            found[name] = (content, frame)
            captions = words(drawing.title, drawing.caption, drawing.name)
            found[f"figures/{drawing.name}{SVG}"] = (captions.encode(), None)
        except NothingToShow:
            pass
        except Exception as error:  # one figure must not cost the check of the others
            check.fail(f"{drawing.csv} cannot be made: {type(error).__name__}: {error}")
    return found


# What a run's own files and the annotations of its data say.


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
        pictures = self.run.path.parents[1] / published.PICTURES
        with self._naming(self.data, pictures):
            if isinstance(config.data, CocoConfig) and pictures.is_file():
                new = columns(published.pictures_of(images[2]).to_csv(index=False))
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
