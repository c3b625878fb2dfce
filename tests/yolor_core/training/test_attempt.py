"""Where a run starts from; what goes wrong stops it with the reason and the way out, and no loss."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.yolor_core.data.coco_folder import Folder, annotation, picture
from tests.yolor_core.training.results import assert_same_result, lasting, stop_after
from yolor_core.config import ImplicitConfig, PhaseConfig, RunConfig
from yolor_core.errors import ConfigError, RunError
from yolor_core.runs.directory import RunDirectory
from yolor_core.training import progress, train
from yolor_core.training.step import TrainingStep

ADD_FA = ImplicitConfig(site="fa", operator="add")
Tiny = Callable[..., RunConfig]


def reason(run: RunDirectory) -> str:
    state = run.read_state()
    assert state is not None and state["state"] == "failed"
    return str(state["reason"])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
    ],
)
def test_out_of_memory_says_what_to_change_and_the_run_goes_on(
    tiny: Tiny, plain_run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    call, steps = TrainingStep.__call__, []

    def full(self: TrainingStep, *arguments: object) -> dict[str, float]:
        steps.append(1)
        if len(steps) == 5:
            raise error
        return call(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainingStep, "__call__", full)
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(RunError, match="out of memory at batch 4, 64 pixels") as raised:
        train(tiny(), run.path)
    assert raised.value.__cause__ is error
    for way_out in ("more ranks", "runs_per_gpu", "train.batch", "bfloat16"):
        assert way_out in reason(run)
    assert train(tiny(), run.path) == "done"
    assert_same_result(plain_run, run)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_the_file_and_leaves_the_last_checkpoint(
    tiny: Tiny, plain_run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fsync, writes = os.fsync, []

    def full(handle: int) -> None:
        writes.append(handle)
        if len(writes) > 11:  # into the second epoch; from now on nothing can be written, state.json neither
            raise OSError(number, os.strerror(number))
        fsync(handle)

    run = RunDirectory(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        patch.setattr(progress, "HEARTBEAT", math.inf)  # else a slow machine writes more often
        with pytest.raises(
            RunError, match=r"run/.*: (no space is left|the quota is used up).*goes on from it"
        ):
            train(tiny(tensorboard=False), run.path)
    assert run.checkpoint.exists() and not list(run.path.glob(".*.tmp"))
    assert train(tiny(tensorboard=False), run.path) == "done"
    assert_same_result(plain_run, run)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_results_folder_that_cannot_be_written_is_named(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    # The tests may run as root, whom permissions do not stop: the system's answer is played.
    def closed(self: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", closed)
    with pytest.raises(RunError, match=r"cannot be written: .*--results or ABLATE_RESULTS"):
        train(tiny(), tmp_path / "closed" / "run")


def test_a_loader_process_that_is_killed_is_explained(tiny: Tiny, tmp_path: Path) -> None:
    import signal

    import yolor_core.data.batches as module

    config = tiny(workers=1)
    original = module._Epoch.__call__

    def killed(self: object, step: int) -> object:
        if step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, step)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module._Epoch, "__call__", killed)
        with pytest.raises(RunError, match=r"a loader process died.*fewer execution.workers"):
            train(config, tmp_path)
    assert "a loader process died" in reason(RunDirectory(tmp_path))


def folder(root: Path) -> Folder:
    made = Folder(root)
    for number in range(6):
        image = made.add(picture(number, 64, 64), f"{number}.png", (64, 64))
        made.content["annotations"].append(annotation(number + 1, image, [5, 5, 30, 30]))
    made.write()
    return made


def test_a_dataset_that_changed_since_the_run_began_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    data = folder(tmp_path / "coco")
    config = tiny().model_copy(update={"data": data.config})
    run = RunDirectory(tmp_path / "run")
    assert train(config, run.path, stop=stop_after(3)) == "preempted"
    before = run.checkpoint.read_bytes()
    data.content["annotations"][0]["bbox"] = [6, 5, 30, 30]
    data.write()
    with pytest.raises(
        RunError, match=r"annotation files or pictures have changed since this run began.*Restore them"
    ):
        train(config, run.path)
    assert run.checkpoint.read_bytes() == before
    data.content["annotations"][0]["bbox"] = [5, 5, 30, 30]
    data.write()
    assert train(config, run.path) == "done"


def test_a_configuration_that_differs_from_the_checkpoints_is_refused_by_field(
    tiny: Tiny, tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path)
    assert train(tiny(), run.path, stop=stop_after(3)) == "preempted"
    before = run.checkpoint.read_bytes()
    faster = tiny().science.train.optimiser.model_copy(update={"lr0": 0.5})
    with pytest.raises(RunError, match=r"train.optimiser.lr0 = 0.01 there, 0.5 here"):
        train(tiny(optimiser=faster), run.path)
    with pytest.raises(RunError, match=r"seed = 0 there, 1 here"):
        train(tiny(seed=1), run.path)
    # Even where run.json is lost, the checkpoint knows whose it is.
    run.run.unlink()
    with pytest.raises(RunError, match=r"checkpoint.pt is of another configuration"):
        train(tiny(implicit=(ImplicitConfig(site="fa", operator="add"),)), run.path)
    assert run.checkpoint.read_bytes() == before
    assert train(tiny(), run.path) == "done"


def test_the_folder_of_another_run_stays_as_it_is(tiny: Tiny, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert train(tiny(), run.path, stop=stop_after(3)) == "preempted"
    before = run.read_state()
    with pytest.raises(RunError, match="Train this one in another folder"):
        train(tiny(seed=1), run.path)
    assert run.read_state() == before


def test_checkpoints_are_loaded_as_tensors_and_plain_values_only(tiny: Tiny, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    train(tiny(), run.path, stop=stop_after(2))
    saved = torch.load(run.checkpoint, weights_only=True)
    assert {"model", "average", "optimiser", "scaler", "epoch", "step", "signature"} <= saved.keys()
    listed = dict(reversed(line.split()) for line in run.checksums.read_text().splitlines())
    assert run.checkpoint.name in listed
    assert json.dumps(saved["metrics"]) == json.dumps(run.read_metrics())


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
    tiny: Tiny, implicit_run: RunDirectory, tmp_path: Path
) -> None:
    config = tiny(implicit=(ADD_FA,))
    assert train(config, tmp_path / "parts", stop=stop_after(4)) == "preempted"
    parts = RunDirectory(tmp_path / "parts")
    parts.metrics.unlink()
    parts.implicit.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"implicit\.parquet cannot be read"):
        assert train(config, tmp_path / "parts") == "done"
    assert lasting(parts) == lasting(implicit_run)
    assert sorted(pq.read_table(parts.implicit).to_pandas()["epoch"].unique()) == [2]


def test_a_chain_whose_first_run_lost_its_checkpoint_trains_all_phases(
    tiny: Tiny, chain: tuple[PhaseConfig, ...], tmp_path: Path
) -> None:
    train(tiny(phases=chain[:1]), tmp_path / "first")  # keeps no checkpoint
    train(tiny(phases=chain), tmp_path / "whole")
    with pytest.warns(UserWarning, match="training all phases"):
        train(tiny(phases=chain, start_checkpoint=str(tmp_path / "first")), tmp_path / "anew")
    assert_same_result(RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "anew"))


def test_a_damaged_run_json_is_written_anew(tiny: Tiny, tmp_path: Path) -> None:
    assert train(tiny(), tmp_path, stop=stop_after(2)) == "preempted"
    (tmp_path / "run.json").write_text("{bad")
    with pytest.warns(UserWarning, match=r"run\.json.*written anew"):
        assert train(tiny(), tmp_path) == "done"
    assert RunDirectory(tmp_path).complete()
