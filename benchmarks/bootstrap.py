"""COCO scores and their bootstrap: the engine against pycocotools, at the size of COCO val2017.

    [YOLOR_REAL_DATA=...] python benchmarks/bootstrap.py [RESAMPLES]

The true boxes are those of `coco_val2017_boxes` (4,954 images, 36,781 boxes; without YOLOR_REAL_DATA as many
are generated), one in a hundred made a crowd. The detections, about 500,000 a model, are generated: most
true boxes are found with an error of place that differs between the two models, some twice or as another
class, and the rest are false positives of low score. Printed are

* scoring: `match` + `score` against pycocotools' evaluate + accumulate + summarize. Both begin with their own
  index of the truth and the detections in memory: reading files, building pycocotools' dictionaries of
  detections and numba's compilation (cached on disk; one call warms it) are excluded on both sides;
* a resample: one model on one thread, drawing the images included, against pycocotools' accumulate on the
  re-indexed results of its evaluate;
* the paired bootstrap of RESAMPLES (10,000) on 2 threads, and the peak memory of the process by then;
* the time over the number of resamples and over the number of detections, both on one thread.

Seconds are processor time, which other work on the machine disturbs least, except of the paired bootstrap,
which is timed by the clock. The aims: scoring 50 times as fast, 2 ms a resample and 3,000 times as fast, 60 s
for the paired bootstrap.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

sys.path.insert(0, str(Path(__file__).parent.parent))

from yolor_core.evaluation.coco import _index, _results
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.engine import (
    Truth,
    bootstrap,
    bootstrap_weights,
    compress,
    match,
    paired_bootstrap,
    resample,
    score,
)

IMAGES, BOXES, CLASSES, DETECTIONS = 5_000, 36_000, 80, 500_000


def val2017() -> dict[str, Any]:
    """The true boxes: real where they are at hand."""
    rng = np.random.default_rng(0)
    folder = os.environ.get("YOLOR_REAL_DATA")
    if folder:
        path = Path(folder) / "coco_val2017_boxes" / "instances_val2017_floorint.json"
        truth = json.loads(path.read_text())
    else:
        share = rng.dirichlet(np.full(CLASSES, 0.6))
        boxes = np.concatenate([rng.uniform(0, 400, (BOXES, 2)), np.exp(rng.normal(4, 1, (BOXES, 2)))], 1)
        image = np.sort(rng.integers(0, IMAGES, BOXES))
        rows = zip(image.tolist(), rng.choice(CLASSES, BOXES, p=share).tolist(), boxes.tolist(), strict=True)
        truth = {
            "images": [{"id": i} for i in range(IMAGES)],
            "categories": [{"id": k, "name": f"class {k}"} for k in range(CLASSES)],
            "annotations": [
                {"id": i, "image_id": image, "category_id": k, "bbox": box, "area": box[2] * box[3]}
                for i, (image, k, box) in enumerate(rows, 1)
            ],
        }
    for annotation in truth["annotations"]:
        annotation["iscrowd"] = int(rng.random() < 0.01)
    return truth


def detect(truth: dict[str, Any], detections: int, seed: int, spread: float) -> Detections:
    """About `detections` of a made-up model; `spread` is the error of place in sides of the box."""
    rng = np.random.default_rng(seed)
    annotations = truth["annotations"]
    boxes = np.array([a["bbox"] for a in annotations], float)
    image = np.array([a["image_id"] for a in annotations])
    category = np.array([a["category_id"] for a in annotations])
    images = np.array([i["id"] for i in truth["images"]])
    ids, often = np.unique(category, return_counts=True)

    row = np.flatnonzero(rng.random(len(boxes)) < 0.92)
    twice = rng.choice(row, len(row) // 2)
    first = np.arange(len(row) + len(twice)) < len(row)
    row = np.concatenate([row, twice])
    error = spread * rng.exponential(1, (len(row), 1)) * rng.normal(size=(len(row), 4))
    size = boxes[row, 2:]
    near = np.concatenate([boxes[row, :2] + error[:, :2] * size, size * np.exp(error[:, 2:])], 1)
    named = np.where(rng.random(len(row)) < 0.93, category[row], rng.choice(ids, len(row)))
    sure = rng.beta(1.2, 1, len(row)) * np.exp(-2 * np.abs(error).mean(1)) * np.where(first, 1, 0.2)

    false = max(detections - len(row), 0)
    like = rng.integers(0, len(boxes), false)
    far = np.concatenate([rng.uniform(0, 400, (false, 2)), boxes[like, 2:]], 1)
    return Detections.build(
        np.concatenate([image[row], rng.choice(images, false)]),
        np.concatenate([named, rng.choice(ids, false, p=often / often.sum())]),
        np.concatenate([near, far]),
        np.concatenate([sure, rng.beta(0.3, 8, false)]),
    )


def timed(function: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> tuple[float, Any]:
    """Seconds (of processor time unless another clock is given) and result."""
    start = clock()
    result = function()
    return clock() - start, result


def peak() -> float:
    """Most memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reference(truth: dict[str, Any], detections: Detections) -> tuple[float, float, list[float]]:
    """pycocotools: seconds of scoring and of one resample, and the twelve numbers."""
    with contextlib.redirect_stdout(io.StringIO()):
        index = _index(truth)
        evaluation = COCOeval(index, _results(index, detections), "bbox")

        def whole() -> None:
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()

        seconds, _ = timed(whole)
        stats = list(evaluation.stats)
        images = len(evaluation.params.imgIds)
        drawn = np.random.default_rng(0).integers(0, images, images).tolist()

        def again() -> None:
            kept = evaluation.evalImgs
            groups = range(0, len(kept), images)
            evaluation.evalImgs = [kept[group + i] for group in groups for i in drawn]
            evaluation.accumulate()
            evaluation.evalImgs = kept

        return seconds, timed(again)[0], stats


def main() -> None:
    resamples = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    truth = val2017()
    first, second = (detect(truth, DETECTIONS, seed, spread) for seed, spread in ((1, 0.060), (2, 0.062)))
    images = len(truth["images"])
    print(f"{images} images, {len(truth['annotations'])} boxes, {len(first)} and {len(second)} detections")

    score(match(truth, first))  # compiles, or reads the cache
    both = [timed(lambda: score(match(truth, first))) for _ in range(5)]
    ours, found = min(both, key=lambda pair: pair[0])
    read = min(timed(lambda: Truth.read(truth))[0] for _ in range(3))
    a, b = match(truth, first), match(truth, second)
    squeeze, events = timed(lambda: compress(a))
    print(f"match + score {ours:.3f} s (of which reading the truth {read:.3f}); compress {squeeze:.3f} s")
    rows = len(events.base), len(events.event_image)
    print(f"compressed: {rows[0]} base rows, {rows[1]} events, {events.nbytes / 1e6:.0f} MB")

    def once(count: int) -> float:
        return timed(lambda: [resample(events, w, False) for w in bootstrap_weights(images, count, 0)])[0]

    once(32)
    one = min(once(320) for _ in range(3)) / 320
    draw = min(timed(lambda: list(bootstrap_weights(images, 320, 0)))[0] for _ in range(3)) / 320
    print(f"a resample of one model, one thread: {one * 1e3:.2f} ms (of which drawing {draw * 1e3:.2f})")

    before = peak()
    seconds, result = timed(lambda: paired_bootstrap(a, b, resamples, 0, threads=2), time.perf_counter)
    print(f"paired bootstrap of {resamples} on 2 threads: {seconds:.1f} s on the clock", end="; ")
    print(f"peak memory {before:.0f} MB before, {peak():.0f} MB after")
    spread = result.difference("AP").std(), result.resampled_a.metrics["AP"].std()
    print(
        f"AP {result.a['AP']:.4f} and {result.b['AP']:.4f}; standard error of the difference {spread[0]:.5f}"
    )

    print("resamples  seconds  ms each")
    for count in (100, 200, 400, 800, 1600):
        seconds, _ = timed(lambda count=count: bootstrap([a], count, 0))
        print(f"{count:9d}  {seconds:7.2f}  {seconds / count * 1e3:7.2f}")
    print("detections  match+score s  events    ms a resample")
    for count in (60_000, 125_000, 250_000, 500_000, 1_000_000):
        some = detect(truth, count, 1, 0.06)
        seconds, matches = timed(lambda some=some: match(truth, some))
        seconds += timed(lambda matches=matches: score(matches))[0]
        few = compress(matches)
        each = timed(lambda few=few: [resample(few, w, False) for w in bootstrap_weights(images, 128, 0)])[0]
        print(f"{len(some):10d}  {seconds:13.2f}  {len(few.event_image):8d}  {each / 128 * 1e3:13.2f}")

    slow, slow_resample, stats = reference(truth, first)
    assert list(found["detection"].values()) == stats
    print(f"pycocotools: scoring {slow:.1f} s, {slow / ours:.0f} times ours; ", end="")
    print(f"a resample {slow_resample:.2f} s, {slow_resample / one:.0f} times ours")
    print("the twelve numbers of both are equal, bit for bit")


if __name__ == "__main__":
    main()
