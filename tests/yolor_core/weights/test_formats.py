"""Exports against the programs that read them, and darknet's files against an independent writer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from yolor_core.config import ModelConfig
from yolor_core.errors import InputError, UnknownNameError, WeightsError
from yolor_core.models import Detector, create_model, decode, fold, list_models, named_config
from yolor_core.models.architectures import ARCHITECTURES
from yolor_core.weights import export_weights, formats, import_weights
from yolor_core.weights.formats import _classes, _size, authors_state


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


def test_a_model_that_is_exported_stays_as_it_is(tmp_path: Path) -> None:
    config = named_config("yolor-ssss-s2d").model_copy(update={"width": 0.125, "depth": 0.34})
    model = create_model(config, classes=1).double().train()
    export_weights(model, tmp_path / "m.onnx", "onnx", size=64)
    assert model.training and {value.dtype for value in model.parameters()} == {torch.float64}
    with pytest.raises(InputError, match="size 0 x 0"):
        export_weights(model, tmp_path / "m.onnx", "onnx", size=0)


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


MODEL = "yolor_p6"


def reference(state: dict[str, Tensor], implicit: bool) -> bytes:
    """Layer by layer: norm bias, weight, mean, variance, or bias; then the convolution; implicit values."""
    data = [np.array([0, 2, 5], "<i4").tobytes(), np.array([32013312], "<i8").tobytes()]
    for layer in range(1000):
        prefix = f"module_list.{layer}."
        own = {
            k.removeprefix(prefix): v.numpy().astype("<f4") for k, v in state.items() if k.startswith(prefix)
        }
        if "implicit" in own and implicit:
            data.append(own["implicit"].tobytes())
        if "BatchNorm2d.weight" in own:
            norm = ("bias", "weight", "running_mean", "running_var")
            data += [own[f"BatchNorm2d.{name}"].tobytes() for name in norm]
        if "Conv2d.bias" in own:
            data.append(own["Conv2d.bias"].tobytes())
        if "Conv2d.weight" in own:
            data.append(own["Conv2d.weight"].tobytes())
    return b"".join(data)


def test_round_trip_and_equality_with_an_independent_writer(tmp_path: Path) -> None:
    model = create_model(MODEL, classes=4)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # all norms are alike when they are new
        for name, value in model.state_dict().items():
            if ".bn." in name and value.ndim == 1:
                value.copy_(torch.rand(value.shape, generator=generator))
    path = tmp_path / "w.weights"
    export_weights(model, path, "darknet")
    written, theirs = path.read_bytes(), reference(authors_state(model), implicit=True)
    assert written[20:] == theirs[20:]
    assert np.frombuffer(written[:12], "<i4").tolist() == [0, 2, 5]

    path.write_bytes(theirs)
    state, report = import_weights(path, MODEL)
    assert report.format == "darknet" and report.classes == 4
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value), name

    path.write_bytes(reference(authors_state(model), implicit=False))
    with pytest.raises(WeightsError, match=r"exactly its 1900 implicit values are missing"):
        import_weights(path, MODEL)
    path.write_bytes(theirs[:-400])
    with pytest.raises(WeightsError, match="truncated, or of another model"):
        import_weights(path, MODEL)
    path.write_bytes(theirs[:-3])
    with pytest.raises(WeightsError, match="truncated"):
        import_weights(path, MODEL)


def test_length_names_the_models_that_fit(tmp_path: Path) -> None:
    path = tmp_path / "w.weights"
    header = np.array([0, 2, 5, 0, 0], "<i4").tobytes()
    path.write_bytes(header + bytes(4 * _size("yolov4_p6_light", 80)))
    with pytest.raises(WeightsError, match=r"that many fit .*yolov4_p6_light"):
        import_weights(path, "yolor_csp")
    with pytest.raises(WeightsError, match=r"cfg flavour only, not yolor-p6; allowed: .*yolor_p6"):
        import_weights(path, "yolor-p6")


@pytest.mark.parametrize("name", [n for n in list_models() if ARCHITECTURES[n].flavour == "cfg"])
def test_classes_follow_from_the_length(name: str) -> None:
    for classes in (1, 5, 80):
        assert _classes(_size(name, classes), name) == classes
    assert _classes(_size(name, 80) + 1, name) is None


def test_yaml_models_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cfg flavour"):
        export_weights(create_model("yolor-ssss-s2d"), tmp_path / "w.weights", "darknet")
    assert not list(tmp_path.iterdir())
