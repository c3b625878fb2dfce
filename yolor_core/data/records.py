"""Files of annotations and of detections, read into columns: the one reader of all commands.

Nothing is cast into something else. What is missing, of the wrong kind or contradicts itself is a DataError
that names the file, the entry and what is allowed.
"""

from __future__ import annotations

import gzip
import json
import reprlib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from yolor_core.errors import DataError, json_kind, some_of

SIZE_LIMITS = (32, 96)  # COCO's: sides in pixels from which an object is medium, and large

NONE = -1

Source = Literal["identity", "category"]


@dataclass(frozen=True)
class Identities:
    """The identities of the boxes of a split.

    source: where they come from; values: the field's values, or the classes, that occur, int64 (count,),
    rising; index: int64 (m,), for each box the place of its value in `values`, NONE for a box without.
    """

    source: Source
    values: NDArray[np.int64]
    index: NDArray[np.int64]

    @property
    def count(self) -> int:
        return len(self.values)

    @property
    def once(self) -> int:
        """Identities of a single box, which can be learnt from but not found again."""
        return int((np.bincount(self.index[self.index != NONE], minlength=self.count) == 1).sum())

    @property
    def without(self) -> int:
        return int((self.index == NONE).sum())


def identify(fields: NDArray[np.int64], classes: NDArray[np.int64]) -> Identities:
    """Identities of boxes: by the values of their field (m,), or by their classes (m,) where all are NONE."""
    source: Source = "identity" if (fields != NONE).any() else "category"
    values, index = np.unique(fields if source == "identity" else classes, return_inverse=True)
    index = index.reshape(-1).astype(np.int64)
    if len(values) and values[0] == NONE:  # no other value is smaller
        values, index = values[1:], index - 1
    return Identities(source, values.astype(np.int64), index)


ID_LIMIT = 2**63  # as detections.parquet stores ids
EXACT = 2**53  # below it a float is the whole number that it says
FARTHEST = 1e9  # pixels
PIXELS = 2**30  # of an image; OpenCV reads no more
MOST_NAMED = 5
NOT_JSON = {
    b"<": "an HTML or XML page, perhaps a server's answer in place of the file",
    b"PK\x03\x04": "a ZIP archive",
    b"PAR1": "a Parquet file",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
}

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60


def read_json(path: Path) -> Any:
    """Content of a JSON file. Raises DataError, as `parse` does and where there is no such file."""
    return parse(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """The bytes of a file. Raises DataError where they cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None


def parse(data: bytes, path: Path) -> Any:
    """JSON content of a file's bytes: UTF-8, UTF-16 or UTF-32, with or without a mark, gzipped or not.

    Raises DataError naming the file and the place of the mistake.
    """
    try:
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        return json.loads(data)
    except json.JSONDecodeError as error:
        start = data.lstrip()
        is_a = next((what for magic, what in NOT_JSON.items() if start.startswith(magic)), None)
        where = f"{error.msg} at line {error.lineno}, column {error.colno}"
        why = f"it is {is_a}" if is_a else where if start else "it is empty"
    except RecursionError:
        why = "it is nested too deeply"
    except (UnicodeDecodeError, EOFError, zlib.error, OSError) as error:
        why = str(error)
    except ValueError as error:  # a whole number of thousands of digits
        why = str(error).partition(":")[0]
    raise DataError(f"{path}: not JSON: {why}")


@dataclass(frozen=True)
class Records:
    """The objects of one list of a file. kind: what one is, as in messages; source: names the file; by_id:
    messages name an entry by its id, where it has one, instead of its place from 0."""

    rows: Sequence[Any]
    kind: str
    source: str
    by_id: bool = True

    @classmethod
    def of(cls, content: dict[str, Any], key: str, kind: str, source: str) -> Records:
        """Those of a key of the file. Raises DataError where it has no list of objects there."""
        if key not in content:
            raise DataError(f"{source}: key {key!r} is missing")
        if not isinstance(content[key], list):
            raise DataError(f"{source}: {key!r} is {json_kind(content[key])}; a list is needed")
        return cls(content[key], kind, source)

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if not isinstance(row, dict):
                found = f"{self.kind} {'at place ' * self.by_id}{number} is {json_kind(row)}"
                raise DataError(f"{self.source}: {found}; an object is needed")

    def having(self, key: str) -> Records:
        """Those that have a key."""
        return replace(self, rows=[row for row in self.rows if key in row])

    def integers(self, key: str, floats: bool = False, most: int | None = None) -> NDArray[np.int64]:
        """(n,) whole numbers, with `floats` also written as 2.0, with `most` from 1 to that."""
        values = self._values(key)
        if set(map(type, values)) - {int}:  # a bool is an int to isinstance
            self._check(key, values, lambda value: _is_whole(value, floats), "a whole number is needed")
            values = [int(value) for value in values]
        if most is not None:
            self._check(key, values, lambda value: 1 <= value <= most, f"allowed: 1 to {most}")
        try:
            return np.array(values, np.int64)
        except OverflowError:
            needed = "whole numbers from -2^63 to 2^63 - 1 can be stored"
            self._check(key, values, lambda value: -ID_LIMIT <= value < ID_LIMIT, needed)
            raise

    def numbers(self, key: str, limit: float | None) -> NDArray[np.float64]:
        """(n,) numbers, finite and below a limit, if there is one."""
        values = self._values(key)
        found = _floats(values, limit)
        if found is not None:
            return found
        self._check(key, values, _is_number, "a number is needed")
        self._check(key, values, lambda value: _floats([value], limit) is not None, _finite(limit))
        raise AssertionError

    def boxes(self) -> NDArray[np.float64]:
        """(n, 4) of `bbox`: x, y, width, height in pixels."""
        key, values = "bbox", self._values("bbox")
        if set(map(type, values)) <= {list, tuple} and set(map(len, values)) <= {4}:
            found = _floats(list(chain.from_iterable(values)), FARTHEST)
            if found is not None:
                return found.reshape(-1, 4)
        needed = "four numbers x, y, width, height are needed"
        self._check(key, values, _is_box, needed)
        self._check(key, values, lambda value: _floats(value, FARTHEST) is not None, _finite(FARTHEST))
        raise AssertionError

    def flags(self, key: str) -> NDArray[np.bool_]:
        """(n,) of 0 and 1."""
        values = self._values(key)
        self._check(key, values, lambda value: value in (0, 1), "allowed: 0, 1")
        return np.array(values, bool)

    def texts(self, key: str, errors: str = "strict") -> list[str]:
        """Texts that are not empty. errors: "surrogateescape" for names of files, which may be any bytes."""
        values = self._values(key)
        self._check(key, values, lambda value: isinstance(value, str) and value != "", "a text is needed")
        needed = "a text of whole characters is needed (no zero byte, no half of a surrogate pair)"
        if not _is_encodable("".join(values), errors):
            self._check(key, values, lambda value: _is_encodable(value, errors), needed)
        return values

    def identities(self) -> NDArray[np.int64]:
        """(n,) the field `identity`, NONE where it is null or missing."""
        key, values = "identity", [row.get("identity") for row in self.rows]
        needed = "allowed: whole numbers from 0 to 2^63 - 1, and null for an object of unknown identity"
        self._check(key, values, _is_identity, needed)
        return np.array([NONE if value is None else value for value in values], np.int64)

    def unique(self, values: NDArray[np.int64]) -> None:
        """Raises DataError where ids are given twice."""
        found, times = np.unique(values, return_counts=True)
        refuse([str(each) for each in found[times > 1]], f"duplicate {self.kind} ids", self.source)

    def _values(self, key: str) -> list[Any]:
        try:
            return [row[key] for row in self.rows]
        except KeyError:
            number = next(number for number, row in enumerate(self.rows) if key not in row)
            raise DataError(f"{self.source}: {self._name(number)}: key {key!r} is missing") from None

    def _check(self, key: str, values: Sequence[Any], good: Callable[[Any], bool], needed: str) -> None:
        for number, value in enumerate(values):
            if not good(value):
                shown = _repr.repr(value)
                raise DataError(f"{self.source}: {self._name(number)}: {key} is {shown}; {needed}")

    def _name(self, number: int) -> str:
        """An entry by its id, else by its place from 0."""
        row = self.rows[number]
        if not self.by_id:
            return f"{self.kind} {number}"
        return f"{self.kind} {_repr.repr(row['id'])}" if "id" in row else f"{self.kind} at place {number}"


@dataclass(frozen=True)
class Content:
    """What a COCO instances file says, as it says it.

    names: of categories, by id; image_ids (n,), files and sizes (n, 2) width, height of images, in the order
    of the file; of annotations, in that order: ids (m,), image (m,) the place of its image, category (m,),
    boxes (m, 4) x, y, width, height in pixels, areas (m,), crowd (m,) and identities (m,). ranges: of
    `area_ranges`.
    """

    names: dict[int, str]
    image_ids: NDArray[np.int64]
    files: list[str]
    sizes: NDArray[np.int64]
    ids: NDArray[np.int64]
    image: NDArray[np.int64]
    category: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    identities: NDArray[np.int64]
    ranges: NDArray[np.float64]


def area_ranges(content: Any, source: str = "the annotations") -> NDArray[np.float64]:
    """(4, 2) least and largest area in px² of all, small, medium and large objects.

    COCO's limits are absolute, so in images of another scale they name other things; the content of an
    instances file may state its own as `{"info": {"size_limits": [medium from, large from]}}`, sides in
    pixels, as the built-in images do (5 and 15 % of their long side, as in COCO at 640 pixels).

    Raises:
        DataError: when they are not two rising positive numbers.
    """
    info = content.get("info") if isinstance(content, Mapping) else None
    limits = info.get("size_limits", SIZE_LIMITS) if isinstance(info, Mapping) else SIZE_LIMITS
    numbers = isinstance(limits, list | tuple) and all(type(each) in (int, float) for each in limits)
    if not numbers or len(limits) != 2 or not 0 < limits[0] < limits[1] < 1e5:
        raise DataError(
            f"{source}: info.size_limits = {limits!r}; expected two rising sides in pixels, e.g. [32, 96]"
        )
    medium, large = (float(side) ** 2 for side in limits)
    return np.array([(0.0, 1e10), (0.0, medium), (medium, large), (large, 1e10)])


def size_limits(ranges: NDArray[np.float64]) -> list[float]:
    """The sides in pixels from which objects are medium and large, of the ranges that `area_ranges` gives."""
    return [round(float(area) ** 0.5, 3) for area in ranges[2:, 0]]


def read_content(content: Any, source: str, pictures: bool = True) -> Content:
    """Read an instances file; `source` names it in messages.

    Without `pictures` images need no file name and no size (`files` and `sizes` are then not to be used), and
    there need not be any.
    Raises DataError for missing keys, wrong kinds, duplicate ids, dangling references, numbers not finite.
    """
    if not isinstance(content, dict):
        raise DataError(
            f"{source}: expected an object with images, categories and annotations, as a COCO instances file "
            f"has, found {json_kind(content)}"
        )
    images, categories, annotations = (
        Records.of(content, key, kind, source)
        for key, kind in (("images", "image"), ("categories", "category"), ("annotations", "annotation"))
    )
    for key in ("images", "categories") if pictures else ():
        if not content[key]:
            raise DataError(f"{source}: {key!r} is empty")
    ranges = area_ranges(content, source)  # refused here, so that no training ends with this error
    category_ids, image_ids = categories.integers("id"), images.integers("id")
    names = dict(zip(category_ids.tolist(), categories.texts("name"), strict=True))
    categories.unique(category_ids)
    images.unique(image_ids)
    described = {key: images if pictures else images.having(key) for key in ("file_name", "width", "height")}
    files = described["file_name"].texts("file_name", "surrogateescape")
    sides = [described[key].integers(key, most=PIXELS) for key in ("width", "height")]
    sizes = np.stack(sides, 1) if pictures else np.zeros((0, 2), np.int64)
    for row in np.flatnonzero(sizes.prod(axis=1) > PIXELS)[:1]:
        size = f"{sizes[row, 0]} x {sizes[row, 1]}"
        raise DataError(f"{source}: image {image_ids[row]}: {size} is more than the {PIXELS} pixels allowed")

    ids, image, category = (annotations.integers(key) for key in ("id", "image_id", "category_id"))
    boxes, areas = annotations.boxes(), annotations.numbers("area", FARTHEST**2)
    crowd, identities = annotations.flags("iscrowd"), annotations.identities()
    place, listed = _places(image, image_ids)
    for there, what, values in (
        (listed, "image", image),
        (np.isin(category, category_ids), "category", category),
    ):
        refuse(
            [f"annotation {ids[row]} ({what} {values[row]})" for row in np.flatnonzero(~there)],
            f"annotations of {'images' if what == 'image' else 'categories'} that are not listed",
            source,
        )
    annotations.unique(ids)
    return Content(
        names, image_ids, files, sizes, ids, place, category, boxes, areas, crowd, identities, ranges
    )


def refuse(offenders: Sequence[str], what: str, source: str) -> None:
    """Raises DataError, naming the first, if there are any."""
    if offenders:
        raise DataError(f"{source}: {len(offenders)} {what}: {some_of(offenders, MOST_NAMED)}")


def _places(ids: NDArray[np.int64], known: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(n,) where each id stands in `known`, in whatever order that is, and whether it does."""
    if not len(known):
        return np.zeros(len(ids), np.int64), np.zeros(len(ids), bool)
    order = np.argsort(known)
    place = order[np.minimum(np.searchsorted(known, ids, sorter=order), len(known) - 1)]
    return place, known[place] == ids


def _floats(values: Iterable[Any], limit: float | None) -> NDArray[np.float64] | None:
    """As an array; None where one is no number, too large for a float, or not below the limit."""
    values = list(values)
    kinds = set(map(type, values))
    if not kinds <= {int, float} and not all(map(_is_number, values)):
        return None
    try:
        found = np.array(values, np.float64)
    except OverflowError:
        return None
    return None if limit is not None and not np.all(np.abs(found) < limit) else found


def _finite(limit: float | None) -> str:
    return "it does not fit into a float" if limit is None else f"finite numbers below {limit:.0e} are needed"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _is_whole(value: Any, floats: bool) -> bool:
    if isinstance(value, float | np.floating):
        return floats and abs(float(value)) < EXACT and float(value).is_integer()
    return _is_number(value)


def _is_box(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 4 and all(map(_is_number, value))


def _is_identity(value: Any) -> bool:
    return value is None or (type(value) is int and value in range(ID_LIMIT))


def _is_encodable(text: str, errors: str) -> bool:
    try:
        text.encode("utf-8", errors)
    except UnicodeEncodeError:
        return False
    return "\0" not in text
