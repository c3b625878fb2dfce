"""Inputs that were once read wrongly, from what is typed to what is printed: one test for each folder."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats

from ablations.plan import plan_runs
from tests.ablations.trained import ablate
from yolor_core import training
from yolor_core.errors import DataError
from yolor_core.evaluation.engine import bootstrap_weights
from yolor_core.models import create_model


@pytest.fixture
def inputs(faults: Path, tmp_path: Path) -> Path:
    """A copy of all of them that commands may write into, with the relations between the folders kept."""
    copy = Path(shutil.copytree(faults, tmp_path / "faults", copy_function=shutil.copyfile))
    for folder in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
        folder.chmod(0o755)  # the originals may be read-only
    return copy


def test_data_that_cannot_answer_have_a_finding_each(inputs: Path) -> None:
    folder = inputs / "16_data_that_cannot_answer"
    pictures, variants = folder / "pictures", folder / "variants"
    made = ablate("data", "make", pictures, "--train-images", "60", "--val-images", "40")
    assert made.exit_code == 0, made.output
    subprocess.run([sys.executable, folder / "make.py", pictures, variants], check=True)
    usual = {"crowd", "clipped", "dropped", "empty"}
    found, codes, texts = {}, {}, {}
    for variant in sorted(path.name for path in variants.iterdir()):
        result = ablate("data", "check", variants / variant, "--json")
        told = json.loads(result.stdout)
        codes[variant] = result.exit_code
        texts[variant] = ablate("data", "check", variants / variant).stdout
        for split, kinds in told.items():
            counts = {
                kind: each["count"]
                for kind, each in kinds.items()
                if isinstance(each, dict) and each.get("examples") and kind not in usual
            }
            if counts:
                found[variant, split] = counts
    assert found == {
        ("area_zero", "train"): {"areas": 472},
        ("area_zero", "val"): {"areas": 309},  # and a crowd region
        ("corners", "train"): {"corners": 472},
        ("corners", "val"): {"corners": 309},
        ("crowded", "val"): {"above_100": 5},
        ("val_is_train", "train"): {"shared": 60},
        ("val_is_train", "val"): {"shared": 60},
    }
    assert codes == {
        "area_zero": 1,
        "corners": 1,
        "crowded": 0,
        "train_without_boxes": 1,
        "val_is_train": 1,
        "val_without_boxes": 1,
    }
    assert "340 of 472 boxes leave their image; 472 fit into it when read so" in texts["corners"]
    assert "60 of 60 images, 100.0 %" in texts["val_is_train"]
    assert "disc: 582 of 1591 boxes can be found, recall at most 36.6 %" in texts["crowded"]
    for split in ("train", "val"):
        assert f"instances_{split}.json: not a single box" in texts[f"{split}_without_boxes"]
    assert all(len(text.splitlines()) <= 30 for text in texts.values())  # both splits have crowds


def test_classes_of_one_name_have_a_row_each(inputs: Path) -> None:
    folder = inputs / "07_compare_same_names"
    rows = {}
    for truth in ("two_same", "unique_names"):
        files = [folder / name for name in ("det.json", "det_no2.json")]
        arguments = ("--truth", folder / f"{truth}.json", "--resamples", "200", "--json")
        found = json.loads(ablate("compare", *files, *arguments).stdout)
        rows[truth] = {row["name"]: row for row in found["classes"]}
    same, unique = rows["two_same"], rows["unique_names"]
    assert (same["other (2)"]["a"], same["other (2)"]["b"]) == (pytest.approx(100), 0)
    assert (same["other (3)"]["a"], same["other (3)"]["b"]) == (pytest.approx(100), pytest.approx(100))
    for label, name in (("other (2)", "disc"), ("other (3)", "square")):
        assert same[label] == unique[name] | {"name": label}


def test_evaluate_matches_classes_by_name(inputs: Path) -> None:
    shutil.copytree(inputs / "02_stale_pack" / "coco", inputs / "coco")  # where run_bccd was trained
    folder, run = inputs / "03_evaluate_other_category_ids", inputs / "run_bccd"
    with contextlib.chdir(run):  # run.json names ../coco
        scores = [
            json.loads(ablate("evaluate", "--run", ".", "--json", *data).stdout)
            for data in ((), ("--data", folder / "perm"))
        ]
        refused = ablate("evaluate", "--run", ".", "--data", folder / "othernames")
    own, other = scores
    assert [round(100 * own["detection"]["AP"], 1), round(100 * own["per_class"]["WBC"], 1)] == [8.8, 16.2]
    assert other["per_class"] == own["per_class"]
    assert other["detection"] == pytest.approx(own["detection"])
    assert refused.exit_code == 2 and refused.stderr.count("\n") == 1
    assert "only here: cat, dog, car; only there: WBC, RBC, Platelets" in refused.stderr


def test_pictures_stored_upside_down_are_seen_upright_by_every_command(inputs: Path) -> None:
    folder, run = inputs / "05_exif_orientation_180", inputs / "run_bccd"
    scores = {}
    for data in ("up", "o3", "o6"):
        found = json.loads(ablate("evaluate", "--run", run, "--data", folder / data, "--json").stdout)
        scores[data] = round(100 * found["detection"]["AP"], 1)
    assert scores == {"up": 8.8, "o3": 8.8, "o6": 8.9}
    for data, kind in (("o3", "turned"), ("o6", "rotated")):
        checked = ablate("data", "check", folder / data, "--json")
        finding = json.loads(checked.stdout)["val"][kind]
        assert (checked.exit_code, finding["count"]) == (0, 20)
        assert "BloodImage_00000.jpg" in finding["examples"][0]
    options = ("--run", run, "--confidence", "0.02", "--json", "--out", inputs / "out")
    boxes = {}
    for data in ("up", "o3"):
        (record,) = json.loads(
            ablate("detect", folder / data / "val" / "BloodImage_00000.jpg", *options).stdout
        )
        boxes[data] = sorted(each["box"] for each in record["detections"][:3])
    assert boxes["o3"] == [pytest.approx(box, abs=2) for box in boxes["up"]]
    assert len(boxes["up"]) == 3


def test_compare_says_what_an_annotation_id_0_does(inputs: Path) -> None:
    folder = inputs / "06_annotation_id_0"
    found = {}
    for truth in ("truth", "truth1"):
        files = (folder / "det.json", folder / "det.json", "--truth", folder / f"{truth}.json")
        found[truth] = json.loads(ablate("compare", *files, "--resamples", "100", "--json").stdout)
    assert found["truth"]["metrics"][0]["a"] == pytest.approx(85.05, abs=0.005)  # as pycocotools has it
    assert "the annotation with id 0 counts as missed" in found["truth"]["notes"][0]
    assert found["truth1"]["metrics"][0]["a"] == pytest.approx(100) and found["truth1"]["notes"] == []


def test_compare_says_which_detections_look_wrong(inputs: Path, tmp_path: Path) -> None:
    pictures, made = tmp_path / "pictures", tmp_path / "made"
    assert ablate("data", "make", pictures, "--train-images", "1").exit_code == 0
    make = inputs / "17_detections_that_look_wrong" / "make.py"
    subprocess.run([sys.executable, make, pictures, made], check=True)
    truth = ("--truth", pictures / "annotations" / "instances_val.json", "--resamples", "100")

    def text(*arguments: str | Path) -> str:
        result = ablate("compare", made / "all.json", *arguments, *truth)
        assert result.exit_code == 0, result.output
        return result.stdout

    few = text(made / "fifty_of_200_images.json")
    assert "note: A has detections in 200 of 200 images with true boxes, B in 50 of 200;" in few
    common = text(made / "fifty_of_200_images.json", "--images-of", "B")
    assert "note: scored on 50 of 200 images: those that B has detections in" in common
    assert "AP     60.75  60.75  +0.00" in common
    ranges, values = [], []
    for name in ("one_score", "one_score_other_order"):
        found = json.loads(text(made / f"{name}.json", "--json"))
        assert any("other orders of the same rows give AP 59.4" in note for note in found["notes"])
        ranges.append(found["orders"]["B"])
        values.append({each["name"]: each["b"] / 100 for each in found["metrics"]})
    for own in ranges:
        for name in ("AP", "AR1"):
            assert all(own[name][0] <= each[name] <= own[name][1] for each in values)
    assert values[0]["AP"] != values[1]["AP"]


@pytest.mark.parametrize("arm", ["one_b", "one_c", "big_b"])
def test_bca_intervals_of_scores_that_tie_are_those_of_scipy_on_integers(inputs: Path, arm: str) -> None:
    folder, stem = inputs / "18_bca_ties", arm.partition("_")[0]
    files = [folder / f"{name}.json" for name in (f"{stem}_a", arm)]
    truth = folder / f"{stem}.json"
    result = ablate("compare", *files, "--truth", truth, "--resamples", "10000", "--json")
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads(result.stdout)["metrics"]}

    images = len(json.loads(truth.read_text())["images"])
    found = np.zeros(images)  # with one object an image, recall is a share of the images
    for file, sign in zip(files, (-1, 1), strict=True):
        found[[box["image_id"] - 1 for box in json.loads(file.read_text())]] += sign
    drawn = np.concatenate([w @ found for w in bootstrap_weights(images, 10_000, 0)])

    class Drawn:
        bootstrap_distribution = drawn

    exact = stats.bootstrap(
        (found,), lambda x, axis: x.sum(axis=axis), method="BCa", n_resamples=0, bootstrap_result=Drawn()
    ).confidence_interval
    for name in ("AR1", "AR10", "AR100", "ARM"):
        assert rows[name]["bca"] == pytest.approx([100 * exact.low / images, 100 * exact.high / images])
    line = next(line for line in (folder / "right.txt").read_text().splitlines() if line.startswith(arm))
    low, high = (float(word) for word in line.split(": ")[1].split(" to "))
    assert rows["AR100"]["bca"] == pytest.approx(
        [low, high], abs=100 / images + 1e-9
    )  # other draws: an image


def made_checkpoints(faults: Path, folder: Path) -> Path:
    subprocess.run([sys.executable, faults / "make_weights.py", folder], check=True)
    return folder


def test_averaged_network_is_read_and_its_key_said(faults: Path, tmp_path: Path) -> None:
    made, out = made_checkpoints(faults, tmp_path / "made"), tmp_path / "x"
    average = create_model("yolor-ssss-s2d", classes=3, seed=0).state_dict()
    kernel = next(name for name, value in average.items() if value.ndim == 4)
    for kind in ("ema_module", "ema_state_dict", "state_dict_ema", "model_ema"):
        key, raw = (
            kind.replace("ema_module", "ema.module"),
            "state_dict" if kind == "state_dict_ema" else "model",
        )
        words = ("weights", "import", made / f"{kind}.pt", "--model", "yolor-ssss-s2d", "--out", out)
        done = ablate(*words)
        assert done.exit_code == 0 and f"the averaged network, a state_dict at {key} " in done.output
        assert all(torch.equal(value, average[name]) for name, value in load_file(out).items())
        assert f"the raw network, a state_dict at {raw} " in ablate(*words, "--key", raw).output
        assert torch.equal(load_file(out)[kernel], average[kernel] * 1.1)


def test_extras_of_a_checkpoint_are_passed_over(faults: Path, tmp_path: Path) -> None:
    made, out = made_checkpoints(faults, tmp_path / "made"), tmp_path / "x"
    expected = create_model("yolor-ssss-s2d", classes=3, seed=0).state_dict()
    for kind in ("torchversion", "timezone", "gradscaler", "path", "path_python313"):
        done = ablate("weights", "import", made / f"{kind}.pt", "--model", "yolor-ssss-s2d", "--out", out)
        assert done.exit_code == 0 and "; not read: " in done.output
        assert all(torch.equal(value, expected[name]) for name, value in load_file(out).items())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("half_ids", "image 2.5: id is 2.5; a whole number"),
        ("str_img", "image '000000000002': id is '000000000002'; a whole number"),
        ("str_anncat_only", "annotation 200: category_id is '9'; a whole number"),
        ("nested_box", "annotation 200: bbox is [[11, 0], [149, 144]]; four numbers"),
        ("str_area", "annotation 200: area is '7420'; a number"),
        ("str_crowd", "annotation 200: iscrowd is '0'; allowed: 0, 1"),
    ],
)
def test_compare_refuses_annotations_of_the_wrong_kind_as_data_check_does(
    inputs: Path, tmp_path: Path, name: str, words: str
) -> None:
    folder = inputs / "10_compare_truth_cast"
    truth, found = folder / f"{name}.json", folder / "det.json"
    compared = ablate("compare", found, found, "--truth", truth)
    (tmp_path / "annotations").mkdir()
    checked_file = Path(shutil.copy(truth, tmp_path / "annotations" / "instances_val.json"))
    checked = ablate("data", "check", tmp_path)
    assert compared.exit_code == checked.exit_code == 2
    assert compared.stderr.startswith(f"ablate: {truth}: {words}") and compared.stderr.count("\n") == 1
    assert checked.stderr == compared.stderr.replace(str(truth), str(checked_file))


@pytest.mark.parametrize(("data", "split"), [("train_without_boxes", "train"), ("val_without_boxes", "val")])
def test_a_split_without_a_box_is_an_error_before_anything_starts(
    inputs: Path, tmp_path: Path, data: str, split: str
) -> None:
    pictures, results = tmp_path / "pictures", tmp_path / "results"
    assert ablate("data", "make", pictures, "--train-images", "60", "--val-images", "40").exit_code == 0
    make = inputs / "16_data_that_cannot_answer" / "make.py"
    subprocess.run([sys.executable, make, pictures, tmp_path], check=True)
    more = ("--profile", "smoke", "--data", tmp_path / data, "--results", results)
    on_cluster = ("--cluster", Path("slurm/clusters/example.toml"), "--dry-run")
    for typed in (("train", "csp-fast"), ("launch", "csp-fast"), ("launch", "csp-fast", *on_cluster)):
        result = ablate(*typed, *more)
        assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.output
        assert f"{split} has nothing to {'train on' if split == 'train' else 'score'}: " in result.stderr
        assert f"instances_{split}.json: not a single box" in result.stderr
    assert not results.exists()
    (run,) = plan_runs(["csp.embedding-alone"], "smoke", data=str(tmp_path / data), fingerprint="f" * 64)
    with pytest.raises(DataError, match=f"^{split} has nothing to"):  # not of the field `identity`
        training.train(run.config, results)


def test_a_pack_of_replaced_pictures_is_told_and_not_scored(
    inputs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, run = inputs / "02_stale_pack", inputs / "run_bccd"
    data = shutil.copytree(folder / "coco", folder / "d")

    def score() -> float:
        result = ablate("evaluate", "--run", run, "--data", data, "--json")
        assert result.exit_code == 0, result.output
        return round(100 * json.loads(result.stdout)["detection"]["AP"], 1)

    assert ablate("data", "pack", data).exit_code == 0
    assert (score(), ablate("data", "check", data).exit_code, caplog.messages) == (8.8, 0, [])
    shutil.copytree(folder / "inverted", data / "val", dirs_exist_ok=True)
    assert score() == 0.0
    (told,) = caplog.messages
    pictures = len(list((folder / "inverted").iterdir()))
    assert f"val.original.pack: {pictures} of {pictures} files in {data / 'val'} are not those" in told
    assert "(changed)" in told
    command = f"ablate data pack {data} --split val --force"
    assert command in told
    checked = ablate("data", "check", data)
    assert checked.exit_code == 1
    assert command in checked.output
    refused = ablate("data", "pack", data)
    assert (refused.exit_code, "--force writes it anew" in refused.stderr) == (2, True)
    assert ablate("data", "pack", data, "--split", "val", "--force").exit_code == 0
    assert (score(), ablate("data", "check", data).exit_code, len(caplog.messages)) == (0.0, 0, 1)
