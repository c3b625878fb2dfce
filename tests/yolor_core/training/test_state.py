"""What training carries: the average against its formula; checkpoints survive damage and crashes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from yolor_core.config import NumericsConfig, RunConfig
from yolor_core.device import Numerics
from yolor_core.errors import RunError
from yolor_core.models import create_model
from yolor_core.runs.directory import RunDirectory
from yolor_core.training.state import (
    MovingAverage,
    TrainingState,
    build_optimiser,
    drop_checkpoints,
    load_checkpoint,
    save_checkpoint,
)

Tiny = Callable[..., RunConfig]


def test_average_follows_the_formula_for_parameters_and_statistics() -> None:
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1))
    nn.init.constant_(model[0].weight, 1.0)
    average = MovingAverage(model, decay=0.9, ramp=3.0)
    expected_weight, expected_mean = 1.0, 0.0
    for update in range(1, 6):
        nn.init.constant_(model[0].weight, float(update))
        model[1].running_mean.fill_(2.0 * update)
        model[1].num_batches_tracked += 1
        average.update(model)
        decay = 0.9 * (1 - math.exp(-update / 3))
        expected_weight = decay * expected_weight + (1 - decay) * update
        expected_mean = decay * expected_mean + (1 - decay) * 2 * update
    assert average.model[0].weight.flatten().tolist() == pytest.approx([expected_weight] * 2)
    assert float(average.model[1].running_mean) == pytest.approx(expected_mean)
    assert int(average.model[1].num_batches_tracked) == 5


def test_average_takes_no_gradient_and_stays_in_evaluation_mode() -> None:
    average = MovingAverage(nn.BatchNorm1d(2).train(), 0.9, 1.0)
    assert not average.model.training
    assert not any(p.requires_grad for p in average.model.parameters())
    assert torch.is_grad_enabled()


def save(run: RunDirectory, number: int) -> None:
    save_checkpoint(run, {"number": number, "tensor": torch.full((3,), float(number))})


def load(run: RunDirectory) -> int:
    content = load_checkpoint(run)
    assert content is not None and torch.equal(content["tensor"], torch.full((3,), float(content["number"])))
    return content["number"]


def test_a_scale_is_kept_for_one_process_whatever_number_of_ranks_goes_on(tiny: Tiny) -> None:
    science = tiny().science
    numerics = Numerics(NumericsConfig(precision="float16"), torch.device("cpu"))

    def state(ranks: int) -> TrainingState:
        model = create_model(science.model, classes=2)
        optimiser = build_optimiser(model, science.train.optimiser, 0.0)
        return TrainingState(model, MovingAverage(model, 0.9, 1.0), optimiser, numerics.scaler(ranks), ranks)

    eight, one, three = state(8), state(1), state(3)
    one.restore(eight.save())
    three.restore(one.save())
    assert [s.scaler.get_scale() * s.ranks for s in (one, three)] == pytest.approx([2.0**16] * 2)
    again = state(3)
    again.restore(three.save())
    assert again.scaler.get_scale() == three.scaler.get_scale()


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert load_checkpoint(run) is None
    for number in range(4):
        save(run, number)
        assert load(run) == number
    assert torch.load(run.previous_checkpoint, weights_only=True)["number"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint.previous.pt",
        "checkpoint.pt",
        "checkpoint.sha256",
    ]


def test_a_damaged_checkpoint_gives_way_to_the_older_one(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    save(run, 1)
    save(run, 2)
    data = bytearray(run.checkpoint.read_bytes())
    data[len(data) // 2] ^= 1
    run.checkpoint.write_bytes(data)
    with pytest.warns(UserWarning, match="checkpoint.pt is damaged"):
        assert load(run) == 1


def test_two_damaged_checkpoints_are_an_error_that_names_them(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    save(run, 1)
    save(run, 2)
    for path in (run.checkpoint, run.previous_checkpoint):
        path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(RunError, match=r"checkpoint\.pt.*checkpoint\.previous\.pt"):
        load_checkpoint(run)


def test_checksums_that_are_no_text_list_nothing(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    save_checkpoint(run, {"epoch": 1})
    run.checksums.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunError, match=r"no whole checkpoint.*delete them"):
        load_checkpoint(run)


@pytest.mark.parametrize("crash_at", [1, 2, 3, 4])
def test_a_crash_at_any_replacement_loses_at_most_one_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    run = RunDirectory(tmp_path)
    for number in (1, 2, 3):
        save(run, number)
    replace, calls = os.replace, iter(range(1, 100))

    def crashing(source: Path, target: Path) -> None:
        if next(calls) == crash_at:
            raise KeyboardInterrupt
        replace(source, target)

    held = 3
    for number in (4, 5, 6):  # several crashes at the same place, as a full disk would give
        calls = iter(range(1, 100))
        monkeypatch.setattr(os, "replace", crashing)
        crashed = False
        try:
            save(run, number)
        except KeyboardInterrupt:
            crashed = True
        monkeypatch.undo()
        # With a checkpoint moved away by the crash before, a save has one replacement less to crash in.
        assert crashed or (crash_at == 4 and number == 5)
        assert load(run) in ({held} if crashed else {number})
        held = load(run)
    save(run, 7)
    assert load(run) == 7
    run.checkpoint.unlink()
    assert load(run) == held


def test_a_damaged_checkpoint_never_pushes_out_the_whole_one(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    save(run, 1)
    save(run, 2)
    run.checkpoint.write_bytes(b"damaged")
    save(run, 3)
    assert load(run) == 3
    run.checkpoint.unlink()
    assert load(run) == 1


def test_a_finished_run_can_keep_its_last_checkpoint(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    save(run, 1)
    save(run, 2)
    drop_checkpoints(run, keep_last=True)
    assert load(run) == 2 and not run.previous_checkpoint.exists()
    drop_checkpoints(run, keep_last=False)
    assert load_checkpoint(run) is None
