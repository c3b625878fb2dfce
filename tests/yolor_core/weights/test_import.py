"""The authors' checkpoints, in every form they were written in, give exactly the tensors they hold."""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.yolor_core.weights.fake_authors import authors_modules, checkpoint, module_of, save
from yolor_core.errors import UnknownNameError, WeightsError
from yolor_core.models import Detector, create_model, list_models
from yolor_core.weights import import_weights, load_model
from yolor_core.weights.blank import blank_model
from yolor_core.weights.exporting import authors_state, export_weights
from yolor_core.weights.layout import key_layout
from yolor_core.weights.matching import match

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


@pytest.mark.parametrize("name", list_models())
def test_names_of_every_model_find_their_places(name: str) -> None:
    model = blank_model(name)
    layout = key_layout(model)
    needed = {entry.name for entry in layout if entry.kind not in ("counter", "constant")}
    theirs = match({e.name: e.shape for e in layout}, layout, name, "file")
    assert theirs.how == "name" and {k: e.name for k, e in theirs.pairs.items()} == {
        e.name: e.name for e in layout
    }
    ours = match({k: tuple(v.shape) for k, v in model.state_dict().items()}, layout, name, "file")
    assert ours.how == "our own names" and all(entry.ours == key for key, entry in ours.pairs.items())
    kept = [e for e in layout if e.name in needed]
    numbered = {f"{i}.{e.name.rpartition('.')[2]}": e.shape for i, e in enumerate(kept)}
    order = match(numbered, layout, name, "file")
    assert order.how == "order" and [e.name for e in order.pairs.values()] == [e.name for e in kept]


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


def test_models_that_tensors_cannot_tell_apart_are_named() -> None:
    from yolor_core.weights.matching import twins

    assert twins("yolov4_csp") == ["yolov4_csp_mish"]
    assert twins("yolor-p6") == []


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
