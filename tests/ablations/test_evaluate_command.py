"""`ablate evaluate`: a run's own numbers again, and the choice of model, data and settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.ablations.trained import ablate, train
from yolor_core.config import ShapesConfig
from yolor_core.data.write import write_dataset
from yolor_core.models import create_model
from yolor_core.weights import export_weights


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four shapes images in COCO's layout."""
    folder = tmp_path_factory.mktemp("shapes") / "data"
    write_dataset(ShapesConfig(train_images=2, val_images=4, size=64), folder)
    return folder


def test_run_gives_exactly_its_own_evaluation_again(run: Path) -> None:
    result = ablate("evaluate", "--run", run, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    settings = found.pop("settings")
    assert found == json.loads((run / "evaluation.json").read_text())
    config = json.loads((run / "run.json").read_text())["config"]
    assert settings == config["science"]["evaluation"]


def test_settings_can_be_overridden(run: Path) -> None:
    result = ablate("evaluate", "--run", run, "--json", "--confidence", "0.9", "--batch", "2", "--iou", "0.5")
    found = json.loads(result.output)
    assert found["detections"] == 0
    assert {k: found["settings"][k] for k in ("confidence", "batch", "iou")} == {
        "confidence": 0.9,
        "batch": 2,
        "iou": 0.5,
    }


def test_weights_file_on_a_folder_uses_the_authors_settings(shapes: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    export_weights(create_model("yolor-ssss-s2d", classes=5), path, "authors")
    arguments = ("evaluate", "--model", "yolor-ssss-s2d", "--weights", path, "--data", shapes)
    result = ablate(*arguments, "--size", "64", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["images"] == 4 and len(found["per_class"]) == 5
    assert found["settings"] == {
        "size": 64,
        "batch": 32,
        "rectangular": True,
        "stride": 0,
        "pad": 0.5,
        "confidence": 0.001,
        "iou": 0.65,
        "max_detections": 300,
        "suppression": "released",
    }
    assert "AP50" in ablate(*arguments, "--size", "64", "--split", "train").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--model and --weights missing"),
        (("--model", "yolor-p6"), "--weights missing"),
        (("--model", "yolor-p66", "--weights", "w.pt"), "unknown model 'yolor-p66'; nearest: yolor-p6"),
        (("--model", "yolor-p6", "--weights", "none.pt"), "none.pt: no such file"),
        (("--run", "none"), "not a run directory"),
        (("--run", "none", "--model", "yolor-p6"), "leave --model and --weights out"),
    ],
)
def test_what_names_no_model_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    result = ablate("evaluate", *arguments)
    assert result.exit_code == 2
    assert message in result.output and result.output.count("\n") == 1


def test_what_does_not_fit_the_run_is_one_line(run: Path, shapes: Path, tmp_path: Path) -> None:
    write_dataset(ShapesConfig(train_images=2, val_images=2, size=64), tmp_path / "d")
    content = json.loads((tmp_path / "d/annotations/instances_val.json").read_text())
    content["categories"].append({"id": 99, "name": "other"})
    (tmp_path / "d/annotations/instances_val.json").write_text(json.dumps(content))
    for arguments, message in (
        (("--data", tmp_path / "d"), "tells 5 classes apart, the dataset has 6"),
        (("--data", shapes, "--split", "test"), "splits found: train, val"),
        (("--data", tmp_path), "no such file"),
        (("--split", "val"), "--split belongs to a folder"),
        (("--iou", "2"), "iou = 2.0"),
        (("--device", "tpu"), "allowed: auto, cpu"),
    ):
        result = ablate("evaluate", "--run", run, *arguments)
        assert result.exit_code == 2, result.output
        assert message in result.output and result.output.count("\n") == 1, result.output


def test_models_of_the_main_branch_are_padded_to_multiples_of_64() -> None:
    from ablations.trained_model import Chosen, settings

    def stride(name: str) -> int:
        return settings(Chosen(create_model(name, seed=None), name, None, None, "")).stride

    assert [stride(name) for name in ("yolor_csp", "yolov4_p7", "yolor-ssss-s2d")] == [64, 128, 0]
