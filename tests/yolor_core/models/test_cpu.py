"""The kernels of one core against PyTorch's own operators in float64, and where they are used."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from yolor_core.config import ModelConfig, NumericsConfig
from yolor_core.device import Numerics
from yolor_core.models import create_model
from yolor_core.models.blocks import ACTIVATIONS, normalised
from yolor_core.models.cpu import NormalisedActivation
from yolor_core.models.cpu import normalised as by_kernel

CPU = torch.device("cpu")


def gradients(
    way: object, x: Tensor, bn: nn.BatchNorm2d, act: nn.Module, towards: Tensor
) -> dict[str, Tensor]:
    """Output, gradients and running statistics of one step."""
    x = x.clone().requires_grad_()
    y = way(x, bn, act)  # type: ignore[operator]
    y.backward(towards.to(y.dtype))
    assert x.grad is not None and bn.weight.grad is not None and bn.bias.grad is not None
    found = {"y": y.detach(), "x": x.grad, "weight": bn.weight.grad, "bias": bn.bias.grad}
    return found | {name: buffer.clone() for name, buffer in bn.named_buffers()}


# One pixel for each channel but one; few channels and many; no power of two; last blocks of few rows.
SHAPES = [(2, 8, 1, 1), (1, 8, 5, 5), (8, 8, 80, 80), (3, 24, 13, 7), (8, 128, 5, 5), (2, 200, 6, 3)]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_kernels_agree_with_torch_in_float64(
    activation: str, shape: tuple[int, ...], memory: torch.memory_format
) -> None:
    g = torch.Generator().manual_seed(0)
    channels = shape[1]
    bn, act = nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03).train(), ACTIVATIONS[activation]()
    with torch.no_grad():
        bn.weight.uniform_(-3, 3, generator=g), bn.bias.normal_(0, 3, generator=g)
    # Channels far from 0 against their spread, where the mean of squares would lose all digits; and wide
    # ones, whose activations reach both ends of the exponential.
    centre = torch.linspace(-300, 300, channels)[:, None, None]
    spread = torch.logspace(-1, 2, channels)[:, None, None]
    x = torch.randn(shape, generator=g) * spread + centre
    towards = torch.randn(shape, generator=g)
    exact = gradients(normalised, x.double(), copy.deepcopy(bn).double(), act, towards)
    last = x.contiguous(memory_format=torch.channels_last)
    theirs = gradients(normalised, last, copy.deepcopy(bn), act, towards)
    ours = gradients(by_kernel, last if memory == torch.channels_last else x, bn, act, towards)
    assert ours["num_batches_tracked"] == exact["num_batches_tracked"] == 1
    for name in ("y", "x", "weight", "bias", "running_mean", "running_var"):
        scale = exact[name].abs().max()
        wrong, peer = ((way[name] - exact[name]).abs().max() / scale for way in (ours, theirs))
        assert wrong < max(2e-6, 2 * peer), name


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_values_that_are_not_finite_stay_so(activation: str) -> None:
    bn, act = nn.BatchNorm2d(8).train(), ACTIVATIONS[activation]()
    for value in (float("nan"), float("inf")):
        x = torch.randn(2, 8, 4, 4)
        x[1, 3, 2, 2] = value
        y = by_kernel(x, bn, act)
        assert (~torch.isfinite(y)).any(0).all(1).all(1).tolist() == [channel == 3 for channel in range(8)]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_graph_is_gone_through_twice_with_the_same_gradients(activation: str) -> None:
    bn, act = nn.BatchNorm2d(8).train(), ACTIVATIONS[activation]()
    x = torch.randn(2, 8, 4, 4, requires_grad=True)
    loss = by_kernel(x, bn, act).square().sum()
    first = torch.autograd.grad(loss, [x, bn.weight], retain_graph=True)
    second = torch.autograd.grad(loss, [x, bn.weight])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def used(model: nn.Module, images: Tensor) -> int:
    """How many maps of a forward pass the kernels have normalised."""
    (y, *_), seen, count = model(images), set(), 0
    nodes = [y.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        count += type(node).__name__ == NormalisedActivation.__name__ + "Backward"
        nodes += [before for before, _ in node.next_functions]
    return count


def test_kernels_are_used_in_float32_training_on_one_thread_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(architecture="yolov4_csp_fast", width=0.0625, depth=0.33)
    images = torch.rand(2, 3, 64, 64)

    def model(threads: int = 1, **numerics: object) -> nn.Module:
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        made = create_model(config, seed=0).train()
        Numerics(NumericsConfig.model_validate(numerics), CPU).use_kernels(made)
        return made

    ours = model()
    plain = create_model(config, seed=0).train()
    assert ours.state_dict().keys() == plain.state_dict().keys()
    assert used(ours, images) > 40
    assert used(plain, images) == used(model(threads=2), images) == used(model(compile=True), images) == 0
    assert used(model(precision="bfloat16"), images) == 0
    with torch.autocast("cpu", torch.bfloat16):
        assert used(ours, images) == 0
    assert used(copy.deepcopy(ours).double(), images.double()) == 0
    evaluated = copy.deepcopy(ours).eval()
    assert used(evaluated, images) == 0
    plain.load_state_dict(evaluated.state_dict())
    for y, expected in zip(evaluated(images), plain.eval()(images), strict=True):
        torch.testing.assert_close(y, expected)


def test_what_only_torch_can_do_is_left_to_it() -> None:
    other = nn.BatchNorm2d(8).train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        by_kernel(torch.rand(1, 8, 1, 1), other, nn.SiLU())
    x = torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(by_kernel(x, other, nn.ReLU()), nn.ReLU()(nn.BatchNorm2d(8).train()(x)))


CHANGES = {
    "of other channels": lambda bn, act: nn.BatchNorm2d(4),
    "in float64": lambda bn, act: bn.double(),
    "without weights": lambda bn, act: nn.BatchNorm2d(8, affine=False),
    "without statistics": lambda bn, act: nn.BatchNorm2d(8, track_running_stats=False),
    "of all batches": lambda bn, act: nn.BatchNorm2d(8, momentum=None),
    "with a hook": lambda bn, act: bn.register_forward_hook(lambda *_: None) and bn,
    "with a hook behind it": lambda bn, act: act.register_forward_pre_hook(lambda *_: None) and bn,
    "with every other weight": lambda bn, act: setattr(bn.weight, "data", torch.ones(16)[::2]) or bn,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_norm_that_is_not_the_usual_one_is_left_to_torch(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the kernel was called")

    monkeypatch.setattr(NormalisedActivation, "apply", never)
    act = nn.Mish()
    bn = CHANGES[change](nn.BatchNorm2d(8).train(), act)
    x, told = torch.randn(2, 8, 3, 3), []
    for way in (normalised, by_kernel):
        try:
            told.append(way(x, bn, act).shape)
        except (RuntimeError, ValueError) as error:
            told.append(str(error))
    assert told[0] == told[1]
