"""Whatever is in a file of annotations or detections: it is read, or a line names it and says why not."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablations.cli import main
from tests.yolor_core.data.coco_folder import Folder, annotation, picture
from yolor_core.config import CocoConfig
from yolor_core.data import load_images
from yolor_core.data.batches import summarise
from yolor_core.data.fingerprint import data_fingerprint
from yolor_core.errors import YolorError
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.engine import match, score

ODD: list[Any] = [
    None, True, False, 0, -0.0, 1, 1.0, 2.5, -1, 11, 22, 3, 7, 1e308, -1e308, 1e-308, 10**400, 2**31,
    2**53 + 1, 2**63 - 1, 2**63, -(2**63), float("nan"), float("inf"), "", "0", "0002", "11", "é", "\ud800",
    "\udce9", "\0", "x" * 300, "../a.png", "a.png", "..", "/", "\x1b[31m", [], {}, [[]], [1, 2],
    [[1, 2], [3, 4]], [0, 0, 5, 5], ["1", 2, 3, 4], [True, 0, 5, 5], [1e308, 0, 1e308, 1], [0, 0, 10**400, 1],
    [0, 0, -1, 1], {"id": 1}, "DEEP", "DEEPER", "DIGITS",
]  # fmt: skip
UNWRITABLE = {'"DEEP"': 940 * "[" + 940 * "]", '"DEEPER"': 10**5 * "[", '"DIGITS"': 5000 * "1"}  # by Python
KEYS = [
    "id",
    "image_id",
    "category_id",
    "bbox",
    "area",
    "iscrowd",
    "identity",
    "file_name",
    "width",
    "height",
]
KEYS += ["name", "images", "annotations", "categories", "score"]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"]
VALUES = st.one_of(
    st.sampled_from(ODD),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=5),
    st.sampled_from([11, 22, 3]),
)


def places(content: Any) -> list[tuple[Any, Any]]:
    """Every container of a content with each of its keys or positions."""
    if not isinstance(content, dict | list):
        return []
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    return [(content, key) for key in keys] + [each for key in keys for each in places(content[key])]


@st.composite
def spoilt(draw: st.DrawFn, sound: Any) -> bytes:
    """The bytes of a file that is sound but for a few changes of values, keys, encoding or bytes."""
    content = copy.deepcopy(sound)
    for _ in range(draw(st.integers(0, 3))):
        spots = places(content)
        if not spots:
            break
        where, key = draw(st.sampled_from(spots))
        kind = draw(st.sampled_from(["value", "value", "value", "delete", "repeat", "key", "one", "all"]))
        value = copy.deepcopy(draw(VALUES)) if kind in ("value", "one", "all") else None
        if kind == "delete":
            del where[key]
        elif kind == "repeat" and isinstance(where, list):
            where.append(copy.deepcopy(where[key]))
        elif kind == "key" and isinstance(where, dict):
            where[draw(st.sampled_from(KEYS))] = where[key]
        elif kind == "all" and isinstance(where, dict):  # the same in every entry
            for other, name in spots:
                if isinstance(other, dict) and name == key and name in other:
                    other[name] = value
        elif kind != "repeat":
            where[key] = value
    if draw(st.integers(0, 20)) == 0:
        content = draw(VALUES)
    text = json.dumps(content, ensure_ascii=draw(st.booleans()))
    for word, value in UNWRITABLE.items():
        text = text.replace(word, value)
    encoding = draw(st.sampled_from(ENCODINGS)) if draw(st.booleans()) else "utf-8"
    data = text.encode(encoding, "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        data = gzip.compress(data)
    for _ in range(draw(st.sampled_from([0] * 12 + [1, 2]))):  # bytes changed, left out or put in
        at, size = draw(st.integers(0, len(data))), draw(st.integers(0, 20))
        data = data[:at] + draw(st.binary(max_size=4)) + data[at + size :]
    return draw(
        st.sampled_from([data] * 30 + [b"", b"<?xml version='1.0'?><Error/>", b"PK\x03\x04", b"PAR1" + data])
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Two images with four annotations; the path of the train split is what the tests write."""
    made = Folder(tmp_path_factory.mktemp("any") / "coco")
    first = made.add(picture(0), "a.png", (64, 48))
    second = made.add(picture(1, 40, 60), "b.png", (40, 60))
    made.content["annotations"] = [
        annotation(101, first, [1.5, 2.25, 10, 20], identity=5),
        annotation(102, second, [5, 6, 20, 30], category=7),
        annotation(103, second, [0, 0, 40, 60]),
        annotation(104, second, [0, 0, 30, 30], iscrowd=1),
    ]
    made.write()
    return made


def found_boxes(folder: Folder) -> list[dict[str, Any]]:
    keys = ("image_id", "category_id", "bbox")
    return [
        {key: row[key] for key in keys} | {"score": 1 - 0.1 * place}
        for place, row in enumerate(folder.content["annotations"])
    ]


def ends_well(result: Result, *files: Path) -> None:
    """No traceback: scores, findings, or a line that names one of the files."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert result.exit_code in (0, 1, 2)
    if result.exit_code == 2:
        assert result.stderr.startswith("ablate: ") and any(str(file) in result.stderr for file in files)
        assert result.stderr.count("\n") == 1 and len(result.stderr) < 1500
        assert result.stdout == ""


def load_as_training_does(config: CocoConfig) -> None:
    """All that is read of annotations before and while a model is trained, evaluated and written down."""
    data_fingerprint(config)
    for split in ("train", "val"):
        images = load_images(config, split)  # type: ignore[arg-type]
        for index in range(len(images)):
            images.sample(index)
            images.scaled(index, 64, "train")
        json.dumps(summarise(images, 64), allow_nan=False)
        json.dumps({"classes": images.names}, ensure_ascii=False).encode()
        assert score(match(images.coco, Detections.from_results([])))["images"] == len(images)


SETTINGS = settings(
    max_examples=500,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@SETTINGS
@given(data=st.data())
def test_annotations_are_read_or_refused_the_same_by_check_training_and_compare(
    folder: Folder, data: st.DataObject
) -> None:
    content = data.draw(spoilt(folder.content))
    for split in ("train", "val"):
        folder.path(split).write_bytes(content)
    checked = CliRunner().invoke(main, ["data", "check", folder.config.root])
    ends_well(checked, folder.path())
    if checked.exit_code == 2:
        with pytest.raises(YolorError):
            load_images(folder.config, "train")
    else:
        load_as_training_does(folder.config)
    files = [folder.root / name for name in ("found.json", "fewer.json")]
    for count, file in enumerate(files):
        file.write_text(json.dumps(found_boxes(folder)[count:]))
    arguments = [*map(str, files), "--truth", str(folder.path()), "--resamples", "100"]
    compared = CliRunner().invoke(main, ["compare", *arguments])
    ends_well(compared, folder.path(), *files)


@SETTINGS
@given(data=st.data())
def test_detections_are_read_or_refused(folder: Folder, data: st.DataObject) -> None:
    folder.write()
    spoilt_file, sound = folder.root / "spoilt", folder.root / "found.json"
    spoilt_file.write_bytes(data.draw(spoilt(found_boxes(folder))))
    sound.write_text(json.dumps(found_boxes(folder)))
    arguments = [str(spoilt_file), str(sound), "--truth", str(folder.path()), "--resamples", "100"]
    ends_well(CliRunner().invoke(main, ["compare", *arguments]), spoilt_file)
