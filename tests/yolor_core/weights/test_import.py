"""The authors' checkpoints, in every form they were written in, give exactly the tensors they hold."""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.yolor_core.weights.fake_authors import authors_modules, checkpoint, module_of, save
from yolor_core.errors import UnknownNameError, WeightsError
from yolor_core.models import Detector, create_model, list_models, named_config
from yolor_core.models.build import blank_model
from yolor_core.weights import import_weights, load_model
from yolor_core.weights.formats import authors_state, export_weights
from yolor_core.weights.layout import key_layout, match

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
    pairs, how = match({e.name: e.shape for e in layout}, layout, name, "file")
    assert how == "name" and {k: e.name for k, e in pairs.items()} == {e.name: e.name for e in layout}
    pairs, how = match({k: tuple(v.shape) for k, v in model.state_dict().items()}, layout, name, "file")
    assert how == "our own names" and all(entry.ours == key for key, entry in pairs.items())
    kept = [e for e in layout if e.name in needed]
    numbered = {f"{i}.{e.name.rpartition('.')[2]}": e.shape for i, e in enumerate(kept)}
    pairs, how = match(numbered, layout, name, "file")
    assert how == "order" and [e.name for e in pairs.values()] == [e.name for e in kept]


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
    from yolor_core.weights.layout import twins

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


@pytest.fixture(scope="module")
def narrow() -> Detector:
    config = named_config("yolor-ssss-s2d").model_copy(update={"width": 0.125, "depth": 0.34})
    return create_model(config, classes=3, seed=5)


class Shadow:
    """The average of parameters that many training scripts write themselves."""

    def __init__(self, model: Detector) -> None:
        self.model, self.decay = other(model), 0.99
        self.shadow = {n: v for n, v in authors_state(model).items() if learnt(n)}
        self.backup: dict[str, Tensor] = {}


def learnt(name: str) -> bool:
    return not name.endswith(("running_mean", "running_var", "tracked", "anchors", "anchor_grid"))


def other(model: Detector) -> dict[str, Tensor]:
    """The network that is not averaged: other learnt numbers, the same buffers."""
    return {name: value * 1.1 if learnt(name) else value for name, value in authors_state(model).items()}


def layouts(
    average: dict[str, Tensor], raw: dict[str, Tensor], narrow: Detector
) -> dict[str, tuple[Any, str]]:
    """What trainers write, and the key of the average in it."""
    module = nn.Module()
    for name, value in average.items():  # so that torch itself says how an average is saved
        module.register_buffer(name.replace(".", "/"), value)
    saved = torch.optim.swa_utils.AveragedModel(module, use_buffers=True).state_dict()
    swa = {name.replace("/", "."): value for name, value in saved.items()}
    assert "n_averaged" in swa and all(name.startswith("module.") for name in swa if name != "n_averaged")
    shadow = {name: value for name, value in average.items() if learnt(name)}
    bare = {name.replace(".", ""): value for name, value in shadow.items()}
    prefixed = {f"model.{name}": value for name, value in raw.items()}
    exchanged = {**{f"module.{name}": value for name, value in raw.items()}, "steps": torch.tensor(9)}
    callbacks = {"StochasticWeightAveraging": {"n_averaged": 2, "average_model_state": average}}
    return {
        "torchvision": ({"model": raw, "model_ema": swa, "scaler": {}}, "model_ema"),
        "timm": ({"state_dict": raw, "state_dict_ema": average, "metric": 1.0}, "state_dict_ema"),
        "RT-DETR": ({"model": raw, "ema": {"module": average, "updates": 7}}, "ema.module"),
        "SuperGradients": ({"net": raw, "ema_net": average, "acc": torch.tensor(0.4)}, "ema_net"),
        "d2go": ({"model": raw, "ema_state": average, "iteration": 3}, "ema_state"),
        "Swin": ({"model": raw, "averaged_model": average}, "averaged_model"),
        "camel case": ({"stateDict": raw, "modelEMA": average}, "modelEMA"),
        "compiled": ({"model": raw, "ema": {f"_orig_mod.{n}": v for n, v in average.items()}}, "ema"),
        "Lightning SWA": (
            {"state_dict": raw, "callbacks": callbacks},
            "callbacks.StochasticWeightAveraging.average_model_state",
        ),
        "Lightning's WeightAveraging": (
            {"state_dict": average, "current_model_state": raw, "averaging_state": {"n_averaged": 3}},
            "state_dict",
        ),
        "MMEngine": (
            {"state_dict": average, "ema_state_dict": exchanged, "meta": {"mmengine_version": "0.10"}},
            "state_dict",
        ),
        "NanoDet": (
            {"state_dict": {**prefixed, **{f"avg_model.{n}": v for n, v in average.items()}}},
            "state_dict.avg_model",
        ),
        "LitEma": (
            {"state_dict": {**prefixed, **{f"model_ema.{n}": v for n, v in bare.items()}}},
            "state_dict.model_ema",
        ),
        "ema-pytorch": (
            {
                "model": raw,
                "ema": {
                    **{f"online_model.{n}": v for n, v in raw.items()},
                    **{f"ema_model.{n}": v for n, v in average.items()},
                    "initted": torch.tensor(True),
                },
            },
            "ema.ema_model",
        ),
        "shadow": ({"model": raw, "ema": {"decay": 0.99, "shadow": shadow}}, "ema.shadow"),
        "torch-ema": (
            {"model": raw, "ema": {"shadow_params": list(shadow.values()), "collected_params": None}},
            "ema.shadow_params",
        ),
        "an object": ({"model": raw, "ema": Shadow(narrow)}, "ema.shadow"),
        "in an optimiser": (
            {"model": raw, "optimizer_states": [{"opt": {}, "ema": tuple(shadow.values())}]},
            "optimizer_states.0.ema",
        ),
    }


LAYOUTS = [
    "torchvision",
    "timm",
    "RT-DETR",
    "SuperGradients",
    "d2go",
    "Swin",
    "camel case",
    "compiled",
    "Lightning SWA",
    "Lightning's WeightAveraging",
    "MMEngine",
    "NanoDet",
    "LitEma",
    "ema-pytorch",
    "shadow",
    "torch-ema",
    "an object",
    "in an optimiser",
]


@pytest.mark.parametrize("trainer", LAYOUTS)
def test_average_is_found_where_trainers_keep_it(trainer: str, narrow: Detector, tmp_path: Path) -> None:
    known = layouts(authors_state(narrow), other(narrow), narrow)
    assert set(known) == set(LAYOUTS)
    content, key = known[trainer]
    torch.save(content, tmp_path / "w.pt")
    state, report = import_weights(tmp_path / "w.pt", narrow.config)
    assert_same(state, narrow)
    assert (report.key, report.network) == (key, "averaged")
    for keyed in (key, key.partition(".")[0] if trainer in ("timm", "RT-DETR") else key):
        assert_same(import_weights(tmp_path / "w.pt", narrow.config, keyed)[0], narrow)


def test_raw_network_is_read_when_it_is_asked_for(narrow: Detector, tmp_path: Path) -> None:
    torch.save({"model": other(narrow), "ema": authors_state(narrow)}, tmp_path / "w.pt")
    state, report = import_weights(tmp_path / "w.pt", narrow.config, "model")
    kernel = next(name for name, value in state.items() if value.ndim == 4)
    assert torch.equal(state[kernel], narrow.state_dict()[kernel] * 1.1)
    assert "the raw network, a state_dict at model" in report.text() and "not read: ema" in report.text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda a, r: {"model": r, "ema": a, "swa": r},
            "has 2 averaged networks; choose with --key: model, ema",
        ),
        (
            lambda a, r: {"model": r, "ema_head": {"weight": torch.ones(2, 2)}},
            "network at ema_head has 1 tensors",
        ),
        (
            lambda a, r: {"model": r, "ema": [torch.ones(2, 2)] * 9},
            "network at ema has 9 .* --key model reads",
        ),
        (lambda a, r: {"net_g": r, "net_d": a}, "has 2 networks; choose with --key: net_g, net_d"),
        (lambda a, r: {"model": r, "teacher": a}, "has 2 whole networks; .* model, teacher"),
        (
            lambda a, r: {"model": r, "emas": {"0.9999": a}},
            "has 2 whole networks; .* model, emas",
        ),
        (
            lambda a, r: {"state_dict": {**r, **{f"ema_{n.replace('.', '_')}": v for n, v in a.items()}}},
            "exchange .*--key: state_dict, state_dict.ema_",
        ),
    ],
    ids=["two", "a part", "another list", "no trained one", "teacher", "several", "mmcv"],
)
def test_average_that_is_not_read_is_an_error(
    change: Any, message: str, narrow: Detector, tmp_path: Path
) -> None:
    torch.save(change(authors_state(narrow), other(narrow)), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=message):
        import_weights(tmp_path / "w.pt", narrow.config)
    with pytest.raises(WeightsError, match="no network at nowhere; there is one at: "):
        import_weights(tmp_path / "w.pt", narrow.config, "nowhere")


def test_words_that_only_look_averaged_are_passed_over(narrow: Detector, tmp_path: Path) -> None:
    parameters = [nn.Parameter(torch.ones(3, 3))]
    optimiser = torch.optim.Adam(parameters)
    parameters[0].grad = torch.ones(3, 3)
    optimiser.step()
    extras = {"schema": {"a": torch.ones(2, 2)}, "loss_ema": torch.ones(3), "avg": {"loss": torch.ones(3)}}
    extras |= {"ema": None, "swa": {"updates": 3}, "optimizer": optimiser.state_dict(), "swap": [1, 2]}
    torch.save({**extras, "model": authors_state(narrow)}, tmp_path / "w.pt")
    state, report = import_weights(tmp_path / "w.pt", narrow.config)
    assert_same(state, narrow)
    assert (report.key, report.network, set(report.others)) == ("model", "only", set(extras))
