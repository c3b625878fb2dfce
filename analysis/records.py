"""What runs have left beside their scores, as tidy DataFrames: epochs, implicit values, effects, datasets.

Every loader takes rows of `analysis.runs.load_runs` and gives a frame that begins with `KEYS`. A run that
lacks a file, as one that has not started or was made by older code, adds no rows. No weights are read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from yolor_core.errors import RunError
from yolor_core.runs.directory import RunDirectory
from yolor_core.runs.files import read_json, unreadable

KEYS = ("run", "experiment", "profile", "seed")
IMPLICIT = ("epoch", "site", "level", "form", "operator", "index", "value", "anchor", "output")
EFFECTS = ("epoch", "site", "level", "index", "before", "after", "anchor", "output", "effect")
BOX = ("x", "y", "w", "h", "obj")  # the first outputs of an anchor; classes follow

Epochs = Literal["last", "all"]


@dataclass(frozen=True)
class Level:
    """A pyramid level of a run's model: stride and anchors (width, height) in pixels of its training size."""

    name: str
    stride: int
    channels: int
    anchors: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Layout:
    """What the outputs of a run's detector mean: output k of anchor a has index a x (5 + classes) + k."""

    classes: tuple[str, ...]
    levels: tuple[Level, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of an anchor's outputs: x, y, w, h, obj, then the classes."""
        return (*BOX, *self.classes)


def load_metrics(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per finished epoch, with whatever the runs recorded (`metrics.jsonl`); scores are fractions."""

    def read(directory: RunDirectory) -> pd.DataFrame:
        return pd.DataFrame(directory.read_metrics())

    return joined(runs, read, ("epoch",))


def load_implicit(runs: pd.DataFrame, epochs: Epochs = "last") -> pd.DataFrame:
    """g(z) of every site, columns `KEYS` and `IMPLICIT`: after the last recorded epoch, or after all.

    Behind the predictor (PR, PR*) `anchor` and `output` say what a value acts on; elsewhere, and in runs
    whose run.json does not tell, they are -1 and "".
    """

    def read(directory: RunDirectory) -> pd.DataFrame:
        frame = read_parquet(directory.implicit, IMPLICIT[:7], epochs)
        if frame.empty:
            return frame
        frame = frame.assign(anchor=-1, output="")
        try:
            outputs = layout(directory.path).outputs
        except RunError:
            return frame
        for site, names in (("pr", outputs), ("pr-wh", ("w", "h"))):
            here = (frame["site"] == site).to_numpy()
            index = frame.loc[here, "index"].to_numpy()
            frame.loc[here, "anchor"] = index // len(names)
            frame.loc[here, "output"] = np.array(names)[index % len(names)]
        return frame

    return joined(runs, read, IMPLICIT)


def load_effects(runs: pd.DataFrame, epochs: Epochs = "last") -> pd.DataFrame:
    """What every site of detection does to the raw predictions, columns `KEYS` and `EFFECTS` (logits).

    `before` and `after` are the raw prediction for the mean feature of a level, with the neutral value in
    place of g(z) and with g(z); `anchor` counts from 0, `output` is a name of `Layout.outputs`.
    """

    def read(directory: RunDirectory) -> pd.DataFrame:
        frame = read_parquet(directory.effects, EFFECTS[:6], epochs)
        if frame.empty:
            return frame
        names = np.array(layout(directory.path).outputs)
        index = frame["index"].to_numpy()
        return frame.assign(
            anchor=index // len(names),
            output=names[index % len(names)],
            effect=frame["after"] - frame["before"],
        )

    return joined(runs, read, EFFECTS)


def layout(path: Path | str) -> Layout:
    """The levels and classes of a run. Raises RunError where its run.json does not say (older code)."""
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
        return Layout(tuple(record["classes"]), levels)
    except (KeyError, TypeError, ValueError):
        raise RunError(
            f"{directory.run} does not say levels and classes; it was made by older code"
        ) from None


def dataset(path: Path | str) -> dict[str, Any]:
    """dataset.json of a run: boxes by class and size of both splits. Raises RunError where there is none."""
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


def joined(
    runs: pd.DataFrame, read: Callable[[RunDirectory], pd.DataFrame], columns: tuple[str, ...]
) -> pd.DataFrame:
    """What `read` finds in every run, one below another, behind the columns `KEYS` of the run.

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


def read_parquet(path: Path, columns: Collection[str], epochs: Epochs = "all") -> pd.DataFrame:
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
