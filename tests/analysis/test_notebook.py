"""What notebooks say and show, without a kernel."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from IPython.core.formatters import DisplayFormatter

from analysis.errors import NothingToShow
from analysis.figures.style import figure
from analysis.notebook import Announced, ablate, draw_figures_as_svg, here, show, show_tables, where_possible

Fabricate = Callable[..., str]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The bundles that are displayed."""
    found: list[dict[str, str]] = []
    monkeypatch.setattr("analysis.notebook.display", lambda bundle, raw: found.append(bundle))
    return found


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ABLATE_RESULTS", "ABLATE_PROFILE"):
        monkeypatch.delenv(name, raising=False)


def test_the_study_is_found_by_the_environment(
    fabricate: Fabricate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate("csp-fast")
    fabricate("csp-fast", 1, ap=None, state="running")
    monkeypatch.setenv("ABLATE_RESULTS", str(tmp_path))
    assert len(here("1").runs) == 2
    said = capsys.readouterr().out
    assert f"Table 1 at profile mini: 2 runs (1 done, 1 running)\nin {tmp_path}; reduced profile" in said
    monkeypatch.setenv("ABLATE_PROFILE", "smoke")
    assert here("1").runs.empty
    assert here("1", profile="mini").profile == "mini"


def test_results_are_looked_for_in_the_project_wherever_the_notebook_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(tmp_path)
    assert here("1").results == root / "results"
    monkeypatch.setenv("ABLATE_RESULTS", "elsewhere")
    assert here("1").results == root / "elsewhere"


def test_without_a_checkout_results_are_looked_for_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("analysis.notebook.SOURCES", tmp_path / "site-packages")
    monkeypatch.chdir(tmp_path)
    assert here("1").results == tmp_path / "results"
    assert "in a terminal: ablate launch 1 2 --profile mini" in capsys.readouterr().out


def test_an_unknown_profile_is_said_and_mini_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ABLATE_PROFILE", "mimi")
    assert here("1", results=tmp_path).profile == "mini"
    assert re.match(r".*mimi.*mini.* Showing mini\.\nNo runs of Table 1", capsys.readouterr().out, re.S)


def test_runs_of_other_profiles_and_damaged_ones_are_named(
    fabricate: Fabricate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "runs" / fabricate("csp-fast") / "run.json"
    record = json.loads(other.read_text())
    record["config"]["science"]["profile"] = "smoke"
    other.write_text(json.dumps(record | {"signature": "0" * 64}))
    fabricate("csp-fast", 1)
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "run.json").write_text("{")
    here("1", results=tmp_path)
    said = capsys.readouterr().out
    assert "1 run (1 done)" in said
    assert 'Left out, of other profiles: smoke (1). To see one: here(profile="smoke")' in said
    assert "Left out, cannot be read: broken: " in said


def test_a_block_ends_where_something_is_missing_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with where_possible():
        raise NothingToShow("Nothing yet: launch Table 1.")
    assert capsys.readouterr().out == "Nothing yet: launch Table 1.\n"


def test_an_error_in_the_code_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), where_possible():
        print(1 / 0)


def test_a_damaged_file_is_announced_once(capsys: pytest.CaptureFixture[str]) -> None:
    problems = Announced()
    problems["a"] = "not readable"
    problems["a"] = "not readable"
    assert capsys.readouterr().out == "Left out, a: not readable\n"
    assert problems == {"a": "not readable"}


def test_a_figure_is_shown_as_vectors_with_its_title_as_alternative(shown: list[dict[str, str]]) -> None:
    show(figure("column", 2.0)[0], "AP < 1 & more")
    (bundle,) = shown
    assert bundle["text/plain"] == "AP < 1 & more"
    root = ElementTree.fromstring(bundle["image/svg+xml"])
    assert (root.get("width"), root.get("height")) == ("396", "240")  # 3.3 inches, 2 inches
    page = ElementTree.fromstring(
        bundle["text/html"].replace('">', '"/>').replace('margin: 0"/>', 'margin: 0">')
    )
    picture = page.find("img")
    assert picture is not None
    assert picture.get("alt") == "AP < 1 & more"
    inside = (picture.get("src") or "").removeprefix("data:image/svg+xml;base64,")
    assert base64.b64decode(inside).decode() == bundle["image/svg+xml"]


def test_a_figure_that_ends_a_cell_is_drawn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shell:
        display_formatter = DisplayFormatter()

    monkeypatch.setattr("analysis.notebook.get_ipython", Shell)
    draw_figures_as_svg()
    data: dict[str, Any] = Shell.display_formatter.format(figure()[0])[0]
    assert data["image/svg+xml"].startswith("<svg width=")


def test_tables_that_cannot_be_filled_say_why(
    fabricate: Fabricate, tmp_path: Path, shown: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate("csp-fast", ap=0.4)
    fabricate("csp-fast.add-fa", ap=0.43, source_hash="b" * 64)
    fabricate("csp-fast.add-pr", ap=0.43)
    show_tables(here("1", "2", results=tmp_path))
    assert "table 1 would mix runs" in capsys.readouterr().out
    assert [bundle["text/plain"] for bundle in shown] == ["Prediction refinement"]
    assert "<td>43.0 (+3.0)</td>" in shown[0]["text/html"]


def test_the_command_line_is_printed_with_what_it_says_and_how_it_ends(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as Jupyter's kernels do
    ablate("show", "csp-fast.add-fb", "--profile", "smoke")
    said = capfd.readouterr().out
    assert said.startswith("$ ablate show csp-fast.add-fb --profile smoke\nablate: ")
    assert "csp-fast.add-fa" in said
    assert said.endswith("(ended with status 2)\n")
    assert "\x1b" not in said


def test_notebooks_need_no_torch() -> None:
    code = "import sys, analysis.notebook; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
