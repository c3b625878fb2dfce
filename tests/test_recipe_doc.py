"""docs/recipe.md says what the code does: every value in its tables, and every field in its tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ablations.registry import all_experiments, resolve
from yolor_core.config import leaves
from yolor_core.training.schedule import Schedule

PAGE = (Path(__file__).parent.parent / "docs" / "recipe.md").read_text(encoding="utf-8")
PARTS = ("train", "evaluation", "numerics")
ALL, NONE = "all rows", "-"
FAMILIES = {
    "csp": "CSP",
    "csp-fast": "CSP",
    "p6-light": "P6",
    "y4-sss": "light",
    "y4-ssss": "light",
    "u5r5-s": "light",
    "yolor-p6": "YOLOR",
    "yolor-w6": "YOLOR",
    "yolor-e6": "YOLOR",
    "yolor-d6": "YOLOR",
    "y4-p6": "YOLOv4 large",
    "y4-p7": "YOLOv4 large",
}


def tables(page: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """(header, rows) of every table of a page of Markdown."""
    for block in re.findall(r"(?:^\|.*\|\n)+", page, re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        assert all(len(line) == len(lines[0]) for line in lines), lines[0]
        yield lines[0], lines[2:]


def documented(page: str) -> dict[tuple[str, str], str]:
    """{(field, family or "all rows"): cell}, of the tables whose first column is `field`."""
    found: dict[tuple[str, str], str] = {}
    for header, rows in tables(page):
        if header[0] != "field":
            continue
        assert header[-1] == "source"
        for field, *cells, source in rows:
            assert source, f"{field} has no source"
            for family, cell in zip(header[1:-1], cells, strict=True):
                assert (field, family) not in found, f"{field} is documented twice"
                found[field, family] = cell
    return found


DOCUMENTED = documented(PAGE)


def families_of(slug: str) -> str:
    return FAMILIES[slug.split(".")[0]]


def keys(slug: str, field: str) -> list[tuple[str, str]]:
    """Where the page may document a field of an experiment."""
    pattern = re.sub(r"^train\.phases\.\d+", "train.phases.*", field)
    return [(n, family) for n in dict.fromkeys((field, pattern)) for family in (families_of(slug), ALL)]


def value(cell: str, slug: str) -> Any:
    """`1280; y4-p7 1536` -> 1536 for y4-p7, else 1280."""
    usual, *others = [part.strip() for part in cell.split(";")]
    exceptions = dict(other.split() for other in others)
    text = exceptions.get(slug, exceptions.get(slug.split(".")[0], usual))
    return json.loads(text) if re.fullmatch(r"-?[\d.]+|true|false", text) else text


def fields(slug: str) -> dict[str, Any]:
    science = resolve(slug, "paper")
    return {name: v for name, v in leaves(science) if name.split(".")[0] in PARTS}


def wrong(slug: str, page: dict[tuple[str, str], str]) -> dict[str, tuple[list[Any], Any]]:
    """{field: (values the page gives, the experiment's)} where that is not one place with the right value."""
    found = {}
    for field, actual in fields(slug).items():
        said = [value(page[key], slug) for key in keys(slug, field) if key in page]
        if said != [actual]:
            found[field] = (said, actual)
    return found


@pytest.mark.parametrize("slug", all_experiments())
def test_every_field_of_the_recipe_is_documented_with_its_value(slug: str) -> None:
    assert not wrong(slug, DOCUMENTED)


def test_a_wrong_value_a_missing_field_and_a_second_place_are_noticed() -> None:
    page = documented(PAGE.replace("| train.batch | 64 |", "| train.batch | 63 |"))
    assert wrong("csp", page) == {"train.batch": ([63], 64)}
    del page["train.loss.box", ALL]
    page["train.batch", ALL] = "64"
    page["train.phases.*.augment.mixup", ALL] = "0"
    assert wrong("csp", page) == {
        "train.loss.box": ([], 0.05),
        "train.phases.0.augment.mixup": ([0, 0], 0.0),
    }


def test_nothing_is_documented_that_no_experiment_has() -> None:
    used = {key for slug in all_experiments() for field in fields(slug) for key in keys(slug, field)}
    dashes = {key for key, cell in DOCUMENTED.items() if cell == NONE}
    assert DOCUMENTED.keys() - used == dashes
    exceptions = re.findall(r"; (\S+) [\d.]+", " ".join(DOCUMENTED.values()))
    assert set(exceptions) <= all_experiments().keys()


def test_every_family_has_a_column() -> None:
    columns = {family for _, family in DOCUMENTED} - {ALL}
    assert columns == set(FAMILIES.values())
    assert {slug.split(".")[0] for slug in all_experiments()} == FAMILIES.keys()


def test_the_factors_of_the_learning_rate_are_those_of_the_schedule() -> None:
    (rows,) = [rows for header, rows in tables(PAGE) if header[:2] == ["epoch", "factor"]]
    train = resolve("p6-light.add-fa.mul-pr.finetuned", "paper").train
    schedule = Schedule(train.optimiser, train.phases, 1849, train.batch)
    assert len(rows) == 4
    for epoch, factor, _ in rows:
        actual = schedule.at(int(epoch), 0).weights / train.optimiser.lr0
        assert f"{actual:.4f}" == factor


def test_the_examples_of_scale_are_right() -> None:
    train = resolve("csp-fast", "paper").train
    steps = -(-118_287 // train.batch)
    schedule = Schedule(train.optimiser, train.phases, steps, train.batch)
    assert f"an epoch has {steps:,} steps" in PAGE
    assert f"{schedule.warmup:,} at the paper's scale" in PAGE


def test_the_example_with_another_published_set_resolves() -> None:
    (text,) = re.findall(r"`((?:--set [^`]+))` is the last line", PAGE)
    overrides = re.findall(r"--set\s+(\S+)", text)
    train = resolve("csp-fast", "paper", overrides).train
    augment = train.phases[0].augment
    (rows,) = [rows for header, rows in tables(PAGE) if header[0] == "set"]
    values = [
        train.loss.classification,
        train.loss.objectness,
        augment.translate,
        augment.scale,
        augment.mixup,
    ]
    assert [float(cell) for cell in rows[-1][1:]] == values


def test_links_of_the_page_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (Path(__file__).parent.parent / "docs" / target).is_file(), target
