"""One run from configuration to files: complete, resumable bit for bit, and safe from its neighbours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.yolor_core.training.results import TIMES, assert_same_result, lasting, stop_after
from yolor_core.config import ImplicitConfig, OptimiserConfig, PhaseConfig, RunConfig, ShapesConfig
from yolor_core.data import load_images
from yolor_core.errors import RunError
from yolor_core.evaluation.coco import evaluate_boxes
from yolor_core.evaluation.detections import Detections
from yolor_core.runs.directory import RunDirectory
from yolor_core.training import loop, train
from yolor_core.training.state import drop_checkpoints
from yolor_core.training.step import TrainingStep

ADD_FA = ImplicitConfig(site="fa", operator="add")
SPARSE = ImplicitConfig(site="fa", operator="add", form="factorisation", sparse=0.01)
Tiny = Callable[..., RunConfig]


def test_a_run_leaves_the_files_of_the_contract(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(implicit=(ADD_FA,), evaluate_every=1)
    assert train(config, tmp_path / "run") == "done"
    run = RunDirectory(tmp_path / "run")

    record = json.loads(run.run.read_text())
    assert RunConfig.model_validate(record["config"]) == config
    wanted = {"schema", "experiment", "signature", "fingerprint", "source_hash", "commit", "dirty"}
    assert wanted | {"packages", "device", "jobs", "data_report"} <= record.keys()
    assert record["run"].startswith("tiny-test-s0-")
    assert record["started"] <= record["ended"] and record["resumes"] == 0
    state = run.read_state()
    assert state is not None
    assert (state["state"], state["epoch"], state["epochs"]) == ("done", 2, 2)

    metrics = run.read_metrics()
    assert [m["epoch"] for m in metrics] == [1, 2]
    wanted = {
        "loss/box",
        "loss/obj",
        "loss/cls",
        "lr/weights",
        "lr/bias",
        "momentum",
        "AP",
        "AP50",
        "ARL",
        "val/loss",
        "val/box",
        "val/obj",
        "val/cls",
        *TIMES,
    }
    assert all(wanted <= m.keys() for m in metrics)
    evaluation = run.read_evaluation()
    assert evaluation is not None
    assert metrics[-1]["AP50"] == evaluation["detection"]["AP50"]
    # The reported AP is that of the stored detections.
    assert evaluate_boxes(load_images(config.data, "val").coco, Detections.read(run.detections)) == evaluation

    implicit = pq.read_table(run.implicit).to_pandas()
    assert sorted(implicit["epoch"].unique()) == [0, 1, 2]
    assert implicit.groupby("level", observed=True)["index"].nunique().tolist() == [16, 32, 64]
    initial, final = (implicit[implicit["epoch"] == epoch]["value"].to_numpy() for epoch in (0, 2))
    assert 0.01 < np.std(initial) < 0.03 and not np.array_equal(initial, final)
    assert not run.checkpoint.exists() and not run.previous_checkpoint.exists()
    assert not list(run.path.glob(".*.tmp"))


@pytest.fixture(scope="module")
def uninterrupted(
    tiny: Tiny, chain: tuple[PhaseConfig, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunConfig, RunDirectory]:
    """A run whose gradients wait for a second step at some of the stops."""
    optimiser = OptimiserConfig(nominal_batch=8, warmup_min_iterations=2, warmup_epochs=0.5, ema_updates=5)
    config = tiny(implicit=(SPARSE,), phases=chain, optimiser=optimiser, evaluate_every=1)
    folder = tmp_path_factory.mktemp("whole")
    assert train(config, folder) == "done"
    return config, RunDirectory(folder)


@pytest.mark.parametrize("stops", [(1,), (2, 1), (4,), (3, 2)])
def test_a_stopped_run_ends_where_an_uninterrupted_one_does(
    uninterrupted: tuple[RunConfig, RunDirectory], tmp_path: Path, stops: tuple[int, ...]
) -> None:
    config, whole = uninterrupted
    for calls in stops:
        assert train(config, tmp_path / "parts", stop=stop_after(calls)) == "preempted"
        state = RunDirectory(tmp_path / "parts").read_state()
        assert state is not None and state["state"] == "preempted"
    assert train(config, tmp_path / "parts") == "done"

    parts = RunDirectory(tmp_path / "parts")
    assert_same_result(whole, parts)
    record = parts.read_run()
    assert record is not None and record["resumes"] == len(stops)
    assert all(m["loss/sparse"] > 0 for m in whole.read_metrics())


def test_gradients_pending_at_the_end_of_an_epoch_are_used_in_the_next(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches to a step of the optimiser, three batches to an epoch."""
    waiting: list[tuple[int, int, bool]] = []
    backward = TrainingStep._forward_and_backward

    def noted(step: TrainingStep, *args: Any) -> Any:
        waits = any(parameter.grad is not None for parameter in step.parameters)
        waiting.append((step.state.epoch, step.state.step, waits))
        return backward(step, *args)

    monkeypatch.setattr(TrainingStep, "_forward_and_backward", noted)
    double = OptimiserConfig(nominal_batch=8, warmup_min_iterations=1, warmup_epochs=0, ema_updates=5)
    train(tiny(phases=(PhaseConfig(epochs=3, schedule_epochs=3),), optimiser=double), tmp_path / "run")
    assert [place for *place, waits in waiting if waits] == [[0, 2], [1, 1], [2, 0], [2, 2]]


def test_a_finished_run_is_left_alone_and_refused_to_another(
    tiny: Tiny, plain_run: RunDirectory, tmp_path: Path
) -> None:
    config = tiny()
    shutil.copytree(plain_run.path, tmp_path, dirs_exist_ok=True)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != ".lock"}
    assert train(config, tmp_path) == "done"
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.name != ".lock"} == before
    with pytest.raises(RunError, match=r"holds the run tiny-test-s0.*seed = 0 there, 3 here"):
        train(tiny(seed=3), tmp_path)
    other = config.model_copy(update={"data": ShapesConfig(train_images=11, val_images=5, size=64)})
    with pytest.raises(RunError, match="annotation files or pictures have changed"):
        train(other, tmp_path)
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.name != ".lock"} == before
    assert RunDirectory(tmp_path).complete()


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    tiny: Tiny, plain_run: RunDirectory, tmp_path: Path
) -> None:
    for seed in (0, 1):
        train(tiny(seed=seed), tmp_path / str(seed))
    assert_same_result(plain_run, RunDirectory(tmp_path / "0"))
    assert lasting(plain_run) != lasting(RunDirectory(tmp_path / "1"))


def test_checkpoints_go_only_when_the_run_is_done(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies between the two leaves a run that can be resumed."""
    seen = []

    def look(run: RunDirectory, keep_last: bool) -> None:
        seen.append((run.life(), run.checkpoint.exists()))
        raise OSError("the file system is read-only now")

    monkeypatch.setattr(loop, "drop_checkpoints", look)
    assert train(tiny(keep_checkpoint=False), tmp_path) == "done"
    assert seen == [("done", True)]
    assert RunDirectory(tmp_path).life() == "done"


@pytest.mark.parametrize("keep_checkpoint", [True, False])
@pytest.mark.parametrize("lost", ["evaluation.json", "weights.safetensors", "run.json"])
def test_lost_results_of_a_finished_run_are_made_again(
    tiny: Tiny, plain_run: RunDirectory, tmp_path: Path, keep_checkpoint: bool, lost: str
) -> None:
    shutil.copytree(plain_run.path, tmp_path, dirs_exist_ok=True)
    run = RunDirectory(tmp_path)
    if not keep_checkpoint:
        drop_checkpoints(run, keep_last=False)
    (tmp_path / lost).unlink()
    assert not run.complete()
    assert train(tiny(keep_checkpoint=keep_checkpoint), tmp_path) == "done"
    assert run.complete() and run.checkpoint.exists() == keep_checkpoint
    assert_same_result(plain_run, run)
