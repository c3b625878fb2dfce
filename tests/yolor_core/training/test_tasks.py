"""Training of several tasks together, and of each alone: scores, resume, ranks, learnt weights, conflict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.yolor_core.training.results import assert_nearly_the_same, assert_same_result, stop_after
from tests.yolor_core.training.test_distributed import alone, train_on
from yolor_core.config import BranchConfig, ImplicitConfig, OptimiserConfig, RunConfig, Science, TasksConfig
from yolor_core.errors import RunError
from yolor_core.runs.directory import RunDirectory
from yolor_core.training import train

Tiny = Callable[..., RunConfig]
ADD_FA = ImplicitConfig(site="fa", operator="add")
MARKOV = ImplicitConfig(site="fa", operator="add", form="markov")
ACCUMULATE = OptimiserConfig(nominal_batch=8, warmup_min_iterations=2, warmup_epochs=0.5, ema_updates=5)


def joint(config: RunConfig, *branches: BranchConfig, detection: bool = True, **tasks: object) -> RunConfig:
    science = config.science
    model = science.model.model_copy(update={"branches": branches, "detection": detection})
    recipe = science.train.model_copy(update={"tasks": TasksConfig.model_validate(tasks)})
    checked = Science.model_validate(
        science.model_copy(update={"model": model, "train": recipe}).model_dump()
    )
    return config.model_copy(update={"science": checked})


def classification(implicit: ImplicitConfig | None = None) -> BranchConfig:
    return BranchConfig(task="classification", implicit=implicit)


def embedding(implicit: ImplicitConfig | None = None, **fields: object) -> BranchConfig:
    return BranchConfig.model_validate({"task": "embedding", "implicit": implicit, **fields})


@pytest.mark.parametrize(
    ("implicit", "branches"),
    [
        ((), (classification(),)),
        ((ADD_FA,), (classification(ADD_FA),)),
        ((), (embedding(variant="fairmot"),)),
        ((MARKOV,), (embedding(MARKOV), classification(MARKOV))),
    ],
)
def test_joint_training_scores_every_task_and_resumes_bit_for_bit(
    tiny: Tiny, tmp_path: Path, implicit: tuple[ImplicitConfig, ...], branches: tuple[BranchConfig, ...]
) -> None:
    config = joint(tiny(implicit=implicit, optimiser=ACCUMULATE), *branches, weighting="uncertainty")
    train(config, tmp_path / "whole")
    for stops in (2, 3):
        assert train(config, tmp_path / "parts", stop=stop_after(stops)) == "preempted"
    train(config, tmp_path / "parts")
    whole = RunDirectory(tmp_path / "whole")
    assert_same_result(whole, RunDirectory(tmp_path / "parts"))

    tasks = config.science.model.tasks
    evaluation = whole.read_evaluation()
    assert evaluation is not None and set(tasks) <= evaluation.keys()
    first, last = whole.read_metrics()
    terms = {"classification": "loss/tag", "embedding": "loss/id"}
    for task in tasks[1:]:
        assert last[terms[task]] > 0
        cosine = last[f"conflict/detection-{task}"]
        assert -1 <= cosine <= 1 and cosine != 0
        assert first[f"weight/{task}"] != last[f"weight/{task}"]  # learnt
        wanted = {"classification": "mAP", "embedding": "recall@1"}[task]
        assert last[f"{task}/{wanted}"] == evaluation[task][wanted]
    assert {f"task.{task}" for task in tasks} <= load_file(whole.weights).keys()


@pytest.mark.parametrize("branch", [classification(), classification(ADD_FA), embedding(), embedding(ADD_FA)])
def test_a_task_can_be_trained_alone(tiny: Tiny, tmp_path: Path, branch: BranchConfig) -> None:
    config = joint(tiny(), branch, detection=False)
    assert train(config, tmp_path) == "done"
    run = RunDirectory(tmp_path)
    assert run.complete() and not run.detections.exists()
    evaluation = run.read_evaluation()
    assert evaluation is not None and "detection" not in evaluation and branch.task in evaluation
    (*_, last) = run.read_metrics()
    assert "loss/box" not in last and not any(name.startswith("conflict/") for name in last)
    assert train(config, tmp_path) == "done"  # and is left as it is


def test_ranks_train_several_tasks_as_one_process_does(tiny: Tiny, tmp_path: Path) -> None:
    # Three ranks: one has no image of the last batch.
    config = joint(
        tiny(implicit=(ADD_FA,)), embedding(ADD_FA), classification(ADD_FA), weighting="uncertainty"
    )
    alone(config, tmp_path / "one")
    results = train_on(3, config, tmp_path / "three")
    assert [code for code, _ in results] == [0, 0, 0], results
    assert_nearly_the_same(tmp_path / "one", tmp_path / "three")
    pairs = zip(*(RunDirectory(tmp_path / name).read_metrics() for name in ("one", "three")), strict=True)
    for one, three in pairs:
        for name in ("loss/tag", "loss/id", "conflict/detection-embedding", "weight/embedding"):
            assert three[name] == pytest.approx(one[name], rel=1e-3, abs=1e-4), name


def test_measuring_the_conflict_changes_nothing(tiny: Tiny, tmp_path: Path) -> None:
    measured = joint(tiny(conflict_steps=2), embedding(), embedding=0.02)
    quiet = joint(tiny(conflict_steps=0), embedding(), embedding=0.02)
    train(measured, tmp_path / "measured")
    train(quiet, tmp_path / "quiet")
    ours, theirs = (load_file(RunDirectory(tmp_path / n).weights) for n in ("measured", "quiet"))
    assert all(bool((ours[name] == theirs[name]).all()) for name in ours)
    (*_, last) = RunDirectory(tmp_path / "quiet").read_metrics()
    assert not any(name.startswith("conflict/") for name in last)


def test_fixed_weights_weigh(tiny: Tiny, plain_run: RunDirectory, tmp_path: Path) -> None:
    # A branch of weight 0 leaves the detector as if it were alone.
    train(joint(tiny(), classification(), classification=0), tmp_path)
    ours, theirs = (load_file(run.weights) for run in (plain_run, RunDirectory(tmp_path)))
    for name, value in ours.items():
        assert bool((theirs[name] == value).all()), name


def test_a_joint_run_does_not_continue_under_another_weighting(tiny: Tiny, tmp_path: Path) -> None:
    train(joint(tiny(), embedding(), embedding=0.02), tmp_path, stop=stop_after(3))
    with pytest.raises(RunError, match=r"train.tasks.embedding = 0.02 there, 0.5 here"):
        train(joint(tiny(), embedding(), embedding=0.5), tmp_path)
