"""Every form, operator and site of the registry inside a small detector."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from yolor_core.config import ImplicitConfig, ModelConfig
from yolor_core.implicit.registry import FORMS, OPERATORS, SITES
from yolor_core.models import Detector, create_model, implicit_values

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


OPTIONS: list[dict[str, Any]] = [
    *({"form": "network", "depth": 3, "activation": a} for a in ("none", "relu", "silu", "tanh")),
    {"form": "factorisation", "sparse": 0.1},
    {"form": "factorisation", "nonnegative": True},
]


@pytest.mark.parametrize(
    "config",
    [
        *(pytest.param(knowledge(*each.values), id=each.id) for each in COMBINATIONS),  # type: ignore[arg-type]
        *(ImplicitConfig(site="fa", operator="multiply", **options) for options in OPTIONS),
    ],
)
def test_gradient_reaches_every_implicit_parameter(config: ImplicitConfig) -> None:
    model = small(config)
    sum(raw.square().sum() for raw in model(images())).backward()
    parameters = list(model.implicit.named_parameters())
    assert parameters
    for name, parameter in parameters:
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


@torch.no_grad()
def test_two_concatenations_stack_in_front_of_the_features() -> None:
    model = small(knowledge("vector", "concatenate", "fa"), knowledge("vector", "concatenate", "fa-cluster"))
    plain = small()
    for level, channels in zip(model.level_names, model.backbone.channels, strict=True):
        weight = model.part("predictor", level).weight
        assert weight.shape[1] == 4 * channels  # the second one is as wide as what it sees, 2C
        assert torch.equal(weight[:, 3 * channels :], plain.part("predictor", level).weight)
    assert [tuple(y.shape[2:4]) for y in model(images())] == [(8, 12), (4, 6), (2, 3)]
