"""The authors' names: proven by their own listings for eight models, consistent for all others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from yolor_core.config import ImplicitConfig, ModelConfig
from yolor_core.errors import WeightsError
from yolor_core.models import list_models
from yolor_core.models.architectures import ARCHITECTURES
from yolor_core.models.build import blank_model
from yolor_core.weights.layout import key_layout, match, twins

FOLDER = Path(os.environ.get("YOLOR_GOLDEN", ""))
GOLDEN = sorted(p.stem for p in FOLDER.glob("*.json") if p.stem != "loss_golden") if FOLDER.name else []
KINDS = {
    **dict.fromkeys(("conv_w", "conv_b", "bias"), "weight"),
    **dict.fromkeys(("bn_weight", "bn_bias", "bn_running_mean", "bn_running_var"), "norm"),
    **dict.fromkeys(("implicit_add", "implicit_mul"), "implicit"),
}


@pytest.mark.parametrize("name", GOLDEN or ["(none)"])
def test_golden_state_dict_has_these_names_in_this_order(name: str, golden: Path) -> None:
    listing = json.loads((golden / f"{name}.json").read_text())
    layout = key_layout(blank_model(name))
    assert [[e.name, list(e.shape)] for e in layout] == [[n, shape] for n, shape, _ in listing["state_dict"]]
    for entry, (_, _, kind) in zip(layout, listing["state_dict"], strict=True):
        assert entry.kind == KINDS.get(kind, entry.kind)
        assert (kind == "keep") == (entry.kind in ("counter", "constant"))
    for entry in layout:
        if entry.constant is not None:
            stored = torch.tensor(listing["kept_buffers"][entry.name])
            assert torch.equal(stored, entry.constant), entry.name


@pytest.mark.parametrize("name", list_models())
def test_every_tensor_of_ours_has_one_name_of_theirs_in_the_same_order(name: str) -> None:
    model = blank_model(name)
    layout = key_layout(model)
    ours = {e.ours: e for e in layout if e.ours is not None}
    state = model.state_dict()
    assert list(ours) == list(state)
    assert len({e.name for e in layout}) == len(layout)
    for key, entry in ours.items():
        shape = tuple(state[key].shape)
        assert entry.shape == ((1, *shape, 1, 1) if entry.kind == "implicit" else shape)
    prefix = "module_list." if ARCHITECTURES[name].flavour == "cfg" else "model."
    assert all(e.name.startswith(prefix) for e in layout)


# The number of the last layer, counted in the released layer lists.
LAST = {"yolov4_csp_x": 202, "yolov4_p6": 303, "yolov4_p7": 364, "yolor_w6": 232}
LAST |= {"yolor-e6": 41, "yolor-w6": 41, "yolor-d6": 41, "yolov4-p5": 31, "yolov4-p6": 42, "yolov4-p7": 53}


@pytest.mark.parametrize("name", LAST)
def test_last_predictor_is_the_layer_of_the_released_list(name: str) -> None:
    assert key_layout(blank_model(name))[-1].name.split(".")[1] == str(LAST[name])


def test_names_do_not_depend_on_width_and_classes() -> None:
    full = blank_model("yolor_csp")
    narrow = blank_model(full.config.model_copy(update={"width": 0.25}), 3)
    assert [e.name for e in key_layout(narrow)] == [e.name for e in key_layout(full)]


@pytest.mark.parametrize(
    ("architecture", "implicit"),
    [
        ("yolov4_csp", _network := ImplicitConfig(site="fa", operator="add", form="network")),
        ("yolov4_csp", ImplicitConfig(site="fa-cluster", operator="multiply")),
        ("yolor-p6", _network),
        ("yolor-p6", ImplicitConfig(site="fa", operator="multiply")),
        ("yolor-p6", ImplicitConfig(site="pr-wh", operator="multiply")),
    ],
)
def test_implicit_knowledge_the_authors_cannot_express_is_refused(
    architecture: str, implicit: ImplicitConfig
) -> None:
    model = blank_model(ModelConfig(architecture=architecture, implicit=(implicit,)))
    with pytest.raises(WeightsError, match=implicit.site):
        key_layout(model)


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


def test_models_that_tensors_cannot_tell_apart_are_named() -> None:
    assert twins("yolov4_csp", stem_known=False) == ["yolov4_csp_mish"]
    assert twins("yolor-p6", stem_known=False) == []
    assert twins("yolor-ssss-s2d", stem_known=True) == []
    assert twins("yolor-ssss-s2d", stem_known=False) == ["yolor-ssss-dwt"]
    assert "yolov4_csp_fast" in twins("yolov4_csp_fast_dwt", stem_known=False)


def test_a_representation_that_is_folded_into_the_predictor_is_none_of_the_files() -> None:
    part = ImplicitConfig(site="pr", operator="add", learning="folded")
    plain = ModelConfig(architecture="yolov4_csp_fast", width=0.125, depth=0.33)
    folded = plain.model_copy(update={"implicit": (part,)})
    names = [[entry.name for entry in key_layout(blank_model(each, 5))] for each in (plain, folded)]
    assert names[0] == names[1]
