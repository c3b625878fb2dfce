"""The run store as one DataFrame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ablations.table import CONFLICT, SCORES
from yolor_core.errors import RunError, UnknownNameError
from yolor_core.runs.directory import RunDirectory
from yolor_core.runs.files import number
from yolor_core.runs.life import State

METRICS = (*SCORES, *CONFLICT)
IDENTITY = ("run", "experiment", "profile", "seed", "signature", "fingerprint", "source_hash", "data")
PROGRESS = ("state", "reason", "epoch", "epochs", "seconds")
UNSCORED = "done, but there was no box to score in its validation data"  # reason of such a run
COLUMNS = (*IDENTITY, *PROGRESS, *METRICS, "commit", "dirty", "device", "ranks", "images", "path")


def load_runs(results: Path) -> pd.DataFrame:
    """Every run directory under `results`/runs, one row each, in order of their names.

    Columns are `COLUMNS`; the scores are fractions as in the files, missing where there is no final
    evaluation or the model lacks the task; the cosine of the tasks is the mean over epochs. A run that has
    only been queued has a state and nothing else; a directory that cannot be read, or says done and has no
    run.json, has the state 'unreadable' and the reason. Of several folders with the same run id (copies) one
    counts: that whose name is the run id, else the first. An absent folder gives an empty frame.
    """
    folder = results / "runs"
    paths = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    frame = pd.DataFrame(_without_copies([_read(path) for path in paths]), columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(METRICS, float))


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
    return {
        "run": str(run.get("run", directory.path.name)),
        "experiment": run.get("experiment"),
        "profile": config.get("science", {}).get("profile"),
        "seed": _number(config, "seed", directory.run),
        "signature": run.get("signature"),
        "fingerprint": run.get("fingerprint"),
        "source_hash": run.get("source_hash"),
        "data": describe_data(config.get("data", {})),
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
            column: _number(evaluation.get(score.task) or {}, score.name, directory.evaluation)
            for column, score in SCORES.items()
        },
        CONFLICT[0]: _conflict(directory, config),
    }


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


def describe_data(data: dict[str, Any]) -> str | None:
    """The data of a run in a few words; None where it is not recorded."""
    if data.get("kind") == "shapes":
        return f"shapes, {data.get('train_images')} + {data.get('val_images')} images"
    if data.get("kind") == "coco":
        return f"coco {data.get('train')}/{data.get('val')}"
    return data.get("kind")


def kept(runs: pd.DataFrame, fingerprint: str | None, source: str | None) -> pd.DataFrame:
    """Those whose data and sources begin so. Raises UnknownNameError where none do, listing what there is."""
    return _beginning(_beginning(runs, "fingerprint", fingerprint), "source_hash", source)


def _beginning(runs: pd.DataFrame, column: str, prefix: str | None) -> pd.DataFrame:
    if prefix is None:
        return runs
    known = sorted(set(runs[column].dropna()))
    kept = runs[runs[column].fillna("").str.startswith(prefix)]
    if kept.empty:
        raise UnknownNameError(column.replace("_", " "), prefix, known)
    return kept
