"""Run folders as training leaves them, with everything that a report shows, and reports of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ablations.plan import plan_runs
from analysis.figures.catalogue import drawings
from analysis.report import files, write_report
from analysis.study import open_study
from yolor_core.identity import signature

COCO = ("AP", "AP50", "AP75", "APS", "APM", "APL", "AR1", "AR10", "AR100", "ARS", "ARM", "ARL")
DATE = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
CLASSES = ("disc", "square")

Make = Callable[..., Path]


def make_run(
    results: Path,
    experiment: str = "csp-fast",
    seed: int = 0,
    ap: float = 0.4,
    state: str = "done",
    profile: str = "mini",
    source_hash: str = "a" * 64,
    log: bytes = b"epoch 1\nepoch 2\n",
    epochs: int = 3,
    overrides: tuple[str, ...] = (),
    **fields: Any,
) -> Path:
    """Write a run's folder into `results`; returns the folder. `fields` go into run.json."""
    plan = plan_runs([experiment], profile, [seed], overrides, results=results, fingerprint="f" * 64)[-1]
    record: dict[str, Any] = {
        "schema": 1,
        "experiment": experiment,
        "signature": signature(plan.config.science),
        "run": plan.run_id,
        "config": json.loads(plan.config.to_json()),
        "fingerprint": "f" * 64,
        "source_hash": source_hash,
        "commit": "c" * 40,
        "dirty": False,
        "python": "3.11.7",
        "packages": {"torch": "2.11.0", "numpy": "2.4.6"},
        "device": "cpu",
        "ranks": 1,
        "classes": list(CLASSES),
        "levels": [{"name": "P3", "stride": 8, "channels": 4, "anchors": [[8, 8], [9, 9], [12, 16]]}],
        "data_report": {"train": {"images": 80, "boxes": 250}, "val": {"images": 20, "boxes": 60}},
    }
    folder = plan.run_dir
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record | fields))
    (folder / "state.json").write_text(
        json.dumps({"state": state, "epoch": epochs, "epochs": 3, "seconds": 95.0, "reason": None})
    )
    if state == "done":
        scores = {name: ap + 0.01 * place for place, name in enumerate(COCO)}
        evaluation = {"detection": scores, "per_class": dict.fromkeys(CLASSES, ap), "images": 20}
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
    lines = [
        {"epoch": epoch, "loss/box": 1 / epoch, "loss/obj": 2 / epoch, "loss/cls": 3 / epoch, "AP": ap / 2}
        | {"lr/weights": 0.01, "lr/bias": 0.02, "seconds": 30.0, "images_per_second": 20.0}
        for epoch in range(1, epochs + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    _implicit(folder, [part.site for part in plan.config.science.model.implicit], seed)
    logs = folder / "logs" / "20261121T120000"
    logs.mkdir(parents=True)
    (logs / "1_0_log.out").write_bytes(log)
    return folder


def _implicit(folder: Path, sites: list[str], seed: int) -> None:
    """implicit.parquet, without rows where there is no site, and effects.parquet."""
    noise = np.random.default_rng(seed)
    count = 3 * (5 + len(CLASSES))
    values = noise.normal(size=count).astype(np.float32)
    known = {"epoch": 3, "site": (sites or ["none"])[0], "level": "P3", "index": np.arange(count)}
    learned = pd.DataFrame(known | {"form": "vector", "operator": "add", "value": values})
    effects = pd.DataFrame(known | {"before": np.float32(0.5), "after": values})
    rows = count if sites else 0
    learned[:rows].to_parquet(folder / "implicit.parquet")
    effects[:rows].to_parquet(folder / "effects.parquet")


@pytest.fixture(scope="session")
def make() -> Make:
    """`make_run`."""
    return make_run


@pytest.fixture
def few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three figures instead of all, for tests that are about something else."""
    names = ("effects-by-row", "ap-by-run", "losses-table-1")
    monkeypatch.setattr(
        files, "drawings", lambda study: [each for each in drawings(study) if each.name in names]
    )


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables 1 and 4 at mini: three seeds of two experiments, a run going on, a damaged folder."""
    results = tmp_path_factory.mktemp("study")
    for seed, ap in enumerate((0.40, 0.42, 0.41)):
        make_run(results, "csp-fast", seed, ap)
        make_run(results, "csp-fast.add-fa", seed, ap + 0.02 + 0.003 * seed)
    make_run(results, "csp-fast.mul-fa", 0, 0.3)
    make_run(results, "csp-fast.add-pr", 0, state="running", epochs=1)
    damaged = results / "runs" / "<b>broken & co"
    damaged.mkdir()
    (damaged / "run.json").write_text("{")
    make_run(results, "csp-fast", 7, profile="smoke")
    study = open_study(results, "mini", ["1", "4"])
    write_report(study, results / "report", date=DATE)
    return results / "report"
