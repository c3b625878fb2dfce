"""One pass over the images for all tasks: what reaches the scores, whatever the ranks."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from yolor_core.config import (
    BranchConfig,
    EvaluationConfig,
    LossConfig,
    ModelConfig,
    PhaseConfig,
    ShapesConfig,
    TrainConfig,
)
from yolor_core.data import EvaluationBatches, ImageSet, load_images
from yolor_core.errors import ConfigError, InputError
from yolor_core.evaluation.detect import detect_picture
from yolor_core.evaluation.predict import Predictions, evaluate, predict
from yolor_core.evaluation.speed import measure_speed
from yolor_core.models import Detector, create_model
from yolor_core.tasks.base import build_losses
from yolor_core.tasks.embedding import cells

CPU = torch.device("cpu")
CONFIG = EvaluationConfig(size=64, batch=3)
BRANCHES = (BranchConfig(task="classification"), BranchConfig(task="embedding"))
ANCHORS = [[[8.0, 8.0]], [[20.0, 20.0]], [[48.0, 48.0]]]
GRIDS = [(8, 8), (4, 4), (2, 2)]
TINY = ModelConfig(architecture="yolov4_csp", width=0.125, depth=0.34, anchor_scale=0.2)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    """Eleven val images: four batches, the last one smaller."""
    return load_images(ShapesConfig(val_images=11, size=96), "val")


@pytest.fixture(scope="module")
def model() -> Detector:
    """All three tasks."""
    return create_model(TINY.model_copy(update={"branches": BRANCHES}), classes=5, identities=60)


def equal(first: Any, second: Any) -> bool:
    """Whether two tables have the same columns, bit for bit."""
    first, second = (list(t if isinstance(t, tuple) else vars(t).values()) for t in (first, second))
    columns = zip(first, second, strict=True)
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in columns)


def best_cell(box: list[float], anchors: list, strides: list[int], grids: list) -> tuple[int, int, int]:
    """By trying every anchor."""
    width, height = box[2] - box[0], box[3] - box[1]
    fits = [
        (max(width / w, w / width, height / h, h / height), level)
        for level, sizes in enumerate(anchors)
        for w, h in sizes
    ]
    level = min(fits)[1]
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    rows, columns = grids[level]
    row, column = math.floor(y / strides[level]), math.floor(x / strides[level])
    return level, min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)


def test_a_box_has_the_cell_of_its_centre_on_the_level_of_its_best_anchor() -> None:
    rng = np.random.default_rng(0)
    anchors = rng.uniform(4, 60, (3, 3, 2)).round(2)
    strides, grids = [8, 16, 32], [(8, 16), (4, 8), (2, 4)]
    corner = rng.uniform(-5, [128, 64], (300, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 60, (300, 2))], 1)
    found = np.stack(cells(boxes, anchors, strides, grids), 1)
    expected = [best_cell(box, anchors.tolist(), strides, grids) for box in boxes.tolist()]
    assert found.tolist() == [list(e) for e in expected]
    assert set(found[:, 0].tolist()) == {0, 1, 2}


def test_of_levels_that_fit_equally_well_the_finest_is_taken() -> None:
    anchors = np.array([[[8.0, 8]], [[32, 32]]])
    assert cells(np.array([[0.0, 0, 16, 16]]), anchors, [8, 16], [(4, 4), (2, 2)])[0].tolist() == [0]


class Coded(nn.Module):
    """Says where it is: embeddings are (mean of the image, level, row, column), logits the image's mean."""

    tasks = ("classification", "embedding")
    strides = (8, 16, 32)
    classes = 5

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=dtype))
        self.anchors = torch.tensor(ANCHORS)

    def forward(self, x: Tensor) -> dict[str, Any]:
        mean = x.mean((1, 2, 3))
        maps = []
        for level, stride in enumerate(self.strides):
            rows, columns = x.shape[2] // stride, x.shape[3] // stride
            y, z = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            code = torch.stack([torch.full_like(y, level), y, z]).to(x)[None].expand(len(x), -1, -1, -1)
            maps.append(torch.cat([mean[:, None, None, None].expand(-1, 1, rows, columns), code], 1))
        return {"classification": mean[:, None].expand(-1, self.classes), "embedding": maps}


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])  # with 7, three ranks have no images
@pytest.mark.parametrize("rectangular", [True, False])
def test_every_box_gets_the_embedding_of_its_own_image_and_cell(
    images: ImageSet, ranks: int, rectangular: bool
) -> None:
    config = CONFIG.model_copy(update={"rectangular": rectangular})
    coded: Any = Coded()
    parts = [predict(coded, images, config, CPU, 0, rank, ranks) for rank in range(ranks)]
    found = Predictions.merge(parts).found
    logits, (position, identity, embedding) = found["classification"], found["embedding"]

    assert logits.position.tolist() == list(range(11))
    assert position.tolist() == [i for i in range(11) for _ in images.boxes(i)]
    assert identity.tolist() == [identity for i in range(11) for identity in images.identities(i).tolist()]
    means = logits.logits[:, 0]
    assert len(set(means.tolist())) == 11
    np.testing.assert_array_equal(embedding[:, 0], means[position])

    # back in the original image, the box's centre lies in the cell
    strides = np.array(coded.strides)[embedding[:, 1].astype(int)]
    corner = embedding[:, [3, 2]] * strides[:, None]
    squares = np.concatenate([corner, corner + strides[:, None]], 1)
    levels = set()
    for batch in EvaluationBatches(images, 64, 32, 3, rectangular, CONFIG.pad):
        for row, index in enumerate(batch.indices):
            boxes, cell = images.boxes(index), batch.to_original(row, squares[position == index])
            centre = (boxes[:, :2] + boxes[:, 2:]) / 2
            assert ((cell[:, :2] <= centre + 1e-3) & (centre <= cell[:, 2:] + 1e-3)).all()
            sides = (boxes[:, 2:] - boxes[:, :2]) * batch.scales[row]
            best = [best_cell([0, 0, w, h], ANCHORS, [8, 16, 32], GRIDS)[0] for w, h in sides.tolist()]
            assert embedding[position == index, 1].tolist() == best
            levels |= set(best)
    assert levels == {0, 1, 2}


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_ranks_together_find_what_one_process_finds(model: Detector, images: ImageSet, ranks: int) -> None:
    alone = predict(model, images, CONFIG, CPU)
    merged = Predictions.merge([predict(model, images, CONFIG, CPU, 0, r, ranks) for r in range(ranks)])
    assert list(alone.found) == list(merged.found) == ["detection", "classification", "embedding"]
    assert len(alone.detections or []) > 0
    for task, found in alone.found.items():
        assert equal(found, merged.found[task]), task
    assert Predictions.merge([alone]).found.keys() == alone.found.keys()


def test_workers_change_nothing(model: Detector, images: ImageSet) -> None:
    alone, workers = (predict(model, images, CONFIG, CPU, w) for w in (0, 1))
    assert all(equal(found, workers.found[task]) for task, found in alone.found.items())


def test_detection_is_the_same_beside_other_tasks(model: Detector, images: ImageSet) -> None:
    single = create_model(TINY, classes=5)
    single.load_state_dict({k: v for k, v in model.state_dict().items() if k in single.state_dict()})
    expected = predict(single, images, CONFIG, CPU).detections
    assert len(expected) > 0
    assert equal(predict(model, images, CONFIG, CPU).detections, expected)
    assert equal(predict(model, images, CONFIG, CPU).detections, expected)
    assert equal(predict(single, images, CONFIG, CPU).detections, expected)


def test_scores_of_a_model_that_knows_everything_are_perfect(images: ImageSet) -> None:
    coded: Any = Coded()
    found = dict(predict(coded, images, CONFIG, CPU).found)
    truth = np.zeros((11, 5), np.float32)
    for index in range(11):
        truth[index, images.classes(index)] = 1
    found["classification"] = found["classification"]._replace(logits=200 * truth - 100)
    one_hot = np.eye(images.identity_count, dtype=np.float32)
    found["embedding"] = found["embedding"]._replace(embedding=one_hot[found["embedding"].identity])
    scores = evaluate(Predictions(found), images)
    assert list(scores) == ["classification", "embedding"]
    assert scores["classification"]["mAP"] == scores["classification"]["F1_macro"] == 1.0
    assert [scores["embedding"][key] for key in ("recall@1", "mAP", "AUC")] == [1.0, 1.0, 1.0]
    assert scores["embedding"]["boxes"] == images.report.boxes


DETECTION = {"detection", "per_class", "images", "detections", "size_limits"}


@pytest.mark.parametrize(
    ("update", "keys"),
    [
        ({}, DETECTION),
        ({"branches": BRANCHES}, DETECTION | {"classification", "embedding"}),
        ({"detection": False, "branches": BRANCHES[:1]}, {"classification"}),
        ({"detection": False, "branches": BRANCHES[1:]}, {"embedding"}),
    ],
)
def test_the_scores_are_those_of_the_models_tasks_and_plain_json(
    images: ImageSet, update: dict[str, Any], keys: set[str]
) -> None:
    model = create_model(TINY.model_copy(update=update), classes=5, identities=60).train()
    found = predict(model, images, CONFIG, CPU)
    scores = evaluate(found, images)
    assert model.training  # as before
    assert set(scores) == keys
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert (found.detections is None) == ("detection" not in model.tasks)


def test_logits_beyond_the_range_of_float32_still_differ(images: ImageSet) -> None:
    coded: Any = Coded()
    found = predict(coded, images, CONFIG, CPU).found["classification"]
    truth = np.array([[c in images.classes(i) for c in range(5)] for i in range(11)])
    high = found._replace(logits=np.where(truth, 30, 20).astype(np.float32))
    assert evaluate(Predictions({"classification": high}), images)["classification"]["mAP"] == 1.0


def test_predictions_that_are_not_finite_are_refused(images: ImageSet) -> None:
    broken: Any = Coded()
    broken.weight.data.fill_(math.nan)
    found = predict(broken, images, CONFIG, CPU).found
    found["classification"].logits[4, 2] = math.nan
    with pytest.raises(InputError, match=r"scores\[4, 2\]"):
        evaluate(Predictions({"classification": found["classification"]}), images)
    found["embedding"].embedding[3] = math.inf
    with pytest.raises(InputError, match="box 3"):
        evaluate(Predictions({"embedding": found["embedding"]}), images)


def test_pictures_and_speed_are_detections_of_a_model_of_several_tasks(
    model: Detector, images: ImageSet
) -> None:
    single = create_model(TINY, classes=5)
    single.load_state_dict({k: v for k, v in model.state_dict().items() if k in single.state_dict()})
    found = [detect_picture(each.eval(), images.image(0), CONFIG, CPU) for each in (model, single)]
    assert found[0] == found[1] and len(found[0]) > 0
    (speed, _) = measure_speed(model, 64, [1], CPU, ["fp32"], seconds=0)
    assert speed.end_to_end

    without = create_model(TINY.model_copy(update={"detection": False, "branches": BRANCHES[:1]}), classes=5)
    with pytest.raises(ConfigError, match="no task 'detection'"):
        detect_picture(without.eval(), images.image(0), CONFIG, CPU)
    with pytest.raises(ConfigError, match="no task 'detection'"):
        list(measure_speed(without, 64, [1], CPU, ["fp32"], seconds=0))


def test_half_precision_predictions_are_scored_in_single(images: ImageSet) -> None:
    half: Any = Coded(torch.bfloat16)
    found = predict(half, images, CONFIG, CPU).found
    assert found["classification"].logits.dtype == found["embedding"].embedding.dtype == np.float32


def test_in_the_middle_of_a_training_many_images_are_scored_fast_and_equally(
    images: ImageSet, model: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = predict(model, images, CONFIG, CPU)
    official = evaluate(found, images)

    def refuse(*_: object) -> None:
        raise AssertionError("pycocotools was asked")

    monkeypatch.setattr("yolor_core.evaluation.predict.MANY_IMAGES", len(images))
    monkeypatch.setattr("yolor_core.tasks.detection.evaluate_boxes", refuse)
    assert evaluate(found, images, official=False) == official
    monkeypatch.setattr("yolor_core.evaluation.predict.MANY_IMAGES", len(images) + 1)
    with pytest.raises(AssertionError, match="pycocotools"):
        evaluate(found, images, official=False)


RECIPE = TrainConfig(
    size=64,
    batch=4,
    phases=(PhaseConfig(epochs=1, schedule_epochs=1),),
    loss=LossConfig(images_per_mean=2),
)


def test_the_losses_of_a_split_are_those_of_a_training_batch_of_all_its_images(
    images: ImageSet, model: Detector
) -> None:
    settings = CONFIG.model_copy(update={"rectangular": False})
    (whole,) = EvaluationBatches(images, 64, 32, len(images), rectangular=False)
    targets = [
        [i, label, *((box[:2] + box[2:]) / 2 / 64), *((box[2:] - box[:2]) / 64), -1]
        for i in range(len(images))
        for box, label in zip(
            images.boxes(i) * np.tile(whole.scales[i], 2) + np.tile(whole.pads[i], 2),
            images.classes(i),
            strict=True,
        )
    ]
    plain = RECIPE.model_copy(update={"loss": LossConfig()})
    with torch.no_grad():
        outputs = model.eval()(whole.images / 255)
    expected: dict[str, float] = {}
    for task, loss in build_losses(model, plain).items():
        if task != "embedding":
            wanted = loss.wanted(torch.tensor(targets), (64, 64), len(images))
            expected |= {name: term.item() for name, term in loss(outputs[task], wanted).items()}
    assert all(value > 0 for value in expected.values())

    for batch in (1, 4, 11):
        changed = settings.model_copy(update={"batch": batch})
        found = predict(model, images, changed, CPU, recipe=RECIPE).losses()
        assert found.pop("val/loss") == pytest.approx(
            sum(found[f"val/{n}"] or 0 for n in ("box", "obj", "cls"))
        )
        assert found == pytest.approx({n.replace("loss", "val"): v for n, v in expected.items()}, rel=1e-5)


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_neither_ranks_nor_workers_change_the_losses_of_a_split(
    images: ImageSet, model: Detector, ranks: int
) -> None:
    expected = predict(model, images, CONFIG, CPU, recipe=RECIPE)
    parts = [predict(model, images, CONFIG, CPU, 0, rank, ranks, recipe=RECIPE) for rank in range(ranks)]
    assert Predictions.merge(parts).losses() == expected.losses()
    assert predict(model, images, CONFIG, CPU, workers=1, recipe=RECIPE).terms == expected.terms
    assert all(
        equal(table, expected.found[task])
        for task, table in predict(model, images, CONFIG, CPU).found.items()
    )


def test_losses_that_are_not_finite_are_none() -> None:
    found = Predictions({}, {"loss/box": [0.5, 0.25], "loss/obj": [1.0, math.inf], "loss/cls": [0.0, 0.0]})
    assert found.losses() == {"val/loss": None, "val/box": 0.75, "val/obj": None, "val/cls": 0.0}
    assert Predictions({}, {"loss/tag": [0.5]}).losses() == {"val/tag": 0.5}
