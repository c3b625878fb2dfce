"""Suppression as done here against comparing all candidates of an image, as the released code does.

    python benchmarks/postprocess.py [REPEATS]

80 classes; boxes are clustered around 40 objects, each mistaken for a few classes. For 3,000 and 14,000
candidates an image and three spreads of the clusters, on one CPU thread, the fastest of REPEATS (30) of

* across: torchvision's NMS on all boxes shifted by class (the released way), cut at 300;
* batched: `torchvision.ops.batched_nms`, which shifts by the largest coordinate (other rounding), cut at 300;
* ours: `keep`, released (bit-identical to `across`, which is checked) and exact.

The aim is a ratio of 8 at 3,000 candidates and 25 at 14,000. The time of `across` grows with the number of
boxes that are left, so the ratio does too: where four of five are suppressed there is less to save.
`whole` adds what both ways share: confidence threshold and box corners of 25,200 decoded rows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

sys.path.insert(0, str(Path(__file__).parent.parent))

from yolor_core.config import EvaluationConfig
from yolor_core.evaluation.postprocess import CLASS_OFFSET, Candidates, keep, select, suppress

ROWS, CLASSES, SIZE, OBJECTS = 25_200, 80, 640, 40
SPREADS = (0.5, 0.2, 0.1, 0.05)  # standard deviation of boxes about their object, in sides of the object


def decoded(candidates: int, seed: int, spread: float) -> Tensor:
    """(1, 25200, 85): decoded rows of an image with about `candidates` products above 0.001."""
    g = torch.Generator().manual_seed(seed)
    centre = torch.rand(OBJECTS, 2, generator=g) * SIZE
    side = 16 + torch.rand(OBJECTS, 2, generator=g).square() * 300
    label = torch.randint(0, CLASSES, (OBJECTS,), generator=g)
    boxes = candidates // 4  # four classes a box on average
    owner = torch.randint(0, OBJECTS, (boxes,), generator=g)
    noise = spread * (0.2 + torch.rand(boxes, 1, generator=g))  # relative to the object's sides
    xy = centre[owner] + torch.randn(boxes, 2, generator=g) * noise * side[owner]
    wh = side[owner] * torch.exp(torch.randn(boxes, 2, generator=g) * noise)
    scattered = torch.rand(boxes, generator=g) < 0.15
    xy[scattered] = torch.rand(int(scattered.sum()), 2, generator=g) * SIZE
    scores = torch.zeros(boxes, CLASSES)
    similar = torch.rand(OBJECTS, CLASSES, generator=g).argsort(1)[:, :3]  # classes an object is mistaken for
    scores.scatter_(1, similar[owner], 0.05 + 0.3 * torch.rand(boxes, 3, generator=g).square())
    scores.scatter_(1, label[owner, None], 0.3 + 0.7 * torch.rand(boxes, 1, generator=g))
    objectness = 0.03 + 0.97 * torch.rand(boxes, 1, generator=g).pow(4)
    rows = torch.zeros(1, ROWS, 5 + CLASSES)
    rows[0, torch.randperm(ROWS, generator=g)[:boxes]] = torch.cat([xy, wh, objectness, scores], 1)
    return rows


def across(found: Candidates, config: EvaluationConfig) -> Tensor:
    """The released way, from the same candidates."""
    boxes = found.boxes[found.rows]
    shifted = boxes + (found.labels * CLASS_OFFSET)[:, None]
    return nms(shifted, found.scores, config.iou)[: config.max_detections]


def batched(found: Candidates, config: EvaluationConfig) -> Tensor:
    """torchvision's own shortcut."""
    boxes = found.boxes[found.rows]
    return batched_nms(boxes, found.scores, found.labels, config.iou)[: config.max_detections]


def fastest(cases: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Milliseconds of each case; the cases take turns, so that a busy machine disturbs all alike."""
    best = dict.fromkeys(cases, float("inf"))
    for repeat in range(repeats + 1):
        for name, call in cases.items():
            start = time.perf_counter()
            call()
            if repeat:
                best[name] = min(best[name], (time.perf_counter() - start) * 1e3)
    return best


def main() -> None:
    """Print one line per way and number of candidates."""
    torch.set_num_threads(1)
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    print(f"{'candidates':>10}{'spread':>8}{'left':>7}  {'way':22}{'ms':>9}{'ratio':>8}")
    for count in (3_000, 14_000):
        for spread in SPREADS:
            compare(count, spread, repeats)


def compare(count: int, spread: float, repeats: int) -> None:
    """Check that the ways agree, time them, print."""
    released = EvaluationConfig(size=SIZE)
    exact = released.model_copy(update={"suppression": "exact"})
    everything = released.model_copy(update={"max_detections": 10**6})
    rows = decoded(count, seed=1, spread=spread)
    found = select(rows[0], released.confidence)
    left = len(across(found, everything))
    assert torch.equal(across(found, released), keep(found, released))
    assert torch.equal(across(found, everything), keep(found, everything))
    times = fastest(
        {
            "across": lambda: across(found, released),
            "batched": lambda: batched(found, released),
            "ours, released": lambda: keep(found, released),
            "ours, exact": lambda: keep(found, exact),
            "ours, all detections": lambda: keep(found, everything),
            "whole, across": lambda: across(select(rows[0], released.confidence), released),
            "whole, ours": lambda: suppress(rows, released),
        },
        repeats,
    )
    for name, ms in times.items():
        reference = times["whole, across" if name.startswith("whole") else "across"]
        print(f"{len(found.scores):>10}{spread:>8}{left:>7}  {name:22}{ms:>9.3f}{reference / ms:>8.1f}")


if __name__ == "__main__":
    main()
