"""Run directories written by hand, as training leaves them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ablations.cli import main
from ablations.plan import plan_runs
from yolor_core.identity import signature

Entries = list[dict[str, Any]]
Spoil = Callable[[dict[str, Any], Entries, Entries], Any]
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


def two_detectors(images: int = 60, seed: int = 0) -> tuple[dict[str, Any], Entries, Entries]:
    """Annotations, and what two detectors found: the second misses less."""
    random = np.random.default_rng(seed)
    boxes: list[dict[str, Any]] = []
    found: tuple[Entries, Entries] = ([], [])
    for image in range(1, images + 1):
        for _ in range(4):
            corner, side = random.uniform(0, 300, 2), random.uniform(8, 150, 2)
            category = int(random.integers(1, 4))
            box = [*map(float, corner), *map(float, side)]
            about = {"image_id": image, "category_id": category}
            boxes.append(about | {"id": len(boxes) + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
            for arm, (chance, spread) in enumerate(((0.5, 6.0), (0.8, 4.0))):
                if random.random() < chance:
                    moved = [float(v) for v in np.array(box) + random.normal(0, spread, 4)]
                    moved[2:] = [max(v, 1.0) for v in moved[2:]]
                    found[arm].append(about | {"bbox": moved, "score": float(random.uniform(0.3, 1))})
    names = [{"id": i, "name": name} for i, name in enumerate(("ant", "bee", "cat"), 1)]
    pictures = [{"id": i, "width": 500, "height": 500, "file_name": f"{i}.jpg"} for i in range(1, images + 1)]
    return {"images": pictures, "annotations": boxes, "categories": names}, *found


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., tuple[str, str, str]]:
    """Write annotations and detections of `two_detectors`; `spoil` may change them before."""

    def write(spoil: Spoil | None = None) -> tuple[str, str, str]:
        content = two_detectors()
        if spoil is not None:
            spoil(*content)
        paths = [tmp_path / name for name in ("truth.json", "a.json", "b.json")]
        for path, value in zip(paths, content, strict=True):
            path.write_text(json.dumps(value))
        return str(paths[0]), str(paths[1]), str(paths[2])

    return write


def compare_files(truth: str, a: str, b: str, *more: str) -> Result:
    """`ablate compare` of two files."""
    return CliRunner().invoke(main, ["compare", a, b, "--truth", truth, "--resamples", "100", *more])
