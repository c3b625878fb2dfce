"""One step: precision, memory format, sizes, BatchNorm groups, values that are not finite, tasks' angles."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.yolor_core.training.results import assert_same_result, stop_after
from yolor_core.config import ImplicitConfig, NumericsConfig, OptimiserConfig, RunConfig
from yolor_core.errors import RunError
from yolor_core.identity import signature
from yolor_core.runs.directory import RunDirectory
from yolor_core.training import train
from yolor_core.training.distributed import GroupStatistics, Place, Ranks
from yolor_core.training.step import Conflict, TrainingStep, measured_steps

ADD_FA = ImplicitConfig(site="fa", operator="add")
Tiny = Callable[..., RunConfig]


def computed(config: RunConfig, **numerics: object) -> RunConfig:
    science = config.science.model_copy(update={"numerics": NumericsConfig.model_validate(numerics)})
    return config.model_copy(update={"science": science})


def trained(**fields: object) -> Callable[[RunConfig], RunConfig]:
    def change(config: RunConfig) -> RunConfig:
        recipe = config.science.train.model_copy(update=fields)
        return config.model_copy(update={"science": config.science.model_copy(update={"train": recipe})})

    return change


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_in_half_and_resumes_bit_for_bit(
    tiny: Tiny, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = set()
    predict = TrainingStep._predict

    def seen(self: TrainingStep, images: torch.Tensor) -> dict[str, list[torch.Tensor]]:
        predictions = predict(self, images)
        kinds.update(p.dtype for p in predictions["detection"])
        return predictions

    monkeypatch.setattr(TrainingStep, "_predict", seen)
    optimiser = OptimiserConfig(nominal_batch=8, warmup_min_iterations=2, warmup_epochs=0.5, ema_updates=5)
    config = computed(tiny(implicit=(ADD_FA,), optimiser=optimiser), precision=precision)
    assert train(config, tmp_path / "whole") == "done"
    assert train(config, tmp_path / "parts", stop=stop_after(2)) == "preempted"
    assert train(config, tmp_path / "parts") == "done"
    assert kinds == {getattr(torch, precision)}
    assert_same_result(RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "parts"))
    weights = load_file(RunDirectory(tmp_path / "whole").weights)
    assert {w.dtype for w in weights.values()} == {torch.float32, torch.int64}


def test_float16_scales_the_loss_and_skips_steps_whose_gradients_overflow(tiny: Tiny, tmp_path: Path) -> None:
    # torch begins with a scale of 65536, at which the gradients of this model's first steps overflow.
    config = computed(tiny(keep_checkpoint=True), precision="float16")
    train(config, tmp_path)
    saved = torch.load(RunDirectory(tmp_path).checkpoint, weights_only=True)
    scale, steps = saved["scaler"]["scale"], saved["average_updates"]
    assert scale == 65536 * 0.5 ** (6 - steps)  # of six steps, each one skipped has halved the scale
    assert all(bool(torch.isfinite(v).all()) for v in saved["average"].values())


def test_channels_last_and_compilation_change_rounding_only(tiny: Tiny, tmp_path: Path) -> None:
    one = trained(phases=(tiny().science.train.phases[0].model_copy(update={"epochs": 1}),))
    config = one(tiny(implicit=(ADD_FA,)))
    losses = {}
    for name, numerics in {
        "plain": {},
        "channels_last": {"channels_last": True},
        "compiled": {"compile": True},
    }.items():
        train(computed(config, **numerics), tmp_path / name)
        (record,) = RunDirectory(tmp_path / name).read_metrics()
        losses[name] = [record[k] for k in ("loss/box", "loss/obj", "loss/cls")]
        weights = load_file(RunDirectory(tmp_path / name).weights)
        assert not any("_orig_mod" in key for key in weights)
    assert losses["channels_last"] == pytest.approx(losses["plain"], rel=0.02)
    assert losses["compiled"] == pytest.approx(losses["plain"], rel=0.02)

    # Compiled anew for the last, smaller batch alone, the run ends as it would have.
    compiled = computed(config, compile=True)
    assert train(compiled, tmp_path / "parts", stop=stop_after(2)) == "preempted"
    torch.compiler.reset()
    assert train(compiled, tmp_path / "parts") == "done"
    assert_same_result(RunDirectory(tmp_path / "compiled"), RunDirectory(tmp_path / "parts"))


@pytest.mark.parametrize("field", ["precision", "channels_last", "compile"])
def test_numerics_are_part_of_the_signature(tiny: Tiny, field: str) -> None:
    value = "bfloat16" if field == "precision" else True
    assert signature(computed(tiny(), **{field: value}).science) != signature(tiny().science)


def test_multi_scale_draws_the_same_sizes_whatever_the_model_and_the_resume(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    predict = TrainingStep._predict

    def seen(self: TrainingStep, images: torch.Tensor) -> dict[str, list[torch.Tensor]]:
        sizes.append(images.shape[2])
        return predict(self, images)

    monkeypatch.setattr(TrainingStep, "_predict", seen)
    change = trained(
        multi_scale=0.5,
        phases=(tiny().science.train.phases[0].model_copy(update={"epochs": 4, "schedule_epochs": 4}),),
    )
    train(change(tiny()), tmp_path / "plain")
    plain, sizes[:] = list(sizes), []
    train(change(tiny(implicit=(ADD_FA,))), tmp_path / "implicit", stop=stop_after(5))
    train(change(tiny(implicit=(ADD_FA,))), tmp_path / "implicit")
    assert sizes == plain
    assert set(plain) == {32, 64, 96}  # 64 +- 32, in whole cells of 32


def test_batch_norm_over_groups_equals_training_on_each_group(tiny: Tiny) -> None:
    """Each group has its own statistics in the forward pass; their mean moves the running ones."""
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(3, momentum=0.1)
    twins = [torch.nn.BatchNorm2d(3, momentum=0.1) for _ in range(2)]
    groups = torch.randn(2, 4, 3, 5, 5) * 3 + 1
    statistics = GroupStatistics(norm)
    statistics.begin()
    for group, twin in zip(groups, twins, strict=True):
        torch.testing.assert_close(norm(group), twin(group))
        statistics.group_done()
    statistics.end(2, ALONE)
    for name in ("running_mean", "running_var"):
        expected = torch.stack([getattr(twin, name) for twin in twins]).mean(0)
        torch.testing.assert_close(getattr(norm, name), expected)
    assert int(norm.num_batches_tracked) == 1


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_value_that_is_not_finite_stops_the_run_and_leaves_its_images(
    tiny: Tiny, implicit_run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    config = tiny(implicit=(ADD_FA,), keep_checkpoint=True)
    call, batches = TrainingStep.__call__, []

    def spoilt(self: TrainingStep, batch: object, *more: object) -> dict[str, float]:
        batches.append(batch)
        if len(batches) == 5:  # the second step of the second epoch
            if what == "loss":
                images = self.numerics.images
                monkeypatch.setattr(self.numerics, "images", lambda x: images(x) * float("nan"))
            else:
                next(self.state.model.parameters()).register_hook(lambda g: g * float("inf"))
        return call(self, batch, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainingStep, "__call__", spoilt)
    run = RunDirectory(tmp_path / "bad")
    with pytest.raises(RunError, match="is not finite at epoch 2, step 2; images"):
        train(config, run.path)
    monkeypatch.undo()
    record = json.loads(run.nonfinite.read_text())
    assert record["images"] == sorted(batches[-1].ids) and (record["epoch"], record["step"]) == (2, 2)
    assert record["not_finite"] == (
        ["loss/box", "loss/obj", "loss/cls"] if what == "loss" else ["the gradient"]
    )
    state = run.read_state()
    assert state is not None and state["state"] == "failed" and "not finite" in state["reason"]
    saved = torch.load(run.checkpoint, weights_only=True)
    assert saved["epoch"] == 1
    assert all(np.isfinite(v.numpy()).all() for part in ("model", "average") for v in saved[part].values())
    # What spoilt it is gone: the run goes on from the checkpoint, to the end of an undisturbed one.
    assert train(config, run.path) == "done"
    assert_same_result(implicit_run, run)
    assert not run.nonfinite.exists()


ALONE = Ranks(Place(), torch.device("cpu"))


def shared(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


def test_opposed_orthogonal_and_agreeing_tasks() -> None:
    trunk = [shared(1.0, 2.0), shared(3.0)]
    conflict = Conflict(trunk)
    conflict.add(
        {
            "detection": trunk[0].sum() + trunk[1].sum(),  # gradient 1 1 | 1
            "classification": -2 * (trunk[0].sum() + trunk[1].sum()),  # -2 -2 | -2
            "embedding": trunk[0][0] - trunk[0][1] + 0 * trunk[1].sum(),  # 1 -1 | 0
        }
    )
    found = conflict.cosines(ALONE)
    assert found["conflict/detection-classification"] == pytest.approx(-1)
    assert found["conflict/detection-embedding"] == pytest.approx(0, abs=1e-7)
    assert found["conflict/classification-embedding"] == pytest.approx(0, abs=1e-7)


def test_only_parameters_that_both_tasks_train_count() -> None:
    both, first, second = shared(1.0, 1.0), shared(1.0), shared(1.0)
    conflict = Conflict([both, first, second])
    conflict.add({"a": both[0] * 3 + 100 * first.sum(), "b": both.sum() - 100 * second.sum()})
    assert conflict.cosines(ALONE) == {"conflict/a-b": pytest.approx(1 / math.sqrt(2))}


def test_parts_of_a_batch_add_up_before_the_angle_is_taken() -> None:
    trunk = [shared(0.0, 0.0)]
    parts = Conflict(trunk)
    parts.add({"a": trunk[0][0] * 5, "b": trunk[0][0] * 1})
    parts.add({"a": trunk[0][1] * 5 - trunk[0][0] * 5, "b": trunk[0][1] * 1})
    # a: (0, 5); b: (1, 1)
    assert parts.cosines(ALONE) == {"conflict/a-b": pytest.approx(1 / math.sqrt(2))}


def test_a_task_without_a_gradient_has_no_angle() -> None:
    trunk = [shared(1.0)]
    conflict = Conflict(trunk)
    conflict.add({"a": trunk[0].sum() * 0, "b": trunk[0].sum()})
    assert conflict.cosines(ALONE) == {}


@pytest.mark.parametrize(
    ("steps", "wanted", "expected"), [(80, 4, {10, 30, 50, 70}), (3, 4, {0, 1, 2}), (5, 1, {2})]
)
def test_steps_are_spread_over_the_epoch(steps: int, wanted: int, expected: set[int]) -> None:
    assert measured_steps(steps, wanted) == expected
