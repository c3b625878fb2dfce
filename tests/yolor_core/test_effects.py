"""What implicit knowledge does to the raw predictions, against the forward pass of the whole model."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from yolor_core.config import ImplicitConfig, ModelConfig
from yolor_core.implicit.registry import FORMS, OPERATORS, SITES
from yolor_core.models import Detector, create_model
from yolor_core.models.knowledge import implicit_effects, mean_features

PAIRS = [
    pytest.param(site, operator, form, id=f"{form}-{operator}-{site}")
    for site, operator, form in itertools.product(SITES, OPERATORS, FORMS)
    if (operator != "concatenate" or SITES[site].allows_concatenation)
    and (form != "markov" or SITES[site].allows_chain)
]
IMAGES = torch.randint(0, 256, (5, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def detector(*implicit: ImplicitConfig) -> Detector:
    config = ModelConfig(architecture="yolov4_csp_fast", width=0.125, depth=0.33, implicit=implicit)
    model = create_model(config, classes=3, seed=1).double()
    for norm in model.modules():  # fresh statistics leave almost nothing of the images
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        model.train()(IMAGES.double() / 255)
    return model


def mean_predictions(model: Detector) -> list[np.ndarray]:
    """Mean over images and cells of the raw predictions, level by level, (anchors x outputs,)."""
    model.eval()
    with torch.no_grad():
        return [raw.mean((0, 2, 3)).flatten().numpy() for raw in model(IMAGES.double() / 255)]


@pytest.mark.parametrize(("site", "operator", "form"), PAIRS)
def test_after_is_the_mean_prediction_of_the_whole_model(site: str, operator: str, form: str) -> None:
    model = detector(ImplicitConfig(site=site, operator=operator, form=form, std=0.3))
    effects = implicit_effects(model, mean_features(model, IMAGES))
    for effect, expected in zip(effects, mean_predictions(model), strict=True):
        np.testing.assert_allclose(effect.after, expected, rtol=1e-5, atol=1e-6)
        assert np.abs(effect.after - effect.before).max() > 1e-3


@pytest.mark.parametrize("site", ["fa", "pr"])
def test_before_is_the_mean_prediction_of_the_baseline(site: str) -> None:
    model = detector(ImplicitConfig(site=site, operator="add", std=0.3))
    effects = implicit_effects(model, mean_features(model, IMAGES))
    for effect, expected in zip(effects, mean_predictions(detector()), strict=True):
        np.testing.assert_allclose(effect.before, expected, rtol=1e-5, atol=1e-6)


def test_the_effect_of_added_feature_alignment_is_w_times_a() -> None:
    model = detector(ImplicitConfig(site="fa", operator="add", std=0.3))
    for effect in implicit_effects(model, mean_features(model, IMAGES)):
        weight = model.part("predictor", effect.level).weight.flatten(1)
        a = model.implicit.of("fa")[effect.level].values()
        np.testing.assert_allclose(effect.after - effect.before, (weight @ a).detach(), rtol=1e-4, atol=1e-6)


def test_a_site_is_taken_out_while_the_others_act() -> None:
    both = detector(
        ImplicitConfig(site="fa", operator="add", std=0.3),
        ImplicitConfig(site="pr", operator="multiply", std=0.3),
    )
    effects = {(e.site, e.level): e for e in implicit_effects(both, mean_features(both, IMAGES))}
    for level in both.level_names:
        g = both.implicit.of("pr")[level].values().detach().numpy()
        np.testing.assert_allclose(effects["pr", level].before * g, effects["pr", level].after, rtol=1e-5)
        np.testing.assert_array_equal(effects["fa", level].after, effects["pr", level].after)
        alone = implicit_effects(
            only := detector(ImplicitConfig(site="fa", operator="add", std=0.3)), mean_features(only, IMAGES)
        )
        unrefined = {e.level: e.before for e in alone}[level]
        np.testing.assert_allclose(effects["fa", level].before, unrefined * g, rtol=1e-4, atol=1e-6)


def test_a_model_keeps_its_mode_and_one_without_knowledge_has_no_effects() -> None:
    model = detector().train()
    assert implicit_effects(model, mean_features(model, IMAGES)) == []
    assert model.training
