"""Darknet's format against a writer that knows only the layers' tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from yolor_core.errors import WeightsError
from yolor_core.models import create_model, list_models
from yolor_core.models.architectures import ARCHITECTURES
from yolor_core.weights import export_weights, import_weights
from yolor_core.weights.formats import _classes, _size, authors_state

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
