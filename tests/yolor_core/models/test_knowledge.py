"""Implicit knowledge read out, measured against the whole model, folded away at the cost of the baseline."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from yolor_core.config import ImplicitConfig, ModelConfig
from yolor_core.errors import FoldingError
from yolor_core.implicit import registry
from yolor_core.implicit.operators import Operator
from yolor_core.implicit.registry import FORMS, OPERATORS, SITES
from yolor_core.models import (
    Detector,
    count,
    create_model,
    fold,
    implicit_priors,
    implicit_values,
    list_models,
    named_config,
    sparse_penalty,
)
from yolor_core.models.architectures import ARCHITECTURES
from yolor_core.models.counts import count_detector
from yolor_core.models.knowledge import implicit_effects, mean_features

CLASSES = 2
PLACED = [
    (operator, site)
    for site, operator in itertools.product(SITES, OPERATORS)
    if operator != "concatenate" or SITES[site].allows_concatenation
]


PAIRS = [(a, b) for a, b in itertools.permutations(PLACED, 2) if a[1] != b[1]]


def part(operator: str, site: str, form: str = "vector") -> ImplicitConfig:
    return ImplicitConfig(operator=operator, site=site, form=form, std=0.5)


def small(*implicit: ImplicitConfig, architecture: str = "yolov4_csp_fast", seed: int = 1) -> Detector:
    """A narrow detector in float64 whose BatchNorms have statistics and weights of their own."""
    config = ModelConfig(architecture=architecture, width=0.0625, depth=0.33, implicit=implicit)
    model = create_model(config, classes=CLASSES, seed=seed).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values, low, high in (
                (norm.running_mean, -0.2, 0.2),
                (norm.running_var, 0.05, 0.5),
                (norm.weight.data, 0.7, 1.5),
                (norm.bias.data, -0.3, 0.3),
            ):
                assert values is not None
                values.copy_(low + (high - low) * torch.rand(values.shape, generator=generator))
    return model


def images(batch: int = 1, side: int = 64) -> Tensor:
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(2)).double()


@torch.no_grad()
def assert_same_outputs(model: Detector, folded: Detector) -> None:
    side = 2 * model.strides[-1]
    for ours, expected in zip(folded(images(side=side)), model(images(side=side)), strict=True):
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def cost(model: Detector) -> tuple[int, int]:
    """(parameters, FLOPs) of the modules that are there."""
    counts = count_detector(model.float().to("meta"), 64)
    return counts.parameters, counts.flops


BASELINE = cost(fold(small()))


@pytest.mark.parametrize(
    ("operator", "site", "form"),
    [
        (*place, form)
        for place in PLACED
        for form in FORMS
        if form != "markov" or SITES[place[1]].allows_chain
    ],
)
def test_one_site_of_every_form_and_operator_folds_away(operator: str, site: str, form: str) -> None:
    model = small(part(operator, site, form))
    folded = fold(model)
    assert not list(folded.implicit.parameters())
    assert_same_outputs(model, folded)
    assert cost(folded) == BASELINE


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=[f"{'-'.join(a)},{'-'.join(b)}" for a, b in PAIRS])
def test_two_sites_fold_away_in_either_order(first: tuple[str, str], second: tuple[str, str]) -> None:
    model = small(part(*first), part(*second))
    folded = fold(model)
    assert_same_outputs(model, folded)
    assert cost(folded) == BASELINE


@pytest.mark.parametrize("operators", [("concatenate", "multiply"), ("add", "concatenate")])
def test_all_four_sites_fold_away_together(operators: tuple[str, str]) -> None:
    model = small(
        part("multiply", "pr-wh", "network"),
        part(operators[0], "fa-cluster", "factorisation"),
        part("add", "pr"),
        part(operators[1], "fa", "network"),
    )
    folded = fold(model)
    assert_same_outputs(model, folded)
    assert cost(folded) == BASELINE


@pytest.mark.parametrize("architecture", ["yolor_p6", "yolor-e6", "yolor-sss-dwt", "u5r5-s-implicit"])
def test_batch_norm_behind_a_convolution_folds_in_every_family(architecture: str) -> None:
    model = small(part("add", "fa"), part("multiply", "pr"), architecture=architecture)
    folded = fold(model)
    assert_same_outputs(model, folded)
    left = [name for name, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)]
    yaml = ARCHITECTURES[architecture].flavour == "yaml" and architecture != "u5r5-s-implicit"
    assert bool(left) == yaml
    assert all(name.endswith("joint.bn") for name in left)


@pytest.mark.parametrize("name", list_models())
def test_folded_models_measure_what_the_fused_column_says(name: str) -> None:
    """Parameters and FLOPs of the folded network itself, against `count`, which tests hold to the paper's."""
    with torch.device("meta"):
        model = Detector(ARCHITECTURES[name], named_config(name))
    size = 2 * model.strides[-1]
    measured = count_detector(fold(model), size)
    expected = count(ModelConfig(architecture=name), size)
    assert measured.parameters == expected.parameters_fused
    assert measured.flops == expected.flops_fused
    assert sum(measured.implicit_flops.values()) == 0


def test_folding_leaves_the_model_as_it_was() -> None:
    model = small(part("multiply", "fa", "network"), part("add", "pr")).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold(model)
    assert model.training and not folded.training
    assert not any(m.training for m in folded.modules())
    assert len(model.config.implicit) == 2 and folded.config.implicit == ()
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    own = {tensor.data_ptr() for tensor in after.values()}
    assert not own & {tensor.data_ptr() for tensor in folded.state_dict().values()}


def test_a_folded_model_folds_to_itself_and_is_not_trained() -> None:
    folded = fold(small(part("add", "fa")))
    again = fold(folded)
    for ours, expected in zip(again(images()), folded(images()), strict=True):
        assert torch.equal(ours, expected)
    with pytest.raises(FoldingError, match="cannot be trained"):
        folded.train()
    assert folded.eval() is folded


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_folding_keeps_the_type_of_the_model_and_loses_no_precision(dtype: torch.dtype) -> None:
    model = small(part("multiply", "fa"), part("add", "pr"))
    exact = model(images())
    narrow = model.to(dtype)
    folded = fold(narrow)
    assert {p.dtype for p in folded.parameters()} == {dtype}

    def error(outputs: list[Tensor]) -> float:
        pairs = zip(outputs, exact, strict=True)
        return max(float((ours.double() - reference).abs().max()) for ours, reference in pairs)

    assert error(folded(images().to(dtype))) < 2 * error(narrow(images().to(dtype)))


class Gate(Operator):
    """An operator that the registry does not know."""

    def __call__(self, x: Tensor, g: Tensor) -> Tensor:
        return x * g.view(1, -1, 1, 1).square()


def test_an_operator_that_does_not_say_how_it_folds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, "gate", registry.Operator(f"{__name__}:Gate", "gate", slug="gate"))
    with pytest.raises(FoldingError, match="operator Gate does not say how it folds"):
        fold(small(part("gate", "fa")))


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


@pytest.mark.parametrize(("operator", "site"), PLACED)
def test_after_is_the_mean_prediction_of_the_whole_model(operator: str, site: str) -> None:
    model = detector(ImplicitConfig(site=site, operator=operator, std=0.3))
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


def test_sparse_penalty_is_the_weighted_l1_norm_of_c_over_all_levels() -> None:
    model = small(ImplicitConfig(form="factorisation", operator="add", site="fa", sparse=0.25))
    penalty = sparse_penalty(model)
    expected = sum(t.abs().sum() for n, t in implicit_priors(model).items() if n.endswith(".c"))
    assert penalty is not None
    assert penalty.item() == pytest.approx(0.25 * float(expected))
    penalty.backward()
    assert all(p.grad is not None for n, p in model.implicit.named_parameters() if n.endswith(".c"))
    assert sparse_penalty(small(part("add", "fa", "factorisation"))) is None
    assert sparse_penalty(small()) is None


def test_implicit_values_name_site_level_form_and_operator() -> None:
    model = small(part("multiply", "fa-cluster"), part("add", "pr-wh", "network"))
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
    model = small(part("add", "fa", "network"))
    assert set(implicit_priors(model)) == {n for n in model.state_dict() if n.startswith("implicit.")}
