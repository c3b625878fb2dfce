"""docs/api.md and the examples in the docstrings, which `python -m tests.analysis.test_api` writes anew."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import analysis
from analysis import open_study
from analysis.implicit import SPECTRA
from analysis.runs import COLUMNS, EFFECTS, FEATURES, IMPLICIT, KEYS
from analysis.study import Study
from analysis.tables.cells import Cell
from analysis.tables.fill import tidy

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "api.md"
STUDY = "results/published/mini"
HEAD = """# The Python API

`from analysis import ...` has what this page lists; it reads files alone and never imports PyTorch. Paths
are texts or `Path`s, scores are in percent in every frame, and no function writes anything. The examples
are run by the tests, from the project's folder. Figures have [a page of their own](figures.md), and so have
[the files of a run](run-directory.md). This page is made from the code: `python -m tests.analysis.test_api`.
"""


def cell_columns() -> dict[str, str]:
    """Columns of `Study.cells`, with the comments beside the fields of a cell."""
    found = re.findall(r"^    (\w+): [^#\n]*(?:# (.*))?$", inspect.getsource(Cell), re.MULTILINE)
    return dict(found) | {"status": "measured, counted or quoted; else why there is no number"}


def keyed(columns: Mapping[str, str]) -> dict[str, str]:
    return {name: COLUMNS[name] for name in KEYS} | dict(columns)


FRAMES = {
    "runs": COLUMNS,
    "cells": cell_columns(),
    "implicit": keyed(IMPLICIT),
    "effects": keyed(EFFECTS),
    "spectra": keyed(SPECTRA),
    "features": keyed(FEATURES),
}
#: Attributes of a study that have the columns of another.
LIKE = {"everything": "runs", "listed": "runs", "settled": "runs"}


def sentence(thing: Any) -> str:
    """The first paragraph of its docstring."""
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split()).replace("|", "\\|")


def attributes() -> Iterator[tuple[str, str, str]]:
    """(name, type, meaning) of what a study has, in the order of the code."""
    comments = dict(re.findall(r"^    (\w+): [^#\n]*# (.*)$", inspect.getsource(Study), re.MULTILINE))
    for name, kind in Study.__annotations__.items():
        yield name, str(kind), comments.get(name, "as given to `open_study`")
    for name, each in vars(Study).items():
        inner = each.func if isinstance(each, cached_property) else getattr(each, "fget", each)
        if name.startswith("_") or not inspect.isfunction(inner):
            continue
        call = (
            str(inspect.signature(inner)).partition(" -> ")[0].replace("(self, ", "(").replace("(self)", "")
        )
        kind = str(inner.__annotations__["return"])
        yield f"{name}{call if inner is each else ''}", kind, sentence(inner)


def page() -> str:
    """docs/api.md."""
    lines = [HEAD, "## Functions", ""]
    for name in analysis.__all__:
        function = getattr(analysis, name)
        about, _, example = (inspect.getdoc(function) or "").partition("Example:\n")
        lines += [f"### {name}", "", "```python", f"{name}{signature(function)}", "```", ""]
        for part in about.strip().split("\n\n"):
            block = re.match(r"(Args|Returns|Raises):", part)
            lines += ["```text", part, "```", ""] if block else [part, ""]
        lines += ["```pycon", inspect.cleandoc(example), "```", ""]
    lines += [
        "## A study",
        "",
        "What `open_study` returns; what is derived is computed when it is first asked for.",
    ]
    rows = [(f"`{name}`", "`" + kind.replace("|", "\\|") + "`", text) for name, kind, text in attributes()]
    lines += table(("attribute", "type", "meaning"), rows)
    others = ", ".join(f"`{name}` those of `{other}`" for name, other in LIKE.items())
    lines += ["", "## Columns", "", "`metrics` has the columns of [metrics.jsonl](run-directory.md), after"]
    lines += [f"those of the run; {others}."]
    for name, columns in FRAMES.items():
        lines += [
            "",
            f"### study.{name}",
            *table(("column", "meaning"), [(f"`{c}`", m) for c, m in columns.items()]),
        ]
    return "\n".join(lines) + "\n"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """A table of Markdown, an empty line before it."""
    return ["", *(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))]


def signature(function: Any) -> str:
    """As in the code."""
    return str(inspect.signature(function)).replace("'", "").replace("pd.DataFrame", "DataFrame")


def test_the_page_is_that_of_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.analysis.test_api writes it anew"


def test_everything_public_says_what_it_is() -> None:
    for name, kind, text in attributes():
        assert len(text) > 5 and kind, name
    for name, columns in FRAMES.items():
        assert all(len(text) > 4 for text in columns.values()), name


@pytest.mark.parametrize("name", FRAMES)
def test_the_columns_of_the_page_are_those_of_the_frames(name: str) -> None:
    study = open_study(ROOT / STUDY, tables=[1, 6])
    frame = getattr(study, name)
    assert list(frame.columns) == list(FRAMES[name])
    assert frame.empty == (name == "features"), "a published study has no features of pictures"
    for other in (each for each, like in LIKE.items() if like == name):
        assert list(getattr(study, other).columns) == list(FRAMES[name])
    if name == "cells":
        assert list(tidy([]).columns) == list(FRAMES[name])


@pytest.mark.parametrize("name", analysis.__all__)
def test_the_example_of_a_function_shows_what_it_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function = getattr(analysis, name)
    monkeypatch.chdir(ROOT)
    space = dict(vars(importlib.import_module(function.__module__)))
    (example,) = doctest.DocTestFinder(recurse=False).find(function, name, globs=space)
    assert len(example.examples) >= 1
    assert doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example).failed == 0


class Renewal(doctest.DocTestRunner):
    """Writes what an example of a docstring prints now in place of what it says."""

    def report_failure(self, out: Any, test: doctest.DocTest, example: doctest.Example, got: str) -> None:
        path, pad = Path(str(test.filename)), " " * example.indent
        new = "".join(f"{pad}{line.rstrip()}\n" for line in got.splitlines())
        source = path.read_text(encoding="utf-8")
        path.write_text(source.replace(textwrap.indent(example.want, pad), new, 1), encoding="utf-8")


if __name__ == "__main__":
    for each in analysis.__all__:
        known = dict(vars(importlib.import_module(getattr(analysis, each).__module__)))
        for found in doctest.DocTestFinder(recurse=False).find(getattr(analysis, each), each, globs=known):
            Renewal(optionflags=doctest.NORMALIZE_WHITESPACE).run(found)
    PAGE.write_text(page(), encoding="utf-8")  # the next call has what was written here
