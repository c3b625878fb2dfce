"""Implicit knowledge: every form, operator and site of the registry, alone and inside a small detector."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from yolor_core.config import ImplicitConfig, ModelConfig
from yolor_core.implicit import registry
from yolor_core.implicit.forms import Draws, Factorisation, Form, Network, Vector
from yolor_core.implicit.registry import FORMS, OPERATORS, SITES
from yolor_core.models import (
    Detector,
    create_model,
    implicit_priors,
    implicit_values,
    parameter_groups,
    sparse_penalty,
)

CLASSES = 3
COMBINATIONS = [
    pytest.param(form, operator, site, id=f"{form}-{operator}-{site}")
    for form, operator, site in itertools.product(FORMS, OPERATORS, SITES)
    if (operator != "concatenate" or SITES[site].allows_concatenation)
    and (form != "markov" or SITES[site].allows_chain)
]


def small(*implicit: ImplicitConfig, seed: int = 3) -> Detector:
    """YOLOv4-CSP-fast at an eighth of the width."""
    config = ModelConfig(architecture="yolov4_csp_fast", width=0.125, depth=0.33, implicit=implicit)
    return create_model(config, classes=CLASSES, seed=seed)


def knowledge(form: str, operator: str, site: str, **options: Any) -> ImplicitConfig:
    return ImplicitConfig(form=form, operator=operator, site=site, **options)


def images(batch: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(batch, 3, 64, 96, generator=torch.Generator().manual_seed(5)).to(dtype)


@pytest.mark.parametrize(("form", "operator", "site"), COMBINATIONS)
def test_shared_initial_weights_equal_the_baseline_bit_for_bit(form: str, operator: str, site: str) -> None:
    baseline = small().state_dict()
    variant = small(knowledge(form, operator, site)).state_dict()
    assert {name for name in variant if not name.startswith("implicit.")} == set(baseline)
    for name, expected in baseline.items():
        found = variant[name]
        if operator == "concatenate" and name.startswith("predictor") and name.endswith("weight"):
            assert found.shape[1] == 2 * expected.shape[1]
            found = found[:, expected.shape[1] :]
        assert torch.equal(found, expected), name


@pytest.mark.parametrize(("form", "operator", "site"), COMBINATIONS)
def test_gradient_reaches_every_implicit_parameter(form: str, operator: str, site: str) -> None:
    model = small(knowledge(form, operator, site))
    sum(raw.square().sum() for raw in model(images())).backward()
    parameters = list(model.implicit.named_parameters())
    assert parameters
    for name, parameter in parameters:
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    "options",
    [{"form": "network", "depth": 3, "activation": a} for a in ("none", "relu", "silu", "tanh")]
    + [{"form": "factorisation", "sparse": 0.1}, {"form": "factorisation", "nonnegative": True}],
    ids=str,
)
def test_gradient_reaches_every_parameter_of_the_optional_forms(options: dict[str, Any]) -> None:
    model = small(ImplicitConfig(site="fa", operator="multiply", **options))
    sum(raw.square().sum() for raw in model(images())).backward()
    for name, parameter in model.implicit.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def operate(operator: str, x: Tensor, g: Tensor) -> Tensor:
    """The paper's operator on (B, C, H, W) and (C,), written out channel by channel."""
    if operator == "concatenate":
        constant = [torch.full_like(x[:, 0], float(value)) for value in g]
        return torch.stack([*constant, *x.unbind(1)], dim=1)
    maps = [c + float(v) if operator == "add" else c * float(v) for c, v in zip(x.unbind(1), g, strict=True)]
    return torch.stack(maps, dim=1)


def expected_raw(model: Detector, config: ImplicitConfig, level: int, x: Tensor) -> Tensor:
    """Predictions of a level from its head map x, by the definition of each site."""
    predictor = model.part("predictor", model.level_names[level])
    weight, bias = predictor.weight.flatten(1), predictor.bias
    g = torch.from_numpy(implicit_values(model)[level].values).double()
    na, no = model.anchors_per_level, model.outputs

    def predict(features: Tensor, rows: slice) -> Tensor:
        return torch.einsum("oc,bchw->bohw", weight[rows], features) + bias[rows].view(1, -1, 1, 1)

    if config.site == "fa":
        y = predict(operate(config.operator, x, g), slice(None))
    elif config.site == "fa-cluster":
        parts = [operate(config.operator, x, part) for part in g.chunk(na)]
        y = torch.cat([predict(part, slice(a * no, (a + 1) * no)) for a, part in enumerate(parts)], dim=1)
    elif config.site == "pr":
        y = operate(config.operator, predict(x, slice(None)), g)
    else:
        y = predict(x, slice(None))
        for a in range(na):
            for k in (2, 3):
                channel = slice(a * no + k, a * no + k + 1)
                y[:, channel] = operate(config.operator, y[:, channel], g[2 * a + k - 2].view(1))
    b, _, h, w = y.shape
    return y.view(b, na, no, h, w).permute(0, 1, 3, 4, 2)


@pytest.mark.parametrize(("form", "operator", "site"), COMBINATIONS)
@torch.no_grad()
def test_predictions_follow_the_definition_of_site_and_operator(form: str, operator: str, site: str) -> None:
    config = knowledge(form, operator, site, std=0.5)
    model = small(config).double().eval()
    x = images(dtype=torch.float64)
    for level, (raw, features) in enumerate(zip(model(x), model.features(x), strict=True)):
        torch.testing.assert_close(raw, expected_raw(model, config, level, features), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("operator", OPERATORS)
def test_initial_values_spread_by_the_configured_std_around_what_changes_nothing(operator: str) -> None:
    centre = 1.0 if operator == "multiply" else 0.0
    values = np.concatenate([v.values for v in implicit_values(small(knowledge("vector", operator, "fa")))])
    assert abs(values.mean() - centre) < 4 * 0.02 / math.sqrt(len(values))
    assert values.std() == pytest.approx(0.02, rel=0.2)
    for form in FORMS:
        config = knowledge(form, operator, "fa")
        for record in implicit_values(small(config)):
            assert abs(record.values - centre).max() < 0.3, (form, record.level)


def built(form: type[Form], size: int, centre: float, **options: Any) -> Any:
    name = {Vector: "vector", Network: "network", Factorisation: "factorisation"}[form]
    module = form(size, centre, ImplicitConfig(site="fa", operator="add", form=name, **options))
    module.reset(Draws(1))
    return module.double()


@torch.no_grad()
def test_forms_compute_equations_6_to_8() -> None:
    vector = built(Vector, 5, 0.0)
    assert vector().tolist() == vector.z.tolist()

    network = built(Network, 5, 1.0)
    assert network.z.numel() == 10
    weight, bias = network.layers[0].weight, network.layers[0].bias
    expected = [1 + bias[i] + sum(weight[i, j] * network.z[j] for j in range(10)) for i in range(5)]
    assert network().tolist() == pytest.approx([float(e) for e in expected])

    mixture = built(Factorisation, 5, 0.0, prior_factor=3)
    assert mixture.z.shape == (15, 5)
    expected = [mixture.bias[0] + sum(mixture.c[k] * mixture.z[k, i] for k in range(15)) for i in range(5)]
    assert mixture().tolist() == pytest.approx([float(e) for e in expected])


@torch.no_grad()
def test_deep_network_applies_its_activation_between_layers_only() -> None:
    network = built(Network, 4, 0.0, depth=2, activation="tanh")
    first, last = network.layers
    hidden = torch.tanh(first.weight @ network.z + first.bias)
    assert torch.allclose(network(), last.weight @ hidden + last.bias)
    assert last.weight.shape == (4, 8)


@torch.no_grad()
def test_nonnegative_factorisation_has_no_negative_part_and_starts_at_the_same_scale() -> None:
    mixture = built(Factorisation, 64, 0.0, nonnegative=True)
    assert (mixture.atoms() >= 0).all()
    assert (mixture.coefficients() >= 0).all()
    plain = built(Factorisation, 64, 0.0)
    assert torch.allclose(mixture.atoms(), plain.z.abs().clamp_min(1e-4), atol=1e-6)
    assert torch.allclose(mixture.coefficients(), plain.c.abs().clamp_min(1e-4), atol=1e-6)


def test_sparse_penalty_is_the_weighted_l1_norm_of_c_over_all_levels() -> None:
    model = small(knowledge("factorisation", "add", "fa", sparse=0.25))
    penalty = sparse_penalty(model)
    expected = sum(t.abs().sum() for n, t in implicit_priors(model).items() if n.endswith(".c"))
    assert penalty is not None
    assert penalty.item() == pytest.approx(0.25 * float(expected))
    penalty.backward()
    assert all(p.grad is not None for n, p in model.implicit.named_parameters() if n.endswith(".c"))
    assert sparse_penalty(small(knowledge("factorisation", "add", "fa"))) is None
    assert sparse_penalty(small()) is None


def test_implicit_values_name_site_level_form_and_operator() -> None:
    model = small(knowledge("vector", "multiply", "fa-cluster"), knowledge("network", "add", "pr-wh"))
    records = implicit_values(model)
    found = [(r.site, r.level, r.form, r.operator, len(r.values)) for r in records]
    channels = model.backbone.channels
    levels = list(zip(("P3", "P4", "P5"), channels, strict=True))
    assert found == [
        *(("fa-cluster", name, "vector", "multiply", 3 * c) for name, c in levels),
        *(("pr-wh", name, "network", "add", 6) for name, _ in levels),
    ]
    assert all(r.values.dtype == np.float32 and r.values.ndim == 1 for r in records)
    assert implicit_values(small()) == []
    assert implicit_priors(small()) == {}


def test_implicit_priors_are_the_trained_tensors() -> None:
    model = small(knowledge("network", "add", "fa"))
    assert set(implicit_priors(model)) == {n for n in model.state_dict() if n.startswith("implicit.")}


@torch.no_grad()
def test_two_concatenations_stack_in_front_of_the_features() -> None:
    model = small(knowledge("vector", "concatenate", "fa"), knowledge("vector", "concatenate", "fa-cluster"))
    plain = small()
    for level, channels in zip(model.level_names, model.backbone.channels, strict=True):
        weight = model.part("predictor", level).weight
        assert weight.shape[1] == 4 * channels  # the second one is as wide as what it sees, 2C
        assert torch.equal(weight[:, 3 * channels :], plain.part("predictor", level).weight)
    assert [tuple(y.shape[2:4]) for y in model(images())] == [(8, 12), (4, 6), (2, 3)]


def train(model: Detector, rates: dict[str, float], steps: int = 15) -> Detector:
    """Nesterov SGD on a fixed regression problem, learning rate 0.01 x rates[name].

    BatchNorm uses its running statistics: batch statistics of a few cells amplify rounding tenfold a step.
    """
    groups = []
    for name, parameter in model.named_parameters():
        groups.append({"params": [parameter], "lr": 0.01 * rates.get(name, 1.0)})
    optimiser = torch.optim.SGD(groups, lr=0.01, momentum=0.937, nesterov=True)
    x = images(dtype=torch.float64)
    model.eval()
    for _ in range(steps):
        optimiser.zero_grad()
        sum((raw - 0.3).square().mean() for raw in model(x)).backward()
        optimiser.step()
    return model


def test_addition_at_pr_is_a_predictor_bias_with_twice_the_learning_rate() -> None:
    variant = small(knowledge("vector", "add", "pr")).double()
    control = small().double()
    plain = small().double()
    with torch.no_grad():
        for level, record in zip(variant.level_names, implicit_values(variant), strict=True):
            for model in (control, plain):
                model.part("predictor", level).bias += torch.from_numpy(record.values).double()
    doubled = {f"predictor_{level.lower()}.bias": 2.0 for level in control.level_names}
    x = images(dtype=torch.float64)
    models = train(variant, {}), train(control, doubled), train(plain, {})
    with torch.no_grad():
        raws = zip(*(model(x) for model in models), strict=True)
        for of_variant, of_control, of_plain in raws:
            torch.testing.assert_close(of_variant, of_control, rtol=0, atol=1e-9)
            assert (of_variant - of_plain).abs().max() > 1e-4  # the rate matters, so the test can fail


@torch.no_grad()
def test_addition_at_fa_is_absorbed_by_the_predictor_bias() -> None:
    variant = small(knowledge("vector", "add", "fa", std=0.5)).double().eval()
    plain = small().double().eval()
    for level, record in zip(variant.level_names, implicit_values(variant), strict=True):
        predictor = plain.part("predictor", level)
        predictor.bias += predictor.weight.flatten(1) @ torch.from_numpy(record.values).double()
    x = images(dtype=torch.float64)
    for ours, folded in zip(variant(x), plain(x), strict=True):
        torch.testing.assert_close(ours, folded, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_parameter_groups_keep_decay_away_from_implicit_knowledge(form: str) -> None:
    model = small(knowledge(form, "add", "fa"))
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


class Halved(Form):
    """A form that the registry does not know: g(z) = centre + z / 2."""

    def __init__(self, size: int, centre: float, config: ImplicitConfig) -> None:
        super().__init__(size, centre, config)
        self.z = torch.nn.Parameter(torch.empty(size))

    def forward(self) -> Tensor:
        return self.centre + self.z / 2

    @torch.no_grad()
    def reset(self, draws: Draws) -> None:
        self.z.copy_(draws.normal("z", self.z.shape, 0.0, 1.0))


def test_a_new_form_is_one_class_and_one_registry_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMS, "halved", registry.Form(f"{__name__}:Halved", "halved "))
    model = small(knowledge("halved", "multiply", "pr"))
    record = implicit_values(model)[0]
    prior = next(iter(implicit_priors(model).values()))
    assert record.form == "halved"
    np.testing.assert_allclose(record.values, 1 + prior.numpy() / 2, rtol=1e-6)
