"""docs/released-code.md: the tests it names exist, and so do its files, models and fields."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ablations.registry import resolve
from tests.yolor_core import test_golden_models
from yolor_core.config import leaves
from yolor_core.models import list_models

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "released-code.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(test_\w+)`", PAGE)))


def existing() -> set[str]:
    """Every test function of the suite."""
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return {name for source in sources for name in re.findall(r"^def (test_\w+)", source, re.MULTILINE)}


def test_every_test_that_is_named_exists() -> None:
    assert len(NAMED) > 35
    assert set(NAMED) - existing() == set()
    assert "test_that_is_not_there" not in existing()


def test_every_line_says_what_holds_it() -> None:
    held = 0
    for table in re.findall(r"(?:^\|.*\|\n)+", PAGE, re.MULTILINE):
        header, _, *rows = table.splitlines()
        if not header.endswith("| held by |"):
            continue
        for row in rows:
            last = row.rstrip(" |").rsplit(" | ", 1)[-1]
            assert re.fullmatch(r"(`tests?[\w/]+`(, )?)+|no test: .*`[\w/.]+\.py`", last), row
            held += 1
    assert held > 35


@pytest.mark.skipif(not test_golden_models.NAMES, reason="YOLOR_GOLDEN is not set")
def test_the_models_with_reference_outputs_are_those_there_are() -> None:
    (listed,) = re.findall(r"\| eight models \(([^)]*)\)", PAGE)
    assert re.findall(r"`([^`]+)`", listed) == sorted(test_golden_models.NAMES)


def test_models_files_and_fields_are_there() -> None:
    (listed,) = re.findall(r"\| eight models \(([^)]*)\)", PAGE)
    assert set(re.findall(r"`([^`]+)`", listed)) <= set(list_models())
    for name in re.findall(r"`((?:yolor_core|tests)/[\w/.]*)`", PAGE):
        assert (ROOT / name).exists(), name
    fields = dict(leaves(resolve("csp-fast", "paper")))
    for field in re.findall(r"`((?:train|evaluation)\.[\w.]+)", PAGE):
        assert field in fields, field
