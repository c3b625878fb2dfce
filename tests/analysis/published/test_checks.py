"""Numbers of a published file and of the same file made again, and what is only worded otherwise."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pandas as pd
import pytest

from analysis.published.checks import Check, same_value

MARKDOWN = """\
Table 1: Feature alignment (section 5.2). Ours: seeds 0, 1, 2; data 640 + 200 images.

| row |  | AP |
| --- | --- | ---: |
| baseline | ours | 25.61 ± 0.40 |
| + iFA | ours | 26.70 ± 0.31 |
|  | Δ, 3 pairs | +1.09 ± 0.52 |
|  | verdict | same sign |

Pairing by seed has left 40 % of the variance.
"""
CSV = "row,runs,value,pairs,verdict\n+ iFA,a b,26.700000000000003,3,same sign\n"
JSON = json.dumps([{"row": "+ iFA", "value": 26.700000000000003, "verdict": None, "seeds": [0, 1]}])


def compared(name: str, published: bytes, again: bytes, frame: pd.DataFrame | None = None) -> Check:
    check = Check("texts")
    check.file(name, published, again, frame)
    assert check.done == 1
    return check


def found(name: str, published: str, again: str, frame: pd.DataFrame | None = None) -> tuple[int, int]:
    """How many numbers and how many words differ."""
    check = compared(name, published.encode(), again.encode(), frame)
    return len(check.differences), len(check.wording)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("26.70", "26.71"),
        ("± 0.31", "± 0.13"),
        ("+1.09", "-1.09"),
        ("| + iFA | ours | 26.70 ± 0.31 |\n", ""),
        ("+1.09 ± 0.52", "–"),
    ],
)
def test_a_measured_number_that_changed_in_a_text_is_a_difference(old: str, new: str) -> None:
    assert MARKDOWN.count(old) == 1
    assert found("table-1.md", MARKDOWN.replace(old, new), MARKDOWN) == (1, 1)
    assert found("table-1.md", MARKDOWN, MARKDOWN.replace(old, new)) == (1, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Feature alignment (section 5.2)", "Aligning features"),
        ("Pairing by seed has left 40 % of the variance.", "Of the variance 40 % is left by pairing."),
        ("| baseline |", "| the baseline |"),
        ("Table 1:", "Table 1, as in Fig. 11:"),
        ("same sign", "the same sign"),
    ],
)
def test_other_words_around_the_same_numbers_are_words(old: str, new: str) -> None:
    assert MARKDOWN.count(old) == 1
    for texts in ((MARKDOWN.replace(old, new), MARKDOWN), (MARKDOWN, MARKDOWN.replace(old, new))):
        assert found("table-1.md", *texts) == (0, 1)


@pytest.mark.parametrize(
    "table",
    [
        "row    AP          AP50\n+ iFA  26.7 (+1.1)  54.3 (+3.7)\n",
        "+ iFA & ours & \\num{26.7} (\\num{+1.1}) & \\num{54.3} \\\\\n",
        "<tr><th>+ iFA</th><td>26.7 (+1.1)</td></tr>\n",
    ],
)
def test_measured_numbers_are_found_in_tables_of_every_format(table: str) -> None:
    assert found("table-1.txt", table.replace("+1.1", "+1.2"), table) == (1, 1)
    without = table.replace(" (+1.1)", "").replace(" (\\num{+1.1})", "")
    assert found("table-1.txt", without, table) == (1, 1)


@pytest.mark.parametrize(
    ("name", "text", "old", "new", "differs"),
    [
        ("t.csv", CSV, "000000000003", "", (0, 0)),  # another processor
        ("t.csv", CSV, "000000000003", "001", (1, 0)),
        ("t.csv", CSV, "26.700000000000003", "", (1, 0)),
        ("t.csv", CSV, "a b", "a c", (1, 0)),
        ("t.csv", CSV, "3,same", "4,same", (1, 0)),
        ("t.csv", CSV, "same", "opposite", (1, 0)),
        ("t.csv", CSV, "+ iFA", '"iFA, added"', (0, 1)),
        ("t.csv", CSV, "same sign\n", "same sign\n+ iFA,a b,26.7,3,same sign\n", (5, 0)),
        ("t.json", JSON, "000000000003", "", (0, 0)),
        ("t.json", JSON, "26.7", "26.8", (1, 0)),
        ("t.json", JSON, "null", '"same sign"', (1, 0)),
        ("t.json", JSON, "[0, 1]", "[0]", (1, 0)),
        ("t.json", JSON, "[0, 1]", "[0, true]", (1, 0)),
        ("t.json", JSON, "+ iFA", "iFA", (0, 1)),
    ],
)
def test_csv_and_json_are_compared_by_number_and_column(
    name: str, text: str, old: str, new: str, differs: tuple[int, int]
) -> None:
    assert text.count(old) == 1
    assert found(name, text.replace(old, new), text) == differs


def test_a_column_that_another_version_has_is_no_difference_and_hides_none() -> None:
    more = CSV.replace("verdict\n", "verdict,new\n").replace("sign\n", "sign,1\n")
    assert found("t.csv", CSV, more) == found("t.csv", more, CSV) == (0, 1)
    assert found("t.csv", CSV.replace("26.7", "26.8"), more) == (1, 1)
    others = CSV.replace("row,runs,value,pairs,verdict", "a,b,c,d,e")
    assert found("t.csv", others, CSV)[0] == 1


def test_printed_digits_of_a_figure_are_compared_with_the_number_behind_them() -> None:
    exact = pd.DataFrame({"run": ["a", "b", "c"], "x": [0.12345650000001, 1e-19, 3.0], "n": [1, 2, 3]})
    again = exact.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    assert "0.123457" in again
    lower = again.replace("0.123457", "0.123456")  # as good a rounding, from a last digit that is another
    assert found("f.csv", lower, again, exact) == (0, 0)
    assert found("f.csv", again.replace("0.123457", "0.123458"), again, exact) == (1, 0)
    assert found("f.csv", again.replace("0.123457", "0.123455"), again, exact) == (1, 0)
    assert found("f.csv", again.replace("1e-19", "-4e-20"), again, exact) == (0, 0)
    assert found("f.csv", again.replace("1e-19", "1e-09"), again, exact) == (1, 0)
    assert found("f.csv", again.replace("c,3,3", "c,3,4"), again, exact) == (1, 0)
    mixed = pd.DataFrame({"x": [1.5, "a"]})
    assert found("f.csv", "x\n1.6\na\n", "x\n1.5\na\n", mixed) == (1, 0)


def test_a_packed_file_is_compared_by_what_is_in_it() -> None:
    text = b"x\n1\n"
    again = gzip.compress(text, 9, mtime=0)
    for level, content, differences in ((1, text, 0), (9, b"x\n2\n", 1)):
        check = compared("f.csv.gz", gzip.compress(content, level, mtime=1), again)
        assert (len(check.differences), len(check.wording)) == (differences, 0)
    assert "f.csv.gz cannot be read" in compared("f.csv.gz", again[:-9], again).differences[0]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{", b"[" * 100_000, b'"\n', b"\x00"])
@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.md"])
def test_a_damaged_text_is_a_difference_that_names_the_file(name: str, content: bytes) -> None:
    again = {"t.csv": b"x\n1\n", "t.json": b'{"x": 1}', "t.md": MARKDOWN.encode()}[name]
    differences = compared(name, content, again).differences
    assert differences and all(name in each for each in differences)


def test_close_is_a_relative_measure() -> None:
    def close(a: float, b: float) -> bool:
        return same_value("", a, b)

    assert close(np.nan, np.nan) and not close(np.nan, 1.0) and close(np.inf, np.inf)
    assert close(1e6, 1e6 + 1e-4) and not close(1e6, 1e6 + 1e-2)
    assert not close(1e-3, 1.0001e-3)
