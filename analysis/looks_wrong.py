"""Detections that look wrong although they can be scored: what to say of them before they are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.published.detections import most_overlap
from yolor_core.data.annotations import clean
from yolor_core.data.report import KINDS
from yolor_core.errors import DataError
from yolor_core.evaluation.coco import truth_notes
from yolor_core.evaluation.detections import PER_IMAGE_AND_CATEGORY, Detections
from yolor_core.evaluation.engine import Truth, match, score
from yolor_core.tasks import COCO_NUMBERS

Content = Mapping[str, Any]
Range = tuple[float, float]
Arm = tuple[dict[str, Any], Detections]  # content of the annotation file, and what was found

SAMPLE = 500  # images that other readings are tried on
FRACTION = 1.5  # the largest value of boxes that may be fractions of the image
CLASSES = 3  # times as good without classes
SCALES = (0.25, 0.5, 2.0, 4.0)  # of boxes; beside them that of pictures `USUAL_SIDE` long
USUAL_SIDE = 640  # pixels
GAIN = 0.05  # of AP, by which another reading has to be better; and twice as good
OUTSIDE = 0.1  # of a side, by which a box has to leave its image
OFTEN = 0.1  # of the boxes
SHOWN = 1e-4  # of a score: what two decimals of a percentage show
RANDOM = 8  # orders of equal scores


def restricted(arms: Mapping[str, Arm], images_of: str) -> dict[str, Arm]:
    """The annotations and detections of arms A and B, of images alone that `images_of` has detections in.

    `images_of` is an arm or "both". Raises DataError where there is no such image.
    """
    found = {arm: np.unique(detections.image_id) for arm, (_, detections) in arms.items()}
    kept = found[images_of] if images_of in found else np.intersect1d(found["A"], found["B"])
    if not len(kept):
        raise DataError(f"--images-of {images_of}: there is no such image")
    return {
        arm: (_content(content, kept), _rows(detections, np.isin(detections.image_id, kept)))
        for arm, (content, detections) in arms.items()
    }


def all_notes(
    arms: Mapping[str, Arm], truths: Mapping[str, Truth], orders: Mapping[str, Mapping[str, Range]]
) -> list[str]:
    """What to say above the scores of A and B on the same images; `orders` is what `order_ranges` gave."""
    found = {arm: detections for arm, (_, detections) in arms.items()}
    told = [*truth_notes(arms["A"][0], found), *_truth_findings(arms["A"][0])]
    told += _coverage(truths["A"], found)
    for arm, (content, detections) in arms.items():
        if len(detections):
            told += [f"{arm}: {note}" for note in _notes(content, truths[arm], detections, orders[arm])]
    return told


def _truth_findings(content: Content) -> list[str]:
    """What `ablate data check` calls serious about the annotations; nothing where they lack images' sizes."""
    try:
        report = clean(content, "--truth")[1]
    except DataError:
        return []
    return [
        f"true boxes: {report.count(kind)} {meaning}: {effect}"
        for kind, (unit, meaning, effect, _) in KINDS.items()
        if unit == "boxes" and kind != "negative" and report.serious(kind)  # see `truth_notes`
    ]


def _notes(
    content: Content, truth: Truth, detections: Detections, orders: Mapping[str, Range]
) -> Iterator[str]:
    yield from _other_readings(content, truth, detections)
    yield from _outside(content, detections)
    yield from _cut(detections)
    yield from _one_score(detections)
    if orders:
        yield _order(orders)


def _content(content: Content, images: NDArray[np.integer]) -> dict[str, Any]:
    kept = set(images.tolist())
    return {
        **content,
        "images": [each for each in content["images"] if each["id"] in kept],
        "annotations": [each for each in content["annotations"] if each["image_id"] in kept],
    }


def _rows(detections: Detections, chosen: NDArray[Any]) -> Detections:
    """Some detections, or all in another order."""
    return Detections(**{name: value[chosen] for name, value in vars(detections).items()})


def _coverage(truth: Truth, arms: Mapping[str, Detections]) -> list[str]:
    """In how many of the images with true boxes each arm found anything, where one left some out."""
    with_boxes = truth.image_ids[np.unique(truth.image[truth.counted > 0])]
    found = {arm: np.isin(with_boxes, each.image_id).sum() for arm, each in arms.items()}
    if all(count == len(with_boxes) for count in found.values()):
        return []
    every = len(with_boxes)
    return [
        f"A has detections in {found['A']} of {every} images with true boxes, B in {found['B']} of {every}; "
        "what is in the others counts as missed (--images-of A, B or both leaves them out)"
    ]


def order_ranges(truth: Truth, detections: Detections, seed: int = 0) -> dict[str, Range]:
    """The lowest and highest value (fractions) of each score in several orders of the rows.

    Rows of equal score in one image and category are taken in the order given. Tried are that order, the
    best boxes first (by overlap with the nearest true box), the worst first, and `RANDOM` orders at random;
    others may go a little beyond. Scores that differ by less than `SHOWN` are left out.
    """
    keys = (detections.scores, detections.category_id, detections.image_id)
    order = np.lexsort(keys)
    tied = np.logical_and.reduce([key[order[1:]] == key[order[:-1]] for key in keys])
    if not tied.any():
        return {}
    overlap = most_overlap(detections, detections.boxes.astype(np.float64), truth)
    random = np.random.default_rng(seed)
    orders = [np.arange(len(order)), np.argsort(-overlap, kind="stable"), np.argsort(overlap, kind="stable")]
    found = [_scores(truth, _rows(detections, each)) for each in orders]
    if not _ranges(found):  # the extremes do not differ
        return {}
    found += [_scores(truth, _rows(detections, random.permutation(len(order)))) for _ in range(RANDOM)]
    return _ranges(found)


def _order(ranges: Mapping[str, Range]) -> str:
    widest = max(ranges, key=lambda name: ranges[name][1] - ranges[name][0])
    told = [
        f"{name} {100 * ranges[name][0]:.2f} to {100 * ranges[name][1]:.2f}"
        for name in dict.fromkeys(("AP", widest))
        if name in ranges
    ]
    return (
        "equal scores in one image and class are taken in the order of the rows; other orders of the same "
        f"rows give {', '.join(told)} ({RANDOM + 3} tried)"
    )


def _ranges(found: list[dict[str, float | None]]) -> dict[str, Range]:
    ranges = {}
    for name in COCO_NUMBERS:
        values = [each[name] for each in found]
        known = [value for value in values if value is not None]
        if known and max(known) - min(known) >= SHOWN:
            ranges[name] = (min(known), max(known))
    return ranges


def _scores(truth: Truth, detections: Detections) -> dict[str, float | None]:
    scores: dict[str, float | None] = score(match(truth, detections))["detection"]
    return scores


def _other_readings(content: Content, truth: Truth, detections: Detections) -> Iterator[str]:
    """Boxes or ids that fit the true boxes far better when they are read in another way."""
    with_boxes = truth.image_ids[np.unique(truth.image)]
    some = with_boxes[:: -(-len(with_boxes) // SAMPLE) or 1]
    sample = _content(content, some)
    part = Truth.read(sample)

    def ap(read: Detections, boxes: Truth = part) -> float:
        return _ap(boxes, _rows(read, np.isin(read.image_id, some)))

    own, best = ap(detections), None
    for name, read in _readings(content, truth, detections):
        other = ap(read)
        if other >= max(2 * own, own + GAIN) and (best is None or other > best[0]):
            best = other, name, read
    if best is not None:
        after, before = (100 * _ap(truth, each) for each in (best[2], detections))
        yield f"its {best[1]}: AP would be {after:.2f} instead of {before:.2f}"
        return
    first, *others = truth.category_ids.tolist()
    if others:
        boxes = [{**each, "category_id": first} for each in sample["annotations"]]
        one = Truth.read({**sample, "annotations": boxes})
        other = ap(replace(detections, category_id=np.full_like(detections.category_id, first)), one)
        if other >= max(CLASSES * own, own + 2 * GAIN):
            yield (
                f"its boxes fit far better without regard to classes, AP {100 * other:.2f} instead of "
                f"{100 * own:.2f}: do its category ids mean the classes of the annotations?"
            )


def _ap(truth: Truth, detections: Detections) -> float:
    ap = _scores(truth, detections)["AP"]
    return 0.0 if ap is None else ap


def _readings(content: Content, truth: Truth, detections: Detections) -> Iterator[tuple[str, Detections]]:
    """What else the numbers could mean, as far as they can, in words and as detections."""
    boxes, sizes = detections.boxes.astype(np.float64), _sizes(content, detections)
    scales = [("", np.ones((1, 4)))]
    if sizes is not None and boxes.max() <= FRACTION:
        scales.append((" as fractions of the image", np.tile(sizes, 2)))
    elif len(boxes):
        for factor in SCALES:
            yield (
                f"boxes fit better at {factor:g} times their size",
                replace(detections, boxes=boxes * factor),
            )
        if sizes is not None:
            fitted = boxes * (sizes.max(axis=1, keepdims=True) / USUAL_SIDE)
            words = f"boxes fit better as those of pictures resized to {USUAL_SIDE} pixels"
            yield words, replace(detections, boxes=fitted)
    for scaled, scale in scales:
        for turned, columns in (("", [0, 1, 2, 3]), (" with y before x", [1, 0, 3, 2])):
            first, last = np.split(boxes[:, columns] * scale, 2, axis=1)
            for name, corner, extent in (
                ("x, y, width, height", first, last),
                ("corners x1, y1, x2, y2", first, last - first),
                ("centres with width and height", first - last / 2, last),
            ):
                read = np.hstack([corner, extent])
                if (extent >= 0).all() and not np.array_equal(read, boxes):
                    yield f"boxes look like {name}{scaled}{turned}", replace(detections, boxes=read)
    for column, known in (("category_id", truth.category_ids), ("image_id", truth.image_ids)):
        for start in (0, 1):
            places = getattr(detections, column).astype(np.int64) - start
            if places.min() >= 0 and places.max() < len(known):
                words = f"{column} looks like a position counted from {start}"
                yield words, replace(detections, **{column: known[places]})


def _sizes(content: Content, detections: Detections) -> NDArray[np.float64] | None:
    """(n, 2) width and height of each detection's image; None where an image does not say them."""
    try:
        known = {each["id"]: (float(each["width"]), float(each["height"])) for each in content["images"]}
    except (KeyError, TypeError, ValueError):
        return None
    return np.array([known[image] for image in detections.image_id.tolist()])


def _outside(content: Content, detections: Detections) -> Iterator[str]:
    sizes = _sizes(content, detections)
    if sizes is None:
        return
    first, ends = detections.boxes[:, :2], detections.boxes[:, :2] + detections.boxes[:, 2:]
    out = (np.maximum(-first, ends - sizes) > OUTSIDE * sizes).any(1)
    if out.mean() > OFTEN:
        yield f"{int(out.sum())} of its {len(out)} boxes reach far out of their image"


def _cut(detections: Detections) -> Iterator[str]:
    cells = np.stack([detections.image_id, detections.category_id], 1)
    counts = np.unique(cells, axis=0, return_counts=True)[1]
    cut = int((counts - PER_IMAGE_AND_CATEGORY).clip(0).sum())
    if cut:
        yield (
            f"{cut} of its detections are not scored: COCO takes the best {PER_IMAGE_AND_CATEGORY} of an "
            "image and class"
        )


def _one_score(detections: Detections) -> Iterator[str]:
    values, counts = np.unique(detections.scores, return_counts=True)
    most = int(counts.max())
    if most > 1 and 2 * most > len(detections):
        yield (
            f"{most} of its {len(detections)} detections have the score {values[counts.argmax()]:g}: AP "
            "ranks by score, and what is equal stands by image id, then by row"
        )
