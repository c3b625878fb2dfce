"""What a run records and says while it goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from yolor_core.config import RunConfig
from yolor_core.models import create_model
from yolor_core.runs.directory import RunDirectory
from yolor_core.training import progress, train
from yolor_core.training.distributed import Place, Ranks
from yolor_core.training.progress import Moment, Progress
from yolor_core.training.schedule import Settings
from yolor_core.training.state import MovingAverage, TrainingState, build_optimiser

Tiny = Callable[..., RunConfig]
SETTINGS = Settings(0.01, 0.02, 0.9, 1)
ALONE = Ranks(Place(), torch.device("cpu"))
REFERENCE = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)


class Notes:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.begun: list[tuple[Mapping[str, Any], Moment, list[dict[str, Any]]]] = []
        self.told: list[Any] = []

    def started(self, record: Mapping[str, Any], now: Moment, metrics: list[dict[str, Any]]) -> None:
        self.begun.append((record, now, metrics))

    def stepped(self, now: Moment) -> None:
        self.told.append(now)

    def evaluating(self, done: int, total: int) -> None:
        self.told.append((done, total))

    def epoch_finished(self, record: Mapping[str, Any]) -> None:
        self.told.append(dict(record))


def a_state(tiny: Tiny) -> TrainingState:
    science = tiny().science
    model = create_model(science.model, classes=2)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    optimiser = build_optimiser(model, science.train.optimiser, 0.0)
    return TrainingState(model, MovingAverage(model, 0.9, 1.0), optimiser, scaler)


def test_whoever_watches_hears_every_step_and_epoch_in_order(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "GLANCE", -1.0)
    notes = Notes()
    assert train(tiny(evaluate_every=2), tmp_path, watch=notes) == "done"
    run = RunDirectory(tmp_path)
    ((record, now, metrics),) = notes.begun
    assert record["run"] == (run.read_run() or {})["run"]
    assert ((now.epoch, now.epochs, now.step, now.steps), metrics) == ((0, 2, 0, 3), [])
    kinds = [type(item).__name__ for item in notes.told]
    assert kinds[:4] == ["Moment"] * 3 + ["dict"]  # 10 images in batches of 4; epoch 1 is not evaluated
    assert kinds[4:7] == ["Moment"] * 3
    assert set(kinds[7:-1]) == {"tuple"} and kinds[-1] == "dict"
    moments = [item for item in notes.told if isinstance(item, Moment)]
    assert [(m.epoch, m.step, m.images) for m in moments] == [
        (epoch, step, images) for epoch in (0, 1) for step, images in ((1, 4), (2, 8), (3, 10))
    ]
    assert [item for item in notes.told if isinstance(item, dict)] == run.read_metrics()
    assert moments[2].losses["loss/box"] == run.read_metrics()[0]["loss/box"]
    counts = [item for item in notes.told if isinstance(item, tuple)]
    assert counts[0][0] == 0 and [done for done, _ in counts] == sorted(done for done, _ in counts)
    assert all(done <= total for done, total in counts)


def test_whoever_watches_a_resumed_run_hears_where_it_goes_on(tiny: Tiny, tmp_path: Path) -> None:
    asked = iter(range(100))
    assert train(tiny(), tmp_path, stop=lambda: next(asked) >= 4) == "preempted"
    notes = Notes()
    train(tiny(), tmp_path, watch=notes)
    ((_, now, metrics),) = notes.begun
    assert (now.epoch, now.step, now.images) == (1, 1, 4)
    assert metrics == RunDirectory(tmp_path).read_metrics()[:1]


def test_steps_are_told_a_few_times_a_second_at_most(tiny: Tiny, tmp_path: Path) -> None:
    notes = Notes()
    state, report = a_state(tiny), Progress(RunDirectory(tmp_path), ALONE, 1, 1000, REFERENCE, watch=notes)
    for state.step in range(500):  # much less than a second
        report.beat_if_due(state)
    assert 1 <= len(notes.told) < 250


def test_further_quantities_join_the_record_and_stay_json(tiny: Tiny, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    state, report = a_state(tiny), Progress(run, ALONE, 1, 3, REFERENCE)
    state.totals.add(4, {"loss/box": 0.5})
    state.norms.add(2, {"grad_norm": 1.25})
    state.seconds, state.waited = 2.0, math.nan
    report.finish_epoch(state, SETTINGS, {"AP": 0.25, "APL": None})
    (record,) = run.read_metrics()
    assert (record["grad_norm"], record["data_seconds"]) == (1.25, None)
    assert (record["AP"], record["APL"], record["images_per_second"]) == (0.25, None, 2.0)
    assert not (tmp_path / "tensorboard").exists()  # not asked for
