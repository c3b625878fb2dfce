"""The report of a whole study: seconds and megabytes, against reading the same files alone.

    python benchmarks/report.py [--seeds 5] [--values 600] [--keep DIR]

Makes run folders as large as those of the profile mini (19 experiments, 24 epochs, VALUES implicit values an
epoch, 20,000 detections, a log), writes the report of Tables 1-8 in a process of its own, as `ablate report`
does, and prints its seconds (the start of Python and the counting of full-size models for Table 7 included),
the report's size, and the ratio to a process that imports pandas and reads every file once. With half of the
seeds too, so that growth can be seen.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablations.plan import plan_runs
from ablations.planned import PlannedRun
from yolor_core.data.load import load_images
from yolor_core.evaluation.detections import Detections
from yolor_core.identity import signature
from yolor_core.runs.directory import RunDirectory

EPOCHS, PER_IMAGE = 24, 100
CLASSES = ("disc", "square", "triangle", "star", "ring")
COCO = ("AP", "AP50", "AP75", "APS", "APM", "APL", "AR1", "AR10", "AR100", "ARS", "ARM", "ARL")
LEVELS = {"P3": 8, "P4": 16, "P5": 32}  # strides, pixels

READ = """
import json, pathlib, sys
import pandas as pd
for run in sorted(pathlib.Path(sys.argv[1]).glob('runs/*')):
    for file in sorted(run.rglob('*')):
        if file.suffix == '.json': json.loads(file.read_text())
        elif file.suffix == '.jsonl': [json.loads(line) for line in file.read_text().splitlines()]
        elif file.suffix == '.parquet' and file.stem != 'detections': pd.read_parquet(file)
        elif file.is_file() and 'log' in file.name: file.read_bytes()
"""


def main() -> None:
    """Make the runs, write reports, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--values", type=int, default=600, help="implicit values a site and epoch")
    parser.add_argument("--keep", type=Path, help="leave runs and report in this folder")
    chosen = parser.parse_args()
    for seeds in sorted({max(1, chosen.seeds // 2), chosen.seeds}):
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder)
            runs = plan_runs((), "mini", list(range(seeds)), results=results, fingerprint="f" * 64)
            for run in runs:
                fabricate(run, chosen.values)
            bare = min(seconds_of([sys.executable, "-c", READ, str(results)]) for _ in range(2))
            command = [sys.executable, "-m", "ablations", "report", "--results", str(results)]
            spent = min(seconds_of(command) for _ in range(2))
            size = sum(path.stat().st_size for path in (results / "report").rglob("*") if path.is_file())
            print(
                f"{len(runs)} runs: {spent:.1f} s, {spent / bare:.1f} times the files alone ({bare:.1f} s); "
                f"{size / 1e6:.1f} MB"
            )
            if chosen.keep and seeds == chosen.seeds:
                shutil.copytree(results, chosen.keep, dirs_exist_ok=True)


def seconds_of(command: list[str]) -> float:
    """Of a whole process."""
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began


def fabricate(run: PlannedRun, values: int) -> None:
    """A finished run of the planned kind; its numbers are random, the same for the same run."""
    noise = np.random.default_rng(int.from_bytes(run.run_id.encode()[-6:]))
    directory, science = RunDirectory(run.run_dir), run.config.science
    directory.path.mkdir(parents=True)
    scores = {name: float(value) for name, value in zip(COCO, noise.uniform(0.1, 0.4, 12), strict=True)}
    levels = [
        {"name": name, "stride": stride, "channels": 32, "anchors": [[stride, stride]] * 3}
        for name, stride in LEVELS.items()
    ]
    report = {"boxes": 600, "images": 200} | {f"check {k}": {"count": 0, "examples": []} for k in range(8)}
    record = {
        "schema": 1,
        "experiment": run.config.experiment,
        "run": run.run_id,
        "signature": signature(science),
        "seed": run.config.seed,
        "fingerprint": "f" * 64,
        "config": json.loads(run.config.to_json()),
        "source_hash": "a" * 64,
        "commit": "c" * 40,
        "dirty": False,
        "python": "3.11.7",
        "packages": {f"package-{k}": "1.2.3" for k in range(8)},
        "device": "cpu",
        "data_report": {"train": report, "val": report},
        "classes": list(CLASSES),
        "levels": levels,
    }
    write(directory.run, record)
    write(directory.state, {"state": "done", "epoch": EPOCHS, "epochs": EPOCHS, "seconds": 480.0})
    per_class = {name: float(noise.uniform(0, 0.5)) for name in CLASSES}
    tasks = {"classification": {"mAP": 0.4, "F1_micro": 0.5, "F1_macro": 0.4}}
    write(directory.evaluation, {"detection": scores, "per_class": per_class, "images": 200} | tasks)
    directory.write_metrics([epoch(number, scores, noise) for number in range(1, EPOCHS + 1)])
    detections(run, noise).write(directory.detections)
    sites = [part.site for part in science.model.implicit]
    implicit(sites, values, noise).to_parquet(directory.implicit, index=False)
    if sites:
        effects(sites, noise).to_parquet(directory.effects, index=False)
    split = {"images": 800, "boxes": 2500, "boxes_per_class": [500] * 5, "images_per_class": [300] * 5}
    sizes = {"size_edges": [2.0**k for k in range(10)], "sizes": [[9] * 9] * 9}
    write(directory.dataset, {"train": split | sizes, "val": split | sizes})
    log = directory.path / "logs" / "20261121T120000" / "1_0_log.out"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"epoch {k}: loss 0.5, AP 0.2, some more words\n" for k in range(400)))


def write(path: Path, content: dict[str, Any]) -> None:
    """Indented, as runs have it; without fsync, which would be most of the time."""
    path.write_text(json.dumps(content, indent=1))


def epoch(number: int, scores: dict[str, float], noise: np.random.Generator) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    losses = {f"loss/{name}": 1 / number + float(noise.uniform(0, 0.05)) for name in ("box", "obj", "cls")}
    rates = {"lr/weights": 0.01 / number, "lr/bias": 0.01 / number, "momentum": 0.937, "seconds": 19.6}
    speed = {"images_per_second": 32.6, "peak_memory_mb": 1348.7, "data_seconds": 0.7, "grad_norm": 5.3}
    growing = {name: value * number / EPOCHS for name, value in scores.items()}
    return {"epoch": number} | losses | rates | speed | growing


def detections(run: PlannedRun, noise: np.random.Generator) -> Detections:
    """So many on every validation image, anywhere."""
    content = load_images(run.config.data, "val").coco
    images = [image["id"] for image in content["images"]]
    count = len(images) * PER_IMAGE
    return Detections.build(
        np.repeat(images, PER_IMAGE),
        noise.choice([category["id"] for category in content["categories"]], count),
        noise.uniform(1, 60, (count, 4)),
        noise.uniform(0, 1, count),
    )


def implicit(sites: list[str], values: int, noise: np.random.Generator) -> pd.DataFrame:
    """implicit.parquet: `values` numbers a site and epoch, over three levels."""
    each = values // len(LEVELS)
    parts = [
        pd.DataFrame(
            {
                "epoch": np.repeat(np.arange(EPOCHS + 1), each),
                "site": site,
                "level": level,
                "form": "vector",
                "operator": "add",
                "index": np.tile(np.arange(each), EPOCHS + 1),
                "value": noise.normal(0, 0.02, each * (EPOCHS + 1)).astype(np.float32),
            }
        )
        for site in sites
        for level in LEVELS
    ]
    columns = {"epoch": int, "site": str, "level": str, "form": str, "operator": str, "index": int}
    none = pd.DataFrame(columns=[*columns, "value"]).astype(columns | {"value": "float32"})
    return pd.concat(parts) if parts else none


def effects(sites: list[str], noise: np.random.Generator) -> pd.DataFrame:
    """effects.parquet: three anchors of 5 + classes outputs on three levels."""
    outputs = 3 * (5 + len(CLASSES))
    count = outputs * (EPOCHS + 1)
    parts = [
        pd.DataFrame(
            {
                "epoch": np.repeat(np.arange(EPOCHS + 1), outputs),
                "site": site,
                "level": level,
                "index": np.tile(np.arange(outputs), EPOCHS + 1),
                "before": noise.normal(0, 1, count).astype(np.float32),
                "after": noise.normal(0, 1, count).astype(np.float32),
            }
        )
        for site in sites
        for level in LEVELS
    ]
    return pd.concat(parts)


if __name__ == "__main__":
    main()
