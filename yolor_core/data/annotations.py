"""Annotation content in COCO's layout, checked and cleaned into arrays.

Contradictions that no reading can resolve (duplicate ids, dangling references, NaN, wrong types) are errors
that name the file and the ids. What COCO tools cope with is handled and counted: see `report.KINDS`.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolor_core.data.identities import NONE, Identities, identify, identity_field
from yolor_core.data.report import DataReport, Note
from yolor_core.data.sequences import Integers, Texts
from yolor_core.errors import DataError

INTEGER_LIMIT = 2**63  # as detections.parquet stores ids
CATEGORY_LIMIT = 2**31
ROUNDING = 0.05  # pixels; COCO's two decimals put boxes this little outside, which is not worth a report


@dataclass(frozen=True)
class Annotations:
    """Cleaned content of one split. Classes are contiguous; `clean` orders them by the file's category ids.

    boxes: float32 (m, 4), x1 y1 x2 y2 in pixels, inside their image, without crowds; classes: int64 (m,);
    identities: of the same boxes; all sorted by image, image i owning rows starts[i]:starts[i + 1]. ids and
    files are backed by arrays.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    ids: Sequence[int]
    files: Sequence[str]
    sizes: NDArray[np.int64]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    starts: NDArray[np.int64]
    identities: Identities


def clean(content: Any, source: str) -> tuple[Annotations, DataReport]:
    """Check and clean annotation content; `source` names it in messages.

    Raises DataError for missing keys, wrong types, duplicate ids, dangling references and non-finite boxes.
    """
    if not isinstance(content, dict):
        raise DataError(f"{source}: expected a JSON object, found {type(content).__name__}")
    images = _records(content, "images", source)
    categories = _records(content, "categories", source)
    annotations = _records(content, "annotations", source)
    if not images:
        raise DataError(f"{source}: 'images' is empty")
    if not categories:
        raise DataError(f"{source}: 'categories' is empty")

    category_names = {}
    for record in categories:
        category_names[_integer(record, "id", "category", source)] = _text(record, "name", "category", source)
    _unique((r["id"] for r in categories), "category id", source)
    category_ids = tuple(sorted(category_names))
    class_of = {identifier: index for index, identifier in enumerate(category_ids)}

    sizes = np.zeros((len(images), 2), np.int64)
    for position, record in enumerate(images):
        _integer(record, "id", "image", source)
        _text(record, "file_name", "image", source)
        for axis, key in enumerate(("width", "height")):
            value = _integer(record, key, "image", source)
            if value < 1:
                raise DataError(f"{source}: image {record['id']}: {key} is {value}; at least 1 is needed")
            sizes[position, axis] = value
    _unique((r["id"] for r in images), "image id", source)
    position_of = {record["id"]: position for position, record in enumerate(images)}

    report = DataReport(source, images=len(images), annotations=len(annotations))
    labels = class_labels(category_names)
    report.add(
        Note("renamed", key, f"category {key} ({name}): {labels[key]!r}")
        for key, name in category_names.items()
        if labels[key] != name
    )
    rows, fields = _rows(annotations, position_of, class_of, sizes, report, source)
    annotated = {record["image_id"] for record in annotations}
    report.add(
        Note("empty", r["id"], f"image {r['id']} ({r['file_name']})")
        for r in images
        if r["id"] not in annotated
    )
    report.boxes = len(rows)
    table = np.array(rows, np.float64).reshape(-1, 6)
    order = np.argsort(table[:, 0], kind="stable")
    table = table[order]
    classes = table[:, 1].astype(np.int64)
    identities = identify(np.array(fields, np.int64)[order], classes)
    report.identities, report.identity_source = identities.count, identities.source
    report.identities_once, report.boxes_without_identity = identities.once, identities.without
    cleaned = Annotations(
        names=tuple(labels[identifier] for identifier in category_ids),
        category_ids=category_ids,
        ids=Integers(position_of),
        files=Texts(record["file_name"] for record in images),
        sizes=sizes,
        boxes=np.ascontiguousarray(table[:, 2:], np.float32),
        classes=classes,
        starts=np.searchsorted(table[:, 0], np.arange(len(images) + 1)).astype(np.int64),
        identities=identities,
    )
    return cleaned, report


def class_labels(names: Mapping[int, str]) -> dict[int, str]:
    """What each category is called, by id: its name, or `name (id)` where several have that name."""
    labels = dict(names)
    while twice := {label for label, count in Counter(labels.values()).items() if count > 1}:
        labels = {key: f"{label} ({key})" if label in twice else label for key, label in labels.items()}
    return labels


def check_same_classes(found: Sequence[str], wanted: Sequence[str], where: str, whose: str) -> None:
    """Raises DataError, naming what differs, unless `found` are the names `wanted`, in whatever order.

    `where` says what has the names found, `whose` what has those wanted.
    """
    parts = [
        f"only {place}: {some_of(names)}"
        for place, names in (("here", _without(found, wanted)), ("there", _without(wanted, found)))
        if names
    ]
    if not parts:
        return
    alike = {_letters(name): name for name in _without(wanted, found)}
    pairs = [(name, alike[_letters(name)]) for name in _without(found, wanted) if _letters(name) in alike]
    meant = f"; {some_of([f'{a!r} for {b!r}' for a, b in pairs])}: the same name?" if pairs else ""
    raise DataError(f"{where}: its classes are not those of {whose}: {'; '.join(parts)}{meant}")


def some_of(words: Sequence[object], most: int = 8) -> str:
    """A list in a sentence, cut where it is long."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(map(str, words[:most])) + more


def _without(names: Sequence[str], others: Sequence[str]) -> list[str]:
    known = set(others)
    return [name for name in names if name not in known]


def _letters(name: str) -> str:
    """A name without what is often written in another way: case, spaces, hyphens, forms of a letter."""
    return "".join(c for c in unicodedata.normalize("NFKC", name).casefold() if c.isalnum())


def ordered(annotations: Annotations, names: Sequence[str]) -> Annotations:
    """The same with the classes in the order of `names`, which are theirs."""
    order = [annotations.names.index(name) for name in names]
    classes = np.argsort(order)[annotations.classes].astype(np.int64)
    identities = annotations.identities
    if identities.source == "category":
        identities = identify(np.full(len(classes), NONE, np.int64), classes)
    return replace(
        annotations,
        names=tuple(names),
        category_ids=tuple(annotations.category_ids[place] for place in order),
        classes=classes,
        identities=identities,
    )


def _rows(
    annotations: list[dict[str, Any]],
    position_of: dict[int, int],
    class_of: dict[int, int],
    sizes: NDArray[np.int64],
    report: DataReport,
    source: str,
) -> tuple[list[tuple[float, ...]], list[int]]:
    """One row (image position, class, x1, y1, x2, y2) per trainable annotation, and its identity field."""
    rows: list[tuple[float, ...]] = []
    identities: list[int] = []
    no_image: list[str] = []
    no_category: list[str] = []
    extents = sizes.tolist()
    for record in annotations:
        identifier = _integer(record, "id", "annotation", source)
        x, y, w, h = _box(record, identifier, source)
        crowd = _crowd(record, identifier, source)
        identity = identity_field(record, source)
        image = _integer(record, "image_id", "annotation", source)
        category = _integer(record, "category_id", "annotation", source)
        if image not in position_of:
            no_image.append(f"annotation {identifier} (image {image})")
            continue
        if category not in class_of:
            no_category.append(f"annotation {identifier} (category {category})")
            continue
        where = f"annotation {identifier} of image {image}: box {[x, y, w, h]}"
        position = position_of[image]
        width, height = extents[position]
        if crowd:
            report.add([Note("crowd", identifier, where)])
            continue
        x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
        # float32 is what training sees: a sliver that has no area there has none at all
        if w <= 0 or h <= 0 or np.float32(x2) <= np.float32(x1) or np.float32(y2) <= np.float32(y1):
            report.add([Note("dropped", identifier, f"{where} in {width} x {height}")])
            continue
        if max(x1 - x, y1 - y, x + w - x2, y + h - y2) > ROUNDING:
            report.add([Note("clipped", identifier, f"{where} in {width} x {height}")])
        rows.append((position, class_of[category], x1, y1, x2, y2))
        identities.append(identity)
    _refuse(no_image, "annotations of images that are not listed", source)
    _refuse(no_category, "annotations of categories that are not listed", source)
    _unique((record["id"] for record in annotations), "annotation id", source)
    return rows, identities


def _records(content: dict[str, Any], key: str, source: str) -> list[dict[str, Any]]:
    if key not in content:
        raise DataError(f"{source}: key {key!r} is missing")
    records = content[key]
    if not isinstance(records, list):
        raise DataError(f"{source}: {key!r} is {type(records).__name__}; a list is needed")
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise DataError(f"{source}: {key}[{number}] is {type(record).__name__}; an object is needed")
    return records


def _value(record: dict[str, Any], key: str, kind: str, source: str) -> Any:
    if key not in record:
        raise DataError(f"{source}: {kind} {record.get('id', '?')}: key {key!r} is missing")
    return record[key]


def _integer(record: dict[str, Any], key: str, kind: str, source: str) -> int:
    value = _value(record, key, kind, source)
    if type(value) is not int:
        raise DataError(f"{source}: {kind} {record.get('id', '?')}: {key} is {value!r}; an integer is needed")
    limit = CATEGORY_LIMIT if kind == "category" or key == "category_id" else INTEGER_LIMIT
    if not -limit <= value < limit:
        raise DataError(
            f"{source}: {kind} {record.get('id', '?')}: {key} is {value}; "
            f"whole numbers from {-limit} to {limit - 1} can be stored"
        )
    return value


def _text(record: dict[str, Any], key: str, kind: str, source: str) -> str:
    value = _value(record, key, kind, source)
    if not isinstance(value, str) or not value:
        raise DataError(f"{source}: {kind} {record.get('id', '?')}: {key} is {value!r}; a text is needed")
    return value


def _number(value: Any) -> bool:
    return type(value) is float or type(value) is int


def _box(record: dict[str, Any], identifier: int, source: str) -> Sequence[float]:
    box = _value(record, "bbox", "annotation", source)
    if not isinstance(box, list) or len(box) != 4 or not all(_number(v) for v in box):
        raise DataError(
            f"{source}: annotation {identifier}: bbox is {box!r}; four numbers x, y, width, height are needed"
        )
    area = _value(record, "area", "annotation", source)  # decides COCO's size ranges
    if not _number(area):
        raise DataError(f"{source}: annotation {identifier}: area is {area!r}; a number is needed")
    for key, values in (("bbox", box), ("area", [area])):
        if not all(abs(v) < 1e9 and math.isfinite(v) for v in values):
            raise DataError(
                f"{source}: annotation {identifier}: {key} is {record[key]!r}; finite numbers are needed"
            )
    return box


def _crowd(record: dict[str, Any], identifier: int, source: str) -> bool:
    value = _value(record, "iscrowd", "annotation", source)
    if value not in (0, 1):
        raise DataError(f"{source}: annotation {identifier}: iscrowd is {value!r}; allowed: 0, 1")
    return bool(value)


def _unique(values: Iterable[object], kind: str, source: str) -> None:
    seen: set[object] = set()
    twice = [repr(v) for v in values if v in seen or seen.add(v)]  # type: ignore[func-returns-value]
    _refuse(twice, f"duplicate {kind}s", source)


def _refuse(offenders: Sequence[str], what: str, source: str, most: int = 5) -> None:
    if offenders:
        more = f" and {len(offenders) - most} more" if len(offenders) > most else ""
        raise DataError(f"{source}: {len(offenders)} {what}: {', '.join(offenders[:most])}{more}")
