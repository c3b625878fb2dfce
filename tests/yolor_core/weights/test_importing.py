"""The authors' checkpoints give exactly the tensors they hold; all else is one error that says what it is."""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.yolor_core.weights.fake_authors import authors_modules, checkpoint, module_of, save
from yolor_core.config import BranchConfig, ImplicitConfig, ModelConfig
from yolor_core.errors import UnknownNameError, WeightsError
from yolor_core.models import Detector, create_model
from yolor_core.weights import export_weights, import_weights, load_model
from yolor_core.weights.formats import authors_state

SMALL = ("yolor-ssss-dwt", "u5r5-s")


@pytest.fixture(scope="module", params=SMALL)
def model(request: pytest.FixtureRequest) -> Detector:
    return create_model(request.param, seed=3)


@pytest.fixture(scope="module")
def small() -> Detector:
    return create_model("yolor-ssss-s2d", seed=4)


def name_of(model: Detector) -> str:
    return model.architecture.name


def assert_same(found: dict[str, Tensor], model: Detector, tolerance: float = 0.0) -> None:
    expected = model.state_dict()
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_state_dict_of_the_main_branch(model: Detector, legacy: bool, tmp_path: Path) -> None:
    save(checkpoint(authors_state(model)), tmp_path / "w.pt", legacy)
    state, report = import_weights(tmp_path / "w.pt", name_of(model))
    assert_same(state, model)
    assert report.matched_by == "name"
    assert report.format == ("torch legacy" if legacy else "torch zip")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_whole_module_of_the_paper_branch_in_half_precision(
    model: Detector, legacy: bool, tmp_path: Path
) -> None:
    with authors_modules() as classes:
        module = module_of(authors_state(model), classes)
        assert set(module.state_dict()) == set(authors_state(model))
        save(checkpoint(module.half()), tmp_path / "w.pt", legacy)
    state, report = import_weights(tmp_path / "w.pt", name_of(model))
    assert not {"models", "models.yolo", "mish_cuda"} & set(sys.modules)
    assert_same(state, model, tolerance=2e-3)
    assert all(value.is_floating_point() == (value.dtype == torch.float32) for value in state.values())
    assert report.cast_from == ("float16",)
    assert "whole module" in report.content


def test_average_is_preferred_and_the_report_says_so(small: Detector, tmp_path: Path) -> None:
    other = {name: value * 0 for name, value in authors_state(small).items() if "anchor" not in name}
    path = tmp_path / "w.pt"
    torch.save(checkpoint(other, ema=authors_state(small)), path)
    state, report = import_weights(path, "yolor-ssss-s2d")
    assert_same(state, small)
    assert "at ema" in report.text()
    with authors_modules() as classes:
        average = classes["ModelEMA"]()
        average.ema, average.updates = module_of(authors_state(small), classes), 7
        torch.save(checkpoint(other, ema=average), path)
    state, report = import_weights(path, "yolor-ssss-s2d")
    assert_same(state, small)
    assert "whole module at ema" in report.text()


def test_bare_state_dict_with_the_prefix_of_parallel_training(small: Detector, tmp_path: Path) -> None:
    torch.save({f"module.{k}": v for k, v in authors_state(small).items()}, tmp_path / "w.pt")
    assert_same(import_weights(tmp_path / "w.pt", "yolor-ssss-s2d")[0], small)


def test_unknown_names_are_taken_by_order(small: Detector, tmp_path: Path) -> None:
    renamed = OrderedDict(
        (f"net.{i:04d}.{name.rpartition('.')[2]}", value)
        for i, (name, value) in enumerate(authors_state(small).items())
    )
    torch.save(renamed, tmp_path / "w.pt")
    state, report = import_weights(tmp_path / "w.pt", "yolor-ssss-s2d")
    assert_same(state, small)
    assert report.matched_by == "order"


def test_yolov7_is_refused_for_all_its_implicit_knowledge(tmp_path: Path) -> None:
    state = {"model.0.conv.weight": torch.ones(32, 3, 3, 3)}
    state |= {"model.77.m.0.weight": torch.ones(255, 128, 1, 1)}
    state |= {"model.77.ia.0.implicit": torch.zeros(1, 128, 1, 1)}
    state |= {"model.77.im.0.implicit": torch.ones(1, 255, 1, 1)}
    torch.save({"model": state}, tmp_path / "tiny.pt")
    message = r"tiny.pt is not yolor-ssss-s2d: its names are unknown \(first: model.0.conv.weight\)"
    with pytest.raises(WeightsError, match=message):
        import_weights(tmp_path / "tiny.pt", "yolor-ssss-s2d")


def test_order_alone_does_not_exchange_tensors_of_equal_shape(small: Detector, tmp_path: Path) -> None:
    items = [(f"n.{i}.{k.rpartition('.')[2]}", v) for i, (k, v) in enumerate(authors_state(small).items())]
    at = next(i for i, (k, _) in enumerate(items) if k.endswith("running_mean"))
    items[at], items[at + 1] = items[at + 1], items[at]
    torch.save(dict(items), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="by order"):
        import_weights(tmp_path / "w.pt", "yolor-ssss-s2d")


def test_number_of_classes_is_the_files(tmp_path: Path) -> None:
    model = create_model("yolor-ssss-s2d", classes=3)
    for kind in ("authors", "safetensors"):
        export_weights(model, tmp_path / kind, kind)
        loaded, report = load_model("yolor-ssss-s2d", tmp_path / kind)
        assert report.classes == loaded.classes == 3
        assert_same(loaded.state_dict(), model)


def test_unknown_model_name_lists_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="yolor-p6"):
        import_weights(tmp_path / "w.pt", "yolor-p66")


def changed(small: Detector, path: Path, **changes: Any) -> Path:
    """The authors' file of `small` with tensors replaced, added, or taken away (None)."""
    state = authors_state(small)
    for name, value in changes.items():
        if value is None:
            del state[name]
        else:
            state[name] = value
    torch.save({"model": state}, path)
    return path


def test_file_of_another_model_names_the_model_it_is_of(small: Detector, tmp_path: Path) -> None:
    path = changed(small, tmp_path / "w.pt")
    for wrong in ("yolor-ssss-dwt", "yolov4-ssss-s2d", "yolor-p6", "yolor_csp", "u5r5-s-implicit"):
        with pytest.raises(WeightsError, match=f"is not {wrong}: .*those of yolor-ssss-s2d$") as caught:
            import_weights(path, wrong)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


LAYER = "model.3.cv1.conv.weight"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({LAYER: None}, rf"lacks {LAYER} \(64, 192, 1, 1\); no registered model"),
        ({"model.28.ia.1.implicit": None}, r"lacks model\.28\.ia\.1\.implicit"),
        ({"model.99.extra": torch.ones(3)}, r"has, beyond it, model\.99\.extra \(3,\)"),
        ({LAYER: torch.ones(64, 12, 1, 1)}, rf"{LAYER} has shape \(64, 12, 1, 1\), .* has \(64, 192, 1, 1\)"),
        ({LAYER: torch.full((64, 192, 1, 1), torch.nan)}, f"{LAYER} has numbers that are not finite"),
        ({"model.28.anchors": torch.ones(3, 3, 2)}, r"model\.28\.anchors are \[1\.0"),
        ({"model.28.anchor_grid": torch.ones(3, 1, 3, 1, 1, 2)}, "anchor_grid"),
    ],
)
def test_wrong_tensor_is_named(
    changes: dict[str, Any], message: str, small: Detector, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=message):
        import_weights(changed(small, tmp_path / "w.pt", **changes), "yolor-ssss-s2d")


def test_counters_and_anchors_may_be_absent(small: Detector, tmp_path: Path) -> None:
    state = {k: v for k, v in authors_state(small).items() if "num_batches" not in k and "anchor" not in k}
    torch.save(state, tmp_path / "w.pt")
    assert_same(import_weights(tmp_path / "w.pt", "yolor-ssss-s2d")[0], small)


MODEL = "yolor-ssss-s2d"


CONTENTS = {
    "empty": (b"", "empty"),
    "html": (b"\n<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>", "web page"),
    "html without doctype": (b"\xef\xbb\xbf<HTML><head></head></HTML>", "web page"),
    "xhtml": (b"<?xml version='1.0'?>\n<!-- x --><!DOCTYPE html PUBLIC 'a'><html/>", "web page"),
    "html in utf-16": ("<!doctype html><p>sign in".encode("utf-16"), "web page"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML, .*'AccessDenied'"),
    "xml without declaration": (b"<Error><Message>No such key</Message></Error>", "XML, .*'No such key'"),
    "json": (b'{"error":"Entry not found"}', "JSON, .*'Entry not found'"),
    "json list": (b"[{}]", "JSON, not weights"),
    "gzip": (b"\x1f\x8b" + b"\0" * 50, "gzip archive, not weights"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS pointer"),
    "text": (b"404: Not Found", "not a weights file"),
    "another zip": (b"PK\x03\x04" + b"\0" * 100, "zip archive"),
    "numbers": (np.arange(100, dtype="<f8").tobytes(), "not a weights file"),
}


@pytest.mark.parametrize("suffix", [".pt", ".weights", ".safetensors"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_what_is_not_weights_is_called_what_it_is(kind: str, suffix: str, tmp_path: Path) -> None:
    content, message = CONTENTS[kind]
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    if suffix == ".weights" and kind == "numbers":  # as good a header as any, but no cfg model
        message = "cfg flavour"
    with pytest.raises(WeightsError, match=message) as caught:
        import_weights(path, MODEL)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        import_weights(tmp_path / "none.pt", MODEL)
    with pytest.raises(WeightsError, match="folder"):
        import_weights(tmp_path, MODEL)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("files")
    save({"model": {f"a.{i}.weight": torch.randn(8, 8) for i in range(20)}}, folder / "zip", legacy=False)
    save({"model": {f"a.{i}.weight": torch.randn(8, 8) for i in range(20)}}, folder / "legacy", legacy=True)
    export_weights(create_model(MODEL), folder / "safetensors", "safetensors")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("part", [0.01, 0.1, 0.3, 0.6, 0.9, 0.999])
def test_truncated_anywhere(kind: str, part: float, files: dict[str, bytes], tmp_path: Path) -> None:
    data, path = files[kind], tmp_path / "w.pt"
    path.write_bytes(data[: max(int(len(data) * part), 20)])
    with pytest.raises(WeightsError, match="truncated") as caught:
        import_weights(path, MODEL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_whole_files_fail_only_for_being_another_model(
    kind: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(files[kind])
    with pytest.raises(WeightsError, match=f"is not {MODEL}"):
        import_weights(path, MODEL)


def test_changed_bit_of_a_zip_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    model = create_model(MODEL)
    export_weights(model, path, "authors")
    data = bytearray(path.read_bytes())
    needle = model.state_dict()["predictor_p3.weight"].numpy().tobytes()[:64]
    data[data.index(needle)] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"damaged.*CRC"):
        import_weights(path, MODEL)


@pytest.mark.parametrize(
    ("value", "message"),
    [({"epoch": 3}, "keys 'epoch'"), ([1, 2], "a list"), ({"model": None, "ema": None}, "no network")],
)
def test_checkpoint_without_a_network(value: object, message: str, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=message):
        import_weights(tmp_path / "w.pt", MODEL)


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(branches=(BranchConfig(task="classification"),), architecture="yolov4_csp_fast"),
        ModelConfig(branches=(BranchConfig(task="embedding"),), architecture="yolov4_csp_fast"),
        ModelConfig(
            implicit=(ImplicitConfig(site="fa", operator="add", form="network"),), architecture="yolor-p6"
        ),
        ModelConfig(anchors="kmeans", architecture="yolov4_csp_fast"),
    ],
    ids=["classification", "embedding", "network", "kmeans"],
)
def test_safetensors_of_any_model_come_back(config: ModelConfig, tmp_path: Path) -> None:
    config = config.model_copy(update={"width": 0.0625, "depth": 0.1})
    model = create_model(config, classes=3, seed=1, identities=7 if "embedding" in config.tasks else 0)
    export_weights(model, tmp_path / "m.safetensors", "safetensors")
    found, report = load_model(config, tmp_path / "m.safetensors")
    assert_same(found.state_dict(), model)
    assert report.classes == 3 and report.matched_by == "our own names"


def test_a_file_that_does_not_show_the_stem_says_which_models_it_may_be(
    small: Detector, tmp_path: Path
) -> None:
    export_weights(small, tmp_path / "m.safetensors", "safetensors")
    _, report = import_weights(tmp_path / "m.safetensors", "yolor-ssss-dwt")
    assert report.twins == ("yolor-ssss-s2d",) and "with another activation or stem" in report.text()
