"""A table of one's own is a Python file; a broken one is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations.plan import plan_runs
from ablations.registry import select, select_tables
from ablations.table import load_file
from yolor_core.errors import ConfigError, YolorError

GOOD = """
from ablations.experiments import CSP_FAST
from ablations.table import Row, Table
from yolor_core.config import ImplicitConfig

PART = ImplicitConfig(site="fa", operator="add", std=0.2)
STRONG = CSP_FAST.plus(PART).named("mine.strong", "strong prior")
TABLE = Table("std", "Spread of the prior", rows=(
    Row("baseline", CSP_FAST, "nothing"),
    Row("strong", STRONG, "ten times the spread"),
))
EXPERIMENTS = [CSP_FAST.plus(ImplicitConfig(site="pr", operator="add", std=0.1)).named("mine.weak")]
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.py"
    path.write_text(text)
    return str(path)


def test_a_file_is_accepted_wherever_a_table_is(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert [table.name for table in select_tables([path, "1"])] == ["std", "1"]
    assert [e.slug for e in select([path]).experiments] == ["csp-fast", "mine.strong", "mine.weak"]
    planned = plan_runs([path], "smoke", fingerprint="f")
    assert [run.config.experiment for run in planned] == ["csp-fast", "mine.strong", "mine.weak"]
    assert planned[1].config.science.model.implicit[0].std == 0.2
    assert planned[0].run_id == plan_runs(["csp-fast"], "smoke", fingerprint="f")[0].run_id
    assert select_tables([path])[0].paper() == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nTABLE = (\n", r"mine\.py, line 2: "),
        ("x = 1\n\ny = undefined\n", r"mine\.py, line 3: NameError: .*undefined"),
        (
            GOOD.replace('operator="add", std=0.2', 'operator="ad", std=0.2'),
            r"line 6: .*operator = 'ad'.*'ad'.*add",
        ),
        ("def f():\n    return 1 / 0\n\nf()\n", r"line 2: ZeroDivisionError"),
        ("x = 1\n", "none of TABLE, TABLES and EXPERIMENTS"),
        ("TABLE = 3\n", "TABLE holds a int; allowed is Table"),
        ("TABLES = ['4']\n", "TABLES holds a str; allowed is Table"),
        (
            GOOD.replace('"mine.strong"', '"csp-fast.add-fa"'),
            r"two different experiments are named 'csp-fast\.add-fa'",
        ),
        (GOOD.replace('"std", "Spread', '"4", "Spread'), "two tables are named '4'"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        select([write(tmp_path, text)])


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.py: No such file"):
        load_file(tmp_path / "absent.py")


def write_cells(folder: Path, cells: str) -> str:
    (folder / "cells.csv").write_text(cells)
    text = GOOD.replace(
        "rows=(", 'cells=__import__("pathlib").Path(__file__).with_name("cells.csv"), rows=(', 1
    )
    return write(folder, text)


def test_cells_of_ones_own_stand_where_the_papers_would(tmp_path: Path) -> None:
    (table,) = select_tables([write_cells(tmp_path, "row,AP,APS\nbaseline,40.5,\nstrong,41,12.5\n")])
    assert table.paper() == {"baseline": {"AP": 40.5}, "strong": {"AP": 41, "APS": 12.5}}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("row,AP\nbaseline,high\n", r"cells\.csv, row 'baseline', column 'AP': 'high' is not a number"),
        ("label,AP\nbaseline,1\n", r"cells\.csv: has no column 'row'"),
        ("row,AP\nbaseline,1,2\n", r"is not a number"),
        ("row,AP\nbase,1\n", r"unknown row in .*cells\.csv 'base'; allowed: baseline, strong"),
    ],
)
def test_broken_cells_are_named(tmp_path: Path, cells: str, message: str) -> None:
    (table,) = select_tables([write_cells(tmp_path, cells)])
    with pytest.raises(YolorError, match=message):
        table.paper()
