"""Label files of Pascal VOC and of YOLO: the boxes of a picture, in pixels.

Own code, as no converter that was tried has VOC's rule, class numbers above ten, fractions, pictures without
objects and a wrong `<filename>` all right.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image

from yolor_core.data.annotations import ROUNDING
from yolor_core.data.decode import read, reason
from yolor_core.errors import DataError, some_of

FORMS = {"voc": "Pascal VOC", "yolo": "YOLO", "coco": "COCO's layout"}
Form = Literal["voc", "yolo", "coco"]
Box = tuple[float, float, float, float]
CORNERS = ("xmin", "ymin", "xmax", "ymax")
MOST_NAMED = 3
FEW = 3  # boxes; fewer that end at a border are no evidence of how a folder counts
CLIP = "--clip cuts such boxes to their picture"


class Entry(NamedTuple):
    """A picture and its label file, None where it has none."""

    picture: Path
    label: Path | None


class Object(NamedTuple):
    """name: of the class; box: x, y, width, height in pixels, from 0; difficult: as VOC's files say."""

    name: str
    box: Box
    difficult: bool = False


class Labelled(NamedTuple):
    """A picture, its width and height, and its objects in the order of the file."""

    picture: Path
    size: tuple[int, int]
    objects: list[Object]


@dataclass
class Heard:
    """What is wrong with a folder and what its owner should know, each as often as it was met."""

    source: Path
    problems: list[str] = field(default_factory=list)
    hints: dict[str, None] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def problem(self, path: Path, what: str, hint: str = "") -> None:
        """Something that no conversion can be right about."""
        self.problems.append(f"{self.name(path)}: {what}")
        if hint:
            self.hints[hint] = None

    def note(self, what: str, example: str = "", times: int = 1) -> None:
        """Something to tell; the first example is kept."""
        self.counts[what] += times
        self.examples.setdefault(what, example)

    def refuse(self) -> None:
        """Raises DataError, naming the first problems and their number, if there are any."""
        if not self.problems:
            return
        count = len(self.problems)
        number = f"{count} problems: " if count > 1 else ""
        hints = "".join(f"; {hint}" for hint in self.hints)
        raise DataError(f"{self.source}: {number}{some_of(self.problems, MOST_NAMED, '; ')}{hints}")

    def notes(self) -> list[str]:
        """Everything to tell, each in a line with its number."""
        return [
            f"{what}: {count:,}{f', e.g. {self.examples[what]}' if self.examples[what] else ''}"
            for what, count in self.counts.items()
        ]

    def name(self, path: Path) -> str:
        """A path as a message has it: below the folder, where it is."""
        return str(path.relative_to(self.source)) if path.is_relative_to(self.source) else str(path)


@dataclass(frozen=True)
class Reading:
    """How labels are read. zero_based: corners are x = xmin, width = xmax - xmin instead of VOC's rule; clip:
    boxes that leave their picture are cut to it instead of refused."""

    zero_based: bool = False
    clip: bool = False


class _Wrong(Exception):
    """What is wrong with an object, and what may help."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


def read_labels(
    form: Form, entries: Sequence[Entry], names: Mapping[int, str], reading: Reading, heard: Heard
) -> list[Labelled]:
    """The sizes of pictures and their boxes; what is wrong is left in `heard`.

    names: of classes by number; for Pascal VOC those allowed, or none for any.
    """
    reader = _Reader(names, reading, heard)
    read_one = reader.voc if form == "voc" else reader.yolo
    found = []
    for entry in entries:
        one = read_one(entry)
        if one is not None:
            found.append(one)
    reader.judge_edges()
    return found


@dataclass
class _Reader:
    """Reads label files. edges: how many boxes touch which border, as the files count."""

    names: Mapping[int, str]
    reading: Reading
    heard: Heard
    edges: Counter[str] = field(default_factory=Counter)

    def voc(self, entry: Entry) -> Labelled | None:
        path, heard = entry.label, self.heard
        if path is None:
            size = _size(entry.picture, None, heard)
            return None if size is None else Labelled(entry.picture, size, [])
        try:
            root = ET.parse(path).getroot()
        except (OSError, ET.ParseError, ValueError, LookupError) as error:
            heard.problem(path, f"not XML: {why(error)}")
            return None
        if root.tag != "annotation":
            heard.problem(path, f"<{root.tag}> is no annotation of Pascal VOC, which is an <annotation>")
            return None
        said = _whole(root.findtext("size/width")), _whole(root.findtext("size/height"))
        size = _size(entry.picture, said, heard)
        if size is None:
            return None
        name = (root.findtext("filename") or "").strip()
        if name and name != entry.picture.name:
            heard.note(
                "<filename> names another picture, and the name of the XML file counts",
                f"{heard.name(path)} says {name!r}, its picture is {entry.picture.name}",
            )
        if 0 in said:
            heard.note("<size> is missing, and the picture's own counts", heard.name(path))
        elif said != size:
            heard.note(
                "<size> is not that of the picture, which counts (do the boxes fit it?)",
                f"{heard.name(path)} says {said[0]} x {said[1]}, the picture has {size[0]} x {size[1]}",
            )
        objects = []
        for number, element in enumerate(root.findall("object"), 1):
            try:
                objects.append(self._voc_object(element, path, number, size))
            except _Wrong as wrong:
                heard.problem(path, str(wrong), wrong.hint)
        return Labelled(entry.picture, size, objects)

    def _voc_object(self, element: ET.Element, path: Path, number: int, size: tuple[int, int]) -> Object:
        name = (element.findtext("name") or "").strip()
        where = f"object {number} ({name or 'without a <name>'})"
        flag = (element.findtext("difficult") or "").strip() or "0"
        texts = {key: (element.findtext(f"bndbox/{key}") or "").strip() for key in CORNERS}
        missing = [key for key, text in texts.items() if not text]
        if not name:
            raise _Wrong(where)
        if self.names and name not in self.names.values():
            raise _Wrong(f"object {number}: class {name!r}; --classes has {', '.join(self.names.values())}")
        if flag not in ("0", "1"):
            raise _Wrong(f"{where}: <difficult> is {flag!r}; allowed: 0, 1")
        if missing:
            others = [f"<{each.tag}>" for each in element if each.tag in ("polygon", "robndbox")]
            but = f"; {', '.join(others)} is not read" if others else ""
            raise _Wrong(f"{where}: no {', '.join(missing)} in a <bndbox>{but}")
        values = []
        for key, text in texts.items():
            value = _number(text)
            if value is None:
                raise _Wrong(f"{where}: {key} is {text!r}; a finite number is needed")
            values.append(value)
        low_x, low_y, high_x, high_y = values
        first = 0 if self.reading.zero_based else 1
        shown = f"{where}: {', '.join(f'{key} {text}' for key, text in texts.items())}"
        if high_x < low_x or high_y < low_y:
            raise _Wrong(f"{shown}: inverted")
        low, ends = (low_x, low_y), (high_x - size[0], high_y - size[1])
        self.edges.update(
            {"from 0": 0 in low, "from 1": 1 in low, "to last": 0 in ends, "before": -1 in ends}
        )
        hint = CLIP
        if not self.reading.zero_based and 0 in low:
            hint = f"VOC counts from 1: if these files count from 0, --zero-based says so; {CLIP}"
        corners = (low_x - first, low_y - first, high_x, high_y)
        box = self._fit(corners, size, path, shown, hint)
        if not self.reading.zero_based and 1 in box[2:]:
            self.heard.note("boxes one pixel wide or high", f"{self.heard.name(path)}: {shown}")
        if element.find("part") is not None:
            self.heard.note("objects with <part>s, which are left out", self.heard.name(path))
        return Object(name, box, flag == "1")

    def judge_edges(self) -> None:
        """Tell where boxes touch the borders of another rule than the one that they were read by."""
        edges, zero_based = self.edges, self.reading.zero_based
        if not zero_based and edges["from 0"]:  # allowed by --clip alone
            what = "boxes that begin at 0, where VOC begins at 1 (do the files count from 0? --zero-based)"
            self.heard.note(what, times=edges["from 0"])
        if zero_based and edges["from 1"] >= FEW and not edges["from 0"]:
            what = (
                "boxes that begin at 1, and none at 0 (do the files follow VOC's rule, without --zero-based?)"
            )
            self.heard.note(what, times=edges["from 1"])
        if edges["before"] >= FEW and not edges["to last"]:
            rule = "0 with ends included, which is not read" if zero_based else "0"
            what = (
                f"boxes that end one pixel before the last, and none at it (do the files count from {rule}?)"
            )
            self.heard.note(what, times=edges["before"])

    def yolo(self, entry: Entry) -> Labelled | None:
        path, size = entry.label, _size(entry.picture, None, self.heard)
        if size is None:
            return None
        objects = []
        for number, line in lines(path, self.heard) if path else ():
            try:
                objects.append(self._yolo_object(line, path or entry.picture, number, size))
            except _Wrong as wrong:
                self.heard.problem(path or entry.picture, f"line {number}: {wrong}", wrong.hint)
        return Labelled(entry.picture, size, objects)

    def _yolo_object(self, line: str, path: Path, number: int, size: tuple[int, int]) -> Object:
        fields, (width, height) = line.split(), size
        if len(fields) == 6:
            raise _Wrong("6 fields; 5 are needed (a sixth is a confidence: are these detections?)")
        if len(fields) != 5 and (len(fields) < 7 or len(fields) % 2 == 0):
            what = "allowed: 5 (class, centre x and y, width, height), or a class and three or more points"
            raise _Wrong(f"{len(fields)} fields; {what}")
        values = []
        for text in fields:
            value = _number(text)
            if value is None:
                raise _Wrong(f"{text!r}; a finite number is needed")
            values.append(value)
        label, *shares = values
        if label not in self.names:
            raise _Wrong(f"class {fields[0]}; allowed: {_numbers(self.names)}")
        if len(fields) == 5:
            x, y, w, h = shares
            corners = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        else:
            xs, ys = shares[::2], shares[1::2]
            corners = (min(xs), min(ys), max(xs), max(ys))
        hint = "YOLO's numbers are shares of the picture, from 0 to 1" if max(shares) > 2 else CLIP
        shown = f"{' '.join(fields[:5])}{' ...' if len(fields) > 5 else ''}"
        pixels = (corners[0] * width, corners[1] * height, corners[2] * width, corners[3] * height)
        box = self._fit(pixels, size, path, shown, hint)
        if len(fields) > 5:
            what = "polygons that became the boxes around them"
            self.heard.note(what, f"{self.heard.name(path)}: line {number}")
        return Object(self.names[int(label)], box)

    def _fit(self, corners: Box, size: tuple[int, int], path: Path, shown: str, hint: str) -> Box:
        """x1, y1, x2, y2 as a box inside its picture; shown: the same in a message.

        Raises _Wrong for one that is not, unless the reading allows to cut it.
        """
        x1, y1, x2, y2 = corners
        width, height = size
        if x2 <= x1 or y2 <= y1:
            raise _Wrong(f"{shown}: without area")
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
        if right <= left or bottom <= top:
            raise _Wrong(f"{shown}: outside its picture of {width} x {height}", hint if hint != CLIP else "")
        if max(-x1, -y1, x2 - width, y2 - height) > ROUNDING:
            if not self.reading.clip:
                raise _Wrong(f"{shown}: it leaves its picture of {width} x {height}", hint)
            self.heard.note("boxes cut to their picture", f"{self.heard.name(path)}: {shown}")
        return plain(left), plain(top), plain(right - left), plain(bottom - top)


def lines(path: Path, heard: Heard) -> list[tuple[int, str]]:
    """Lines that are not empty, with their number from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        heard.problem(path, why(error))
        return []
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def why(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def plain(value: float) -> float:
    """Without the noise of floats: a millionth of a pixel is kept, whole numbers are whole."""
    value = round(float(value), 6)
    return int(value) if value.is_integer() else value


def _number(text: str | None) -> float | None:
    """A finite number; None for anything else."""
    if text is None or "_" in text:  # Python would read 1_0 as 10
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _whole(text: str | None) -> int:
    """A whole number; 0 for anything else."""
    value = _number(text)
    return int(value) if value is not None and value.is_integer() else 0


def _size(picture: Path, said: tuple[int, int] | None, heard: Heard) -> tuple[int, int] | None:
    """Width and height as training will see them: of the upright picture, or as stored (`decode.read`)."""
    try:
        with Image.open(picture) as opened:
            if not opened.getexif() and "exif" not in opened.info:
                return opened.size
    except Exception:  # damaged metadata is the reader's to judge
        pass
    try:
        pixels, _ = read(picture.read_bytes(), None if said is None or 0 in said else said)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        heard.problem(picture, f"cannot be read: {reason(error)}")
        return None
    return pixels.shape[1], pixels.shape[0]


def _numbers(names: Mapping[int, str]) -> str:
    """Class numbers, for a message."""
    last = max(names)
    return f"0 to {last}" if len(names) == last + 1 else ", ".join(map(str, names))
