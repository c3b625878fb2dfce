"""The command for the first GPU, on a CPU and tiny: every figure has its place, whatever fails is named."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

from ablations.costs import Estimator
from ablations.plan import plan_runs
from benchmarks import gpu, gpu_parts
from yolor_core.config import ShapesConfig

ROOT = Path(__file__).parents[2]
STEP = {"experiment", "size", "images", "images/s", "TFLOP/s", "peak TFLOP/s", "share of peak", "GiB"}


@pytest.fixture
def bench(tmp_path: Path) -> gpu_parts.Bench:
    return gpu_parts.Bench(torch.device("cpu"), True, tmp_path, tmp_path / "rows.jsonl")


def tables(bench: gpu_parts.Bench) -> dict[str, list[dict[str, Any]]]:
    """What the parts have written."""
    found = defaultdict(list)
    for line in bench.results.read_text().splitlines():
        row = json.loads(line)
        assert row.pop("on") == "CPU"
        found[row.pop("table")].append(row)
    return found


def command(*words: object, peer: str = "") -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--tiny", *map(str, words)]
    environment = os.environ | {"YOLOR_PEER": peer}
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_the_report_has_what_was_measured_and_names_the_part_that_failed(tmp_path: Path) -> None:
    ended = command("--parts", "peer", "--out", tmp_path, peer="/nowhere")
    assert ended.returncode == 1, ended.stderr
    record = json.loads((tmp_path / "report.json").read_text())
    states = {part: ended["state"] for part, ended in record["parts"].items()}
    assert states == {"device": "done", "peer": "failed"}
    assert "YOLOR_PEER = '/nowhere'" in record["parts"]["peer"]["error"]
    facts = {row["fact"] for row in record["tables"]["device"]}
    assert {"device", "commit", "torch", "cores for this process", "Python's headers"} <= facts
    page = (tmp_path / "report.md").read_text()
    assert page.startswith("# CPU: ") and "YOLOR_PEER = '/nowhere'" in page
    assert "\n1 of 11 parts complete.\n" in page


def test_a_file_is_no_folder_for_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("kept")
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path / "file")])
    with pytest.raises(SystemExit, match="2"):
        gpu.main()
    assert "file: File exists; allowed is a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "kept"


def test_a_part_stopped_at_its_limit_leaves_what_it_had_and_the_next_one_runs(tmp_path: Path) -> None:
    options = argparse.Namespace(out=tmp_path, device="cpu", tiny=True)
    report = gpu.Report(tmp_path, "a test")
    had = {"table": "training", "on": "CPU", "experiment": "csp-fast"}
    (tmp_path / "training.jsonl").write_text(json.dumps(had) + '\n{"table": "tra')
    gpu.run("training", options, 0.2, tmp_path, report)
    report.add("peer", "left out", error="no checkout")
    record = json.loads((tmp_path / "report.json").read_text())
    assert record["parts"]["training"]["state"].startswith("stopped after")
    assert list(record["parts"]) == ["training", "peer"]
    assert record["tables"]["training"] == [{"on": "CPU", "experiment": "csp-fast"}]


def test_no_time_left_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = argparse.Namespace(out=tmp_path, parts=["ddp"], minutes=0.01, device="cpu", tiny=True)
    report = gpu.Report(tmp_path, "a test")
    gpu.run_all(options, tmp_path, report)
    assert report.parts["ddp"]["state"] == "no time left"
    assert "the time was over: --minutes 0.01" in capsys.readouterr().out


def test_what_a_gpu_did_goes_into_a_cluster_profile(tmp_path: Path) -> None:
    report = gpu.Report(tmp_path, "a test")
    rows = tmp_path / "rows"
    measured = [("p6-light", 8, 61.23456), ("csp-fast", 16, 47.5), ("csp-fast", 8, 40.0)]
    lines: list[dict[str, Any]] = [{"experiment": e, "images": i, "TFLOP/s": t} for e, i, t in measured]
    lines.append({"experiment": "csp-fast", "images": 64, "note": "does not fit"})
    beside = {"table": "shared", "experiment": "csp-fast", "images": 64, "runs_per_gpu": 4, "TFLOP/s": 12.0}
    found = [{"table": "batches", "on": "GPU"} | line for line in lines] + [beside | {"on": "GPU"}]
    rows.write_text("\n".join(map(json.dumps, found)))
    report.add("batches", "done", rows=rows)
    block = (tmp_path / "report.md").read_text().split("```toml\n")[1].split("```")[0]
    speeds = [tomllib.loads(line)["tflops"] for line in block.splitlines()]
    assert speeds == [40.0, 47.5, 12.0, 61.23]
    assert "csp-fast, 8 images" in block.splitlines()[0] and "runs_per_gpu = 4" in block.splitlines()[2]
    assert [s["tflops"] for s in json.loads((tmp_path / "report.json").read_text())["tflops"]] == speeds


def test_with_the_measured_tflops_an_epoch_is_estimated_to_take_what_it_took(
    bench: gpu_parts.Bench, tmp_path: Path
) -> None:
    gpu_parts.batches(bench)
    rows = tables(bench)["batches"]
    assert {(row["experiment"], row["images"]) for row in rows} == {
        (experiment, images) for experiment in gpu_parts.MODELS for images in (2, 4)
    }
    for row in rows:
        assert set(row) >= STEP and 0 < row["share of peak"] < 1
        (run,) = plan_runs([row["experiment"]], "smoke", [0], results=tmp_path)
        assert isinstance(run.config.data, ShapesConfig)
        estimate = Estimator(tmp_path, row["TFLOP/s"])(run)
        assert estimate.epoch == pytest.approx(run.config.data.train_images / row["images/s"])


def test_the_speed_of_a_cpu_is_no_gpus(bench: gpu_parts.Bench, tmp_path: Path) -> None:
    report = gpu.Report(tmp_path, "a test")
    bench.emit("batches", experiment="csp-fast", images=2, **{"TFLOP/s": 0.1})
    report.add("batches", "done", rows=bench.results)
    record, page = json.loads((tmp_path / "report.json").read_text()), (tmp_path / "report.md").read_text()
    assert record["on"] == "CPU" and record["tflops"] == []
    assert page.startswith("# CPU: ") and "tflops = " not in page
    assert next(line for line in page.splitlines() if line.startswith("## Memory")).endswith("(CPU)")


@pytest.mark.parametrize(
    ("part", "columns"),
    [
        ("training", {"training": {*STEP, "precision", "channels-last", "compiled"}}),
        ("data", {"data": {"images/s without loader", "with loader", "share waiting", "loader alone"}}),
        ("ddp", {"ddp": {"images/s alone", "with DDP", "first loss alone", "first loss with DDP"}}),
        ("shared", {"shared": {"experiment", "images", "runs_per_gpu", "images/s", "TFLOP/s", "GiB each"}}),
        ("resume", {"resume": {"compared", "resumes", "equal to the bit"}}),
        (
            "inference",
            {
                "agreement": {"TF32 in convolutions", "largest difference / largest output"},
                "suppression": {"candidates", "released ms", "ours ms", "ours, exact ms", "same boxes"},
                "evaluation": {"images/s of predictions", "scoring s"},
                "inference": {"experiment", "precision", "folded", "batch", "network/s", "end to end/s"},
            },
        ),
    ],
)
def test_every_part_measures(bench: gpu_parts.Bench, part: str, columns: dict[str, set[str]]) -> None:
    gpu_parts.PARTS[part](bench)
    found = tables(bench)
    assert set(found) == set(columns) <= set(gpu.TITLES)
    assert all(set(row) >= columns[table] for table, rows in found.items() for row in rows)
    if part == "resume":  # bit for bit on a CPU
        assert [row["resumes"] for row in found["resume"]] == [0, 1]
        assert all(row["equal to the bit"] for row in found["resume"])
    if part == "ddp":
        for row in found["ddp"]:
            assert row["first loss alone"] == pytest.approx(row["first loss with DDP"], rel=1e-3)


def test_the_command_knows_every_part() -> None:
    assert set(gpu.LIMITS) == set(gpu_parts.PARTS)
