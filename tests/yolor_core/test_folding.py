"""Folding: the outputs of the model it was made from, at the cost of the folded baseline."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from yolor_core.config import ImplicitConfig, ModelConfig
from yolor_core.errors import FoldingError, InputError
from yolor_core.implicit import registry
from yolor_core.implicit.operators import Affine, Operator, rebuilt
from yolor_core.implicit.registry import FORMS, OPERATORS, SITES, Site
from yolor_core.implicit.sites import FeatureAlignment, PredictionRefinement
from yolor_core.models import Detector, count, create_model, fold, list_models, named_config
from yolor_core.models.architectures import ARCHITECTURES
from yolor_core.models.counts import count_detector

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


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.rand(1, 4, 64, 64).double(), r"\(1, 4, 64, 64\)"),
        (torch.rand(0, 3, 64, 64).double(), "empty batch"),
        (torch.rand(1, 3, 64, 65).double(), "next valid size is 64 x 96"),
        (torch.rand(1, 3, 64, 64), "torch.float32; this model takes torch.float64"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "floating point"),
    ],
    ids=["channels", "empty", "size", "dtype", "integers"],
)
@pytest.mark.parametrize("folded", [False, True])
def test_bad_images_are_named_by_folded_models_too(bad: Tensor, message: str, folded: bool) -> None:
    model = small(part("add", "fa"))
    with pytest.raises(InputError, match=message):
        (fold(model) if folded else model)(bad)


def test_images_on_another_device_are_named() -> None:
    with pytest.raises(InputError, match="images on meta, but the model is on cpu"):
        small()(torch.empty(1, 3, 64, 64, device="meta", dtype=torch.float64))


def test_autocast_may_mix_types() -> None:
    model = small().float()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert len(model(images().bfloat16())) == 3


def test_training_on_one_cell_is_named() -> None:
    model = small().train()
    with pytest.raises(InputError, match="one image of 32 x 32 pixels in training"):
        model(images(side=32))
    assert len(model(images(batch=2, side=32))) == 3
    assert len(model.eval()(images(side=32))) == 3


class Gate(Operator):
    """An operator that the registry does not know."""

    def __call__(self, x: Tensor, g: Tensor) -> Tensor:
        return x * g.view(1, -1, 1, 1).square()


class Backwards(FeatureAlignment):
    """A site that the registry does not know."""


class Mirrored(PredictionRefinement):
    """A site behind the predictor that the registry does not know: g from the last channel to the first."""

    def spread(self, g: Tensor) -> Tensor:
        return g.flip(0)


@pytest.mark.parametrize("name", ["Backwards", "Mirrored"])
def test_a_new_site_folds_without_a_rule_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SITES, "new", Site(f"{__name__}:{name}", "N", False))
    model = small(part("multiply", "new"))
    folded = fold(model)
    assert_same_outputs(model, folded)
    assert cost(folded) == BASELINE


def test_an_operator_that_does_not_say_how_it_folds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, "gate", registry.Operator(f"{__name__}:Gate", "gate", slug="gate"))
    with pytest.raises(FoldingError, match="operator Gate does not say how it folds"):
        fold(small(part("gate", "fa")))


def convolution(inputs: int, outputs: int, kernel: int, **options: object) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, kernel, **options).double()  # type: ignore[arg-type]


def weight_and_bias(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    return conv.weight, torch.zeros(conv.out_channels).double() if conv.bias is None else conv.bias


def affine(operator: str, g: Tensor) -> Affine:
    return OPERATORS[operator].load()().affine(g)  # type: ignore[no-any-return]


def acted(operator: str, x: Tensor, g: Tensor) -> Tensor:
    """The operator by its definition in the paper."""
    g = g.view(1, -1, 1, 1)
    if operator == "concatenate":
        return torch.cat((g.expand(len(x), -1, *x.shape[2:]), x), dim=1)
    return x + g if operator == "add" else x * g


@pytest.mark.parametrize(
    ("operator", "options"),
    [
        *itertools.product(
            OPERATORS, [{"kernel": 1}, {"kernel": 3}, {"kernel": 3, "stride": 2, "bias": False}]
        ),
        ("multiply", {"kernel": 3, "padding": 1}),
        ("multiply", {"kernel": 3, "padding": "same", "groups": 2}),
        ("add", {"kernel": 3, "groups": 2}),
        ("add", {"kernel": 3, "padding": 1, "padding_mode": "replicate"}),
        ("concatenate", {"kernel": 3, "padding": "same", "padding_mode": "reflect"}),
        ("add", {"kernel": 3, "padding": "valid", "dilation": 2}),
    ],
    ids=str,
)
@torch.no_grad()
def test_a_constant_folds_into_the_convolution_behind_it(operator: str, options: dict[str, object]) -> None:
    conv = convolution(8 if operator == "concatenate" else 4, 6, **options)  # type: ignore[arg-type]
    before = conv.weight.clone()
    x, g = torch.randn(2, 4, 9, 8).double(), torch.randn(4).double()
    folded = rebuilt(conv, *affine(operator, g).into_next(*weight_and_bias(conv)))
    torch.testing.assert_close(folded(x), conv(acted(operator, x, g)), rtol=1e-12, atol=1e-12)
    assert torch.equal(conv.weight, before)
    assert (folded.in_channels, folded.out_channels) == (4, 6)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"padding": 1, "stride": 2}], ids=str)
@torch.no_grad()
def test_a_constant_folds_into_the_convolution_in_front(operator: str, options: dict[str, object]) -> None:
    """Padding does no harm there: g acts on what comes out."""
    conv = convolution(4, 6, 3, **options)
    x, g = torch.randn(2, 4, 9, 8).double(), torch.randn(6).double()
    folded = rebuilt(conv, *affine(operator, g).into_previous(*weight_and_bias(conv)))
    torch.testing.assert_close(folded(x), acted(operator, conv(x), g), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_folding_what_does_not_keep_zero_into_a_padded_convolution_is_wrong_at_the_border_alone() -> None:
    conv, g = convolution(4, 6, 3, padding=1), torch.randn(4).double()
    assert {name: affine(name, g).keeps_zero for name in OPERATORS} == {
        "add": False,
        "multiply": True,
        "concatenate": False,
    }
    x = torch.randn(1, 4, 7, 7).double()
    naive = rebuilt(conv, *affine("add", g).into_next(*weight_and_bias(conv)))
    difference = (naive(x) - conv(x + g.view(1, -1, 1, 1))).abs().amax((0, 1))
    assert difference[1:-1, 1:-1].max() < 1e-12
    assert difference[0].min() > 1e-3 and difference[:, -1].min() > 1e-3
