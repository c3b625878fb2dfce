"""Parameters and FLOPs equal the paper's Tables 7, A1 and A2, and the released files, to the last digit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import nn

from yolor_core.config import BranchConfig, ImplicitConfig, ModelConfig
from yolor_core.models import count, create_model, named_config
from yolor_core.models.architectures import ARCHITECTURES
from yolor_core.models.build import blank_model
from yolor_core.models.counts import _shapes_only, count_detector
from yolor_core.models.detector import Detector

ADD_FA = ImplicitConfig(site="fa", operator="add")
MULTIPLY_PR = ImplicitConfig(site="pr", operator="multiply")


def config(architecture: str, *implicit: ImplicitConfig) -> ModelConfig:
    return ModelConfig(architecture=architecture, implicit=implicit)


@pytest.mark.parametrize(
    ("model", "size", "parameters", "mflops"),
    [
        (config("yolov4_csp_fast"), 640, 52_908_989, "117517.2952"),
        (config("yolov4_csp_fast", ADD_FA, MULTIPLY_PR), 640, 52_911_546, "117519.4372"),
        (config("yolov4_p6_light"), 1280, 37_262_204, "326256.1624"),
        (config("yolov4_p6_light", ADD_FA, MULTIPLY_PR), 1280, 37_265_016, "326264.7304"),
    ],
    ids=["csp-fast", "csp-fast implicit", "p6-light", "p6-light implicit"],
)
def test_table_7_to_the_last_digit(model: ModelConfig, size: int, parameters: int, mflops: str) -> None:
    counts = count(model, size)
    assert counts.parameters == parameters
    assert f"{counts.mflops_paper:.4f}" == mflops


def test_table_7_leaves_out_the_top_level_of_p6() -> None:
    counts = count(config("yolov4_p6_light", ADD_FA, MULTIPLY_PR), 1280)
    base = count(config("yolov4_p6_light"), 1280)
    assert counts.flops - base.flops == 255 * (160**2 + 80**2 + 40**2 + 20**2)
    assert f"{counts.mflops - base.mflops:.3f}" == "8.670"
    assert f"{counts.mflops_paper - base.mflops:.3f}" == "8.568"


# name, test size, parameters, fused parameters, MFLOPs and fused MFLOPs of the network without implicit
# knowledge (None: not known exactly); sources: Tables A1 and A2, the released files
KNOWN = [
    ("yolov4_csp", 640, 52_921_437, 52_889_053, "120636.8088", "120440.4056"),
    ("yolov4_csp_mish", 640, 52_921_437, 52_889_053, "120636.8088", "120440.4056"),
    ("yolov4_csp_fast", 640, 52_908_989, 52_876_637, "117517.2952", "117347.1064"),
    ("yolov4_csp_fast_dwt", 640, 52_908_989, 52_876_637, "117517.2952", "117347.1064"),
    ("yolov4_csp_x", 640, 99_751_053, 99_703_061, "222430.2936", "222159.5992"),
    ("yolor_csp", 640, 52_923_994, 52_891_610, "120636.8088", "120440.4056"),
    ("yolor_csp_fast", 640, 52_911_546, 52_879_194, "117517.2952", "117347.1064"),
    ("yolor_csp_x", 640, 99_754_058, 99_706_066, "222430.2936", "222159.5992"),
    ("yolov4_p6_light", 1280, 37_262_204, 37_230_012, "326256.1624", "325695.2664"),
    ("yolor_p6", 1280, 37_265_016, 37_232_824, "326256.1624", "325695.2664"),
    ("yolor_w6", 1280, 79_873_400, 79_828_024, "453893.2568", "453278.9592"),
    ("yolov4_p6", 1280, 127_585_200, 127_519_280, None, None),
    ("yolov4_p7", 1536, 287_566_300, 287_455_740, None, None),
    ("yolor-p6", 1280, 37_270_264, 37_240_696, None, None),
    ("yolor-w6", 1280, 79_880_952, 79_839_352, "453975.1768", None),
    ("yolor-e6", 1280, 115_909_400, 115_854_280, "684054.2040", "683197.7560"),
    ("yolor-d6", 1280, 151_782_680, 151_710_920, "936793.7880", "935724.3480"),
    ("yolor-s", 640, 9_331_242, 9_321_514, "21329.1", None),
    ("yolor-sss-s2d", 640, 9_301_306, 9_291_738, "17921.2", "17884.5"),
    ("yolor-sss-dwt", 640, 9_301_306, 9_291_738, "17921.2", "17884.5"),
    ("yolor-ssss-s2d", 640, 9_216_634, 9_207_354, "16112.4", "16085.5"),
    ("yolor-ssss-dwt", 640, 9_216_634, 9_207_354, "16112.4", "16085.5"),
    ("yolov4-sss-s2d", 640, 9_299_645, 9_290_077, "17921.2", "17884.5"),
    ("yolov4-sss-dwt", 640, 9_299_645, 9_290_077, "17921.2", "17884.5"),
    ("yolov4-ssss-s2d", 640, 9_214_973, 9_205_693, "16112.4", "16085.5"),
    ("yolov4-ssss-dwt", 640, 9_214_973, 9_205_693, "16112.4", "16085.5"),
    ("yolov4-p5", 896, 70_834_012, 70_794_268, "327742.4", "327264.3"),
    ("yolov4-p6", 1280, 127_590_576, 127_530_352, "719307.8", "718312.0"),
    ("yolov4-p7", 1536, 287_575_580, 287_474_700, "1640834.9", "1639033.6"),
    ("u5r5-s", 640, 7_276_605, 7_266_973, "17060.0", "17011.1"),
    ("u5r5-s-implicit", 640, 7_278_266, 7_268_634, "17060.0", "17011.1"),
]
assert {row[0] for row in KNOWN} == set(ARCHITECTURES)


@pytest.mark.parametrize(
    ("name", "size", "parameters", "fused", "mflops", "mflops_fused"), KNOWN, ids=[row[0] for row in KNOWN]
)
def test_tables_a1_and_a2_to_the_last_digit(
    name: str, size: int, parameters: int, fused: int | None, mflops: str | None, mflops_fused: str | None
) -> None:
    assert ARCHITECTURES[name].size == size
    counts = count(name, size)
    implicit = sum(counts.implicit_flops.values())
    assert counts.parameters == parameters
    if fused is not None:
        assert counts.parameters_fused == fused
    for expected, flops in ((mflops, counts.flops), (mflops_fused, counts.flops_fused)):
        if expected is not None:
            digits = len(expected.partition(".")[2])
            assert f"{(flops - implicit) / 1e6:.{digits}f}" == expected


@pytest.mark.parametrize(
    ("name", "parameters"), [("yolor-sss-s2d", 9_299_645), ("yolor-ssss-s2d", 9_214_973)]
)
def test_a_literal_configuration_has_no_implicit_knowledge_of_its_name(name: str, parameters: int) -> None:
    assert count(ModelConfig(architecture=name), 640).parameters == parameters
    assert len(named_config(name).implicit) == 2


# the same network with the blocks of the other flavour: name, flavour, parameters, fused parameters
OTHER_FLAVOUR: list[tuple[str, Literal["cfg", "yaml"], int, int | None]] = [
    ("yolov4_csp_mish", "yaml", 52_924_765, 52_895_965),
    ("yolov4_p6_light", "yaml", 37_267_452, 37_237_884),
    ("yolor_p6", "yaml", 37_270_264, 37_240_696),
    ("yolor-p6", "cfg", 37_265_016, 37_232_824),
    ("yolor_w6", "yaml", 79_880_952, 79_839_352),
    ("yolor-w6", "cfg", 79_873_400, 79_828_024),
    ("yolor-e6", "cfg", 115_899_960, None),
    ("yolov4-p6", "cfg", 127_585_200, 127_519_280),
    ("yolov4-p7", "cfg", 287_566_300, 287_455_740),
]


@pytest.mark.parametrize(
    ("name", "flavour", "parameters", "fused"),
    OTHER_FLAVOUR,
    ids=[f"{row[0]} {row[1]}" for row in OTHER_FLAVOUR],
)
def test_the_flavour_decides_the_counts(
    name: str, flavour: Literal["cfg", "yaml"], parameters: int, fused: int | None
) -> None:
    architecture = replace(ARCHITECTURES[name], flavour=flavour)
    with torch.device("meta"):
        model = Detector(architecture, named_config(name))
    counts = count_detector(model, 128)
    assert counts.parameters == parameters
    if fused is not None:
        assert counts.parameters_fused == fused


def test_gflops_of_the_large_models_at_1280_are_four_times_a_rounded_figure_at_640() -> None:
    names = ("yolor_w6", "yolor-e6", "yolor-d6")
    rounded = [round(count(name, 640).mflops_paper / 1e3, 1) for name in names]
    assert rounded == [113.5, 171.0, 234.2]
    assert [round(4 * figure, 1) for figure in rounded] == [454.0, 684.0, 936.8]
    assert round(count("yolov4-p6", 640).mflops_fused / 1e3, 1) == 179.6  # printed: 718.4
    assert round(count("yolor_p6", 640).mflops_paper / 1e3, 1) == 81.6  # would give 326.4, printed: 326.2


@pytest.mark.parametrize(
    ("implicit", "extra"),
    [
        ({"site": "fa", "operator": "add"}, 1_792),
        ({"site": "fa", "operator": "multiply"}, 1_792),
        ({"site": "fa", "operator": "concatenate"}, 458_752),
        ({"site": "pr", "operator": "add"}, 765),
        ({"site": "pr", "operator": "multiply"}, 765),
        ({"site": "fa-cluster", "operator": "multiply"}, 5_376),
        ({"site": "pr-wh", "operator": "multiply"}, 18),
        ({"site": "fa", "operator": "add", "form": "network"}, 2_757_888),
        ({"site": "fa", "operator": "add", "form": "factorisation"}, 2_756_099),
    ],
    ids=str,
)
def test_implicit_parameters_on_csp_fast(implicit: dict[str, str], extra: int) -> None:
    counts = count(config("yolov4_csp_fast", ImplicitConfig(**implicit)), 640)  # type: ignore[arg-type]
    assert counts.parameters - 52_908_989 == extra


def test_flops_of_multiplications_count_one_per_number_they_touch() -> None:
    cells = {"P3": 64, "P4": 16, "P5": 4}
    for site, numbers in (("pr", 255), ("pr-wh", 6)):
        counts = count(config("yolov4_csp_fast", ImplicitConfig(site=site, operator="multiply")), 64)
        assert counts.implicit_flops == {level: numbers * n for level, n in cells.items()}
    counts = count(config("yolov4_csp_fast", ImplicitConfig(site="fa", operator="add")), 64)
    assert counts.flops == count(config("yolov4_csp_fast"), 64).flops


@pytest.mark.parametrize("implicit", [(), (ADD_FA, MULTIPLY_PR)], ids=["bare", "implicit"])
def test_flops_agree_with_torchs_counter(implicit: tuple[ImplicitConfig, ...]) -> None:
    """A real forward pass on real weights, with nothing left out."""
    from torch.utils.flop_counter import FlopCounterMode

    small = ModelConfig(architecture="yolor_p6", width=0.125, depth=0.33, implicit=implicit)
    model = create_model(small, classes=4).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        raw = model(torch.rand(1, 3, 128, 192))
    biases = 2 * sum(y.numel() for y in raw)
    multiplied = sum(y.numel() for y in raw) if implicit else 0
    elements = 0

    def observe(_: nn.Module, __: object, output: torch.Tensor) -> None:
        nonlocal elements
        elements += output.numel()

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(observe)
    with torch.no_grad():
        model(torch.rand(1, 3, 128, 192))
    counts = count(model.config, (128, 192), classes=4)
    assert counts.flops_torch == counter.get_total_flops()
    assert counts.flops == counter.get_total_flops() + biases + 4 * elements + multiplied


CLUSTER = ImplicitConfig(site="fa-cluster", operator="multiply")
CONCATENATE = ImplicitConfig(site="fa", operator="concatenate")
BRANCHES = tuple(
    BranchConfig(task=task, variant=variant, implicit=ADD_FA)  # type: ignore[arg-type]
    for task, variant in (("classification", "jde"), ("embedding", "fairmot"))
)


@pytest.mark.parametrize(
    "model",
    [
        config("yolov4_csp_fast"),
        config("yolov4_csp_fast", ADD_FA, MULTIPLY_PR),
        config("yolov4_p6_light"),
        config("yolov4_p6_light", ADD_FA, MULTIPLY_PR),
        config("yolov4_csp_fast", CLUSTER),
        config("yolov4_csp_fast", CONCATENATE),
        config("yolov4_csp_fast").model_copy(update={"branches": BRANCHES}),
    ],
    ids=["baseline 1", "implicit 1", "baseline 2", "implicit 2", "cluster", "concatenate", "three tasks"],
)
def test_counters_that_go_by_the_exact_class_count_all(model: ModelConfig) -> None:
    """The rules of thop, ptflops and torchinfo for a convolution, by hooks on layers of the exact class."""
    blank = blank_model(model)
    thop, ptflops, torchinfo, others = 0, 0, 0, 0

    def observe(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal thop, ptflops, torchinfo, others
        if type(module) is nn.Conv2d:
            kernel, cells = math.prod(module.kernel_size), math.prod(output.shape[2:])
            assert inputs[0].shape[1] == module.in_channels
            thop += 2 * output.numel() * module.in_channels * kernel
            ptflops += 2 * cells * kernel * module.in_channels * module.out_channels
            torchinfo += 2 * cells * module.get_parameter("weight").numel()
            others += 2 * output.numel() if module.bias is not None else 0
        else:
            others += 2 * int(
                inputs[0].numel() * output.numel() if type(module) is nn.Linear else 2 * output.numel()
            )

    known = [m for m in blank.modules() if type(m) in (nn.Conv2d, nn.BatchNorm2d, nn.Linear)]
    for module in known:
        module.register_forward_hook(observe)
    with torch.no_grad(), _shapes_only(blank):
        blank(torch.empty(1, 3, 128, 128, device="meta"))
    counts = count(model, 128)
    assert thop == ptflops == torchinfo
    assert thop + others + sum(counts.implicit_flops.values()) == counts.flops
    implicit = sum(p.numel() for name, p in blank.named_parameters() if "implicit" in name)
    assert sum(p.numel() for module in known for p in module.parameters()) + implicit == counts.parameters


def test_counting_leaves_the_model_as_it_was() -> None:
    with torch.device("meta"):
        model = Detector(ARCHITECTURES["yolor-ssss-s2d"], named_config("yolor-ssss-s2d"))
    first = count_detector(model, 64)
    assert all("forward" not in vars(module) and not module._forward_hooks for module in model.modules())
    assert model.training
    assert count_detector(model, 64) == first
