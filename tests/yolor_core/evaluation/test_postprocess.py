"""Suppression against torchvision's on all shifted boxes at once."""

from __future__ import annotations

import torch
from torchvision.ops import nms

from yolor_core.config import EvaluationConfig
from yolor_core.evaluation.postprocess import CLASS_OFFSET, suppress


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


def test_class_by_class_gives_the_boxes_of_comparing_everything() -> None:
    config = EvaluationConfig(size=320, confidence=0.05, max_detections=300)
    decoded = clustered(3, 400, 6, seed=1)
    for image, found in zip(decoded, suppress(decoded, config), strict=True):
        expected = across_classes(image, config)
        candidates = int(((image[:, 5:] * image[:, 4:5]) > config.confidence).sum())
        assert 0 < len(expected) < candidates / 2
        assert torch.equal(
            torch.cat([found.boxes, found.scores[:, None], found.labels[:, None]], 1), expected
        )


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
