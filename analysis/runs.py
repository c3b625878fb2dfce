"""Run folders as tidy DataFrames: one row a run, and what each has left beside its scores.

`load_runs` gives a row for each run. Every other loader takes such rows and gives a frame that begins with
`KEYS`: epochs, implicit values, effects, features. A run that lacks a file, e.g. one that has not started or
was made by older code, adds no rows. No weights are read.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ablations.table import CONFLICT, LOSSES, SCORES
from yolor_core.data.records import SIZE_LIMITS
from yolor_core.errors import RunError, UnknownNameError
from yolor_core.runs import State
from yolor_core.runs.directory import RunDirectory, number, read_json, unreadable, why
from yolor_core.tasks import COCO_NUMBERS

METRICS = (*SCORES, *LOSSES, *CONFLICT)
# Columns of the frames, with what they mean: docs/api.md is made from these.
IDENTITY = {
    "run": "id: experiment, profile, seed, and the beginning of a hash",
    "experiment": "its slug, as in `ablate list`",
    "profile": "scale of the run: smoke, mini ...",
    "seed": "of initialisation, order and augmentation",
    "signature": "SHA-256 of every setting but the seed",
    "fingerprint": "hash of annotations and pictures",
    "source_hash": "hash of the sources that trained it",
    "data": "the data in a few words",
}
PROGRESS = {
    "state": "done, running, queued, preempted, failed, diverged ... or unreadable",
    "reason": "why it ended so, where it says, or what of it cannot be read",
    "epoch": "epochs that are finished",
    "epochs": "epochs in all",
    "seconds": "of training so far",
}
UNSCORED = "done, but there was no box to score in its validation data"  # reason of such a run
MEANINGS = {column: f"{score.name} of {score.task} (percent)" for column, score in SCORES.items()} | {
    "val loss": "of detection on the validation images, averaged model; the next three are its terms",
    "val box": "of boxes",
    "val obj": "of objectness",
    "val cls": "of classes",
    CONFLICT[0]: "cosine between the tasks' gradients, -1 to 1: mean over epochs and pairs",
}
COLUMNS = {
    **IDENTITY,
    **PROGRESS,
    **{name: MEANINGS[name] for name in METRICS},
    "commit": "of the code, where it was a checkout",
    "dirty": "whether the checkout had changes",
    "device": "what it was trained on",
    "ranks": "processes that trained it together",
    "images": "validation images that were scored",
    "path": "of its folder",
}


KEYS = ("run", "experiment", "profile", "seed")
PLACE = {
    "epoch": "after which; 0 is initialisation",
    "site": "where it acts: fa, pr, pr-wh, fa-cluster, or the task of a branch",
    "level": "of the pyramid: P3, P4 ...",
}
OUTPUT = {
    "anchor": "from 0; -1 where the site is not after the predictor",
    "output": "x, y, w, h, obj or a class; empty where the site is not after the predictor",
}
IMPLICIT = {
    **PLACE,
    "form": "vector, network or factorisation",
    "operator": "add, multiply or concatenate",
    "index": "dimension, from 0",
    "value": "of g(z) in that dimension",
    **OUTPUT,
}
EFFECTS = {
    **PLACE,
    "index": "raw output of the level, from 0",
    "before": "raw prediction with the neutral value in place of g(z) (logit)",
    "after": "raw prediction with g(z) (logit)",
    "anchor": "from 0",
    "output": "x, y, w, h, obj or a class",
    "effect": "after - before (logit)",
}
FEATURES = {
    "image": "its id",
    "level": "of the pyramid",
    "row": "of the cell",
    "column": "of the cell",
    "anchor": "from 0",
    "class": "of the object, from 0; -1 for background",
    "width": "of the object (px)",
    "height": "of the object (px)",
    "feature": "(channels,) before FA",
    "aligned": "(channels + added,) after FA",
    "before": "(5 + classes,) raw prediction without implicit knowledge",
    "after": "(5 + classes,) raw prediction with it",
}
NO_FEATURES = (
    "No features of real images: `ablate features RUN` writes them beside a run that has its weights."
)
OTHER_SCORES = ("classification/", "embedding/")  # as names in metrics.jsonl begin; COCO's have no task
BACKGROUND = -1  # in the column `class` of features
BOX = ("x", "y", "w", "h", "obj")  # the first outputs of an anchor; classes follow

Epochs = Literal["last", "all"]


def load_runs(results: Path | str) -> pd.DataFrame:
    """Every run directory under `results`/runs, one row each, in order of their names.

    Columns are `COLUMNS`; the scores are percent (fractions in the files), missing where there is no final
    evaluation or the model lacks the task; the cosine of the tasks is the mean over epochs. A run that has
    only been queued has a state and nothing else; a directory that cannot be read, or says done and has no
    run.json, has the state 'unreadable' and the reason. Of several folders with the same run id (copies) one
    counts: that whose name is the run id, else the first. An absent folder gives an empty frame.

    Example:
        >>> runs = load_runs("results/published/mini")
        >>> len(runs), runs["state"].unique().tolist()
        (72, ['done'])
        >>> runs.query("experiment == 'csp-fast'")[["seed", "AP", "AP50"]].round(2)
           seed     AP   AP50
        0     0  61.87  92.76
        1     1  62.62  92.46
        2     2  62.48  92.78
    """
    folder = Path(results) / "runs"
    paths = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    frame = pd.DataFrame(_without_copies([_read(path) for path in paths]), columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(METRICS, float))


def seconds_added(runs: pd.DataFrame) -> pd.Series:
    """Seconds of training that each of these runs adds to the others: one that continues another of them has
    the other's in its own."""
    own = runs["seconds"].fillna(0.0)
    known = dict(zip(runs["run"], own, strict=True))
    records = (RunDirectory(Path(path)).read_run() or {} for path in runs["path"])
    return (own - [known.get(str(record.get("continues")), 0.0) for record in records]).clip(lower=0.0)


def _without_copies(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A copy stands in for a folder that cannot be read, which is kept too, so that it is named."""
    readable = [record for record in records if record["state"] != State.UNREADABLE]
    counts: dict[str, dict[str, Any]] = {}
    for record in readable:
        if Path(record["path"]).name == record["run"]:
            counts[record["run"]] = record
        else:
            counts.setdefault(record["run"], record)
    return [r for r in records if r["state"] == State.UNREADABLE or counts[r["run"]] is r]


def _read(path: Path) -> dict[str, Any]:
    try:
        return _record(RunDirectory(path))
    except (RunError, OSError, AttributeError, ValueError, TypeError) as error:
        return {"run": path.name, "path": str(path), "state": str(State.UNREADABLE), "reason": str(error)}


def _record(directory: RunDirectory) -> dict[str, Any]:
    run, state = directory.read_run() or {}, directory.read_state() or {}
    if not run and state.get("state") == "done":
        raise RunError(f"{directory.run.name} is missing, so nobody knows what was trained")
    lacks = [key for key in ("signature", "config") if run and key not in run]
    if lacks or (run and "seed" not in run["config"]):
        said = lacks[0] if lacks else "config.seed"
        raise RunError(f"{directory.run.name} lacks {said}, so nobody knows what was trained")
    evaluation = directory.read_evaluation() or {}
    config = run.get("config", {})
    word, reason = directory.written(), state.get("reason")
    if word is State.DONE and evaluation.get("detection") and evaluation["detection"].get("AP") is None:
        reason = UNSCORED
    last: dict[str, Any] = {}
    try:
        last = _last_epoch(directory)
    except RunError as error:  # costs the losses alone
        reason = reason or str(error)
    return {
        "run": str(run.get("run", directory.path.name)),
        "experiment": run.get("experiment"),
        "profile": config.get("science", {}).get("profile"),
        "seed": _number(config, "seed", directory.run),
        "signature": run.get("signature"),
        "fingerprint": run.get("fingerprint"),
        "source_hash": run.get("source_hash"),
        "data": describe_data(config.get("data", {}), evaluation.get("size_limits")),
        "commit": run.get("commit"),
        "dirty": run.get("dirty"),
        "device": run.get("device"),
        "ranks": number(run.get("ranks")) or 1,
        "images": evaluation.get("images"),
        "path": str(directory.path),
        "state": None if word is None else str(word),
        "reason": reason,
        **{name: number(state.get(name)) for name in ("epoch", "epochs", "seconds")},
        **{
            column: percent(_number(evaluation.get(score.task) or {}, score.name, directory.evaluation))
            for column, score in SCORES.items()
        },
        **{column: number(last.get(name)) for column, name in LOSSES.items()},
        CONFLICT[0]: _conflict(directory, config),
    }


def _last_epoch(directory: RunDirectory) -> dict[str, Any]:
    """The last line of metrics.jsonl, empty before the first; the others are not parsed to fill a table."""
    try:
        with directory.metrics.open(encoding="utf-8") as file:
            lines = deque((line for line in file if line.strip()), maxlen=1)
        return dict(json.loads(lines[0])) if lines else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise unreadable(directory.metrics, why(error)) from None


def _conflict(directory: RunDirectory, config: dict[str, Any]) -> float | None:
    """Mean of the cosines `conflict/<task>-<task>` over epochs and pairs of tasks; None without any."""
    if not config.get("science", {}).get("model", {}).get("branches"):
        return None  # one task, and one file less to read
    found = [
        number(value)
        for epoch in directory.read_metrics()
        for key, value in epoch.items()
        if key.startswith("conflict/")
    ]
    values = [value for value in found if value is not None]
    return sum(values) / len(values) if values else None


def _number(record: dict[str, Any], name: str, path: Path) -> int | float | None:
    """A result that is there but is no number must not look like one that is not there."""
    value = record.get(name)
    if value is not None and number(value) is None:
        raise RunError(f"{path.name}: {name} is {value!r}; a number is needed")
    return number(value)


def percent(value: float | None) -> float | None:
    """A fraction in percent; None stays None."""
    return None if value is None else 100 * value


def describe_data(data: dict[str, Any], limits: Any = None) -> str | None:
    """The data of a run in a few words; None where it is not recorded.

    `limits` are the sides in pixels from which its objects are medium and large, which are named unless they
    are COCO's.
    """
    sizes = ""
    if isinstance(limits, list) and len(limits) == 2 and limits != list(SIZE_LIMITS):
        sizes = f", small below {limits[0]:g}², large from {limits[1]:g}² pixels"
    if data.get("kind") == "shapes":
        return f"shapes, {data.get('train_images')} + {data.get('val_images')} images{sizes}"
    if data.get("kind") == "coco":
        name = Path(str(data.get("root"))).name  # never the path: captions are handed on
        return f"folder {name}, {data.get('train')}/{data.get('val')}{sizes}"
    return data.get("kind")


def kept(runs: pd.DataFrame, fingerprint: str | None, source: str | None) -> pd.DataFrame:
    """Those whose data and sources begin so. Raises UnknownNameError where none do, listing what there is."""
    for column, prefix in (("fingerprint", fingerprint), ("source_hash", source)):
        if prefix is not None:
            known = sorted(set(runs[column].dropna()))
            runs = runs[runs[column].fillna("").str.startswith(prefix)]
            if runs.empty:
                raise UnknownNameError(column.replace("_", " "), prefix, known)
    return runs


@dataclass(frozen=True)
class Level:
    """A pyramid level of a run's model: stride and anchors (width, height) in pixels of its training size."""

    name: str
    stride: int
    channels: int
    anchors: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Outputs:
    """What the outputs of a run's detector mean: output k of anchor a has index a x (5 + classes) + k."""

    classes: tuple[str, ...]
    levels: tuple[Level, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of an anchor's outputs: x, y, w, h, obj, then the classes."""
        return (*BOX, *self.classes)


def load_metrics(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per finished epoch, with whatever the runs recorded (`metrics.jsonl`); scores in percent.

    docs/run-directory.md has every column; in the file scores are fractions.

    Example:
        >>> runs = load_runs("results/published/mini").query("run.str.startswith('csp-fast-mini-s0')")
        >>> load_metrics(runs)[["seed", "epoch", "loss/box", "AP"]].round(3).tail(3)
            seed  epoch  loss/box      AP
        21     0     22     0.275     NaN
        22     0     23     0.275     NaN
        23     0     24     0.271  61.871
    """

    def read(directory: RunDirectory) -> pd.DataFrame:
        frame = pd.DataFrame(directory.read_metrics())
        scores = [n for n in map(str, frame) if n in COCO_NUMBERS or n.startswith(OTHER_SCORES)]
        return frame.assign(**{n: 100 * pd.to_numeric(frame[n], errors="coerce") for n in scores})

    return _joined(runs, read, ["epoch"])


def load_implicit(runs: pd.DataFrame, epochs: Epochs = "last") -> pd.DataFrame:
    """g(z) of every site, columns `KEYS` and `IMPLICIT`: after the last recorded epoch, or after all.

    After the predictor (PR, PR*) `anchor` and `output` say what a value acts on; elsewhere, and in runs
    whose run.json does not say, they are -1 and "".

    Example:
        >>> runs = load_runs("results/published/mini").query("experiment == 'csp-fast.add-fa'")
        >>> load_implicit(runs).groupby("level")["value"].agg(["size", "mean"]).round(3)
               size   mean
        level
        P3       96 -0.138
        P4      192 -0.046
        P5      384 -0.019
        >>> sorted(load_implicit(runs, epochs="all")["epoch"].unique().tolist())
        [0, 4, 8, 12, 16, 20, 24]
    """

    def read(directory: RunDirectory) -> pd.DataFrame:
        frame = _read_parquet(directory.implicit, [*IMPLICIT][:7], epochs)
        if frame.empty:
            return frame
        frame = frame.assign(anchor=-1, output="")
        try:
            outputs = outputs_of(directory.path).names
        except RunError:
            return frame
        for site, names in (("pr", outputs), ("pr-wh", ("w", "h"))):
            here = (frame["site"] == site).to_numpy()
            index = frame.loc[here, "index"].to_numpy()
            frame.loc[here, "anchor"] = index // len(names)
            frame.loc[here, "output"] = np.array(names)[index % len(names)]
        return frame

    return _joined(runs, read, IMPLICIT)


def load_effects(runs: pd.DataFrame, epochs: Epochs = "last") -> pd.DataFrame:
    """What every site of detection does to the raw predictions, columns `KEYS` and `EFFECTS` (logits).

    `before` and `after` are the raw prediction for the mean feature of a level, with the neutral value in
    place of g(z) and with g(z); `anchor` counts from 0, `output` is a name of `Outputs.names`.

    Example:
        >>> runs = load_runs("results/published/mini").query("experiment == 'csp-fast.add-pr'")
        >>> load_effects(runs).groupby("output", sort=False)["effect"].mean().round(3).head(5)
        output
        x      0.019
        y      0.003
        w     -0.098
        h     -0.120
        obj   -0.107
        Name: effect, dtype: float32
    """

    def read(directory: RunDirectory) -> pd.DataFrame:
        frame = _read_parquet(directory.effects, [*EFFECTS][:6], epochs)
        if frame.empty:
            return frame
        names = np.array(outputs_of(directory.path).names)
        index = frame["index"].to_numpy()
        return frame.assign(
            anchor=index // len(names),
            output=names[index % len(names)],
            effect=frame["after"] - frame["before"],
        )

    return _joined(runs, read, EFFECTS)


def load_features(runs: pd.DataFrame) -> pd.DataFrame:
    """What `ablate features` wrote of anchors in validation images, columns `KEYS` and `FEATURES`.

    `feature` (channels,), `aligned` (channels + added,), `before` and `after` (5 + classes,) hold float32
    arrays: before FA and after it, raw predictions without and with implicit knowledge. `class` is -1
    for background; `width` and `height` (px) of the object are then missing. Runs without features.parquet
    add no rows. Raises RunError where a file is damaged.

    Example:
        >>> load_features(load_runs("results/published/mini")).empty  # a published study has none
        True
    """
    needed = [name for name in FEATURES if name not in ("row", "column", "width", "height")]
    return _joined(runs, lambda directory: _read_parquet(directory.features, needed), FEATURES)


def outputs_of(path: Path | str) -> Outputs:
    """The levels and classes of a run. Raises RunError where its run.json does not say (older code).

    Example:
        >>> run = load_runs("results/published/mini").iloc[0]
        >>> outputs_of(run["path"]).names[:7]
        ('x', 'y', 'w', 'h', 'obj', 'disc', 'square')
        >>> [(level.name, level.stride, level.channels) for level in outputs_of(run["path"]).levels]
        [('P3', 8, 32), ('P4', 16, 64), ('P5', 32, 128)]
    """
    directory = RunDirectory(path)
    record = directory.read_run() or {}
    try:
        levels = tuple(
            Level(
                level["name"],
                level["stride"],
                level["channels"],
                tuple((float(w), float(h)) for w, h in level["anchors"]),
            )
            for level in record["levels"]
        )
        return Outputs(tuple(record["classes"]), levels)
    except (KeyError, TypeError, ValueError):
        raise RunError(
            f"{directory.run} does not say levels and classes; it was made by older code"
        ) from None


def dataset(path: Path | str) -> dict[str, Any]:
    """dataset.json of a run: boxes by class and size of both splits. Raises RunError where there is none.

    Example:
        >>> run = load_runs("results/published/mini").iloc[0]
        >>> sum(dataset(run["path"])["train"]["boxes_per_class"])
        4761
    """
    file = RunDirectory(path).dataset
    content = read_json(file)
    if content is None:
        raise RunError(f"{file} is missing; older code did not write it")
    fields = ("boxes_per_class", "images_per_class", "sizes", "size_edges")
    for split in ("train", "val"):
        part = content.get(split)
        if not isinstance(part, dict) or not all(isinstance(part.get(field), list) for field in fields):
            raise unreadable(file, f"{split} needs the lists {', '.join(fields)}")
    return content


def _joined(
    runs: pd.DataFrame, read: Callable[[RunDirectory], pd.DataFrame], columns: Iterable[str]
) -> pd.DataFrame:
    """What `read` finds in every run, one below another, after the columns `KEYS` of the run.

    Args:
        runs: rows of `load_runs`.
        read: a frame of its own for every run, empty where there is nothing.
        columns: of the result where no run has anything.
    """
    parts = []
    for row in runs.itertuples():
        part = read(RunDirectory(str(row.path)))
        if part.empty:
            continue
        for place, key in enumerate(KEYS):
            part.insert(place, key, getattr(row, key))
        parts.append(part)
    if not parts:
        return pd.DataFrame(columns=[*KEYS, *columns])
    return pd.concat(parts, ignore_index=True)


def _read_parquet(path: Path, columns: Collection[str], epochs: Epochs = "all") -> pd.DataFrame:
    """A file of a run that has these columns, of all `epochs` or the last one; empty where it is not there.

    Raises RunError where it is damaged or lacks a column.
    """
    try:
        table = pq.read_table(path)
        lacking = sorted(set(columns) - set(table.column_names))
        if lacking:
            raise unreadable(path, f"it has no column {', '.join(lacking)}")
        if epochs == "last" and table.num_rows:
            table = table.filter(pc.field("epoch") == pc.max(table["epoch"]))
    except FileNotFoundError:
        return pd.DataFrame()
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, str(error)) from None
    return table.to_pandas()
