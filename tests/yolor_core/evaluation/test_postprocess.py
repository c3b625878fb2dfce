"""Suppression against torchvision's on all shifted boxes at once."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import nms

from yolor_core.config import EvaluationConfig
from yolor_core.errors import InputError
from yolor_core.evaluation import postprocess
from yolor_core.evaluation.postprocess import CLASS_OFFSET, ImageDetections, best_first, suppress


def clustered(images: int, boxes: int, classes: int, seed: int) -> torch.Tensor:
    """Decoded predictions in clusters, so that most are suppressed: (images, boxes, 5 + classes)."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(images, 12, 2, generator=generator) * 300
    centre = centres[:, torch.randint(0, 12, (boxes,), generator=generator)]
    centre = centre + torch.randn(centre.shape, generator=generator) * 3
    size = 40 + torch.randn(images, boxes, 2, generator=generator) * 4
    scores = torch.rand(images, boxes, 1 + classes, generator=generator)
    return torch.cat([centre, size, scores], 2)


def across_classes(rows: torch.Tensor, config: EvaluationConfig) -> torch.Tensor:
    """The released way: every candidate against every other on boxes shifted by class."""
    rows = rows[rows[:, 4] > config.confidence]
    scores = rows[:, 5:] * rows[:, 4:5]
    row, label = (scores > config.confidence).nonzero(as_tuple=True)
    boxes = torch.cat([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], 1)[row]
    scores = scores[row, label]
    kept = nms(boxes + (label * CLASS_OFFSET)[:, None], scores, config.iou)[: config.max_detections]
    return torch.cat([boxes[kept], scores[kept, None], label[kept, None]], 1)


def joined(found: ImageDetections) -> torch.Tensor:
    return torch.cat([found.boxes, found.scores[:, None], found.labels[:, None]], 1)


@pytest.mark.parametrize("limit", [1, 7, 40, 300, 100_000])
@pytest.mark.parametrize(("iou", "confidence"), [(0.65, 0.001), (0.45, 0.05), (0.3, 0.5)])
def test_boxes_are_bit_identical_to_comparing_everything(limit: int, iou: float, confidence: float) -> None:
    config = EvaluationConfig(size=320, iou=iou, confidence=confidence, max_detections=limit)
    everything = config.model_copy(update={"max_detections": 10**6})
    decoded = clustered(3, 400, 6, seed=1)
    for image, found in zip(decoded, suppress(decoded, config), strict=True):
        candidates = int(((image[:, 5:] * image[:, 4:5]) > confidence).sum())
        assert 0 < len(across_classes(image, everything)) < candidates / 2
        assert torch.equal(joined(found), across_classes(image, config))


def test_the_settings_of_the_comparison_tell_boxes_apart() -> None:
    """So that the test above could fail: each of its thresholds leaves other boxes."""
    decoded = clustered(1, 400, 6, seed=1)
    left = [
        len(
            suppress(decoded, EvaluationConfig(size=320, iou=i, confidence=c, max_detections=10**6))[0].scores
        )
        for i, c in [(0.65, 0.001), (0.45, 0.001), (0.45, 0.05), (0.3, 0.05), (0.3, 0.5)]
    ]
    assert left == sorted(left, reverse=True) and len(set(left)) == len(left)


def test_boxes_so_large_that_classes_meet_are_compared_across_classes() -> None:
    """Shifting by 4096 pixels separates classes only as long as boxes are smaller."""
    config = EvaluationConfig(size=320, iou=0.05, max_detections=10**6)
    decoded = clustered(1, 200, 4, seed=3)
    decoded[..., 2:4] *= 400
    found = suppress(decoded, config)[0]
    assert torch.equal(joined(found), across_classes(decoded[0], config))
    exact = suppress(decoded, config.model_copy(update={"suppression": "exact"}))[0]
    assert len(set(exact.labels.tolist())) == 4 > len(set(found.labels.tolist()))


def test_of_equal_scores_the_earlier_row_and_the_lower_class_come_first() -> None:
    config = EvaluationConfig(size=320, max_detections=60)
    decoded = clustered(1, 400, 6, seed=4)
    decoded[..., 4:] = (decoded[..., 4:] * 4).round() / 4
    found = suppress(decoded, config)[0]
    assert found.scores.unique().numel() < 10
    assert torch.equal(joined(found), across_classes(decoded[0], config))
    scores = torch.tensor([0.5, 0.9, 0.5, 0.1, 0.9, 0.5])
    assert best_first(scores, 3).tolist() == [1, 4, 0, 2, 5]
    assert best_first(scores, 99).tolist() == [1, 4, 0, 2, 5, 3]


def same_class_loop(rows: torch.Tensor, config: EvaluationConfig) -> list[list[float]]:
    """Greedy suppression in plain Python floats, box by box: [x1, y1, x2, y2, score, label]."""
    candidates = []
    for x, y, w, h, objectness, *classes in rows.tolist():
        for label, probability in enumerate(classes):
            if objectness > config.confidence and objectness * probability > config.confidence:
                score = objectness * probability
                candidates.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2, score, label])
    kept: list[list[float]] = []
    for box in sorted(candidates, key=lambda c: -c[4]):
        for other in kept:
            iw = min(box[2], other[2]) - max(box[0], other[0])
            ih = min(box[3], other[3]) - max(box[1], other[1])
            inside = max(iw, 0) * max(ih, 0)
            areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
            if box[5] == other[5] and inside / (areas - inside) > config.iou:
                break
        else:
            kept.append(box)
    return kept[: config.max_detections]


@pytest.mark.parametrize("scale", [1.0, 150.0])
def test_the_exact_option_equals_a_loop_over_boxes_of_one_class(scale: float) -> None:
    config = EvaluationConfig(size=320, confidence=0.1, suppression="exact", max_detections=10**6)
    decoded = clustered(1, 250, 90, seed=5)
    decoded[..., 2:4] *= scale
    decoded[..., 5:-3] = 0  # classes 87, 88 and 89: the shift is large
    expected = torch.tensor(same_class_loop(decoded[0], config))
    found = joined(suppress(decoded, config)[0])
    assert 3 <= len(expected) < 500
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)


def test_rounding_of_the_shift_makes_the_released_boxes_differ_from_the_exact_ones() -> None:
    decoded = clustered(1, 3000, 90, seed=6)
    decoded[..., 5:-2] = 0
    config = EvaluationConfig(size=320, confidence=0.01, max_detections=10**6)
    released = suppress(decoded, config)[0]
    exact = suppress(decoded, config.model_copy(update={"suppression": "exact"}))[0]
    ours, theirs = ({tuple(row) for row in joined(found).tolist()} for found in (released, exact))
    assert 0 < len(ours ^ theirs) < 0.2 * len(ours)


@pytest.mark.parametrize("suppression", ["released", "exact"])
def test_one_class_and_one_candidate(suppression: str) -> None:
    config = EvaluationConfig(size=320, suppression=suppression)  # type: ignore[arg-type]
    decoded = clustered(1, 400, 1, seed=7)
    assert torch.equal(joined(suppress(decoded, config)[0]), across_classes(decoded[0], config))
    alone = suppress(decoded[:, :1], config)[0]
    assert len(alone.scores) == 1 and alone.labels.tolist() == [0]


@pytest.mark.parametrize(
    ("column", "bad"), [(0, float("nan")), (2, float("inf")), (4, float("nan")), (4, float("inf"))]
)
def test_rows_that_are_not_finite_give_no_detection(column: int, bad: float) -> None:
    decoded = clustered(1, 50, 2, seed=8)
    config = EvaluationConfig(size=320, max_detections=10**6)
    rows = [row for row in range(50) if row != 20]
    decoded[0, 20, column] = bad
    found = suppress(decoded, config)[0]
    assert found.boxes.isfinite().all() and found.scores.isfinite().all()
    assert torch.equal(joined(found), across_classes(decoded[0, rows], config))


@pytest.mark.parametrize("group", [1, 5, 10**6])
@pytest.mark.parametrize("first", [1, 3])
def test_no_constant_of_the_search_changes_a_box(
    group: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EvaluationConfig(size=320, max_detections=90)
    decoded = clustered(1, 400, 20, seed=9)
    monkeypatch.setattr(postprocess, "GROUP", group)
    monkeypatch.setattr(postprocess, "FIRST", first)
    monkeypatch.setattr(postprocess, "RANKED", first)
    assert torch.equal(joined(suppress(decoded, config)[0]), across_classes(decoded[0], config))


def test_the_settings_matter() -> None:
    decoded = clustered(1, 400, 3, seed=2)
    strict = suppress(decoded, EvaluationConfig(size=320, confidence=0.5))[0]
    loose = suppress(decoded, EvaluationConfig(size=320, confidence=0.001))[0]
    few = suppress(decoded, EvaluationConfig(size=320, max_detections=5))[0]
    assert len(few.scores) == 5 and torch.equal(few.scores, loose.scores[:5])
    assert len(strict.scores) < len(loose.scores) and float(strict.scores.min()) > 0.5


def test_nothing_above_the_confidence_gives_no_detection() -> None:
    found = suppress(torch.zeros(2, 10, 7), EvaluationConfig(size=320))
    assert [len(f.scores) for f in found] == [0, 0]
    assert found[0].boxes.shape == (0, 4)


@pytest.mark.parametrize("shape", [(10, 7), (2, 10, 5), (2, 3, 10, 7)])
def test_predictions_of_another_shape_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"\(B, N, 5 \+ classes\)"):
        suppress(torch.zeros(shape), EvaluationConfig(size=320))


def test_half_precision_is_widened() -> None:
    decoded = clustered(1, 100, 3, seed=4).half()
    (found,), (wide,) = (suppress(d, EvaluationConfig(size=320)) for d in (decoded, decoded.float()))
    assert len(found.scores) > 0 and torch.equal(found.boxes, wide.boxes)
