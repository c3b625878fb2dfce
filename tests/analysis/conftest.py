"""Run directories written by hand, as training leaves them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablations.plan import plan_runs

METRICS = ("AP", "AP50", "AP75", "APS", "APM", "APL", "AR1", "AR10", "AR100", "ARS", "ARM", "ARL")


@pytest.fixture
def fabricate(tmp_path: Path) -> Callable[..., str]:
    """Write a run of an experiment into the results folder `tmp_path`; returns its run id.

    `ap` is a fraction; the other metrics are derived from it. Everything else has a plain default.
    """

    def write(
        experiment: str,
        seed: int = 0,
        ap: float | None = 0.4,
        state: str = "done",
        fingerprint: str = "f" * 64,
        source_hash: str = "a" * 64,
        overrides: tuple[str, ...] = (),
        **detection: float | None,
    ) -> str:
        run = plan_runs([experiment], "mini", [seed], overrides, results=tmp_path, fingerprint=fingerprint)[
            -1
        ]
        from yolor_core.identity import signature

        record: dict[str, Any] = {
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
        (run.run_dir / "state.json").write_text(
            json.dumps({"state": state, "epoch": 3, "epochs": 24, "seconds": 9.5})
        )
        if ap is not None:
            numbers: dict[str, float | None] = {name: ap + 0.01 * place for place, name in enumerate(METRICS)}
            evaluation = {"detection": numbers | detection, "per_class": {}, "images": 200, "detections": 9}
            (run.run_dir / "evaluation.json").write_text(json.dumps(evaluation))
        return run.run_id

    return write
