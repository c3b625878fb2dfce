"""Real COCO images go through the same code: a few steps and an evaluation, and eight learnt by heart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from yolor_core.config import (
    AugmentConfig,
    CocoConfig,
    EvaluationConfig,
    Execution,
    ImplicitConfig,
    LossConfig,
    ModelConfig,
    OptimiserConfig,
    PhaseConfig,
    RunConfig,
    Science,
    TrainConfig,
)
from yolor_core.evaluation.detections import Detections
from yolor_core.runs.directory import RunDirectory
from yolor_core.training import train

PLAIN = AugmentConfig(mosaic=0, scale=0, hsv_h=0, hsv_s=0, hsv_v=0, flip_horizontal=0)


def test_real_images_train_for_a_few_steps_and_evaluate(real_data: Path, tmp_path: Path) -> None:
    science = Science(
        profile="test",
        model=ModelConfig(
            architecture="yolov4_csp_fast",
            width=0.0625,
            depth=0.33,
            anchor_scale=0.2,
            implicit=(
                ImplicitConfig(site="fa", operator="add"),
                ImplicitConfig(site="pr", operator="multiply"),
            ),
        ),
        train=TrainConfig(
            size=128, batch=4, keep_one_in=8, phases=(PhaseConfig(epochs=1, schedule_epochs=1),)
        ),
        evaluation=EvaluationConfig(size=128, confidence=1e-5),  # a few steps do not lift scores to 0.001
    )
    data = CocoConfig(root=str(real_data / "coco_multitask"))
    config = RunConfig(experiment="real", science=science, data=data)
    assert train(config, tmp_path) == "done"

    run = RunDirectory(tmp_path)
    record, evaluation = run.read_run(), run.read_evaluation()
    assert record is not None and evaluation is not None
    assert evaluation["images"] == 128 and len(evaluation["per_class"]) == 80
    assert record["data_report"]["val"]["annotations"] == 987
    assert record["data_report"]["val"]["crowd"]["count"] == 10
    found = Detections.read(run.detections)
    categories = {c["id"] for c in annotations(real_data, "val2017")["categories"]}
    assert len(found) > 0 and set(found.category_id.tolist()) <= categories and max(categories) == 90
    (metrics,) = run.read_metrics()
    assert 0 < metrics["loss/box"] < 1


@pytest.mark.slow
def test_eight_real_images_are_learnt_by_heart(real_data: Path, tmp_path: Path) -> None:
    root = eight_images(real_data, tmp_path / "eight")
    epochs = 220
    science = Science(
        profile="test",
        model=ModelConfig(architecture="yolov4_csp_fast", width=0.125, depth=0.33, anchor_scale=0.3),
        train=TrainConfig(
            size=192,
            batch=8,
            phases=(PhaseConfig(epochs=epochs, schedule_epochs=epochs, augment=PLAIN),),
            optimiser=OptimiserConfig(
                lr0=0.02,
                nominal_batch=8,
                warmup_epochs=10,
                warmup_min_iterations=1,
                ema_decay=0.9,
                ema_updates=10,
            ),
            loss=LossConfig(classification=2.0),
        ),
        evaluation=EvaluationConfig(size=192, rectangular=False),
    )
    data = CocoConfig(root=str(root), train="eight", val="eight")
    execution = Execution(cache_images=True, checkpoint_every=epochs)
    config = RunConfig(experiment="by-heart", science=science, data=data, execution=execution)
    train(config, tmp_path / "run")
    evaluation = RunDirectory(tmp_path / "run").read_evaluation()
    assert evaluation is not None
    assert evaluation["detection"]["AP50"] >= 0.8


def annotations(real_data: Path, split: str) -> dict:
    return json.loads((real_data / "coco_multitask" / "annotations" / f"instances_{split}.json").read_text())


def eight_images(real_data: Path, root: Path) -> Path:
    """A dataset of eight images with a few objects that are not tiny, without crowds."""
    content = annotations(real_data, "val2017")
    by_image: dict[int, list[dict]] = {}
    for annotation in content["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    fitting = [
        image
        for image in content["images"]
        if 1 <= len(by_image.get(image["id"], [])) <= 6
        and all(not a["iscrowd"] and a["area"] > 2000 for a in by_image[image["id"]])
    ][:8]
    chosen = [a for image in fitting for a in by_image[image["id"]]]
    (root / "annotations").mkdir(parents=True)
    (root / "images").mkdir()
    (root / "images" / "eight").symlink_to(real_data / "coco_multitask" / "images" / "val2017")
    subset = {**content, "images": fitting, "annotations": chosen}
    (root / "annotations" / "instances_eight.json").write_text(json.dumps(subset))
    return root
