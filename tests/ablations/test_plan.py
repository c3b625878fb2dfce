"""Tables and seeds become distinct runs in the right order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablations.experiments import CSP_FAST, Experiment
from ablations.plan import data_config, parse_seeds, plan_runs, with_predecessors
from ablations.registry import Selection, experiments, paper
from yolor_core.config import CocoConfig, ShapesConfig
from yolor_core.errors import ConfigError, DataError, UnknownNameError
from yolor_core.runs.directory import RunDirectory

TUNED, IMPLICIT = "p6-light.add-fa.mul-pr.finetuned", "p6-light.add-fa.mul-pr"


def test_all_tables_are_nineteen_runs() -> None:
    planned = plan_runs(profile="smoke", fingerprint="f")
    assert len({run.run_id for run in planned}) == len(planned) == 19
    assert {run.config.experiment for run in planned} == set(experiments())


def test_a_run_shared_by_two_tables_is_planned_once() -> None:
    planned = plan_runs(["1", "table4", "csp-fast"], "mini", fingerprint="f")
    assert [run.config.experiment for run in planned].count("csp-fast") == 1
    assert len(planned) == 6


def test_seeds_multiply_runs_and_repeat_none() -> None:
    planned = plan_runs(["1"], "mini", [0, 4, 0], fingerprint="f")
    assert [(run.config.experiment, run.config.seed) for run in planned] == [
        ("csp-fast", 0), ("csp-fast.add-fa", 0), ("csp-fast", 4), ("csp-fast.add-fa", 4),
    ]  # fmt: skip


def test_the_fine_tuned_run_brings_its_implicit_run_and_starts_from_it(tmp_path: Path) -> None:
    planned = plan_runs([TUNED], "mini", [1], results=tmp_path, fingerprint="f")
    first, second = planned
    assert (first.config.experiment, second.config.experiment) == (IMPLICIT, TUNED)
    assert (first.after, second.after) == (None, first.run_id)
    assert first.config.execution.keep_checkpoint
    assert not second.config.execution.keep_checkpoint
    assert second.config.execution.start_checkpoint == str(first.run_dir)
    assert first.run_dir == tmp_path / "runs" / first.run_id
    assert first.config.science.train.phases == second.config.science.train.phases[:1]


def test_the_implicit_run_keeps_its_checkpoint_even_when_launched_alone() -> None:
    (run,) = plan_runs([IMPLICIT], "mini", fingerprint="f")
    assert run.config.execution.keep_checkpoint


def test_overrides_reach_science_execution_and_data() -> None:
    overrides = ["train.batch=4", "execution.workers=2", "data.train_images=10"]
    (run,) = plan_runs(["csp"], "mini", overrides=overrides, fingerprint="f")
    assert run.config.science.train.batch == 4
    assert run.config.execution.workers == 2
    assert isinstance(run.config.data, ShapesConfig)
    assert run.config.data.train_images == 10


def test_a_planned_run_is_done_when_its_results_are_there(tmp_path: Path) -> None:
    (run,) = plan_runs(["csp"], "mini", results=tmp_path, fingerprint="f")
    folder = RunDirectory(run.run_dir)
    assert (folder.read_state(), folder.complete()) == (None, False)
    run.run_dir.mkdir(parents=True)
    for state in ("running", "done"):
        (run.run_dir / "state.json").write_text(json.dumps({"state": state}))
        assert (folder.read_state(), folder.complete()) == ({"state": state}, False)
    for name in ("run.json", "evaluation.json", "weights.safetensors"):
        (run.run_dir / name).write_text("{}")
    assert not folder.complete()  # an evaluation without a score is none, as tables have it
    (run.run_dir / "evaluation.json").write_text('{"detection": {"AP": null}}')
    assert folder.complete()


def test_results_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ABLATE_RESULTS", str(tmp_path))
    (run,) = plan_runs(["csp"], "mini", fingerprint="f")
    assert run.run_dir.parent == tmp_path / "runs"


def test_a_chain_with_a_missing_or_circular_link_is_refused() -> None:
    lost = Experiment("lost", "lost", CSP_FAST.science, continues="csp-fest")
    with pytest.raises(UnknownNameError, match="'csp-fest'; did you mean csp-fast"):
        with_predecessors([lost], paper())
    a = Experiment("a", "a", CSP_FAST.science, continues="b")
    b = Experiment("b", "b", CSP_FAST.science, continues="a")
    with pytest.raises(ConfigError, match="continues itself"):
        with_predecessors([a], Selection((), (a, b)))


def test_data_is_a_folder_or_the_shapes_or_the_profiles_own(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / "annotations" / f"instances_{split}.json").write_text("{}")
    folder = CocoConfig(root=str(tmp_path), train="train", val="val")
    assert data_config(str(tmp_path), "mini") == folder
    assert isinstance(data_config("shapes", "paper"), ShapesConfig)
    assert isinstance(data_config(None, "paper"), CocoConfig)
    assert data_config(str(tmp_path), "mini", ["data.val=mine"]).model_dump()["val"] == "mine"
    both = ["data.train=mine", "data.val=mine"]
    assert data_config("some/coco", "mini", both) == CocoConfig(
        root=str(Path("some/coco").absolute()), train="mine", val="mine"
    )
    with pytest.raises(DataError, match="no such folder"):
        data_config("some/coco", "mini")


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("2", [0, 1]), ("0,", [0]), ("0,3", [0, 3]), ("0-3", [0, 1, 2, 3]), ("5,1-2,5", [5, 1, 2])],
)
def test_seeds_are_lists_and_ranges(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "0", "a", "-1", "3-1", "1-", "1,,2", "0.5"])
def test_other_seeds_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="0-4, or 0,2, or '7,' for seed 7 alone"):
        parse_seeds(text)
    with pytest.raises(ConfigError, match="seed"):
        plan_runs(["csp"], "mini", [-1], fingerprint="f")


def test_two_names_for_one_training_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "twins.py"
    path.write_text(
        "from ablations.experiments import ADD_FA, CSP_FAST\n"
        "EXPERIMENTS = (CSP_FAST.plus(ADD_FA), CSP_FAST.plus(ADD_FA).named('mine'))\n"
    )
    with pytest.raises(ConfigError, match=r"'csp-fast.add-fa' and 'mine' are one training"):
        plan_runs([str(path)], "smoke", results=tmp_path)


def test_a_profile_on_coco_without_a_folder_asks_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="--data PATH"):
        plan_runs(["1"], "proxy", results=tmp_path)


def test_absurdly_many_seeds_are_refused() -> None:
    with pytest.raises(ConfigError, match="up to 10000"):
        parse_seeds("0-99999999999")


def test_a_training_size_that_does_not_fit_the_strides_is_refused_before_anything_runs(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=r"train.size = 65 .* next valid size is 96"):
        plan_runs(["csp-fast"], "smoke", overrides=["train.size=65"], results=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TABLE = Table('t', 't', rows=(Row('b', 'csp-fast', 'c'),))", "is no Experiment"),
        ("TABLE = Table(5, 't', rows=[Row('b', CSP_FAST, 'c')])", "name is 5"),
        ("TABLE = Table('t', 't', rows=['b'])", "a Row"),
        ("import sys; sys.exit(3)", "SystemExit"),
    ],
)
def test_natural_mistakes_in_a_table_file_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        f"from ablations.experiments import CSP_FAST\nfrom ablations.table import Row, Table\n{text}\n"
    )
    with pytest.raises(ConfigError, match=f"mine.py.*{message}"):
        plan_runs([str(path)], "smoke", results=tmp_path)
    path.write_text(
        "from ablations.experiments import CSP_FAST\nfrom ablations.table import Row, Table\n"
        "TABLE = Table('t', 't', rows=[Row('b', CSP_FAST, 'c')])\n"
    )
    assert len(plan_runs([str(path)], "smoke", results=tmp_path)) == 1
