"""Every model equals the authors' model of that name, in float64, on the reference outputs they stored.

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
