"""docs/decisions.md: its options are accepted and change something, its values and places are the code's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ablations.overrides import SCIENCE_PARTS, override_data, override_execution, parse_overrides
from ablations.profiles import PROFILES
from ablations.registry import resolve
from yolor_core.config import leaves
from yolor_core.errors import YolorError
from yolor_core.identity import signature

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
PROFILE = "paper"
BASELINES = ("csp-fast", "p6-light")  # a bare option is for every row of a table
HEADER = ["question", "choice", "why", "to change it"]
FIELD = r"(?:model|train|evaluation|numerics|execution|data)(?:\.\w+)+"

COMMANDS = [
    (slug, profile or "mini", tuple(re.findall(r"--set (\S+)", sets)))
    for slug, profile, sets in set(
        re.findall(r"`ablate train ([a-z0-9.-]+)(?: --profile (\w+))?((?: --set [^ `]+)+)`", PAGE)
    )
]
OPTIONS = sorted(set(re.findall(rf"`({FIELD}=[^` ]+)`", PAGE)))
STATEMENTS = sorted(set(re.findall(rf"`({FIELD}) = ([^`]+)`", PAGE)))
PLACES = [
    (name, path)
    for names, path in re.findall(r"((?:`\w+`(?:, | and )?)+)\sin\s`([\w/]+\.py)`", PAGE)
    for name in re.findall(r"`(\w+)`", names)
]


def tables(page: str) -> Iterator[list[list[str]]]:
    for block in re.findall(r"(?:^\|.*\|\n)+", page, re.MULTILINE):
        yield [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()]


def without_reason_or_way(page: str) -> list[list[str]]:
    """Rows of the decisions that lack a cell. The first table explains the notation."""
    _, *decisions = tables(page)
    assert all(header == HEADER for header, *_ in decisions)
    rows = [row for _, _, *rows in decisions for row in rows]
    return [row for row in rows if len(row) != len(HEADER) or not all(row) or min(map(len, row[2:])) < 4]


def test_every_decision_has_a_reason_and_a_way_to_change_it() -> None:
    assert not without_reason_or_way(PAGE)
    row = next(line for line in PAGE.splitlines() if line.startswith("| equal scores |"))
    for cell in row.strip("|").split("|")[2:]:
        assert without_reason_or_way(PAGE.replace(row, row.replace(cell, " - ")))


def test_the_notation_is_what_the_tests_look_for() -> None:
    """Otherwise they would find nothing to try."""
    assert len(COMMANDS) > 10 and len(OPTIONS) > 30 and len(STATEMENTS) > 15 and len(PLACES) > 40
    mentioned = set(re.findall(rf"{FIELD}=[^` ]+", PAGE))
    tried = {text for _, _, texts in COMMANDS for text in texts} | set(OPTIONS)
    assert mentioned == tried


def changes(slug: str, profile: str, texts: Sequence[str]) -> bool:
    """Whether an experiment accepts options, and is another one with them."""
    return signature(resolve(slug, profile, texts)) != signature(resolve(slug, profile))


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_is_accepted_by_the_baselines_and_changes_something(option: str) -> None:
    (override,) = parse_overrides([option])
    if override.part in SCIENCE_PARTS:
        changed = [changes(slug, PROFILE, [option]) for slug in BASELINES]  # each has to accept it
        assert any(changed)
    elif override.part == "execution":
        own = PROFILES[PROFILE].execution
        assert override_execution(own, [override]) != own
    else:
        data = PROFILES[PROFILE].data
        assert override_data(data, [override]) != data


@pytest.mark.parametrize(("slug", "profile", "texts"), sorted(COMMANDS))
def test_an_option_of_one_experiment_is_accepted_by_it_and_changes_it(
    slug: str, profile: str, texts: tuple[str, ...]
) -> None:
    assert changes(slug, profile, texts)
    for text in texts:
        if "activation" not in text:  # which one layer has not, so it needs the option before it
            assert changes(slug, profile, [text])


def test_a_field_that_only_some_experiments_have_is_refused_by_the_baseline() -> None:
    fields = {text for _, _, texts in COMMANDS for text in texts if text.startswith("model.implicit.0")}
    assert fields
    for text in fields:
        with pytest.raises(YolorError, match=r"model\.implicit"):
            resolve("csp-fast", PROFILE, [text])


def wrong(statements: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Stated values that are not those of the first baseline at the paper's scale."""
    science = resolve("csp-fast", PROFILE)
    actual = dict(leaves(science)) | dict(leaves(PROFILES[PROFILE].execution, "execution"))
    return [(path, value) for path, value in statements if _said(value) != actual[path]]


def _said(value: str) -> object:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def test_stated_values_are_those_of_the_code() -> None:
    assert not wrong(STATEMENTS)
    assert wrong([("train.loss.images_per_mean", "0")])


def defined(name: str, path: str) -> bool:
    pattern = rf"^\s*(?:def|class) {name}\b|^(?:\w+, )*{name}\b *[:=,]"
    return bool(re.search(pattern, (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize(("name", "path"), sorted(set(PLACES)))
def test_a_place_in_the_code_is_there(name: str, path: str) -> None:
    assert defined(name, path)


def test_a_name_that_is_not_in_its_file_is_noticed() -> None:
    assert not defined("Schedules", "yolor_core/training/schedule.py")


def test_every_file_is_there() -> None:
    files = set(re.findall(r"`((?:yolor_core|ablations|analysis|slurm|tests)/[\w/.]*)`", PAGE))
    assert len(files) > 25
    assert [name for name in files if not (ROOT / name).exists()] == []
