"""What notebooks say, show and let choose, without a kernel or a front end."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import ipywidgets as widgets
import pytest
from IPython.core.formatters import DisplayFormatter

from analysis.errors import NothingToShow
from analysis.figures.style import figure
from analysis.notebook import (
    Announced,
    ChosenPair,
    ChosenRun,
    ChosenRuns,
    ablate,
    draw_figures_as_svg,
    here,
    redraws,
    show,
    show_tables,
    where_possible,
)
from analysis.study import Study, open_study
from tests.analysis.conftest import write_run

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


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Tables 1 and 2 with two seeds, + iFA 3 AP better; a run of + iPR goes on."""
    results = tmp_path_factory.mktemp("study")
    for seed in (0, 1):
        write_run(results, "csp-fast", seed, 0.40)
        write_run(results, "csp-fast.add-fa", seed, 0.43)
    write_run(results, "csp-fast.add-pr", 0, ap=None, state="running")
    return open_study(results, "mini", ["1", "2"])


# Opening a study


def test_the_study_is_found_by_the_environment(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ABLATE_RESULTS", str(study.results))
    assert len(here("1", "2").runs) == 5
    said = capsys.readouterr().out
    where = f"in {study.results}; reduced profile"
    assert f"Tables 1, 2 at profile mini: 5 runs (4 done, 1 running)\n{where}" in said
    monkeypatch.setenv("ABLATE_PROFILE", "smoke")
    assert here("1").runs.empty
    assert here("1", profile="mini").profile == "mini"


def test_results_are_looked_for_in_the_project_or_without_a_checkout_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(tmp_path)
    own = (root / "results" / "runs").is_dir()
    assert here("1").results == root / "results" / ("" if own else "published/mini")
    assert ("No runs of your own yet" in capsys.readouterr().out) != own
    assert here("1", profile="smoke").results == root / "results"  # nothing is published of it
    monkeypatch.setenv("ABLATE_RESULTS", "elsewhere")
    assert here("1").results == root / "elsewhere"
    monkeypatch.setattr("analysis.notebook.SOURCES", tmp_path / "site-packages")
    assert here("1").results == tmp_path / "elsewhere"
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


# Showing


def test_a_block_ends_where_something_is_missing_and_an_error_in_the_code_is_not_hidden(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with where_possible():
        raise NothingToShow("Nothing yet: launch Table 1.")
    assert capsys.readouterr().out == "Nothing yet: launch Table 1.\n"
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
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as Jupyter's kernels do
    ablate("show", "csp-fast.add-fb", "--profile", "smoke")
    said = capfd.readouterr().out
    assert said.startswith("$ ablate show csp-fast.add-fb --profile smoke\nablate: ")
    assert "csp-fast.add-fa" in said
    assert said.endswith("(ended with status 2)\n")
    assert "\x1b" not in said


def test_notebooks_need_no_torch() -> None:
    code = "import sys, analysis.notebook, analysis.figures.catalogue; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Choosing


def names(study: Study) -> set[tuple[str, int]]:
    return set(zip(study.runs["experiment"], study.runs["seed"], strict=True))


def test_three_experiments_are_chosen_at_first_and_say_how_many_are_done(study: Study) -> None:
    everything = ChosenRuns(open_study("results/published/mini"))
    assert everything.experiments.value == ("csp-fast", "csp-fast.add-fa", "csp-fast.add-pr")
    chosen = ChosenRuns(study)
    assert chosen.study is study, "nothing is read twice"
    assert str(chosen) == ("Chosen: 5 of 5 runs: csp-fast, csp-fast.add-fa, csp-fast.add-pr; seeds 0, 1.")
    assert [label for label, _ in chosen.experiments.options] == [
        "csp-fast (2 of 2 done)",
        "csp-fast.add-fa (2 of 2 done)",
        "csp-fast.add-pr (0 of 1 done)",
    ]


def test_a_choice_of_experiments_and_seeds_leaves_a_study_of_these(study: Study) -> None:
    chosen = ChosenRuns(study)
    chosen.experiments.value = ("csp-fast.add-fa",)
    chosen.seeds.value = (1,)
    assert names(chosen.study) == {("csp-fast.add-fa", 1)}
    assert chosen.study is chosen.study, "what was read is kept"
    assert list(chosen.runs["seed"]) == [1]
    assert chosen.study.filled["1"].cell("baseline", "AP").value is None
    assert str(chosen) == "Chosen: 1 of 5 runs: csp-fast.add-fa; seeds 1."
    chosen.seeds.value = ()
    assert str(chosen) == "Chosen: 0 of 5 runs: csp-fast.add-fa; seeds none."


def test_lists_are_those_of_the_browser(study: Study) -> None:
    chosen, pair, one = ChosenRuns(study), ChosenPair(study), ChosenRun(study.runs, "at all")
    assert {type(each) for each in chosen.lists} == {widgets.SelectMultiple}  # keys can use them
    assert {type(each) for each in (*pair.lists, *one.lists)} == {widgets.Dropdown}
    lists = (*chosen.lists, *pair.lists)
    assert [each.description for each in lists] == ["Experiments", "Seeds", "Run A", "Run B"]


class Screen:
    """What would be displayed, in the order of its places, as it is now."""

    def __init__(self) -> None:
        self.places: list[Any] = []

    def display(self, thing: Any, raw: bool = False, display_id: bool = False) -> Any:
        place = len(self.places)
        self.places.append(thing)
        return SimpleNamespace(update=lambda new, raw: self.places.__setitem__(place, new))


def test_a_change_of_a_choice_draws_again_in_the_same_place(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen()
    monkeypatch.setattr("analysis.notebook.display", screen.display)
    chosen, one = ChosenRuns(study), ChosenRun(study.runs, "at all")
    chosen.show()

    @redraws(chosen, one)
    def numbers() -> None:
        print(len(chosen.runs), one.run.value)
        if not chosen.seeds.value:
            raise NothingToShow("No seed is chosen.")

    lists, words, drawn = screen.places
    assert lists.children == chosen.lists
    assert words["text/plain"].startswith("Chosen: 5 of 5 runs")
    assert drawn["text/plain"] == f"5 {one.run.value}\n"
    chosen.seeds.value = (0,)
    one.run.value = one.run.options[1]
    assert [each["text/plain"][:16] for each in screen.places[1:]] == ["Chosen: 3 of 5 r", "3 csp-fast-mini-"]
    assert screen.places[2]["text/plain"] == f"3 {one.run.options[1]}\n"
    chosen.seeds.value = ()
    assert screen.places[2]["text/plain"].endswith("No seed is chosen.\n")


def test_a_pair_begins_with_the_row_that_differs_most_and_has_two_finished_runs(study: Study) -> None:
    pair = ChosenPair(study)
    a, b = pair.folders
    assert a.name.startswith("csp-fast-mini-s0-")
    assert b.name.startswith("csp-fast.add-fa-mini-s0-")
    assert not any("add-pr" in name for name in pair.a.options)
    pair.b.value = pair.a.value
    with pytest.raises(NothingToShow, match=r"the same run, csp-fast-mini-s0-.*choose another"):
        _ = pair.folders


def test_a_comparison_is_computed_once_for_a_choice(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def compare(a: Path, b: Path, resamples: int) -> object:
        asked.append((a.name, b.name))
        return object()

    monkeypatch.setattr("analysis.notebook.compare_runs", compare)
    pair = ChosenPair(study)
    assert pair.compare() is pair.compare()
    pair.a.value, pair.b.value = pair.b.value, pair.a.value
    pair.compare()
    assert asked == [asked[0], asked[0][::-1]]


def test_two_runs_of_one_experiment_can_be_compared_and_a_single_one_cannot(
    fabricate: Fabricate, tmp_path: Path
) -> None:
    runs = [fabricate("csp-fast")]
    alone = ChosenPair(open_study(tmp_path, "mini", ["1"]))
    with pytest.raises(NothingToShow, match=f"there is one, {runs[0]}"):
        _ = alone.folders
    assert alone.nothing == "There are no two finished runs to choose from."
    runs.append(fabricate("csp-fast", 1))
    assert [path.name for path in ChosenPair(open_study(tmp_path, "mini", ["1"])).folders] == runs


def test_one_run_is_the_first_that_is_done(study: Study) -> None:
    chosen = ChosenRun(study.runs.iloc[::-1], "at all")
    assert chosen.name.startswith("csp-fast.add-fa-mini-s1-")
    assert chosen.path.name == chosen.name
    chosen.run.value = next(name for name in chosen.run.options if "add-pr" in name)
    assert chosen.path.name.startswith("csp-fast.add-pr-")


def test_nothing_to_choose_is_said_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = open_study(tmp_path, "mini", ["1"])
    one = ChosenRun(study.runs, "with implicit knowledge")
    for choice in (ChosenRuns(study), one, ChosenPair(study)):
        choice.show()
    assert capsys.readouterr().out.splitlines() == [
        "There are no runs to choose from.",
        "There is no run with implicit knowledge to choose.",
        "There are no two finished runs to choose from.",
    ]
    assert ChosenRuns(study).study.metrics.empty
    with pytest.raises(NothingToShow, match="no run with implicit knowledge"):
        _ = one.name
    with pytest.raises(NothingToShow, match="Two finished runs"):
        ChosenPair(study).compare()
