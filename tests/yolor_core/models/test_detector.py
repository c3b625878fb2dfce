"""The network: the authors' models in float64 on the reference outputs they stored, decoding, bad images.

The folder in YOLOR_GOLDEN holds one file per model: the ordered state_dict (names, shapes, kinds), an exact
formula for its values, and samples of the raw and decoded outputs. Weights map by position.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from yolor_core.config import ModelConfig
from yolor_core.errors import InputError
from yolor_core.implicit.forms import Vector
from yolor_core.models import Detector, create_model, decode, fold

FOLDER = Path(os.environ.get("YOLOR_GOLDEN", ""))
NAMES = sorted(p.stem for p in FOLDER.glob("*.json") if p.stem != "loss_golden") if FOLDER.name else []


TOLERANCE = 1e-6


def uniform(count: int, k: int) -> np.ndarray:
    """u(i, k) for i < count: splitmix64 of the flat index and the position in the state_dict."""
    z = np.arange(count, dtype=np.uint64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64((k + 1) * 0xBF58476D1CE4E5B9 % 2**64)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    z >>= np.uint64(11)
    return z * 2.0**-53


def value(kind: str, shape: list[int], k: int, gain: float) -> Tensor:
    """The tensor of one state_dict entry, float32."""
    s = 2 * uniform(math.prod(shape), k) - 1
    scale = {
        "conv_w": gain * math.sqrt(6 / max(math.prod(shape[1:]), 1)),
        "conv_b": 0.1,
        "bias": 0.1,
        "bn_weight": 0.1,
        "bn_bias": 0.1,
        "implicit_add": 0.02,
        "implicit_mul": 0.02,
    }[kind]
    s *= scale
    if kind in ("bn_weight", "implicit_mul"):
        s += 1
    return torch.from_numpy(s.astype(np.float32)).reshape(shape)


def fill(model: Detector, reference: dict[str, Any]) -> None:
    """Give the model the reference weights, position by position; every entry must be of the same sort."""
    theirs = [(k, *entry) for k, entry in enumerate(reference["state_dict"])]
    theirs = [entry for entry in theirs if entry[3] != "keep"]
    owners = dict(model.named_modules())
    ours = list(model.state_dict(keep_vars=True).items())
    ours = [(name, tensor) for name, tensor in ours if not name.endswith("num_batches_tracked")]
    assert len(ours) == len(theirs)
    with torch.no_grad():
        for (name, tensor), (k, their_name, shape, kind) in zip(ours, theirs, strict=True):
            owner = owners[name.rpartition(".")[0]]
            if isinstance(owner, Vector):
                assert kind == ("implicit_mul" if owner.centre else "implicit_add"), (name, their_name)
                assert tensor.numel() == math.prod(shape), (name, their_name)
            else:
                assert list(tensor.shape) == shape, (name, their_name)
                assert kind.startswith("bn") == isinstance(owner, nn.BatchNorm2d), (name, their_name)
            if not kind.startswith("bn_running"):
                tensor.copy_(value(kind, shape, k, reference["golden"]["gain"]).reshape(tensor.shape))


def wave(image: int) -> Tensor:
    """The reference image number `image`, 3 x 256 x 256, float32."""
    i = np.arange(3 * 256 * 256, dtype=np.float64)
    flat = 0.5 + 0.5 * np.sin((0.01 + 0.037 * image) * i + image)
    return torch.from_numpy(flat.astype(np.float32)).reshape(3, 256, 256)


def assert_samples(ours: Tensor, reference: dict[str, Any], what: str) -> None:
    assert list(ours.shape) == reference["shape"], what
    expected = np.array(reference["value"])
    found = ours.reshape(-1)[torch.tensor(reference["index"])].numpy()
    error = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    assert error.max() <= TOLERANCE, f"{what}: largest error {error.max():.2e}"


@dataclass
class Reference:
    """A file of references, and the model filled as it says: float64, in evaluation mode."""

    content: dict[str, Any]
    model: Detector


@pytest.fixture(scope="module", params=NAMES or ["(none)"])
def reference(request: pytest.FixtureRequest) -> Reference | None:
    """One model at a time for all tests; None without references, where the tests skip."""
    if not NAMES:
        return None
    content = json.loads((FOLDER / f"{request.param}.json").read_text())
    model = create_model(request.param, seed=None)
    fill(model, content)
    for norm in norms(model):
        norm.momentum = 1.0
    batch = torch.stack([wave(image) for image in range(content["calibration_batch"])])
    with torch.no_grad():
        model.double().train()(batch.double())
    return Reference(content, model.eval())


def norms(model: Detector) -> list[nn.BatchNorm2d]:
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


def assert_golden(model: Detector, content: dict[str, Any]) -> None:
    with torch.no_grad():
        raw = model(wave(0)[None].double())
        decoded = decode(raw, model.strides, model.anchors)
    for level, (ours, expected) in enumerate(zip(raw, content["golden"]["raw"], strict=True)):
        assert_samples(ours, expected, f"raw level {level}")
    assert_samples(decoded, content["golden"]["decoded"], "decoded")


def test_golden_outputs_of_the_authors_models(golden: Path, reference: Reference) -> None:
    content, model = reference.content, reference.model
    fresh = create_model(model.config, seed=None)
    assert {m.eps for m in norms(fresh)} == {content["bn_eps"]}
    assert {m.momentum for m in norms(fresh)} == {content["bn_momentum"]}
    assert model.strides == content["strides"]
    assert sum(p.numel() for p in model.parameters()) == content["params"]
    if "anchors" in content:
        assert model.anchors.tolist() == content["anchors"]
    assert_golden(model, content)


def test_golden_outputs_of_the_folded_models(golden: Path, reference: Reference) -> None:
    folded = fold(reference.model)
    assert len(norms(folded)) < len(norms(reference.model)) / 2
    assert not list(folded.implicit.parameters())
    assert_golden(folded, reference.content)


def mini(architecture: str, anchor_scale: float = 1.0) -> ModelConfig:
    return ModelConfig(architecture=architecture, width=0.125, depth=0.33, anchor_scale=anchor_scale)


def pixels(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_smallest_width_still_builds() -> None:
    model = create_model(ModelConfig(architecture="yolov4_p6_light", width=0.0625, depth=0.33), classes=1)
    assert min(model.backbone.channels) >= 8
    assert len(model(pixels(2, 3, 64, 64))) == 4


def test_state_dict_holds_no_anchors_and_loads_strictly() -> None:
    model = create_model("yolor-ssss-s2d", seed=1)
    other = create_model("yolor-ssss-s2d", seed=None)
    assert not [name for name in model.state_dict() if "anchor" in name]
    other.load_state_dict(model.state_dict(), strict=True)
    x = pixels(1, 3, 64, 64)
    for ours, theirs in zip(model.eval()(x), other.eval()(x), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(model.anchors, other.anchors)


def test_anchor_scale_multiplies_the_anchors() -> None:
    model = create_model(mini("yolov4_csp_fast", anchor_scale=0.25))
    assert model.anchors[0, 0].tolist() == [3.0, 4.0]
    assert model.anchors[2, 2].tolist() == [114.75, 100.25]


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


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.rand(1, 4, 64, 64).double(), r"\(1, 4, 64, 64\)"),
        (torch.rand(3, 64, 64).double(), r"\(3, 64, 64\).*\(batch, 3, height, width\)"),
        (torch.rand(0, 3, 64, 64).double(), "empty batch"),
        (torch.rand(1, 3, 64, 65).double(), "64 x 65.*multiples of 32, the next valid size is 64 x 96"),
        (torch.rand(1, 3, 64, 64), "torch.float32; this model takes torch.float64"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "floating point"),
    ],
    ids=["channels", "dimensions", "empty", "size", "dtype", "integers"],
)
@pytest.mark.parametrize("folded", [False, True])
def test_bad_images_are_named_by_folded_models_too(bad: Tensor, message: str, folded: bool) -> None:
    model = create_model(mini("yolov4_csp_fast")).double().eval()  # in training a share may be empty
    with pytest.raises(InputError, match=message):
        (fold(model) if folded else model)(bad)


def test_images_on_another_device_are_named() -> None:
    with pytest.raises(InputError, match="images on meta, but the model is on cpu"):
        create_model(mini("yolov4_csp_fast"))(torch.empty(1, 3, 64, 64, device="meta", dtype=torch.float32))


def test_autocast_may_mix_types() -> None:
    model = create_model(mini("yolov4_csp_fast"))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert len(model(pixels(1, 3, 64, 64).bfloat16())) == 3


def test_training_on_one_cell_is_named() -> None:
    model = create_model(mini("yolov4_csp_fast")).train()
    with pytest.raises(InputError, match="one image of 32 x 32 pixels in training"):
        model(pixels(1, 3, 32, 32))
    assert len(model(pixels(2, 3, 32, 32))) == 3
    assert len(model.eval()(pixels(1, 3, 32, 32))) == 3
