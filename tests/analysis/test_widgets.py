"""Widgets to choose runs, without a front end: what they begin with and what a change does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets
import pytest

from analysis.errors import NothingToShow
from analysis.notebook import ChosenPair, ChosenRun, ChosenRuns
from analysis.study import Study, open_study

Fabricate = Callable[..., str]


@pytest.fixture
def study(fabricate: Fabricate, tmp_path: Path) -> Study:
    """Table 1 with two seeds, + iFA 3 AP better; a run of + iPR goes on."""
    for seed in (0, 1):
        fabricate("csp-fast", seed, 0.40)
        fabricate("csp-fast.add-fa", seed, 0.43)
    fabricate("csp-fast.add-pr", 0, ap=None, state="running")
    return open_study(tmp_path, "mini", ["1", "2"])


def names(study: Study) -> set[tuple[str, int]]:
    return set(zip(study.runs["experiment"], study.runs["seed"], strict=True))


def test_all_runs_are_chosen_at_first(study: Study) -> None:
    chosen = ChosenRuns(study)
    assert names(chosen.study) == names(study)
    assert str(chosen) == "Chosen: 5 of 5 runs."


def test_a_choice_of_experiments_and_seeds_leaves_a_study_of_these(study: Study) -> None:
    chosen = ChosenRuns(study)
    before = chosen.study
    assert before is study, "nothing is read twice"
    chosen.experiments.value = ("csp-fast.add-fa",)
    chosen.seeds.value = (1,)
    assert names(chosen.study) == {("csp-fast.add-fa", 1)}
    assert chosen.study is chosen.study, "what was read is kept"
    assert list(chosen.runs["seed"]) == [1]
    assert chosen.study.filled["1"].cell("baseline", "AP").value is None
    assert str(chosen) == "Chosen: 1 of 5 runs."


def test_experiments_say_how_many_of_their_runs_are_done(study: Study) -> None:
    labels = [label for label, _ in ChosenRuns(study).experiments.options]
    assert labels == [
        "csp-fast (2 of 2 done)",
        "csp-fast.add-fa (2 of 2 done)",
        "csp-fast.add-pr (0 of 1 done)",
    ]


def test_the_sentence_below_the_lists_follows_the_choice(study: Study) -> None:
    chosen = ChosenRuns(study)
    chosen.seeds.value = ()
    assert chosen._said.value.startswith("Chosen: 0 of 5 runs.")


def test_lists_are_those_of_the_browser_which_keys_can_use(study: Study) -> None:
    chosen, pair = ChosenRuns(study), ChosenPair(study)
    assert type(chosen.experiments) is type(chosen.seeds) is widgets.SelectMultiple
    assert type(pair.a) is type(pair.b) is widgets.Dropdown
    assert [each.description for each in (chosen.experiments, chosen.seeds, pair.a, pair.b)] == [
        "Experiments",
        "Seeds",
        "Run A",
        "Run B",
    ]


def test_a_widget_is_shown_with_words_for_where_none_can_be(study: Study) -> None:
    for widget in (ChosenRuns(study), ChosenPair(study), ChosenRun(study, study.runs, "at all")):
        bundle = widget._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in bundle
        assert bundle["text/plain"].startswith("Chosen: ")


def test_a_pair_begins_with_the_row_that_differs_most(study: Study) -> None:
    a, b = ChosenPair(study).folders
    assert a.name.startswith("csp-fast-mini-s0-")
    assert b.name.startswith("csp-fast.add-fa-mini-s0-")


def test_only_finished_runs_can_be_compared(study: Study) -> None:
    assert not any("add-pr" in name for name in ChosenPair(study).a.options)


def test_a_run_is_not_compared_with_itself(study: Study) -> None:
    pair = ChosenPair(study)
    pair.b.value = pair.a.value
    with pytest.raises(NothingToShow, match=r"the same run, csp-fast-mini-s0-.*choose another"):
        _ = pair.folders


def test_two_runs_of_one_experiment_can_be_compared(fabricate: Fabricate, tmp_path: Path) -> None:
    runs = [fabricate("csp-fast", seed) for seed in (0, 1)]
    pair = ChosenPair(open_study(tmp_path, "mini", ["1"]))
    assert [path.name for path in pair.folders] == runs


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


def test_a_single_run_has_nothing_to_be_compared_with(fabricate: Fabricate, tmp_path: Path) -> None:
    run = fabricate("csp-fast")
    pair = ChosenPair(open_study(tmp_path, "mini", ["1"]))
    with pytest.raises(NothingToShow, match=f"there is one, {run}"):
        _ = pair.folders
    assert pair._repr_mimebundle_() == {"text/plain": "There are no two finished runs to choose from."}


def test_one_run_is_the_first_that_is_done(study: Study) -> None:
    chosen = ChosenRun(study, study.runs.iloc[::-1], "at all")
    assert chosen.name.startswith("csp-fast.add-fa-mini-s1-")
    assert chosen.path.name == chosen.name
    chosen.run.value = next(name for name in chosen.run.options if "add-pr" in name)
    assert chosen.path.name.startswith("csp-fast.add-pr-")


def test_nothing_to_choose_is_said_in_words(tmp_path: Path) -> None:
    study = open_study(tmp_path, "mini", ["1"])
    assert ChosenRuns(study)._repr_mimebundle_() == {"text/plain": "There are no runs to choose from."}
    assert ChosenRuns(study).study.metrics.empty
    one = ChosenRun(study, study.runs, "with implicit knowledge")
    assert one._repr_mimebundle_() == {"text/plain": "There is no run with implicit knowledge to choose."}
    with pytest.raises(NothingToShow, match="no run with implicit knowledge"):
        _ = one.name
    with pytest.raises(NothingToShow, match="Two finished runs"):
        ChosenPair(study).compare()
