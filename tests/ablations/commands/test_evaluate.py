"""`ablate evaluate`: a run's own numbers again, and the choice of model, data and settings."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from ablations.trained_model import Chosen, with_classes_of
from tests.ablations.trained import ablate, train, untrained
from yolor_core.config import ShapesConfig
from yolor_core.data import ImageSet
from yolor_core.data.coco import load_coco
from yolor_core.data.layout import COCO_NAMES
from yolor_core.data.report import KINDS
from yolor_core.data.shapes.dataset import write_dataset
from yolor_core.errors import ConfigError, DataError
from yolor_core.evaluation.detections import Detections
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


def renumbered(folder: Path, copy: Path, split: str, *ids: int) -> Path:
    """A copy whose categories have these ids in a split, in the order of the file."""
    shutil.copytree(folder, copy)
    path = copy / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    new = {category["id"]: key for category, key in zip(content["categories"], ids, strict=True)}
    content["categories"] = [each | {"id": new[each["id"]]} for each in content["categories"][::-1]]
    for each in content["annotations"]:
        each["category_id"] = new[each["category_id"]]
    path.write_text(json.dumps(content))
    return copy


def test_every_task_matches_classes_by_name(shapes: Path, tmp_path: Path) -> None:
    run = untrained(tmp_path, "csp.jdc")
    other = renumbered(shapes, tmp_path / "data", "val", 4, 1, 80, 2, 3)
    scores = [json.loads(ablate("evaluate", "--run", run, "--data", data, "--json").stdout)
              for data in (shapes, other)]  # fmt: skip
    assert scores[0] == scores[1]
    assert len(set(scores[0]["classification"]["per_class"].values())) > 2


def test_what_the_annotations_do_to_every_score_is_noted(run: Path, shapes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(shapes, tmp_path / "data")
    path = data / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["id"] = 0
    content["annotations"][1]["bbox"][2] = -3
    content["annotations"][2]["bbox"][2] = 0
    content["images"].append(content["images"][0] | {"id": 1 + max(each["id"] for each in content["images"])})
    path.write_text(json.dumps(content))
    arguments = ("evaluate", "--run", run, "--data", data)
    told = json.loads(ablate(*arguments, "--json").stdout)
    notes, image = told["notes"], content["images"][0]
    negative, flat = (content["annotations"][row]["id"] for row in (1, 2))
    same = f"images {image['id']} and {content['images'][-1]['id']} are both {image['file_name']}"
    checked = json.loads(ablate("data", "check", data, "--json").stdout)["val"]
    for kind, note, named in (
        ("annotation_zero", notes[0], "the annotation with id 0 counts as missed even where it is found"),
        ("negative", notes[1], f"boxes of negative width or height (annotations {negative}): "),
        ("file_twice", notes[3], f"({same}): they weigh twice"),
    ):
        assert named in note and KINDS[kind].effect in note and checked[kind]["count"] == 1
    now = f"; the model has AP {100 * told['detection']['AP']:.2f}, with any other id "
    content["annotations"][0]["id"] = 10**6
    path.write_text(json.dumps(content))
    right = json.loads(ablate(*arguments, "--json").stdout)
    assert notes[0].endswith(f"{now}{100 * right['detection']['AP']:.2f}") and right["notes"] == notes[1:]
    assert notes[2].startswith(f"true boxes without area (annotations {flat})")
    lines = ablate(*arguments).stdout.splitlines()
    assert lines[1:4] == [f"note: {note}" for note in notes[1:]]
    content["images"][-1]["id"] = image["id"]
    path.write_text(json.dumps(content))
    refused = ablate(*arguments)
    assert refused.exit_code == 2 and f"1 duplicate image ids: {image['id']}" in refused.stderr
    del content["images"][-1]
    assert "notes" not in json.loads(ablate("evaluate", "--run", run, "--data", shapes, "--json").stdout)
    content["annotations"] = []
    path.write_text(json.dumps(content))
    done = ablate(*arguments)
    assert done.exit_code == 0 and "note: there is no true box to score (0 crowd regions)" in done.stdout


def test_training_matches_classes_of_its_splits_by_name(shapes: Path, tmp_path: Path) -> None:
    other = renumbered(shapes, tmp_path / "data", "val", 4, 1, 80, 2, 3)
    found = []
    for data in (shapes, other):
        results = tmp_path / f"results {len(found)}"
        done = ablate("train", "csp-fast", "--profile", "smoke", "--data", data, "--results", results)
        assert done.exit_code == 0, done.output
        (run,) = (results / "runs").iterdir()
        content = json.loads((data / "annotations/instances_val.json").read_text())
        names = {each["id"]: each["name"] for each in content["categories"]}
        detections = Detections.read(run / "detections.parquet")
        assert ablate("features", run, "--images", "4").exit_code == 0
        classes = pq.read_table(run / "features.parquet")["class"].to_pylist()
        options = ("--run", run, "--confidence", "0", "--out", tmp_path / "drawn", "--json")
        (picture,) = json.loads(ablate("detect", shapes / "val" / "000000000002.png", *options).stdout)
        found.append(
            (
                Counter(names[key] for key in detections.category_id.tolist()),
                json.loads((run / "evaluation.json").read_text()),
                json.loads((run / "dataset.json").read_text()),
                classes,
                [each["name"] for each in picture["detections"]],
            )
        )
        again = json.loads(ablate("evaluate", "--run", run, "--json").stdout)
        assert {k: again[k] for k in found[-1][1]} == found[-1][1]
    assert found[0] == found[1]
    assert len(found[0][0]) > 1 and len(set(found[0][3])) > 2 and len(set(found[0][4])) > 1


def test_weights_of_80_classes_are_coco_whatever_the_order(tmp_path: Path) -> None:
    data = tmp_path / "coco"
    (data / "val").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(data / "val" / "1.png")

    def write(names: Sequence[str]) -> ImageSet:
        content = {
            "categories": [{"id": key, "name": name} for key, name in enumerate(names, 1)],
            "images": [{"id": 1, "file_name": "1.png", "width": 64, "height": 64}],
            "annotations": [],
        }
        (data / "annotations").mkdir(exist_ok=True)
        (data / "annotations" / "instances_val.json").write_text(json.dumps(content))
        return load_coco(data, "val")

    chosen = Chosen(create_model("yolor-ssss-s2d", seed=None), "yolor-ssss-s2d", None, None, "")
    falling = sorted(COCO_NAMES, reverse=True)
    images, notes = with_classes_of(chosen, write(falling))
    assert images.names == COCO_NAMES and not notes
    assert [falling[key - 1] for key in images.category_ids] == list(COCO_NAMES)
    darknets = {"airplane": "aeroplane", "motorcycle": "motorbike"}
    renamed = write(sorted(darknets.get(name, name) for name in COCO_NAMES))
    with pytest.raises(DataError, match="only here: aeroplane, motorbike; only there: motorcycle, airplane"):
        with_classes_of(chosen, renamed)
    own = [f"kind {index:02d}" for index in range(80)]
    images, notes = with_classes_of(chosen, write(own))
    assert images.names == tuple(own)
    (note,) = notes
    assert "in the order of the data's category ids: kind 00, kind 01" in note
    two = write(["a", "b"])
    with pytest.raises(ConfigError, match="tells 80 classes apart, the dataset has 2: a, b"):
        with_classes_of(chosen, two)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--model and --weights missing"),
        (("--model", "yolor-p6"), "--weights missing"),
        (("--model", "yolor-p66", "--weights", "w.pt"), "unknown model 'yolor-p66'; did you mean yolor-p6"),
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
        (("--data", tmp_path / "d"), "its classes are not those of run csp-fast.add-fa.mul-pr-smoke"),
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
    from ablations.trained_model import settings

    def stride(name: str) -> int:
        return settings(Chosen(create_model(name, seed=None), name, None, None, "")).stride

    assert [stride(name) for name in ("yolor_csp", "yolov4_p7", "yolor-ssss-s2d")] == [64, 128, 0]


def spoil(folder: Path, share: float) -> int:
    """Cut so many of the pictures short; how many."""
    files = sorted(folder.iterdir())
    spoilt = files[: round(share * len(files))]
    for file in spoilt:
        file.write_bytes(file.read_bytes()[:60])
    return len(spoilt)


@pytest.fixture
def twenty(tmp_path: Path) -> Path:
    """Twenty shapes images in each split."""
    write_dataset(ShapesConfig(train_images=20, val_images=20, size=64), tmp_path / "data")
    return tmp_path / "data"


def test_more_than_a_tenth_of_unreadable_pictures_is_not_scored(run: Path, twenty: Path) -> None:
    spoil(twenty / "val", 0.1)
    assert ablate("evaluate", "--run", run, "--data", twenty).exit_code == 0
    spoil(twenty / "val", 0.15)
    result = ablate("evaluate", "--run", run, "--data", twenty)
    assert result.exit_code == 2
    assert "instances_val.json: 3 of 20 images cannot be decoded; up to 10 % are replaced" in result.stderr


@pytest.mark.parametrize(("split", "share"), [("train", 1.0), ("train", 0.15), ("val", 1.0)])
@pytest.mark.parametrize("workers", [0, 1])
def test_more_than_a_tenth_of_unreadable_pictures_is_not_trained_on(
    twenty: Path, tmp_path: Path, split: str, share: float, workers: int
) -> None:
    spoil(twenty / split, share)
    options = ("--profile", "smoke", "--data", twenty, "--results", tmp_path / "results")
    result = ablate("train", "csp-fast", *options, "--set", f"execution.workers={workers}")
    assert result.exit_code == 2, result.output
    assert f"instances_{split}.json: " in result.stderr
    assert "of 20 images cannot be decoded; up to 10 % are replaced" in result.stderr
    (trained,) = (tmp_path / "results" / "runs").iterdir()
    assert json.loads((trained / "state.json").read_text())["state"] == "failed"


def test_commands_about_a_run_say_how_to_name_data_that_were_moved(twenty: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    done = ablate("train", "csp-fast", "--profile", "smoke", "--data", twenty, "--results", results)
    assert done.exit_code == 0, done.output
    (trained,) = (results / "runs").iterdir()
    own = json.loads(ablate("evaluate", "--run", trained, "--json").stdout)
    moved = twenty.rename(tmp_path / "moved")
    for command in (("evaluate", "--run", trained), ("features", trained)):
        refused = ablate(*command)
        assert refused.exit_code == 2
        assert f"{twenty}: no such folder" in refused.stderr
        assert "with --data PATH" in refused.stderr
    assert json.loads(ablate("evaluate", "--run", trained, "--data", moved, "--json").stdout) == own
    features = ("features", trained, "--data", moved, "--images", "2", "--cells", "8")
    done = ablate(*features)
    assert done.exit_code == 0 and "other pictures" not in done.stderr
    assert (trained / "features.parquet").is_file()
    picture = min((moved / "val").iterdir())
    content = picture.read_bytes()
    Image.new("RGB", Image.open(picture).size).save(picture)
    assert "its features are of other pictures" in ablate(*features).stderr
    picture.write_bytes(content)
    again = ablate("train", "csp-fast", "--profile", "smoke", "--data", moved, "--results", results)
    assert "is done" in again.stdout
    assert str(twenty) in again.stderr and str(moved) in again.stderr
