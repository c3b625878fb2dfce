"""Initial values keyed by name and seed, with the authors' prior of biases; parameter groups; names."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from yolor_core.config import BranchConfig, ImplicitConfig, ModelConfig
from yolor_core.errors import ConfigError, UnknownNameError
from yolor_core.implicit.forms import Draws
from yolor_core.implicit.registry import FORMS
from yolor_core.models import create_model, initialise, parameter_groups

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


def test_convolutions_are_distributed_as_pytorch_does_by_default() -> None:
    model = create_model(MINI)
    torch.manual_seed(0)
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d) or name.startswith("predictor"):
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


@pytest.mark.parametrize("classes", [0, -1, "a", 1.5, True])
def test_a_number_of_classes_that_is_none_is_named(classes: object) -> None:
    with pytest.raises(ConfigError, match="classes = "):
        create_model("yolor-ssss-s2d", classes=classes)  # type: ignore[arg-type]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    for name, nearest in (("yolor_cspx", "yolor_csp_x"), ("yolor-sss-dtw", "did you mean yolor-sss-dwt")):
        with pytest.raises(UnknownNameError, match=nearest):
            create_model(name)


@pytest.mark.parametrize("form", FORMS)
def test_parameter_groups_keep_decay_away_from_implicit_knowledge(form: str) -> None:
    part = ImplicitConfig(site="fa", operator="add", form=form)
    model = create_model(MINI.model_copy(update={"implicit": (part,)}), classes=3)
    groups = parameter_groups(model)
    assert list(groups) == ["no_decay", "decay", "bias"]
    names = {id(p): n for n, p in model.named_parameters()}
    found = {g: {names[id(p)] for p in members} for g, members in groups.items()}
    assert sum(len(members) for members in groups.values()) == len(names)
    assert set.union(*found.values()) == set(names.values())
    implicit = {n for n in names.values() if n.startswith("implicit.")}
    assert implicit <= found["no_decay"]
    assert found["decay"] == {n for n, p in model.named_parameters() if p.ndim == 4}
    assert found["bias"] == {n for n in names.values() if n.endswith("bias")} - implicit
    assert any(".bn.bias" in n for n in found["bias"])


@pytest.mark.parametrize("places", [("pr", "pr-wh"), ("pr-wh", "pr"), ("fa", "fa-cluster")])
def test_what_is_folded_computes_what_it_would_have_computed(places: tuple[str, str]) -> None:
    parts = [
        ImplicitConfig(site=site, operator=operator, std=0.5)
        for site, operator in zip(places, ("add", "multiply"), strict=True)
    ]
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    outputs = []
    for learning in ("learnt", "folded"):
        implicit = tuple(part.model_copy(update={"learning": learning}) for part in parts)
        model = create_model(MINI.model_copy(update={"implicit": implicit}), classes=2, seed=1).eval()
        with torch.no_grad():
            outputs.append(model(images))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)


def test_what_is_folded_beside_a_concatenation_and_what_a_chain_cannot_go_on_from_is_refused() -> None:
    folded = ImplicitConfig(site="fa-cluster", operator="multiply", learning="folded")
    with pytest.raises(ConfigError, match=r"'folded' at site 'fa-cluster' beside operator 'concatenate'"):
        create_model(
            MINI.model_copy(update={"implicit": (ImplicitConfig(site="fa", operator="concatenate"), folded)})
        )
    markov = BranchConfig(
        task="classification", implicit=ImplicitConfig(site="fa", operator="add", form="markov")
    )
    first = ImplicitConfig(site="fa", operator="add", learning="folded")
    with pytest.raises(ConfigError, match="goes on from detection's representation at site fa"):
        create_model(MINI.model_copy(update={"implicit": (first,), "branches": (markov,)}))
