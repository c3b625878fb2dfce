"""Numbers told apart from words, between a published text and the same text made again."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pandas as pd
import pytest

from analysis.published.differences import close, text_differences

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


def found(name: str, published: str, again: str, exact: pd.DataFrame | None = None) -> tuple[int, int]:
    both = text_differences(name, published.encode(), again.encode(), exact)
    return len(both.facts), len(both.words)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("26.70", "26.71"),
        ("± 0.31", "± 0.13"),
        ("+1.09", "-1.09"),
        ("3 pairs", "5 pairs"),
        ("same sign", "opposite sign"),
        ("same sign", "undecided"),
        ("| + iFA | ours | 26.70 ± 0.31 |\n", ""),
        ("seeds 0, 1, 2", "seeds 0, 1, 3"),
        ("left 40 %", "left 4 %"),
        ("+1.09 ± 0.52", "–"),
    ],
)
def test_a_changed_number_or_verdict_is_a_fact(old: str, new: str) -> None:
    assert MARKDOWN.count(old) == 1
    facts, _ = found("table-1.md", MARKDOWN.replace(old, new), MARKDOWN)
    assert facts


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Feature alignment (section 5.2)", "Aligning features"),
        ("Pairing by seed has left 40 % of the variance.", "Of the variance 40 % is left by pairing."),
        ("| baseline |", "| the baseline |"),
        ("Table 1:", "Table 1, as in Fig. 11:"),
    ],
)
def test_other_words_around_the_same_numbers_are_words(old: str, new: str) -> None:
    assert MARKDOWN.count(old) == 1
    for texts in ((MARKDOWN.replace(old, new), MARKDOWN), (MARKDOWN, MARKDOWN.replace(old, new))):
        facts, words = found("table-1.md", *texts)
        assert (facts, words > 0) == (0, True)


@pytest.mark.parametrize(
    "table",
    [
        "row    AP          AP50\n+ iFA  26.7 (+1.1)  54.3 (+3.7)\n",
        "+ iFA & ours & \\num{26.7} (\\num{+1.1}) & \\num{54.3} \\\\\n",
        "<tr><th>+ iFA</th><td>26.7 (+1.1)</td></tr>\n",
    ],
)
def test_numbers_are_facts_in_tables_of_every_format(table: str) -> None:
    assert found("table-1.txt", table.replace("+1.1", "+1.2"), table)[0]
    assert found("table-1.txt", table.replace(" (+1.1)", "").replace(" (\\num{+1.1})", ""), table)[0]


def test_csv_is_compared_by_number_and_column() -> None:
    again = "row,runs,value,verdict\n+ iFA,a b,26.700000000000003,same sign\n"
    assert found("t.csv", again.replace("000000000003", ""), again) == (0, 0)  # another processor
    assert found("t.csv", again.replace("000000000003", "001"), again) == (1, 0)
    assert found("t.csv", again.replace("26.700000000000003", ""), again) == (1, 0)
    assert found("t.csv", again.replace("a b", "a c"), again) == (1, 0)
    assert found("t.csv", again.replace("same", "opposite"), again) == (1, 0)
    assert found(
        "t.csv", again.replace("+ iFA", "iFA, added").replace("iFA, added", '"iFA, added"'), again
    ) == (0, 1)
    assert found("t.csv", again + again.splitlines()[1], again) == (1, 0)
    more = "row,runs,value,verdict,new\n+ iFA,a b,26.700000000000003,same sign,1\n"
    assert found("t.csv", again, more) == (0, 1)
    assert found("t.csv", again.replace("26.7", "26.8"), more) == (1, 1)


def test_json_is_compared_by_number_and_key() -> None:
    again = json.dumps([{"row": "+ iFA", "value": 26.700000000000003, "verdict": None, "seeds": [0, 1]}])
    assert found("t.json", again.replace("000000000003", ""), again) == (0, 0)
    assert found("t.json", again.replace("26.7", "26.8"), again) == (1, 0)
    assert found("t.json", again.replace("null", '"same sign"'), again) == (1, 0)
    assert found("t.json", again.replace("[0, 1]", "[0]"), again) == (1, 0)
    assert found("t.json", again.replace("[0, 1]", "[0, true]"), again) == (1, 0)
    assert found("t.json", again.replace("+ iFA", "iFA"), again) == (0, 1)


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


def test_a_packed_file_is_compared_by_what_is_in_it() -> None:
    text = b"x\n1\n"
    again = gzip.compress(text, 9, mtime=0)
    for level, content, facts in ((1, text, 0), (9, b"x\n2\n", 1)):
        both = text_differences("f.csv.gz", gzip.compress(content, level, mtime=1), again)
        assert (len(both.facts), len(both.words)) == (facts, 0)
    assert "f.csv.gz cannot be read" in text_differences("f.csv.gz", again[:-9], again).facts[0]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{", b"[" * 100_000, b'"\n', b"\x00"])
@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.md"])
def test_a_damaged_text_is_a_difference_that_names_the_file(name: str, content: bytes) -> None:
    again = {"t.csv": b"x\n1\n", "t.json": b'{"x": 1}', "t.md": MARKDOWN.encode()}[name]
    facts = text_differences(name, content, again).facts
    assert facts and all(name in fact for fact in facts)


def test_close_is_a_relative_measure() -> None:
    assert close(np.nan, np.nan) and not close(np.nan, 1.0) and close(np.inf, np.inf)
    assert close(1e6, 1e6 + 1e-4) and not close(1e6, 1e6 + 1e-2)
    assert not close(1e-3, 1.0001e-3)
