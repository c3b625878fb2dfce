"""One run from configuration to files: complete, resumable bit for bit, and safe from its neighbours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.yolor_core.training.results import TIMES, assert_same_result, lasting
from tests.yolor_core.training.stopping import stop_after
from yolor_core.config import ImplicitConfig, OptimiserConfig, PhaseConfig, RunConfig
from yolor_core.data import load_images
from yolor_core.errors import ConfigError, RunError
from yolor_core.evaluation.coco import evaluate_boxes
from yolor_core.evaluation.detections import Detections
from yolor_core.runs.directory import RunDirectory
from yolor_core.training import train
from yolor_core.training.step import TrainingStep

ADD_FA = ImplicitConfig(site="fa", operator="add")
SPARSE = ImplicitConfig(site="fa", operator="add", form="factorisation", sparse=0.01)
Tiny = Callable[..., RunConfig]


def test_a_run_leaves_the_files_of_the_contract(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(implicit=(ADD_FA,), evaluate_every=1)
    assert train(config, tmp_path / "run") == "done"
    run = RunDirectory(tmp_path / "run")

    record = run.read_run()
    assert record is not None
    assert RunConfig.model_validate(record["config"]) == config
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
        *TIMES,
    }
    assert all(wanted <= m.keys() for m in metrics)
    evaluation = run.read_evaluation()
    assert evaluation is not None
    assert metrics[-1]["AP50"] == evaluation["detection"]["AP50"]

    implicit = pq.read_table(run.implicit).to_pandas()
    assert sorted(implicit["epoch"].unique()) == [0, 1, 2]
    assert implicit.groupby("level", observed=True)["index"].nunique().tolist() == [16, 32, 64]
    assert not run.checkpoint.exists() and not run.previous_checkpoint.exists()
    assert not list(run.path.glob(".*.tmp"))


def test_the_reported_ap_is_that_of_the_stored_detections(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny()
    train(config, tmp_path)
    run = RunDirectory(tmp_path)
    again = evaluate_boxes(load_images(config.data, "val").coco, Detections.read(run.detections))
    assert again == run.read_evaluation()


@pytest.mark.parametrize("stops", [(1,), (2, 1), (4,), (3, 2)])
def test_a_stopped_run_ends_where_an_uninterrupted_one_does(
    tiny: Tiny, chain: tuple[PhaseConfig, ...], tmp_path: Path, stops: tuple[int, ...]
) -> None:
    # Accumulation over two steps leaves gradients waiting at some of the stops.
    optimiser = OptimiserConfig(nominal_batch=8, warmup_min_iterations=2, warmup_epochs=0.5, ema_updates=5)
    config = tiny(implicit=(SPARSE,), phases=chain, optimiser=optimiser, evaluate_every=1)
    assert train(config, tmp_path / "whole") == "done"
    for calls in stops:
        assert train(config, tmp_path / "parts", stop=stop_after(calls)) == "preempted"
        state = RunDirectory(tmp_path / "parts").read_state()
        assert state is not None and state["state"] == "preempted"
    assert train(config, tmp_path / "parts") == "done"

    whole, parts = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "parts")
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


def test_a_longer_chain_continues_a_finished_run_bit_for_bit(
    tiny: Tiny, chain: tuple[PhaseConfig, ...], tmp_path: Path
) -> None:
    train(tiny(phases=chain[:1], keep_checkpoint=True), tmp_path / "first")
    train(tiny(phases=chain, start_checkpoint=str(tmp_path / "first")), tmp_path / "continued")
    train(tiny(phases=chain), tmp_path / "whole")
    continued, whole = RunDirectory(tmp_path / "continued"), RunDirectory(tmp_path / "whole")
    ours, theirs = load_file(continued.weights), load_file(whole.weights)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [m["loss/box"] for m in continued.read_metrics()] == [m["loss/box"] for m in whole.read_metrics()]
    record = continued.read_run()
    assert record is not None and record["continues"] == "first"


def test_continuing_another_seed_is_refused(
    tiny: Tiny, chain: tuple[PhaseConfig, ...], tmp_path: Path
) -> None:
    train(tiny(phases=chain[:1], seed=1, keep_checkpoint=True), tmp_path / "first")
    with pytest.raises(RunError, match="seed 0"):
        train(tiny(phases=chain, start_checkpoint=str(tmp_path / "first")), tmp_path / "second")
    state = RunDirectory(tmp_path / "second").read_state()
    assert state is not None
    assert state["state"] == "failed" and "seed 0" in state["reason"]


def test_a_finished_run_is_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny()
    train(config, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != ".lock"}
    assert train(config, tmp_path) == "done"
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.name != ".lock"} == before


def test_a_directory_of_another_run_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny(), tmp_path)
    with pytest.raises(RunError, match="holds the run tiny-test-s0"):
        train(tiny(seed=3), tmp_path)


def test_a_run_that_another_process_holds_is_not_touched(tiny: Tiny, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with run.lock():
        assert run.running()
        with pytest.raises(RunError, match="another process"), RunDirectory(tmp_path).lock(timeout=0.1):
            pass
    assert not run.running()
    assert run.read_state() is None


def test_a_device_that_is_not_there_is_named(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        train(tiny(device="nonsense"), tmp_path)
    state = RunDirectory(tmp_path).read_state()
    assert state is not None and state["state"] == "failed"


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_images(tiny: Tiny, tmp_path: Path) -> None:
    optimiser = OptimiserConfig(lr0=1e30, nominal_batch=4, warmup_epochs=0, warmup_min_iterations=0)
    with pytest.raises(RunError, match=r"not finite at epoch 1, step \d; images \[\d+"):
        train(tiny(optimiser=optimiser), tmp_path)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tiny: Tiny, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tiny(seed=seed), tmp_path / name)
    a, b, c = (RunDirectory(tmp_path / name) for name in "abc")
    assert_same_result(a, b)
    assert lasting(a) != lasting(c)


def test_initial_values_are_recorded_before_the_first_step(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(implicit=(ADD_FA,))
    train(config, tmp_path)
    table = pq.read_table(tmp_path / "implicit.parquet").to_pandas()
    initial = table[table["epoch"] == 0]["value"].to_numpy()
    final = table[table["epoch"] == 2]["value"].to_numpy()
    assert 0.01 < np.std(initial) < 0.03 and not np.array_equal(initial, final)


def test_run_json_is_plain_json(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny(), tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    keys = {
        "schema",
        "experiment",
        "signature",
        "run",
        "config",
        "fingerprint",
        "source_hash",
        "commit",
        "dirty",
    }
    assert (
        keys | {"packages", "device", "jobs", "started", "ended", "resumes", "data_report"} <= record.keys()
    )
    assert record["run"].startswith("tiny-test-s0-")


def test_a_run_resumed_by_other_code_says_so(tiny: Tiny, tmp_path: Path) -> None:
    assert train(tiny(), tmp_path, stop=stop_after(2)) == "preempted"
    run = RunDirectory(tmp_path)
    record = run.read_run()
    assert record is not None
    present = record["source_hash"]
    run.run.write_text(json.dumps(record | {"source_hash": "0123abcd"}))
    train(tiny(), tmp_path)
    record = run.read_run()
    assert record is not None and record["source_hash"] == f"0123abcd+{present}"


def test_an_evaluation_stride_that_does_not_fit_the_model_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny()
    evaluation = config.science.evaluation.model_copy(update={"stride": 48})
    science = config.science.model_copy(update={"evaluation": evaluation})
    with pytest.raises(ConfigError, match=r"stride = 48.*multiples"):
        train(config.model_copy(update={"science": science}), tmp_path)


def test_lost_records_are_restored_from_the_checkpoint_or_missed_with_a_warning(
    tiny: Tiny, tmp_path: Path
) -> None:
    config = tiny(implicit=(ADD_FA,))
    train(config, tmp_path / "whole")
    assert train(config, tmp_path / "parts", stop=stop_after(4)) == "preempted"
    parts = RunDirectory(tmp_path / "parts")
    parts.metrics.unlink()
    parts.implicit.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"implicit\.parquet cannot be read"):
        assert train(config, tmp_path / "parts") == "done"
    assert lasting(parts) == lasting(RunDirectory(tmp_path / "whole"))
    assert sorted(pq.read_table(parts.implicit).to_pandas()["epoch"].unique()) == [2]


def test_a_chain_whose_first_run_lost_its_checkpoint_trains_all_phases(
    tiny: Tiny, chain: tuple[PhaseConfig, ...], tmp_path: Path
) -> None:
    train(tiny(phases=chain[:1]), tmp_path / "first")  # keeps no checkpoint
    train(tiny(phases=chain), tmp_path / "whole")
    with pytest.warns(UserWarning, match="training all phases"):
        train(tiny(phases=chain, start_checkpoint=str(tmp_path / "first")), tmp_path / "anew")
    assert_same_result(RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "anew"))


@pytest.mark.parametrize("keep_checkpoint", [True, False])
@pytest.mark.parametrize("lost", ["evaluation.json", "weights.safetensors", "run.json"])
def test_lost_results_of_a_finished_run_are_made_again(
    tiny: Tiny, tmp_path: Path, keep_checkpoint: bool, lost: str
) -> None:
    config = tiny(keep_checkpoint=keep_checkpoint)
    train(config, tmp_path / "whole")
    train(config, tmp_path / "lost")
    (tmp_path / "lost" / lost).unlink()
    assert not RunDirectory(tmp_path / "lost").complete()
    assert train(config, tmp_path / "lost") == "done"
    assert RunDirectory(tmp_path / "lost").complete()
    assert_same_result(RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "lost"))


def test_a_damaged_run_json_is_written_anew(tiny: Tiny, tmp_path: Path) -> None:
    assert train(tiny(), tmp_path, stop=stop_after(2)) == "preempted"
    (tmp_path / "run.json").write_text("{bad")
    with pytest.warns(UserWarning, match=r"run\.json.*written anew"):
        assert train(tiny(), tmp_path) == "done"
    assert RunDirectory(tmp_path).complete()
