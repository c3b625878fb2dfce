"""Where the labels of boxes go in a picture: inside it, none over another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

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
