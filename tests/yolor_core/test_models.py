"""The zoo, the blocks against independent references, decoding, and how models are created."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from yolor_core.config import ModelConfig
from yolor_core.errors import ConfigError, InputError, UnknownNameError
from yolor_core.models import create_model, decode, list_models, named_config
from yolor_core.models.architectures import ARCHITECTURES
from yolor_core.models.blocks import pyramid
from yolor_core.models.trunk import DWT, ReOrg, scaled_channels, scaled_repeats

MINI = {"width": 0.125, "depth": 0.33}


def mini(architecture: str, anchor_scale: float = 1.0) -> ModelConfig:
    return ModelConfig(architecture=architecture, width=0.125, depth=0.33, anchor_scale=anchor_scale)


def uniform(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", list_models())
def test_every_model_gives_one_map_per_level_and_trains(name: str) -> None:
    config = named_config(name).model_copy(update=MINI)
    model = create_model(config, classes=2)
    architecture = ARCHITECTURES[name]
    side = architecture.strides[-1] * 2
    raw = model(uniform(2, 3, side, side // 2))
    na = architecture.anchors_per_level
    expected = [(2, na, side // s, side // 2 // s, 7) for s in model.strides]
    assert [tuple(y.shape) for y in raw] == expected
    assert model.anchors.tolist() == [[list(pair) for pair in level] for level in architecture.anchors]
    assert [type(s) for s in model.strides] == [int] * model.levels
    sum(y.square().mean() for y in raw).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []


def test_smallest_width_still_builds() -> None:
    model = create_model(ModelConfig(architecture="yolov4_p6_light", width=0.0625, depth=0.33), classes=1)
    assert min(model.backbone.channels) >= 8
    assert len(model(uniform(2, 3, 64, 64))) == 4


def test_scaling_rounds_channels_up_to_eight_and_repeats_to_at_least_one() -> None:
    assert [scaled_channels(c, 0.125) for c in (32, 64, 65, 255, 1024)] == [8, 8, 16, 32, 128]
    assert scaled_channels(640, 1.25) == 800
    assert [scaled_repeats(n, 0.33) for n in (1, 2, 3, 4, 7, 8)] == [1, 1, 1, 1, 2, 3]
    assert scaled_repeats(1, 3.0) == 1


def test_state_dict_holds_no_anchors_and_loads_strictly() -> None:
    model = create_model("yolor-ssss-s2d", seed=1)
    other = create_model("yolor-ssss-s2d", seed=None)
    assert not [name for name in model.state_dict() if "anchor" in name]
    other.load_state_dict(model.state_dict(), strict=True)
    x = uniform(1, 3, 64, 64)
    for ours, theirs in zip(model.eval()(x), other.eval()(x), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(model.anchors, other.anchors)


def test_anchor_scale_multiplies_the_anchors() -> None:
    model = create_model(mini("yolov4_csp_fast", anchor_scale=0.25))
    assert model.anchors[0, 0].tolist() == [3.0, 4.0]
    assert model.anchors[2, 2].tolist() == [114.75, 100.25]


def test_a_name_spells_out_its_implicit_knowledge_and_a_configuration_is_literal() -> None:
    named = named_config("yolor_csp")
    assert [(i.site, i.operator, i.form) for i in named.implicit] == [
        ("fa", "add", "vector"),
        ("pr", "multiply", "vector"),
    ]
    literal = create_model(mini("yolor_csp"))
    assert not list(literal.implicit.parameters())
    assert named_config("yolov4_csp").implicit == ()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="yolor_csp_x"):
        create_model("yolor_cspx")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(1, 1, 64, 64), r"\(1, 1, 64, 64\).*\(batch, 3, height, width\)"),
        (torch.rand(3, 64, 64), r"\(3, 64, 64\)"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "torch.uint8"),
        (torch.rand(0, 3, 64, 64), "empty batch"),
        (torch.rand(1, 3, 70, 64), "70 x 64.*multiples of 32.*96 x 64"),
    ],
    ids=["channels", "dimensions", "type", "empty", "size"],
)
def test_images_a_model_cannot_take_are_named(images: torch.Tensor, message: str) -> None:
    model = create_model(mini("yolov4_csp_fast")).eval()  # in training a rank's share may be empty
    with pytest.raises(InputError, match=message):
        model(images)


def test_chained_pools_equal_the_pools_of_9_and_13() -> None:
    x = uniform(2, 3, 17, 20) - 0.5
    pools = [functional.max_pool2d(x, k, stride=1, padding=k // 2) for k in (5, 9, 13)]
    assert torch.equal(pyramid(x, largest_first=False), torch.cat([x, *pools], dim=1))
    assert torch.equal(pyramid(x, largest_first=True), torch.cat([*pools[::-1], x], dim=1))


def test_reorg_and_wavelet_follow_their_definition_pixel_by_pixel() -> None:
    x = uniform(1, 2, 4, 6).double()
    reorg, dwt = ReOrg()(x), DWT()(x)
    assert reorg.shape == dwt.shape == (1, 8, 2, 3)
    for channel in range(2):
        for row in range(2):
            for column in range(3):
                (a, b), (c, d) = x[0, channel, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].tolist()
                assert reorg[0, channel::2, row, column].tolist() == [a, c, b, d]
                found = [dwt[0, channel, row, column].item()]
                found += dwt[0, 2 + 3 * channel : 5 + 3 * channel, row, column].tolist()
                low = (a + b + c + d) / 4
                details = [(a + b - c - d) / 4, (a - b + c - d) / 4, (a - b - c + d) / 4]
                assert found == pytest.approx([low, *(detail + 0.5 for detail in details)])


def test_decode_equals_a_loop_over_cells() -> None:
    generator = torch.Generator().manual_seed(2)
    shapes = [(2, 2, 3, 4, 7), (2, 2, 2, 2, 7)]
    raw = [4 * torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    strides, anchors = [8, 16], torch.tensor([[[10.0, 13.0], [16.0, 30.0]], [[33.0, 23.0], [30.0, 61.0]]])
    decoded = decode(raw, strides, anchors)
    assert decoded.shape == (2, 2 * 12 + 2 * 4, 7)
    row = 0
    for level, logits in enumerate(raw):
        for anchor in range(2):
            for cy in range(logits.shape[2]):
                for cx in range(logits.shape[3]):
                    for image in range(2):
                        p = [1 / (1 + math.exp(-v)) for v in logits[image, anchor, cy, cx].tolist()]
                        aw, ah = anchors[level, anchor].tolist()
                        s = strides[level]
                        expected = [(2 * p[0] - 0.5 + cx) * s, (2 * p[1] - 0.5 + cy) * s]
                        expected += [(2 * p[2]) ** 2 * aw, (2 * p[3]) ** 2 * ah, *p[4:]]
                        assert decoded[image, row].tolist() == pytest.approx(expected)
                    row += 1


def test_decode_of_half_precision_logits_keeps_pixel_precision() -> None:
    raw = [torch.zeros(1, 1, 1, 512, 6, dtype=torch.bfloat16)]
    decoded = decode(raw, [8], torch.tensor([[[10.0, 13.0]]]))
    assert decoded[0, :, 0].tolist() == [8 * (0.5 + cx) for cx in range(512)]


def test_the_table_of_architectures_needs_no_torch() -> None:
    code = (
        "import sys; import yolor_core.models.architectures, yolor_core.config, yolor_core.models; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_of_the_package_is_there() -> None:
    from yolor_core import models

    for name in itertools.chain(*models._HOMES.values()):
        assert callable(getattr(models, name)), name


@pytest.mark.parametrize("classes", [0, -1, "a", 1.5, True])
def test_a_number_of_classes_that_is_none_is_named(classes: object) -> None:
    with pytest.raises(ConfigError, match="classes = "):
        create_model("yolor-ssss-s2d", classes=classes)  # type: ignore[arg-type]
