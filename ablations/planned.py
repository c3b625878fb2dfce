"""A planned run, and the file planned.json in its folder that tells a worker what to train."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolor_core.config import Execution, RunConfig
from yolor_core.errors import RunError
from yolor_core.runs.directory import read_json


@dataclass(frozen=True)
class Place:
    """What a run has of a cluster's profile: how the nodes are used, and a folder on their own disk."""

    execution: Execution | None = None
    local_disk: str = ""  # with variables, e.g. $SLURM_TMPDIR


@dataclass(frozen=True)
class PlannedRun:
    """One training to do, or done: its configuration, its folder, and the run it starts from."""

    run_id: str
    config: RunConfig
    run_dir: Path
    after: str | None = None  # run id whose checkpoint it continues


def planned_record(run: PlannedRun, place: Place | None = None) -> dict[str, Any]:
    """The content of planned.json: the run, and how the cluster is used that it was planned for."""
    record: dict[str, Any] = {"config": run.config.model_dump(mode="json"), "after": run.after}
    if place is not None:
        execution = place.execution.model_dump(mode="json") if place.execution else None
        record["cluster"] = {"execution": execution, "local_disk": place.local_disk}
    return record


def read_planned(run_dir: Path) -> tuple[PlannedRun, Place | None]:
    """The run that planned.json of a folder describes, and its place on a cluster.

    Raises RunError where the file is missing or damaged, ConfigError where its configuration is not one.
    """
    path = run_dir / "planned.json"
    record = read_json(path)
    if record is None:
        raise RunError(f"{path} is missing; launch the run instead")
    config = RunConfig.from_json(json.dumps(record.get("config")))
    place, wanted = None, record.get("cluster")
    if wanted is not None:
        execution = Execution.model_validate(wanted["execution"]) if wanted.get("execution") else None
        place = Place(execution, wanted.get("local_disk") or "")
    return PlannedRun(run_dir.name, config, run_dir, record.get("after")), place
