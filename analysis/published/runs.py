"""Copying what is small of a finished run, without what tells the machine it ran on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from analysis.comparison import stored
from analysis.published.detections import GRID, pack
from analysis.published.scrub import machine_names, scrub
from yolor_core.errors import RunError
from yolor_core.evaluation.engine import Truth
from yolor_core.runs.directory import RunDirectory, unreadable, why, write_json

SMALL = 200_000  # bytes of the raw priors that are published; at paper scale they are many times that
EVERY = 4  # epochs between those whose implicit values and effects are published


def copy_run(source: Path, target: Path, every: int = EVERY, grid: int = GRID) -> None:
    """Write the publishable files of a finished run into the new folder `target`.

    Args:
        source: the run's folder.
        target: to be made.
        every: of implicit.parquet and effects.parquet the first, the last and each so many-th epoch.
        grid: pixels, for the boxes no score depends on; see `analysis.published.detections`.

    Raises:
        RunError: a file is missing or damaged.
    """
    old, new = RunDirectory(source), RunDirectory(target)
    evaluation = old.read_evaluation()
    if evaluation is None:
        raise RunError(f"{source} is no finished run: {', '.join(old.missing())}")
    copy_records(source, target)
    write_json(new.evaluation, evaluation)
    new.write_metrics(old.read_metrics())
    if old.detections.is_file():
        annotations, detections = stored(source)
        pack(detections, Truth.read(annotations), new.detections, grid)
    for path in (old.implicit, old.effects):
        if path.is_file():
            thin(path, target / path.name, every)
    if old.dataset.is_file():
        shutil.copyfile(old.dataset, new.dataset)
    if old.priors.is_file() and old.priors.stat().st_size <= SMALL:
        shutil.copyfile(old.priors, new.priors)


def copy_records(source: Path, target: Path) -> None:
    """Write run.json and state.json of a run, finished or not, into the new folder `target`.

    Raises RunError where one is missing or damaged.
    """
    old, new = RunDirectory(source), RunDirectory(target)
    record, state = old.read_run(), old.read_state()
    if record is None or state is None:
        raise RunError(f"{source} is no run: {(old.run if record is None else old.state).name} is missing")
    target.mkdir(parents=True)
    names = machine_names([state.get("host"), record.get("host")])
    # What is computed from science must stay as it is, and has no paths.
    clean = scrub({key: value for key, value in record.items() if key != "config"}, names)
    config = dict(record["config"])
    kept = {"experiment": config.pop("experiment"), "science": config.pop("science")}
    write_json(new.run, clean | {"config": kept | scrub(config, names)})
    write_json(new.state, scrub(state, names))


def thin(source: Path, target: Path, every: int) -> None:
    """Copy a parquet file's first, last and each `every`-th epoch. Raises RunError for a damaged file."""
    try:
        table = pq.read_table(source)
        epochs = sorted(set(table["epoch"].to_pylist()))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise unreadable(source, why(error)) from None
    kept = [each for each in epochs if each % every == 0 or each in (epochs[0], epochs[-1])]
    rows = pc.is_in(table["epoch"], value_set=pa.array(kept, table["epoch"].type))
    pq.write_table(table.filter(rows), target, compression="zstd", compression_level=19)
