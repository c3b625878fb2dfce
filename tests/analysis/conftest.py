"""Run directories written by hand, as training leaves them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ablations.plan import plan_runs
from yolor_core.identity import signature

METRICS = ("AP", "AP50", "AP75", "APS", "APM", "APL", "AR1", "AR10", "AR100", "ARS", "ARM", "ARL")


def write_run(
    results: Path,
    experiment: str,
    seed: int = 0,
    ap: float | None = 0.4,
    state: str = "done",
    fingerprint: str = "f" * 64,
    source_hash: str = "a" * 64,
    overrides: tuple[str, ...] = (),
    scores: dict[str, dict[str, float | None]] | None = None,
    cosines: tuple[dict[str, float], ...] = (),
    **detection: float | None,
) -> str:
    """Write a run of an experiment into the folder `results`; returns its run id.

    `ap` is a fraction; the other metrics are derived from it, in a run whose model detects. `scores` are
    those of further tasks as in evaluation.json, `cosines` what metrics.jsonl has of each epoch. Everything
    else has a plain default.
    """
    run = plan_runs([experiment], "mini", [seed], overrides, results=results, fingerprint=fingerprint)[-1]
    record = {
        "schema": 1,
        "experiment": experiment,
        "signature": signature(run.config.science),
        "run": run.run_id,
        "config": json.loads(run.config.to_json()),
        "fingerprint": fingerprint,
        "source_hash": source_hash,
        "commit": "c" * 40,
        "dirty": False,
        "device": "cpu",
        "resumes": 0,
    }
    run.run_dir.mkdir(parents=True, exist_ok=True)
    (run.run_dir / "run.json").write_text(json.dumps(record))
    progress = {"state": state, "epoch": 3, "epochs": 24, "seconds": 9.5}
    (run.run_dir / "state.json").write_text(json.dumps(progress))
    if ap is not None:
        evaluation: dict[str, Any] = {"images": 200, **(scores or {})}
        if run.config.science.model.detection:
            numbers = {name: ap + 0.01 * place for place, name in enumerate(METRICS)}
            evaluation |= {"detection": numbers | detection, "per_class": {}, "detections": 9}
        (run.run_dir / "evaluation.json").write_text(json.dumps(evaluation))
    if cosines:
        lines = [json.dumps({"epoch": epoch, **values}) for epoch, values in enumerate(cosines, 1)]
        (run.run_dir / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return run.run_id


@pytest.fixture
def fabricate(tmp_path: Path) -> Callable[..., str]:
    """`write_run` into `tmp_path`."""
    return partial(write_run, tmp_path)
