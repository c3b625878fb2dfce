"""`--set` reaches every field, and its errors name the field, the value and what is allowed."""

from __future__ import annotations

import json

import pytest

from ablations.overrides import override_data, override_execution, parse_overrides
from ablations.profiles import PROFILES
from ablations.registry import resolve
from yolor_core.config import CocoConfig, leaves
from yolor_core.errors import ConfigError, UnknownNameError

SLUG = "p6-light.add-fa.mul-pr.finetuned"
FIELDS = [path for path, _ in leaves(resolve(SLUG, "mini")) if path != "profile"]


@pytest.mark.parametrize("path", FIELDS)
def test_every_field_can_be_set_to_its_own_value(path: str) -> None:
    science = resolve(SLUG, "mini")
    value = json.dumps(dict(leaves(science))[path])
    assert resolve(SLUG, "mini", [f"{path}={value}"]) == science


def test_values_are_json_or_text() -> None:
    science = resolve(
        "csp-fast",
        "mini",
        [
            "train.optimiser.lr0=0.02",
            "evaluation.rectangular=false",
            "science.model.architecture=yolov4_csp",
            'model.implicit=[{"site": "pr", "operator": "multiply"}]',
            "model.implicit.0.std=0.1",
        ],
    )
    assert science.train.optimiser.lr0 == 0.02
    assert science.evaluation.rectangular is False
    assert science.model.architecture == "yolov4_csp"
    assert (science.model.implicit[0].site, science.model.implicit[0].std) == ("pr", 0.1)


def test_epochs_is_short_for_all_phases_and_keeps_the_chain_intact() -> None:
    tuned, first = (
        resolve(slug, "paper", ["train.epochs=30"]) for slug in (SLUG, SLUG.removesuffix(".finetuned"))
    )
    assert [phase.epochs for phase in tuned.train.phases] == [30, 12, 2]
    assert [phase.schedule_epochs for phase in tuned.train.phases] == [30, 44, 44]
    assert tuned.train.phases[:1] == first.train.phases


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.optimizer.lr0=1", "did you mean train.optimiser.lr0"),
        ("optimiser.lr0=1", "did you mean train.optimiser.lr0"),
        ("train.epoch=1", "train.epochs"),
        ("model.implicit.7.std=1", "model.implicit"),
        ("train.optimiser.lr0.x=1", "train.optimiser.lr0"),
        ("model.architecture.name=1", "model.architecture"),
        ("train.phases.².epochs=3", "train.phases.0.epochs"),
    ],
)
def test_unknown_fields_list_the_nearest(text: str, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        resolve("csp-fast", "mini", [text])
    assert repr(text.split("=")[0]) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("train.optimiser.lr0=-1", ("train.optimiser.lr0", "-1", "greater than 0")),
        ("train.optimiser.lr0=fast", ("train.optimiser.lr0", "'fast'", "valid number")),
        ("train.optimiser.lr0=NaN", ("train.optimiser.lr0", "nan")),
        ("train.batch=1.5", ("train.batch", "1.5", "integer")),
        ("model.anchors=" + "[" * 20_000, ("model.anchors",)),
        ("model.anchors=" + "1" * 5_000, ("model.anchors",)),
        ("train.epochs=0", ("train.epochs", "0", "from 1")),
        ("train.epochs=ten", ("train.epochs", "'ten'", "whole numbers")),
        ("model.architecture=yolov4_cps", ("model.architecture", "'yolov4_cps'", "yolov4_csp")),
        ("train.phases.0.schedule_epochs=3", ("train", "schedule_epochs", "at least")),
        ("train.optimiser.lr0", ("train.optimiser.lr0", "FIELD=VALUE")),
        ("=3", ("=3", "FIELD=VALUE")),
        ("seed=3", ("seed", "not a field")),
        ("profile=paper", ("profile", "not a field")),
    ],
)
def test_bad_values_name_field_value_and_what_is_allowed(text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve("csp-fast", "mini", [text])
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_execution_and_data_have_their_own_fields() -> None:
    overrides = parse_overrides(["execution.workers=3", "data.train_images=12", "train.batch=2"])
    assert override_execution(PROFILES["mini"].execution, overrides).workers == 3
    data = override_data(PROFILES["mini"].data, overrides)
    assert data.model_dump()["train_images"] == 12
    with pytest.raises(UnknownNameError, match=r"data\.train_images"):
        override_data(CocoConfig(root="coco"), overrides)  # shapes has the field, a COCO folder has not
    with pytest.raises(UnknownNameError, match=r"execution\.workers"):
        override_execution(PROFILES["mini"].execution, parse_overrides(["execution.worker=3"]))
    with pytest.raises(ConfigError, match=r"execution\.workers = -1"):
        override_execution(PROFILES["mini"].execution, parse_overrides(["execution.workers=-1"]))
