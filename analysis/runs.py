"""The run store as one DataFrame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from yolor_core.runs.directory import RunDirectory

METRICS = ("AP", "AP50", "AP75", "APS", "APM", "APL", "AR1", "AR10", "AR100", "ARS", "ARM", "ARL")
IDENTITY = ("run", "experiment", "profile", "seed", "signature", "fingerprint", "source_hash", "data")
PROGRESS = ("state", "reason", "epoch", "epochs", "seconds")
COLUMNS = (*IDENTITY, *PROGRESS, *METRICS, "commit", "dirty", "device", "images", "path")


def load_runs(results: Path) -> pd.DataFrame:
    """Every run directory under `results`/runs, one row each, in order of run id.

    Columns are `COLUMNS`; the twelve COCO metrics are fractions as in the files, missing where there is no
    final evaluation. A run that has only been queued has a state and nothing else; a directory that cannot be
    read has the state 'unreadable' and the reason. An absent folder gives an empty frame.
    """
    folder = results / "runs"
    paths = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    frame = pd.DataFrame([_read(path) for path in paths], columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(METRICS, float))


def _read(path: Path) -> dict[str, Any]:
    directory = RunDirectory(path)
    try:
        run, state = directory.read_run() or {}, directory.read_state() or {}
        detection = (directory.read_evaluation() or {}).get("detection", {})
        config = run.get("config", {})
        return {
            "run": run.get("run", path.name),
            "experiment": run.get("experiment"),
            "profile": config.get("science", {}).get("profile"),
            "seed": config.get("seed"),
            "signature": run.get("signature"),
            "fingerprint": run.get("fingerprint"),
            "source_hash": run.get("source_hash"),
            "data": describe_data(config.get("data", {})),
            "commit": run.get("commit"),
            "dirty": run.get("dirty"),
            "device": run.get("device"),
            "images": (directory.read_evaluation() or {}).get("images"),
            "path": str(path),
            **{name: state.get(name) for name in PROGRESS},
            **{name: detection.get(name) for name in METRICS},
        }
    except (json.JSONDecodeError, UnicodeDecodeError, OSError, AttributeError) as error:
        return {"run": path.name, "path": str(path), "state": "unreadable", "reason": str(error)}


def describe_data(data: dict[str, Any]) -> str | None:
    """The data of a run in a few words; None where it is not recorded."""
    if data.get("kind") == "shapes":
        return f"shapes, {data.get('train_images')} + {data.get('val_images')} images"
    if data.get("kind") == "coco":
        return f"coco {data.get('train')}/{data.get('val')}"
    return data.get("kind")
