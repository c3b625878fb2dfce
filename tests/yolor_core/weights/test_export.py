"""Exports against the programs that read them: torch, safetensors, onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from yolor_core.config import ModelConfig
from yolor_core.errors import InputError, UnknownNameError, WeightsError
from yolor_core.models import Detector, create_model, decode, fold, named_config
from yolor_core.weights import export_weights, formats
from yolor_core.weights.formats import authors_state


@pytest.fixture(scope="module")
def narrow() -> Detector:
    """A quarter of the width, with random statistics, so that BatchNorm is no identity."""
    config = named_config("yolor-ssss-dwt").model_copy(update={"width": 0.25, "depth": 0.34})
    model = create_model(ModelConfig.model_validate(config.model_dump()), classes=3, seed=1)
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
    return model.eval()


def test_onnx_computes_what_torch_computes_at_any_batch(narrow: Detector, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    line = export_weights(narrow, path, "onnx", size=(64, 96))
    assert "onnxruntime differs from torch by" in line
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (entry,), (out,) = session.get_inputs(), session.get_outputs()
    assert (entry.name, entry.shape[1:]) == ("images", [3, 64, 96]) and isinstance(entry.shape[0], str)
    assert (out.name, out.shape[2]) == ("predictions", 8)
    for batch in (1, 2, 5):
        images = torch.rand(batch, 3, 64, 96)
        with torch.no_grad():
            expected = decode(narrow(images), narrow.strides, narrow.anchors).numpy()
        (found,) = session.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_onnx_that_differs_is_not_left_behind(
    narrow: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: Path(a[2]).write_bytes(b""))
    for difference in (0.5, float("nan"), float("inf")):
        monkeypatch.setattr(formats, "compare", lambda *_, value=difference: value)
        with pytest.raises(WeightsError, match="was not written: onnxruntime differs"):
            export_weights(narrow, tmp_path / "m.onnx", "onnx", size=64)
    assert not list(tmp_path.iterdir())


def test_onnx_size_has_to_be_whole_cells(narrow: Detector, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="multiples of 32; next: 128 x 128"):
        export_weights(narrow, tmp_path / "m.onnx", "onnx", size=100)


def test_authors_file_is_what_their_loader_expects(tmp_path: Path) -> None:
    model = create_model("yolor-ssss-dwt")
    export_weights(model, tmp_path / "w.pt", "authors")
    content = torch.load(tmp_path / "w.pt", weights_only=True)
    state = authors_state(model)
    assert list(content) == ["model"] and list(content["model"]) == list(state)
    for name, value in content["model"].items():
        assert torch.equal(value, state[name])
    assert content["model"]["model.28.ia.0.implicit"].shape == (1, 128, 1, 1)


def test_safetensors_has_our_names(narrow: Detector, tmp_path: Path) -> None:
    export_weights(narrow, tmp_path / "new" / "w.safetensors", "safetensors")
    tensors = load_file(tmp_path / "new" / "w.safetensors")
    assert tensors.keys() == narrow.state_dict().keys()
    assert all(torch.equal(value, narrow.state_dict()[name]) for name, value in tensors.items())


def test_unknown_format(narrow: Detector, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"allowed: .*safetensors"):
        export_weights(narrow, tmp_path / "w", "tflite")


def test_folded_model_has_no_counterpart_in_the_authors_code(narrow: Detector, tmp_path: Path) -> None:
    folded = fold(narrow)
    with pytest.raises(WeightsError, match="folded"):
        export_weights(folded, tmp_path / "w.pt", "authors")
    assert not list(tmp_path.iterdir())
