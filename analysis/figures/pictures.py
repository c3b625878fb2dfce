"""Images with their true boxes and what a run found: some of one run, and those two runs differ most in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle as Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image

from analysis.comparison import Comparison, stored
from analysis.errors import NothingToShow
from analysis.figures.style import PALETTE, PHOTOGRAPH, SMALL, Width, drawn, figure, legend, signed
from yolor_core.config import RunConfig
from yolor_core.data.annotations import class_labels
from yolor_core.data.images import Pixels, Sample
from yolor_core.data.load import load_images
from yolor_core.errors import DataError, RunError
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.engine.matching import overlaps
from yolor_core.runs.directory import RunDirectory

BOX = ("x", "y", "width", "height")
COLUMNS = (
    *("image", "image_width", "image_height", "part", "model", "run", "score_from"),
    *("kind", "name", "score", *BOX, "right"),
)
OVERLAP = 0.5  # IoU from which a box of the right class is right
LONGEST = 240  # pixels of a picture's long side in a figure
PANEL = (118.0, 110.0)  # points, about the width and height of a picture in the figure
LETTER = 0.62 * SMALL  # points, the width of a label's letter
PLATE = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.4}
HALO = [withStroke(linewidth=2, foreground="white")]
TRUTH: dict[str, Any] = {"edgecolor": "black", "linestyle": ":", "linewidth": 1.1, "path_effects": HALO}
RIGHT: dict[str, Any] = {"edgecolor": PALETTE[0], "linestyle": "-", "linewidth": 1.1}
WRONG: dict[str, Any] = {"edgecolor": PALETTE[1], "linestyle": (0, (4, 1.5)), "linewidth": 1.1}


def changed_data(
    comparison: Comparison, a: Path, b: Path, images: int = 4, score: float = 0.3
) -> pd.DataFrame:
    """Boxes in the images that differ most, in the order of `Comparison.images`, columns `COLUMNS`.

    `part` is what an image adds to the difference of AP (B - A, percentage points). `kind` is "truth" or
    "detection"; boxes and image sizes are in pixels of the original image; `score_from` is the argument
    `score`. `right` says of a detection that it is right (its class, an overlap of `OVERLAP`, none better for
    the same true box), and of a true box that it was found.

    Args:
        comparison: of the runs.
        a, b: their folders.
        images: how many.
        score: below it detections are left out.

    Raises:
        NothingToShow: no image differs, or a run has no detections.
    """
    if not comparison.images:
        raise NothingToShow(f"{a.name} and {b.name} score the same with or without any image.")
    chosen = comparison.images[:images]
    parts = [
        _boxes(content, detections, image, score).assign(part=part, model=model, run=path.name)
        for model, path in (("A", a), ("B", b))
        for content, detections in [_stored(path)]
        for image, part in chosen
    ]
    data = pd.concat(parts, ignore_index=True).assign(score_from=score)[list(COLUMNS)]
    if data.empty:
        raise NothingToShow(f"The images that differ have no true boxes, nor any found with {score} or more.")
    order = {image: place for place, (image, _) in enumerate(chosen)}
    return data.sort_values("image", key=lambda column: column.map(order), kind="stable", ignore_index=True)


def found_data(run: Path, images: int = 4, score: float = 0.3) -> pd.DataFrame:
    """Boxes in the first images with objects, as in `changed_data` but for `part` and `model`.

    Args:
        run: its folder.
        images: how many.
        score: below it detections are left out.

    Raises:
        NothingToShow: no image has objects, or the run has no detections.
    """
    content, detections = _stored(run)
    chosen = sorted({each["image_id"] for each in content["annotations"]})[:images]
    if not chosen:
        raise NothingToShow(f"No image of {run.name} has objects.")
    parts = [_boxes(content, detections, image, score) for image in chosen]
    data = pd.concat(parts, ignore_index=True).assign(run=run.name, score_from=score)
    return data[[name for name in COLUMNS if name in data]]


def photographs(run: Path, images: Iterable[int], longest: int = LONGEST) -> dict[int, Pixels]:
    """Pixels of validation images of a run by image id: uint8 RGB, the long side at most `longest`.

    Raises NothingToShow where the dataset or an image is not on this machine.
    """
    record = RunDirectory(run).read_run() or {}
    try:
        known = load_images(RunConfig.from_json(json.dumps(record["config"])).data, "val")
    except (DataError, KeyError) as error:
        raise NothingToShow(f"The images of {run.name} are not here: {error}") from None
    places = {int(each): place for place, each in enumerate(known.ids)}
    return {image: _small(known.sample(places[image]), longest) for image in images}


@drawn
def changed(data: pd.DataFrame, pixels: Mapping[int, Pixels], width: Width = "column") -> Figure:
    """A row for each image, with A and B side by side; two images in a row of a page.

    Args:
        data: of `changed_data`.
        pixels: of `photographs`, of every image of `data`.
        width: of the figure.
    """
    images = list(dict.fromkeys(data["image"]))
    across = 1 if width == "column" else 2
    rows = -(-len(images) // across)
    made, axes = figure(width, 1.75 * rows, rows, 2 * across)
    for each in axes.flat:
        each.axis("off")
    for place, image in enumerate(images):
        own = data[data["image"] == image]
        for side, model in enumerate("AB"):
            panel = axes[place // across, 2 * (place % across) + side]
            boxes = own[own["model"] == model]
            _panel(panel, boxes, _size(own), pixels[image], f"{PHOTOGRAPH}{2 * place + side}")
            part = f": {signed(own['part'].iloc[0], 2)}" if side else ""
            panel.set_title(f"{model}, image {image}{part}", fontsize=7)
    runs = "\n".join(f"{model}: {name}" for model, name in data.groupby("model")["run"].first().items())
    title = (
        f"{runs}\nNumbers above B: what the image adds to the difference of AP, B − A (percentage points). "
        "Labels that find no place are left out."
    )
    _box_legend(made, axes[0, 0], data, title)
    return made


@drawn
def found(data: pd.DataFrame, pixels: Mapping[int, Pixels], width: Width = "column") -> Figure:
    """Images with true boxes and detections, two in a row, or four in a row of a page.

    Args:
        data: of `found_data`.
        pixels: of `photographs`, of every image of `data`.
        width: of the figure.
    """
    images = list(dict.fromkeys(data["image"]))
    across = min(2 if width == "column" else 4, len(images))
    rows = -(-len(images) // across)
    made, axes = figure(width, 1.75 * rows, rows, across)
    for each in axes.flat:
        each.axis("off")
    for place, (image, each) in enumerate(zip(images, axes.flat, strict=False)):
        own = data[data["image"] == image]
        _panel(each, own, _size(own), pixels[image], f"{PHOTOGRAPH}{place}")
    title = f"The run: {data['run'].iloc[0]}. Labels that find no place are left out."
    _box_legend(made, axes[0, 0], data, title)
    return made


def _box_legend(made: Figure, axes: Axes, data: pd.DataFrame, title: str) -> None:
    kinds = {
        "true box": TRUTH,
        f"✓ right detection, score {data['score_from'].iloc[0]} or more": RIGHT,
        "✗ wrong detection": WRONG,
    }
    for label, kind in kinds.items():
        line = {"color": kind["edgecolor"], "linestyle": kind["linestyle"], "linewidth": kind["linewidth"]}
        axes.plot([], [], label=label, **line)
    legend(made, [axes], 3, title)


def _stored(run: Path) -> tuple[dict[str, Any], Detections]:
    try:
        return stored(run)
    except (DataError, RunError) as error:
        raise NothingToShow(f"The boxes of {run.name} cannot be shown: {error}") from None


def _boxes(content: dict[str, Any], detections: Detections, image: int, score: float) -> pd.DataFrame:
    """True boxes and detections of an image; crowds, and what lies in them, are left out."""
    size = next(each for each in content["images"] if each["id"] == image)
    names = class_labels({each["id"]: each["name"] for each in content["categories"]})
    mine = [each for each in content["annotations"] if each["image_id"] == image]
    crowds = pd.DataFrame([_true(each) for each in mine if each.get("iscrowd")], columns=["class", *BOX])
    truth = pd.DataFrame([_true(each) for each in mine if not each.get("iscrowd")], columns=["class", *BOX])
    some = (detections.image_id == image) & (detections.scores >= score)
    found = pd.DataFrame(detections.boxes[some], columns=list(BOX), dtype=float)
    found = found.assign(**{"class": detections.category_id[some], "score": detections.scores[some]})
    found = found.sort_values("score", ascending=False, kind="stable", ignore_index=True)
    taken, right = _assigned(found, truth)
    within = (_overlaps(found, crowds, crowd=True) >= OVERLAP).any(axis=1) & ~right
    both = [
        truth.assign(kind="truth", score=np.nan, right=taken),
        found.assign(kind="detection", right=right)[~within],
    ]
    joined = pd.concat([each for each in both if len(each)] or both[:1], ignore_index=True)
    return joined.assign(
        image=image, image_width=size["width"], image_height=size["height"], name=joined["class"].map(names)
    )


def _true(annotation: dict[str, Any]) -> tuple[float, ...]:
    return (annotation["category_id"], *annotation["bbox"])


def _assigned(found: pd.DataFrame, truth: pd.DataFrame) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which true boxes are found, (t,), and which detections are right, (d,): the best choose first."""
    shared = _overlaps(found, truth)
    taken, right = np.zeros(len(truth), bool), np.zeros(len(found), bool)
    for place in range(len(found)):
        free = np.where(taken, -1.0, shared[place])
        if len(free) and free.max() >= OVERLAP:
            taken[free.argmax()] = right[place] = True
    return taken, right


def _overlaps(found: pd.DataFrame, truth: pd.DataFrame, crowd: bool = False) -> NDArray[np.float64]:
    """IoU (found, truth), 0 where classes differ."""
    out = np.zeros((len(found), len(truth)))
    boxes = [np.ascontiguousarray(each[list(BOX)].to_numpy(float)) for each in (found, truth)]
    overlaps(boxes[0], boxes[1], np.full(len(truth), crowd), out)
    return out * (found["class"].to_numpy()[:, None] == truth["class"].to_numpy()[None])


def _small(sample: Sample, longest: int) -> Pixels:
    for note in sample.notes:
        if note.kind == "unreadable":
            raise NothingToShow(f"The pictures cannot be shown: {note.text}")
    image = Image.fromarray(sample.pixels)
    image.thumbnail((longest, longest))
    return np.asarray(image, np.uint8)


def _size(rows: pd.DataFrame) -> tuple[int, int]:
    """Width and height of the image that the rows are of."""
    return int(rows["image_width"].iloc[0]), int(rows["image_height"].iloc[0])


def _panel(axes: Axes, boxes: pd.DataFrame, size: tuple[int, int], pixels: Pixels, name: str) -> None:
    """A picture of this width and height with its boxes, if any; the best detection is drawn last.

    Labels stand by what is wrong first, then by what is right, as far as they find a place.
    """
    width, height = size
    axes.imshow(pixels, extent=(0, width, height, 0), interpolation="none", gid=name)
    wrong: list[tuple[Rectangle, str]] = []
    right: list[tuple[Rectangle, str]] = []
    for box in boxes.to_dict("records"):
        x, y, wide, high = (float(box[side]) for side in BOX)
        true, corners = box["kind"] == "truth", (x, y, x + wide, y + high)
        kind = TRUTH if true else RIGHT if box["right"] else WRONG
        place = 2 - (0 if true else box["score"])
        axes.add_patch(Patch((x, y), wide, high, fill=False, zorder=4 - place, **kind))
        if not box["right"]:
            wrong.append(
                (corners, f"missed: {box['name']}" if true else f"✗ {box['name']} {box['score']:.2f}")
            )
        elif not true:
            right.append((corners, f"✓ {box['name']} {box['score']:.2f}"))
    point = max(width / PANEL[0], height / PANEL[1])
    corners_of, texts = zip(*wrong, *right, strict=True) if wrong or right else ((), ())
    for label in place_labels(corners_of, texts, size, LETTER * point, 1.4 * SMALL * point):
        middle = (label.top + label.bottom) / 2
        axes.text(label.left, middle, label.text, fontsize=SMALL, va="center", zorder=5, bbox=PLATE)
    axes.set(xlim=(0, width), ylim=(height, 0), anchor="N")


Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


class Label(NamedTuple):
    """A text and its place, in the units of the boxes."""

    text: str
    left: float
    top: float
    right: float
    bottom: float


def place_labels(
    boxes: Sequence[Rectangle],
    texts: Sequence[str],
    size: tuple[float, float],
    letter: float,
    line: float,
) -> list[Label]:
    """Labels above, below or within their boxes; the first box chooses first, some find none.

    Args:
        boxes: in pixels.
        texts: of the labels, one for each box.
        size: width and height of the picture in pixels.
        letter: width of a letter in pixels.
        line: height of a label in pixels.
    """
    placed: list[Label] = []
    for box, text in zip(boxes, texts, strict=True):
        wide = min(letter * len(text), size[0])
        for left, top in _corners(box, wide, line):
            found = Label(text, min(max(left, 0), size[0] - wide), top, 0, top + line)
            found = found._replace(right=found.left + wide)
            if found.top >= 0 and found.bottom <= size[1] and not any(_overlap(found, one) for one in placed):
                placed.append(found)
                break
    return placed


def _corners(box: Rectangle, wide: float, line: float) -> Iterator[tuple[float, float]]:
    """Upper left corners of a label, the best first."""
    left, top, right, bottom = box
    for place in (top - line, bottom, top, bottom - line):
        yield left, place
        yield right - wide, place


def _overlap(one: Label, other: Label) -> bool:
    return (
        one.left < other.right
        and other.left < one.right
        and one.top < other.bottom
        and other.top < one.bottom
    )
