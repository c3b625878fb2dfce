"""Unchanged code on a GPU, on the CPU, and on a device that pretends to be a GPU where there is none.

What holds on every device is one test with the device as its parameter. Only the pretended device can show
that tensors left on the CPU are noticed; only a GPU what its kernels compute.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.yolor_core.evaluation.test_postprocess import clustered
from tests.yolor_core.evaluation.test_postprocess import joined as as_rows
from tests.yolor_core.training.results import NO_GPU, assert_nearly_the_same, assert_same_result, stop_after
from tests.yolor_core.training.test_step import computed
from tests.yolor_core.training.test_tasks import embedding, joint
from yolor_core import device as devices
from yolor_core.config import EvaluationConfig, ImplicitConfig, OptimiserConfig, RunConfig
from yolor_core.data import Batch
from yolor_core.errors import InputError, RankLostError
from yolor_core.evaluation.postprocess import suppress
from yolor_core.evaluation.predict import predict
from yolor_core.evaluation.speed import describe_device, measure_speed
from yolor_core.models import decode, fold
from yolor_core.runs.directory import RunDirectory
from yolor_core.tasks.base import build_losses
from yolor_core.training import loop, train
from yolor_core.training.distributed import Place, Ranks, joined
from yolor_core.training.loop import initial_state, load_data, training_batches
from yolor_core.training.schedule import Schedule
from yolor_core.training.step import TrainingStep

Tiny = Callable[..., RunConfig]
KNOWN_TORCH = ("2.11",)  # whose private interfaces `pretend` uses
PRETENDED = pytest.param("pretend", id="pretend")
GPU = pytest.param("cuda", id="gpu", marks=[pytest.mark.gpu, NO_GPU])
SITES = (ImplicitConfig(site="fa", operator="add"), ImplicitConfig(site="pr", operator="multiply"))


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The device that a test is given by name."""
    if request.param != "pretend":
        yield devices.choose_device(request.param)
        return
    if not torch.__version__.startswith(KNOWN_TORCH):
        pytest.skip(f"torch {torch.__version__}: its private interfaces are not known; {KNOWN_TORCH} are")
    from tests.yolor_core.training import pretend

    monkeypatch.setattr(devices, "KINDS", (*devices.KINDS, pretend.NAME))
    with pretend.device() as made:
        yield made


class Double(devices.Numerics):
    """In float64, so that the rounding of sums taken in another order is not amplified into a difference."""

    def model(self, model: Any) -> Any:
        return super().model(model).double()

    def images(self, images: torch.Tensor) -> torch.Tensor:
        return super().images(images).double()


everywhere = pytest.mark.parametrize("device", ["cpu", PRETENDED, GPU], indirect=True)
behind_a_gpus_branches = pytest.mark.parametrize("device", [PRETENDED, GPU], indirect=True)
pretended = pytest.mark.parametrize("device", [PRETENDED], indirect=True)


def kind(tiny: Tiny, name: str, **fields: object) -> RunConfig:
    """A baseline, + iFA x iPR, or JDE with knowledge in front of both predictors."""
    config = tiny(implicit=() if name == "baseline" else SITES, **fields)
    return joint(config, embedding(SITES[0]), weighting="uncertainty") if name == "jde" else config


kinds = pytest.mark.parametrize("name", ["baseline", "fa-pr", "jde"])


def first_step(
    config: RunConfig,
    device: torch.device,
    ranks: Ranks | None = None,
    ways: type[devices.Numerics] = devices.Numerics,
) -> tuple[TrainingStep, list[Batch], Schedule]:
    """What `train` makes before its first step."""
    ranks = ranks or Ranks(Place(), device)
    recipe, (images, _) = config.science.train, load_data(config)
    batches = training_batches(config, images, ranks)
    numerics = ways(config.science.numerics, device)
    schedule = Schedule(recipe.optimiser, recipe.phases, batches.steps, recipe.batch)
    state = initial_state(config, images, schedule, numerics)
    state.model.train()
    step = TrainingStep(state, build_losses(state.model, recipe), recipe, numerics, ranks, config.seed)
    return step, list(batches.epoch(0, recipe.phases[0].augment)), schedule


def steps(config: RunConfig, device: torch.device, *more: Any) -> list[dict[str, float]]:
    """The loss terms of an epoch's steps."""
    step, batches, schedule = first_step(config, device, *more)
    return [step(batch, schedule.at(0, number)) for number, batch in enumerate(batches)]


def assert_near(ours: list[dict[str, float]], expected: list[dict[str, float]], share: float) -> None:
    for mine, theirs in zip(ours, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=share)


# What holds on every device.


@behind_a_gpus_branches
@kinds
def test_a_run_ends_where_the_cpus_does_and_a_stopped_one_where_it_would_have(
    tiny: Tiny, tmp_path: Path, device: torch.device, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "Numerics", Double)
    accumulate = OptimiserConfig(nominal_batch=8, warmup_min_iterations=2, warmup_epochs=0.5, ema_updates=5)
    here, there = (kind(tiny, name, optimiser=accumulate, device=d) for d in (str(device), "cpu"))
    for folder, config in (("whole", here), ("cpu", there)):
        assert train(config, tmp_path / folder) == "done"
    assert train(here, tmp_path / "parts", stop=stop_after(2)) == "preempted"
    assert train(here, tmp_path / "parts") == "done"
    assert_nearly_the_same(tmp_path / "whole", tmp_path / "cpu")
    assert_nearly_the_same(tmp_path / "whole", tmp_path / "parts")
    if device.type != "cuda":  # whose kernels add up in any order
        assert_same_result(RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "parts"))
    record = RunDirectory(tmp_path / "whole").read_run()
    assert record is not None and record["device"] == devices.device_name(device) != "cpu"


@pytest.fixture(scope="module")
def in_float32(tiny: Tiny) -> list[dict[str, float]]:
    """The loss terms of three steps on the CPU."""
    return steps(tiny(implicit=SITES), torch.device("cpu"))


@everywhere
@pytest.mark.parametrize(
    ("precision", "channels_last"),
    [("float32", False), ("float32", True), ("bfloat16", False), ("bfloat16", True), ("float16", True)],
)
def test_steps_are_finite_and_near_those_of_float32(
    tiny: Tiny,
    in_float32: list[dict[str, float]],
    device: torch.device,
    precision: str,
    channels_last: bool,
) -> None:
    config = computed(tiny(implicit=SITES), precision=precision, channels_last=channels_last)
    step, batches, schedule = first_step(config, device)
    seen = set()
    first = next(m for m in step.state.model.modules() if isinstance(m, torch.nn.Conv2d))
    last_format = torch.channels_last
    first.register_forward_hook(
        lambda _module, _inputs, out: seen.add((out.dtype, out.is_contiguous(memory_format=last_format)))
    )
    found = [step(batch, schedule.at(0, number)) for number, batch in enumerate(batches)]
    assert seen == {(getattr(torch, precision), channels_last)}
    # Later steps amplify what the first one rounded, and at float16 a step that overflows changes nothing.
    assert_near(found[:1], in_float32[:1], 1e-4 if precision == "float32" else 0.05)
    if precision == "float32":
        assert_near(found[1:2], in_float32[1:2], 1e-3)
    assert all(np.isfinite(list(terms.values())).all() for terms in found)


@everywhere
@kinds
def test_a_group_of_one_trains_as_a_process_alone(tiny: Tiny, device: torch.device, name: str) -> None:
    config = kind(tiny, name)
    with joined(device, 60, group_of_one=True) as ranks:
        assert not ranks.alone and ranks.ranks == 1
        step, batches, schedule = first_step(config, device, ranks, Double)
        assert isinstance(step.wrapped, torch.nn.parallel.DistributedDataParallel)
        normed = {type(m).__name__ for m in step.wrapped.modules() if "BatchNorm" in type(m).__name__}
        assert normed == {"SharedBatchNorm2d" if device.type == "cpu" else "SyncBatchNorm"}
        found = [step(batch, schedule.at(0, number)) for number, batch in enumerate(batches[:-1])]
        with waits_noted(device) as waits:
            found.append(step(batches[-1], schedule.at(0, len(batches) - 1)))
        if device.type == "pretend":  # where gradients come back from gloo by copies, unlike from NCCL
            assert [wait for wait in waits if wait != "aten::copy_"] == ["tolist"]
        assert ranks.any(True) and ranks.gather(3) == [3] and ranks.lead(lambda: 4) == 4
    assert_near(found, steps(config, device, None, Double), 1e-4)


def test_one_process_without_a_group_names_no_meeting_place() -> None:
    # torch refuses a GPU without its index before it looks for one; beside the pretended device, any GPU.
    with (
        pytest.raises(RankLostError, match=r"^a group of one process cannot be made: .*device_id"),
        joined(torch.device("cuda"), 60, group_of_one=True),
    ):
        pass


@everywhere
@pytest.mark.parametrize("suppression", ["released", "exact"])
def test_suppression_finds_the_boxes_of_the_cpu(device: torch.device, suppression: str) -> None:
    config = EvaluationConfig(size=320, suppression=suppression)  # type: ignore[arg-type]
    decoded = clustered(2, 2000, 20, seed=10)
    for ours, expected in zip(suppress(decoded.to(device), config), suppress(decoded, config), strict=True):
        assert ours.boxes.device == device or device.type == "cpu"
        torch.testing.assert_close(as_rows(ours).cpu(), as_rows(expected), rtol=0, atol=1e-4)


@everywhere
@kinds
def test_a_folded_model_predicts_as_the_cpus(tiny: Tiny, device: torch.device, name: str) -> None:
    config = kind(tiny, name)
    step, _, _ = first_step(config, device)
    reference, _, _ = first_step(config, torch.device("cpu"))
    ours, theirs = (fold(s.state.model.eval()) for s in (step, reference))
    _, images = load_data(config)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = ours(pixels.to(device)), theirs(pixels)
    raw, wanted = (x["detection"] if isinstance(x, dict) else x for x in (found, expected))
    rows, expected_rows = (decode(x, m.strides, m.anchors) for x, m in ((raw, ours), (wanted, theirs)))
    torch.testing.assert_close(rows.cpu(), expected_rows, rtol=1e-3, atol=1e-3)
    predicted = predict(ours, images, config.science.evaluation, device)
    assert set(predicted.found) == set(config.science.model.tasks)


@everywhere
def test_speed_is_measured(tiny: Tiny, device: torch.device) -> None:
    step, _, _ = first_step(tiny(), device)
    precisions = ("fp32", "fp16") if devices.is_gpu(device) else ("fp32",)
    found = list(measure_speed(step.state.model, 64, (1,), device, precisions, seconds=0.001))
    assert [(s.precision, s.folded) for s in found] == [(p, f) for p in precisions for f in (False, True)]
    assert all(s.model and s.model > 0 and s.end_to_end and s.end_to_end > 0 for s in found)
    assert describe_device(device)


# What a GPU would be waited for.


@contextmanager
def waits_noted(device: torch.device) -> Iterator[list[str]]:
    """What the device is waited for inside, nothing on the CPU; CUDA names no operator."""
    if device.type == "cpu":
        yield []
        return
    if device.type != "cuda":
        from tests.yolor_core.training import pretend

        with pretend.waits() as waits:
            yield waits
        return
    found: list[str] = []
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            yield found
        found += [str(w.message) for w in said if "synchroniz" in str(w.message)]
    finally:
        torch.cuda.set_sync_debug_mode("default")


@behind_a_gpus_branches
@pytest.mark.parametrize("precision", ["float32", "float16"])
@kinds
def test_a_step_waits_for_the_device_once(
    tiny: Tiny, device: torch.device, name: str, precision: str
) -> None:
    step, batches, schedule = first_step(computed(kind(tiny, name), precision=precision), device)
    step(batches[0], schedule.at(0, 0))  # makes the momentum, and the scale of the loss
    step.state.scaler.update(1.0)  # what overflows is asked for its scale
    with waits_noted(device) as waits:
        step(batches[1], schedule.at(0, 1))
    assert len(waits) == 1, waits
    if name == "jde":
        with waits_noted(device) as waits:
            step(batches[1], schedule.at(0, 2), measure_conflict=True)
        assert len(waits) == 2, waits  # once more for each pair of tasks


READS = ("aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal")


@kinds
def test_the_backward_pass_reads_no_value(tiny: Tiny, name: str) -> None:
    """Whole operators with their backward passes, which the pretended device does not see as they are."""
    step, batches, schedule = first_step(kind(tiny, name), torch.device("cpu"))
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as noted:
        step(batches[0], schedule.at(0, 0))
    inside = []
    for event in noted.events():
        outer = event
        while outer.cpu_parent is not None:
            outer = outer.cpu_parent
        if outer.name.startswith("autograd::engine"):
            inside.append((outer.name, event.name))
    assert any("ConvolutionBackward0" in outer for outer, _ in inside)
    assert [(outer, event) for outer, event in inside if event in READS] == []


WAITS: dict[str, Callable[[torch.Tensor], object]] = {
    "a number read": lambda x: float(x.sum()),
    "a truth asked": lambda x: bool((x > 0).any()),
    "a list read": lambda x: x.tolist(),
    "an array read": lambda x: x.cpu().numpy(),
    "places found": lambda x: x.nonzero(),
    "a mask": lambda x: x[x > 0],
    "a mask written": lambda x: x.index_put_((x > 0,), x.new_ones(())),
    "different values": lambda x: x.unique(),
    "equality": lambda x: torch.equal(x, x),
    "made of a list": lambda x: x.new_tensor([1.0, 2.0]),
    "places of the CPU": lambda x: x[torch.tensor([0])],
    "a copy that waits": lambda x: torch.ones(2).to(x.device),
    "a copy of memory that is not page-locked": lambda x: torch.ones(2).to(x.device, non_blocking=True),
    "suppression": lambda x: suppress(x.new_ones(1, 3, 7), EvaluationConfig(size=64)),
}


@pretended
@pytest.mark.parametrize("name", WAITS)
def test_what_is_waited_for_is_counted(device: torch.device, name: str) -> None:
    from tests.yolor_core.training import pretend

    values = torch.arange(4.0).to(device)
    with pretend.waits() as waits:
        values.mul(2).add_(values)[1:].sum()
        torch.ones(2).pin_memory().to(device, non_blocking=True)
        assert waits == []
        WAITS[name](values)
    assert waits


# What was left on the CPU is noticed.


def images_left(step: TrainingStep) -> None:
    step.numerics.images = lambda images: images.float() / 255  # type: ignore[method-assign]


def targets_left(step: TrainingStep) -> None:
    step.numerics.send = lambda values: values.to(values.device)  # type: ignore[method-assign]
    step.numerics.images = lambda images: (images.float() / 255).to(step.numerics.device)  # type: ignore[method-assign]


def weight_left(step: TrainingStep) -> None:
    norm = next(m for m in step.state.model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    norm.running_mean = norm.running_mean.cpu()  # type: ignore[union-attr]


def knowledge_left(step: TrainingStep) -> None:
    owner, name = next(
        (module, name)
        for module in step.state.model.implicit.modules()
        for name, _ in module.named_parameters(recurse=False)
    )
    setattr(owner, name, torch.nn.Parameter(getattr(owner, name).detach().cpu()))


def norm_left(step: TrainingStep) -> None:
    step._gradient_norm = lambda: torch.zeros(())  # type: ignore[method-assign]


def momentum_left(step: TrainingStep) -> None:
    slots = next(s for s in step.state.optimiser.state.values() if "momentum_buffer" in s)
    slots["momentum_buffer"] = slots["momentum_buffer"].cpu()


def whole_momentum_left(step: TrainingStep) -> None:
    for slots in step.state.optimiser.state.values():
        slots["momentum_buffer"] = slots["momentum_buffer"].cpu()


def average_left(step: TrainingStep) -> None:
    step.state.average.model.cpu()
    step.state.average._source = None


def one_value_of_the_average_left(step: TrainingStep) -> None:
    ours, _ = step.state.average._floats
    ours[3] = ours[3].cpu()


def scale_left(step: TrainingStep) -> None:
    step.state.scaler._scale = step.state.scaler._scale.cpu()  # type: ignore[union-attr]


LEFT = [
    images_left,
    targets_left,
    weight_left,
    knowledge_left,
    norm_left,
    momentum_left,
    whole_momentum_left,
    average_left,
    one_value_of_the_average_left,
    scale_left,
]


@pretended
@pytest.mark.parametrize("leave", LEFT)
def test_a_tensor_left_on_the_cpu_is_noticed(
    tiny: Tiny, device: torch.device, leave: Callable[[TrainingStep], None]
) -> None:
    from tests.yolor_core.training.pretend import MixedDevicesError

    precision = "float16" if leave is scale_left else "float32"
    step, batches, schedule = first_step(computed(tiny(implicit=SITES), precision=precision), device)
    step(batches[0], schedule.at(0, 0))
    leave(step)
    with pytest.raises((MixedDevicesError, InputError), match="cpu"):
        step(batches[1], schedule.at(0, 1))


@pretended
def test_a_tensor_left_on_the_cpu_is_noticed_in_evaluation(tiny: Tiny, device: torch.device) -> None:
    from tests.yolor_core.training.pretend import MixedDevicesError

    step, _, _ = first_step(tiny(implicit=SITES), device)
    model, (_, images) = step.state.model.eval(), load_data(tiny())
    knowledge_left(step)
    with pytest.raises(MixedDevicesError, match="cpu"):
        predict(model, images, EvaluationConfig(size=64), device)
    with pytest.raises(InputError, match="images on cpu, but the model is on pretend"):
        model(torch.rand(1, 3, 64, 64))
