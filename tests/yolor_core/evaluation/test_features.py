"""Features written out for figures, against what the whole model says in the same cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from yolor_core.config import EvaluationConfig, ImplicitConfig, LossConfig, ModelConfig, ShapesConfig
from yolor_core.data import load_images
from yolor_core.data.batches import EvaluationBatches
from yolor_core.errors import InputError
from yolor_core.evaluation.features import BACKGROUND, TOGETHER, collect_features
from yolor_core.models import Detector, create_model, fold

IMAGES = load_images(ShapesConfig(train_images=1, val_images=20, size=160), "val")
SETTINGS = EvaluationConfig(size=160)
CPU = torch.device("cpu")


def detector(*implicit: ImplicitConfig) -> Detector:
    config = ModelConfig(
        architecture="yolov4_csp_fast", width=0.0625, depth=0.33, anchor_scale=0.25, implicit=implicit
    )
    model = create_model(config, classes=len(IMAGES.names), seed=1)
    pixels = EvaluationBatches(IMAGES, 160, 32, 16, rectangular=False).build(0)[0].images
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        model.train()(pixels / 255)
    return model.eval()


def collect(model: Detector, **options: int) -> pd.DataFrame:
    return collect_features(model, IMAGES, SETTINGS, LossConfig(), CPU, **options).to_pandas()


@pytest.mark.parametrize(
    "parts",
    [
        (
            ImplicitConfig(site="fa", operator="add", std=0.3),
            ImplicitConfig(site="pr", operator="multiply", std=0.3),
        ),
        (ImplicitConfig(site="fa-cluster", operator="multiply", std=0.3),),
        (ImplicitConfig(site="fa", operator="concatenate", std=0.3),),
    ],
    ids=["fa-pr", "fa-cluster", "concatenate"],
)
def test_after_is_what_the_model_says_in_that_cell(parts: tuple[ImplicitConfig, ...]) -> None:
    model = detector(*parts)
    frame = collect(model, cells=60, first=TOGETHER)
    batch = EvaluationBatches(IMAGES, 160, 32, TOGETHER, rectangular=False).build(0)[0]
    with torch.no_grad():
        maps = model.maps(batch.images / 255).head
        raw = dict(zip(model.level_names, model(batch.images / 255), strict=True))
    places = {int(IMAGES.ids[index]): place for place, index in enumerate(batch.indices)}
    assert set(frame["level"]) == set(model.level_names)
    for row in frame.to_dict("records"):
        place = places[row["image"]]
        expected = raw[row["level"]][place, row["anchor"], row["row"], row["column"]]
        np.testing.assert_allclose(row["after"], expected, rtol=1e-3, atol=1e-4)
        feature = maps[row["level"]][place, :, row["row"], row["column"]]
        np.testing.assert_allclose(row["feature"], feature, rtol=1e-4, atol=1e-5)
        own = model.implicit.before(feature[None, :, None, None], row["level"])
        own = own[row["anchor"] % len(own)].flatten().detach()
        np.testing.assert_allclose(row["aligned"], own, rtol=1e-4, atol=1e-5)
    assert max(np.abs(a - b).max() for a, b in zip(frame["after"], frame["before"], strict=True)) > 0.01


def test_before_is_the_baseline() -> None:
    added, plain = (
        collect(detector(*parts), cells=40) for parts in ((ImplicitConfig(site="fa", operator="add"),), ())
    )
    for column in ("image", "row", "column", "anchor", "class"):
        assert added[column].equals(plain[column])
    np.testing.assert_allclose(np.stack(added["before"]), np.stack(plain["after"]), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(np.stack(plain["before"]), np.stack(plain["after"]))


def test_anchors_with_an_object_hold_its_centre_and_fit_its_size() -> None:
    model = detector()
    frame = collect(model, cells=200)
    objects = frame[frame["class"] != BACKGROUND]
    assert len(objects) > 30 and (frame.groupby("level").size() <= 200).all()
    index = {int(image): place for place, image in enumerate(IMAGES.ids)}
    for row in objects.to_dict("records"):
        level = model.level_names.index(row["level"])
        stride, anchor = model.strides[level], model.anchors[level, row["anchor"]].numpy()
        place = index[row["image"]]
        boxes = IMAGES.boxes(place)
        pad = (160 - IMAGES.sizes[place]) // 2
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + pad
        cell = (centres // stride == [row["column"], row["row"]]).all(1)
        size = np.array([row["width"], row["height"]])
        fits = np.isclose(boxes[:, 2:] - boxes[:, :2], size, rtol=1e-3).all(1)
        assert (cell & fits & (IMAGES.classes(place) == row["class"])).any()
        assert np.maximum(size / anchor, anchor / size).max() < 4


def test_the_same_cells_are_chosen_for_every_model_and_seed_changes_them() -> None:
    keys = ["image", "level", "row", "column", "anchor"]
    first, second, other = (
        collect(detector(), cells=50, first=16, seed=seed)[keys].to_numpy().tolist() for seed in (0, 0, 1)
    )
    assert first == second != other


def test_a_folded_model_is_refused() -> None:
    with pytest.raises(InputError, match="as it was trained"):
        collect(fold(detector()))
