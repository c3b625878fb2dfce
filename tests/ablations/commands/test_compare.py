"""`ablate compare` of files: any that holds detections is read, anything else is refused in one line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from ablations.cli import main
from tests.analysis.conftest import Entries, Spoil, compare_files, files
from yolor_core.evaluation.coco import COCO_NUMBERS, evaluate_boxes
from yolor_core.evaluation.detections import SIDES, Detections

__all__ = ["files"]  # a fixture
Files = Callable[..., tuple[str, str, str]]


def found(*arguments: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(compare_files(*arguments, "--json").stdout)
    return content


def test_files_of_any_project_are_compared(files: Files) -> None:
    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        a[:] = a[20:]
        b[:] = [each | {"score": 1.0} for each in b]

    names = files(spoil)
    result = compare_files(*names)
    assert result.exit_code == 0, result.output
    assert "training noise is not in them" in result.stdout
    content = found(*names)
    assert [m["name"] for m in content["metrics"]] == list(COCO_NUMBERS)
    # Notes stand above the table as they do in JSON.
    above = result.stdout.partition("95 % (percentile)")[0].splitlines()[2:-2]
    assert len(above) > 1 and [line.removeprefix("note: ") for line in above] == content["notes"]
    assert compare_files(*names).stdout == result.stdout  # seeded


def set_in_a(**values: object) -> Spoil:
    return lambda truth, a, b: a[4].update(values)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (set_in_a(image_id=999), "image ids are not in the annotations"),
        (set_in_a(category_id=77), "category ids are not in the annotations"),
        (set_in_a(score=float("nan")), "scores are not in [0, 1]"),
        (lambda truth, a, b: b[0].update(score=87.0), "scores are not in [0, 1]"),
        (lambda truth, a, b: a.append(dict(a[5])), "exact duplicates"),
        (lambda truth, a, b: a[2].pop("bbox"), "result 2: key 'bbox' is missing"),
        *((lambda t, a, b, odd=odd: a.insert(0, odd), "result 0 is") for odd in (1, None, "a")),
        *(
            (lambda truth, a, b, key=key: truth.pop(key), f"key {key!r} is missing")
            for key in ("annotations", "images", "categories")
        ),
        *((set_in_a(image_id=v), "result 4: image_id is") for v in (6.9, True, "6", 2**70, None)),
        *((set_in_a(category_id=v), "result 4: category_id is") for v in (1.5, 2**63)),
        *((set_in_a(bbox=v), "result 4: bbox is") for v in ([1, 2, 3], [1, 2, 3, None], None)),
        *((set_in_a(score=v), "result 4: score is") for v in ("0.5", True)),
    ],
)
def test_detections_that_would_give_a_wrong_number_are_refused(
    files: Files, spoil: Spoil, words: str
) -> None:
    result = compare_files(*files(spoil))
    assert result.exit_code == 2 and words in result.stderr, result.output
    assert result.stdout == ""


@pytest.mark.parametrize("shift", [2**31, 2**53 + 1, 2**62, -(2**63)])
def test_ids_of_64_bits_are_scored_as_pycocotools_does(files: Files, tmp_path: Path, shift: int) -> None:
    def spoil(truth: dict[str, Any], a: Entries, b: Entries) -> None:
        for rows in (*truth.values(), a, b):
            for row in rows:
                row |= {key: row[key] + shift for key in ("id", "image_id", "category_id") if key in row}

    names = files(spoil)
    truth, entries = (json.loads(Path(name).read_text()) for name in names[:2])
    reference = evaluate_boxes(truth, Detections.from_results(entries))["detection"]
    content = found(*names)
    expected = [100 * reference[m["name"]] for m in content["metrics"]]
    assert [m["a"] for m in content["metrics"]] == pytest.approx(expected)
    assert {image for image, _ in content["images"]} <= {each["id"] for each in truth["images"]}
    table = tmp_path / "a.parquet"
    Detections.from_results(entries).write(table)
    assert found(names[0], str(table), names[2])["metrics"] == content["metrics"]


@pytest.mark.parametrize(
    ("encoding", "ending"),
    [
        ("utf-8-sig", "json"),
        ("utf-16", "JSON"),
        ("utf-16-le", "txt"),
        ("utf-32", "json"),
        ("gzip", "json.gz"),
    ],
)
def test_files_of_any_encoding_and_name_are_read(files: Files, encoding: str, ending: str) -> None:
    plain = files()
    others = [f"{name.removesuffix('.json')}-other.{ending}" for name in plain]
    for name, other in zip(plain, others, strict=True):
        text = Path(name).read_text()
        coded = gzip.compress(text.encode()) if encoding == "gzip" else text.encode(encoding)
        Path(other).write_bytes(coded)
    assert found(*others)["metrics"] == found(*plain)["metrics"]


ENTRY = b'[{"image_id": 1, "category_id": 1, "bbox": [1, %b, 3, 4], "score": %b}]'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON: it is empty"),
        (b"{", "not JSON"),
        (b"{}", "a list of detections is needed"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "it is an HTML or XML page"),
        (b"PK\x03\x04rest", "it is a ZIP archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS"),
        (b"\x1f\x8bno", "not JSON"),
        (b"PAR1rest", "cannot be read"),
        (b"[" * 10**5, "nested too deeply"),
        (b"[" + b"1" * 5000 + b"]", "4300 digits"),
        (
            b'{"annotations": [], "info": {}}',
            "holds an object with 'annotations', 'info'; a list of detections",
        ),
        (ENTRY % (b"2", b"1" + 400 * b"0"), "result 0: score is 1000"),
        (ENTRY % (b"1e308", b"1"), "result 0: bbox is [1, 1e+308, 3, 4]; finite numbers below 1e+09"),
    ],
)
def test_a_file_that_holds_something_else_is_named_and_never_taken_for_a_run(
    files: Files, tmp_path: Path, content: bytes, words: str
) -> None:
    truth, a, _ = files()
    other = tmp_path / "detections"
    other.write_bytes(content)
    result = compare_files(truth, a, str(other))
    assert result.exit_code == 2 and str(other) in result.stderr and words in result.stderr, result.output
    assert result.stderr.count("\n") == 1


def test_what_is_no_file_of_detections_or_annotations_is_called_so(files: Files, tmp_path: Path) -> None:
    truth, a, b = files()
    alone = CliRunner().invoke(main, ["compare", a, b])
    assert alone.exit_code == 2 and "--truth" in alone.stderr
    assert "No such file" in compare_files(truth, a, str(tmp_path / "none.json")).stderr
    assert "is a folder without run.json" in compare_files(truth, a, str(tmp_path)).stderr
    assert f"{tmp_path}: Is a directory" in compare_files(str(tmp_path), a, a).stderr
    assert "expected an object with images" in compare_files(a, a, a).stderr


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("image_id", ["1"], "column image_id is string"),
        ("image_id", [1.5], "column image_id is double"),
        ("category_id", [None], "column category_id is null with 1 gaps"),
        ("score", ["0.5"], "column score is string"),
    ],
)
def test_tables_with_columns_of_another_kind_are_refused(
    files: Files, tmp_path: Path, column: str, values: list[Any], words: str
) -> None:
    truth, a, _ = files()
    columns = {"image_id": [1], "category_id": [1], "score": [0.5]} | {side: [1.0] for side in SIDES}
    pq.write_table(pa.table(columns | {column: values}), tmp_path / "b.PARQUET")
    result = compare_files(truth, a, str(tmp_path / "b.PARQUET"))
    assert result.exit_code == 2 and words in result.stderr and "run it anew" not in result.stderr
