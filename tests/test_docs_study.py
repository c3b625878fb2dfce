"""What pages quote from the published study is what it measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.published.detections import read_detections
from analysis.published.summary import HEAD
from tests.ablations.trained import ablate
from tests.commands import FENCED, ROOT, pages

STUDY = ROOT / "results" / "published" / "mini"
QUOTED = {"table", "row", "Δ AP [95 %]"}  # a Markdown table with these columns quotes the summary


def rows(page: Path) -> list[dict[str, str]]:
    """The lines of the page's tables as {column: text}, of those that quote the study's verdicts."""
    found, head = [], None
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            head = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if head is None:
            head = cells
        elif set(head) >= QUOTED and not set(line) <= set("|- "):
            found.append(dict(zip(head, cells, strict=True)))
    return found


def flat(text: str) -> str:
    """One line, with one space between words."""
    return " ".join(text.split())


@pytest.fixture(scope="module")
def summary() -> str:
    return flat((STUDY / "summary.md").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def measured() -> dict[tuple[str, str], dict[str, str]]:
    return {(row["table"], row["row"]): row for row in rows(STUDY / "summary.md")}


def test_the_summary_lists_every_row_with_all_its_columns(
    measured: dict[tuple[str, str], dict[str, str]],
) -> None:
    assert len(measured) > 20
    assert all(tuple(row) == HEAD for row in measured.values())


def test_rows_that_pages_quote_are_those_of_the_summary(
    measured: dict[tuple[str, str], dict[str, str]],
) -> None:
    quoted = [(page, row) for page in pages() for row in rows(page)]
    assert len([row for page, row in quoted if page.name == "README.md"]) == 19
    for page, row in quoted:
        there = measured[row["table"], row["row"]]
        assert row.items() <= there.items(), page


def test_what_the_readme_says_of_the_study_is_measured(summary: str) -> None:
    readme = flat((ROOT / "README.md").read_text(encoding="utf-8"))
    (baseline,) = re.findall(r"has AP ([\d.]+ ± [\d.]+), AP50 ([\d.]+ ± [\d.]+) on", readme)
    table = (STUDY / "tables" / "table-1.txt").read_text(encoding="utf-8")
    ours = next(line for line in table.splitlines() if line.split()[:1] == ["ours"])
    assert flat(ours).startswith(f"ours {' '.join(baseline)} ")
    assert "66 trainings" in readme and "| runs | 66 finished, of 22 experiments | " in summary
    assert "of its 19 comparisons 18 are not told from 0, one is lower" in readme
    assert "are 19 different comparisons" in summary and ": 1 lower, 18 not told from 0." in summary
    assert "Holm's correction over all 19 leaves none" in readme
    assert "over all 19 leaves a p below 0.05 for 0 of the 1" in summary


def test_the_seeds_that_the_readme_names_are_those_of_plan() -> None:
    readme = flat((ROOT / "README.md").read_text(encoding="utf-8"))
    for table, said in (
        ("2", r"0\.5 AP `ablate plan` asks for (\d+) seeds of \+ iPR"),
        ("1", r"(\d+) of \+ iFA\."),
    ):
        planned = ablate("plan", table, "--effect", "0.5", "--results", STUDY, "--json")
        (row,) = json.loads(planned.stdout)["rows"]
        assert re.findall(said, readme) == [str(row["seeds"])]


def test_the_page_says_how_to_read_published_detections() -> None:
    page = (ROOT / "docs" / "published.md").read_text(encoding="utf-8")
    (block,) = [text for language, text in FENCED.findall(page) if language == "python"]
    run = min((STUDY / "runs").iterdir())
    space: dict[str, Any] = {"pd": pd, "run": run}
    exec(compile(block, "docs/published.md", "exec"), space)
    found, read = space["found"], read_detections(run / "detections.parquet")
    assert np.abs(found[["x", "y", "width", "height"]].to_numpy() - read.boxes).max() < 1e-4
    assert np.abs(found["score"].to_numpy() - read.scores).max() < 1e-6


def test_no_two_published_detections_are_the_same() -> None:
    for path in (STUDY / "runs").glob("*/detections.parquet"):
        read = read_detections(path)
        rows = np.column_stack([read.image_id, read.category_id, read.scores, read.boxes])
        assert len(np.unique(rows, axis=0)) == len(rows), path


def test_the_training_time_counts_what_is_continued_once(summary: str) -> None:
    spent = {}
    for run in (STUDY / "runs").iterdir():
        record, state = (json.loads((run / name).read_text()) for name in ("run.json", "state.json"))
        spent[run.name] = (state["seconds"], record.get("continues"))
    once = sum(seconds - (spent[before][0] if before else 0) for seconds, before in spent.values()) / 3600
    assert sum(before is not None for _, before in spent.values()) == 3
    assert f"| training time | {once:.1f} hours of one device" in summary


def test_the_excerpt_of_a_table_is_the_beginning_of_its_lines() -> None:
    page = (ROOT / "docs" / "reading-a-table.md").read_text(encoding="utf-8")
    excerpt = next(each for _, each in FENCED.findall(page) if "Δ, 3 pairs" in each)
    lines = [flat(line) for line in excerpt.splitlines() if line.strip() and not line.startswith("```")]
    printed = iter(map(flat, (STUDY / "tables" / "table-8.txt").read_text(encoding="utf-8").splitlines()))
    assert len(lines) >= 8
    for line in lines:  # in this order; `in` consumes the iterator up to the one that is found
        assert any(each == line or each.startswith(line + " ") for each in printed), line


def moved(experiment: str) -> list[float]:
    """How far g(z) is from its start at the end, P3 to P5: root mean square, mean over the seeds."""
    by_seed = []
    for run in sorted((STUDY / "runs").glob(f"{experiment}-mini-s*")):
        values = pd.read_parquet(run / "implicit.parquet")
        ends = values[values["epoch"].isin((0, values["epoch"].max()))]
        wide = ends.pivot(index=["level", "index"], columns="epoch", values="value")
        by_seed.append((wide.iloc[:, 1] - wide.iloc[:, 0]).pow(2).groupby(level="level").mean().pow(0.5))
    assert len(by_seed) == 3
    return [float(value) for value in np.mean(by_seed, axis=0)]


def test_how_far_the_vectors_moved_is_measured() -> None:
    page = flat((ROOT / "docs" / "faq.md").read_text(encoding="utf-8"))
    for said, experiment in (
        (r"the vector of \+ iFA had moved by", "csp-fast.add-fa"),
        (r"that of \+ iPR by", "csp-fast.add-pr"),
    ):
        found = re.search(rf"{said} ([\d.]+), ([\d.]+) and ([\d.]+\d)", page)
        assert found, said
        assert [f"{value:.2f}" for value in moved(experiment)] == list(found.groups())
