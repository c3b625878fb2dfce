"""Initial values: keyed by name and seed, distributed as PyTorch's defaults, with the authors' bias prior."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from yolor_core.config import ImplicitConfig, ModelConfig
from yolor_core.implicit.forms import Draws
from yolor_core.models import create_model, initialise
from yolor_core.models.detector import Predictor

MINI = ModelConfig(architecture="yolov4_csp_fast", width=0.125, depth=0.33)


def test_same_seed_gives_the_same_model_and_another_seed_another() -> None:
    first, again, other = (create_model(MINI, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    differing = {name for name in first if not torch.equal(first[name], other[name])}
    assert differing == {n for n in first if n.endswith("conv.weight") or n.startswith("predictor")}


def test_creating_a_model_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    create_model(MINI, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_initialise_restores_a_trained_model_completely() -> None:
    fresh = create_model(MINI, classes=2, seed=4)
    model = copy.deepcopy(fresh)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            value.fill_(7)
    initialise(model, 4)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), fresh.buffers(), strict=True))


def test_values_depend_on_the_name_alone() -> None:
    draws = Draws(3)
    first = draws.within("a").uniform("weight", (4, 3), 1.0)
    draws.normal("unrelated", (100,), 0.0, 1.0)
    assert torch.equal(Draws(3).uniform("a.weight", (4, 3), 1.0), first)
    assert not torch.equal(Draws(3).uniform("b.weight", (4, 3), 1.0), first)


def test_convolutions_are_distributed_as_pytorch_does_by_default() -> None:
    model = create_model(MINI)
    torch.manual_seed(0)
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d) or isinstance(module, Predictor):
            continue
        reference = nn.Conv2d(module.in_channels, module.out_channels, module.kernel_size)  # type: ignore[arg-type]
        bound = 1 / math.sqrt(module.weight[0].numel())
        assert module.weight.abs().max() <= bound, name
        assert module.weight.abs().max() > 0.95 * bound, name
        spread = reference.weight.std().item()
        assert module.weight.std().item() == pytest.approx(spread, rel=0.15), name


def test_batch_norm_starts_as_the_identity() -> None:
    for module in create_model(MINI).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.eq(1).all()
            assert module.bias.eq(0).all()
            assert module.running_mean is not None
            assert module.running_var is not None
            assert module.running_mean.eq(0).all()
            assert module.running_var.eq(1).all()


@pytest.mark.parametrize("implicit", [(), (ImplicitConfig(site="pr", operator="multiply"),)])
@pytest.mark.parametrize("classes", [2, 80])
def test_predictor_bias_prior_with_and_without_implicit_parts(
    classes: int, implicit: tuple[ImplicitConfig, ...]
) -> None:
    model = create_model(MINI.model_copy(update={"implicit": implicit}), classes=classes, seed=9)
    for level, stride in (("P3", 8), ("P4", 16), ("P5", 32)):
        predictor = model.part("predictor", level)
        bound = 1 / math.sqrt(predictor.in_channels)
        draw = Draws(9).uniform(f"predictor_{level.lower()}.bias", predictor.bias.shape, bound)
        added = (predictor.bias.detach() - draw).view(3, 5 + classes)
        assert added[:, :4].abs().max() == 0
        for anchor in added:
            assert anchor[4].item() == pytest.approx(math.log(8 / (640 / stride) ** 2), abs=1e-5)
            assert anchor[5].item() == pytest.approx(math.log(0.6 / (classes - 0.99)), abs=1e-5)
            assert anchor[5:].max() - anchor[5:].min() < 1e-5


def test_a_single_class_gets_a_moderate_prior() -> None:
    model = create_model(MINI, classes=1)
    probability = model.part("predictor", "P4").bias.view(3, 6)[:, 5].sigmoid()
    assert (probability > 0.4).all()
    assert (probability < 0.8).all()
