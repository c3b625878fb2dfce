"""The network of a checkpoint is found where trainers keep it, and what is not clear is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.yolor_core.weights.test_importing import assert_same
from yolor_core.errors import WeightsError
from yolor_core.models import Detector, create_model, named_config
from yolor_core.weights import import_weights
from yolor_core.weights.formats import authors_state

NARROW = create_model(
    named_config("yolor-ssss-s2d").model_copy(update={"width": 0.125, "depth": 0.34}), classes=3, seed=5
)


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


def layouts(average: dict[str, Tensor], raw: dict[str, Tensor]) -> dict[str, tuple[Any, str]]:
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
        "an object": ({"model": raw, "ema": Shadow(NARROW)}, "ema.shadow"),
        "in an optimiser": (
            {"model": raw, "optimizer_states": [{"opt": {}, "ema": tuple(shadow.values())}]},
            "optimizer_states.0.ema",
        ),
    }


LAYOUTS = layouts(authors_state(NARROW), other(NARROW))


@pytest.mark.parametrize("trainer", LAYOUTS)
def test_average_is_found_where_trainers_keep_it(trainer: str, tmp_path: Path) -> None:
    content, key = LAYOUTS[trainer]
    torch.save(content, tmp_path / "w.pt")
    state, report = import_weights(tmp_path / "w.pt", NARROW.config)
    assert_same(state, NARROW)
    assert (report.key, report.network) == (key, "averaged")
    for keyed in (key, key.partition(".")[0] if trainer in ("timm", "RT-DETR") else key):
        assert_same(import_weights(tmp_path / "w.pt", NARROW.config, keyed)[0], NARROW)


def test_raw_network_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    torch.save({"model": other(NARROW), "ema": authors_state(NARROW)}, tmp_path / "w.pt")
    state, report = import_weights(tmp_path / "w.pt", NARROW.config, "model")
    kernel = next(name for name, value in state.items() if value.ndim == 4)
    assert torch.equal(state[kernel], NARROW.state_dict()[kernel] * 1.1)
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
        (lambda a, r: {"model": r, "emas": {"0.9999": a}}, "has 2 whole networks; .* model, emas"),
        (
            lambda a, r: {"state_dict": {**r, **{f"ema_{n.replace('.', '_')}": v for n, v in a.items()}}},
            "exchange .*--key: state_dict, state_dict.ema_",
        ),
    ],
    ids=["two", "a part", "another list", "no trained one", "teacher", "several", "mmcv"],
)
def test_average_that_is_not_read_is_an_error(change: Any, message: str, tmp_path: Path) -> None:
    torch.save(change(authors_state(NARROW), other(NARROW)), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=message):
        import_weights(tmp_path / "w.pt", NARROW.config)
    with pytest.raises(WeightsError, match="no network at nowhere; there is one at: "):
        import_weights(tmp_path / "w.pt", NARROW.config, "nowhere")


def test_words_that_only_look_averaged_are_passed_over(tmp_path: Path) -> None:
    parameters = [nn.Parameter(torch.ones(3, 3))]
    optimiser = torch.optim.Adam(parameters)
    parameters[0].grad = torch.ones(3, 3)
    optimiser.step()
    extras = {"schema": {"a": torch.ones(2, 2)}, "loss_ema": torch.ones(3), "avg": {"loss": torch.ones(3)}}
    extras |= {"ema": None, "swa": {"updates": 3}, "optimizer": optimiser.state_dict(), "swap": [1, 2]}
    torch.save({**extras, "model": authors_state(NARROW)}, tmp_path / "w.pt")
    state, report = import_weights(tmp_path / "w.pt", NARROW.config)
    assert_same(state, NARROW)
    assert (report.key, report.network, set(report.others)) == ("model", "only", set(extras))
