"""A study holds the runs that count, and reads what they left run by run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import analysis
from ablations.costs import PUBLISHED
from analysis.errors import NothingToShow
from analysis.figures import curves, scores
from analysis.study import open_study
from tests.analysis.report.conftest import make_run
from yolor_core.errors import UnknownNameError

Make = Callable[..., Path]


def test_runs_of_a_study_have_its_profile_settings_and_seeds(tmp_path: Path) -> None:
    wanted = [make_run(tmp_path, "csp-fast", seed).name for seed in (0, 1)]
    make_run(tmp_path, "csp-fast", 2)
    make_run(tmp_path, "csp-fast", 0, profile="smoke")
    make_run(tmp_path, "csp-fast", 0, overrides=("train.epochs=3",))
    make_run(tmp_path, "csp", 0)  # of Table 3
    study = open_study(tmp_path, "mini", ["1"], seeds=[0, 1])
    assert list(study.runs["run"]) == wanted
    assert len(study.listed) == 5 and len(study.everything) == 6


@pytest.mark.parametrize("tables", [1, "1", [1], ("1",)])
def test_a_study_is_opened_by_strings_and_numbers_and_says_what_it_is(tmp_path: Path, tables: Any) -> None:
    make_run(tmp_path, "csp-fast", 3)
    study = analysis.open_study(str(tmp_path), "mini", tables)
    assert repr(study).splitlines() == [
        f"study    {tmp_path}, profile mini",
        "tables   1",
        "rows     2 of 2 experiments",
        "runs     1 done",
        "seeds    3",
    ]
    assert len(analysis.load_runs(str(tmp_path))) == 1
    assert set(study.cells["row"]) == {"baseline", "+ iFA"}


FILES = {"metrics.jsonl": "metrics", "implicit.parquet": "implicit", "effects.parquet": "effects"}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_or_damaged_costs_its_run_alone(tmp_path: Path, name: str) -> None:
    folder = make_run(tmp_path, "csp-fast.add-fa", 0)
    whole = make_run(tmp_path, "csp-fast.add-fa", 1).name
    (folder / name).unlink()
    study = open_study(tmp_path, "mini", ["1"])
    assert set(getattr(study, FILES[name])["run"]) == {whole} and study.unread == {}
    (folder / name).write_bytes(b"nonsense")
    study = open_study(tmp_path, "mini", ["1"])
    assert all(whole in set(frame["run"]) for frame in (study.metrics, study.implicit, study.effects))
    assert list(study.unread) == [folder.name] and name in study.unread[folder.name]


def test_an_empty_study_has_empty_frames(tmp_path: Path) -> None:
    study = open_study(tmp_path / "nowhere", "mini", ["1"])
    for frame in (study.runs, study.metrics, study.implicit, study.effects, study.class_scores):
        assert isinstance(frame, pd.DataFrame) and frame.empty
    assert study.class_boxes == {} and study.refused == {} and "1" in study.filled
    with pytest.raises(NothingToShow):
        _ = study.compared


def test_scores_of_classes_are_in_percent(tmp_path: Path) -> None:
    run = make_run(tmp_path, "csp-fast", ap=0.25).name
    scores = open_study(tmp_path, "mini", ["1"]).class_scores
    assert scores.to_dict("records") == [
        {"run": run, "output": "disc", "AP": 25.0},
        {"run": run, "output": "square", "AP": 25.0},
    ]


@pytest.mark.parametrize(("words", "said"), [(("huge",), "profile"), (("mini", ["99"]), "table")])
def test_unknown_names_are_refused(tmp_path: Path, words: tuple[str], said: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown {said}"):
        open_study(tmp_path, *words)


def test_figures_of_the_end_count_finished_runs_only_where_there_are_some(tmp_path: Path) -> None:
    make_run(tmp_path, "csp-fast.add-fa", 0, state="running", epochs=1)
    going = open_study(tmp_path, "mini", ["1"])
    assert set(going.effects["seed"]) == set(going.implicit["seed"]) == {0}
    make_run(tmp_path, "csp-fast.add-fa", 1)
    both = open_study(tmp_path, "mini", ["1"])
    assert set(both.effects["seed"]) == set(both.implicit["seed"]) == {1}
    assert set(both.metrics["seed"]) == {0, 1}


def test_a_dataset_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "csp-fast.add-fa", 0)
    (folder / "dataset.json").write_text('{"train": {}}')
    study = open_study(tmp_path, "mini", ["1"])
    assert study.training_data is None and study.class_boxes == {}
    assert "dataset.json cannot be read: train needs the lists" in study.unread[folder.name]


def test_every_frame_has_scores_in_percent_and_files_have_fractions() -> None:
    study = open_study(PUBLISHED / "mini", tables=1)
    (run,) = study.runs.query("experiment == 'csp-fast' and seed == 0").to_dict("records")
    ap = json.loads((Path(run["path"]) / "evaluation.json").read_text())["detection"]["AP"]
    assert 0.55 < ap < 0.7
    last = study.metrics.query("run == @run['run']").dropna(subset=["AP"]).iloc[-1]
    drawn = scores.ap_by_run_data(study.runs).query("run == @run['run']")
    over_epochs = curves.ap_data(study.metrics)
    assert run["AP"] == last["AP"] == drawn["AP"].item() == 100 * ap
    assert over_epochs["mean"].max() == pytest.approx(study.runs.groupby("experiment")["AP"].mean().max())
    assert study.cells.query("metric == 'AP'")["value"].between(55, 70).all()
    assert study.class_scores["AP"].max() > 1
