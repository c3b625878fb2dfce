"""What a run records and says while it goes on; TensorBoard's event files, read with its own reader."""

from __future__ import annotations

import errno
import math
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from yolor_core.config import PhaseConfig, RunConfig
from yolor_core.models import create_model
from yolor_core.runs.directory import RunDirectory
from yolor_core.training import progress, train
from yolor_core.training.distributed import Place, Ranks
from yolor_core.training.progress import IMPLICIT, EventFiles, History, Moment, Progress, tag
from yolor_core.training.schedule import Settings
from yolor_core.training.state import MovingAverage, TrainingState, build_optimiser

Tiny = Callable[..., RunConfig]
SETTINGS = Settings(0.01, 0.02, 0.9, 1)
ALONE = Ranks(Place(), torch.device("cpu"))
FOUR = (PhaseConfig(epochs=4, schedule_epochs=4),)
NOTHING = History(*IMPLICIT).table
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


class Crash(Exception):
    """Stands for whatever ends a process in the middle of an epoch."""


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0}).Reload()


def points(reader: EventAccumulator) -> dict[str, list[tuple[int, float]]]:
    """{tag: [(epoch, value)]}."""
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def expected(records: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """The numbers of metrics.jsonl as single precision, which is what the format holds."""
    found: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        for key, value in record.items():
            if key != "epoch" and value is not None:
                found.setdefault(tag(key), []).append((record["epoch"], float(np.float32(value))))
    return found


def test_event_files_hold_every_number_of_the_metrics_by_epoch(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny(evaluate_every=2, phases=FOUR), tmp_path)
    found = points(read(tmp_path / "tensorboard"))
    assert found == expected(RunDirectory(tmp_path).read_metrics())
    assert [step for step, _ in found["loss/box"]] == [1, 2, 3, 4]
    assert [step for step, _ in found["coco/AP50"]] == [2, 4]
    assert {"lr/weights", "run/images_per_second", "run/seconds"} <= found.keys()


def test_histograms_are_those_of_the_representations(implicit_run: RunDirectory) -> None:
    reader = read(implicit_run.path / "tensorboard")
    table = pq.read_table(implicit_run.implicit).to_pandas()
    assert reader.Tags()["histograms"] == ["implicit/fa P3", "implicit/fa P4", "implicit/fa P5"]
    for level in ("P3", "P4", "P5"):
        events = reader.Histograms(f"implicit/fa {level}")
        assert [event.step for event in events] == [0, 1, 2]
        for event in events:
            chosen = table[(table["level"] == level) & (table["epoch"] == event.step)]["value"].to_numpy()
            histogram = event.histogram_value
            assert (histogram.min, histogram.max) == (chosen.min(), chosen.max())
            assert histogram.num == sum(histogram.bucket) == len(chosen)
            below = np.searchsorted(np.sort(chosen.astype(np.float64)), histogram.bucket_limit[:-1], "left")
            np.testing.assert_array_equal(np.cumsum(histogram.bucket)[:-1], below)


def test_a_crashed_and_resumed_run_has_each_epoch_once(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(phases=FOUR, checkpoint_every=3)
    run, calls = RunDirectory(tmp_path), iter(range(1000))

    def crash() -> bool:  # in the third epoch of three steps, two epochs behind any checkpoint
        if next(calls) == 7:
            raise Crash
        return False

    with pytest.raises(Crash):
        train(config, tmp_path, stop=crash)
    before = read(tmp_path / "tensorboard")
    assert [step for step, _ in points(before)["loss/box"]] == [1, 2]
    assert train(config, tmp_path) == "done"
    assert points(read(tmp_path / "tensorboard")) == expected(run.read_metrics())
    assert sum(path.stat().st_size > 0 for path in (tmp_path / "tensorboard").iterdir()) == 1
    # One that had the files of the lost epochs open ends with the same.
    assert points(before.Reload()) == expected(run.read_metrics())


def test_a_lost_epoch_is_replaced_in_a_reader_that_has_seen_it(tmp_path: Path) -> None:
    first = [{"epoch": epoch, "loss/box": float(epoch), "seconds": 1.0} for epoch in (1, 2, 3)]
    second = [*first[:1], {"epoch": 2, "loss/box": 20.0, "seconds": 1.0}]
    EventFiles(tmp_path).update(first, NOTHING)
    watching = read(tmp_path)
    assert [step for step, _ in points(watching)["loss/box"]] == [1, 2, 3]
    again = EventFiles(tmp_path)
    again.update(second[:1], NOTHING)
    assert points(watching.Reload())["loss/box"] == [(1, 1.0)]
    again.update(second, NOTHING)
    assert (
        points(watching.Reload())["loss/box"] == points(read(tmp_path))["loss/box"] == [(1, 1.0), (2, 20.0)]
    )


def test_restored_epochs_lie_as_far_apart_in_time_as_they_took(tmp_path: Path) -> None:
    records = [{"epoch": 1, "seconds": 5.0}, {"epoch": 2, "seconds": 60.0}, {"epoch": 3, "seconds": 7.0}]
    EventFiles(tmp_path).update(records, NOTHING)
    times = [event.wall_time for event in read(tmp_path).Scalars("run/seconds")]
    np.testing.assert_allclose(np.diff(times), [60, 7], atol=0.5)


def test_a_full_disk_costs_a_warning_and_the_points_come_later(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = progress._append, iter(range(1000))

    def full_at_first(path: Path, data: bytes) -> None:
        if next(calls) < 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, data)

    monkeypatch.setattr(progress, "_append", full_at_first)
    with pytest.warns(UserWarning, match=r"event files cannot be written \(No space left") as warned:
        assert train(tiny(phases=FOUR), tmp_path) == "done"
    assert len([w for w in warned if "event files" in str(w.message)]) == 1
    assert points(read(tmp_path / "tensorboard")) == expected(RunDirectory(tmp_path).read_metrics())


def test_a_record_that_is_cut_off_is_taken_back(tmp_path: Path) -> None:
    records = [{"epoch": 1, "loss/box": 1.0}, {"epoch": 2, "loss/box": 2.0}]
    events = EventFiles(tmp_path)
    events.update(records[:1], NOTHING)
    assert events.path is not None
    size = events.path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))  # the file takes ten bytes more
    try:
        with pytest.warns(UserWarning, match="cannot be written"):
            events.update(records, NOTHING)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert events.path.stat().st_size == size
    events.update(records, NOTHING)
    assert points(read(tmp_path))["loss/box"] == [(1, 1.0), (2, 2.0)]


def test_a_place_that_cannot_be_written_costs_a_warning_only(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("not a folder")
    with pytest.warns(UserWarning, match=r"cannot be written \(File exists\)"):
        assert train(tiny(), tmp_path) == "done"


def test_removed_event_files_are_written_anew(tmp_path: Path) -> None:
    records = [{"epoch": epoch, "loss/box": float(epoch)} for epoch in (1, 2)]
    events = EventFiles(tmp_path)
    events.update(records[:1], NOTHING)
    for path in tmp_path.iterdir():
        path.unlink()
    events.update(records, NOTHING)
    assert points(read(tmp_path))["loss/box"] == [(1, 1.0), (2, 2.0)]


def test_a_run_without_event_files_writes_none_and_never_imports_tensorboard(
    tiny: Tiny, tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    config.write_text(tiny(tensorboard=False, phases=(PhaseConfig(epochs=1, schedule_epochs=1),)).to_json())
    code = (
        "import sys, pathlib\n"
        "from yolor_core.config import RunConfig\n"
        "from yolor_core.training import train\n"
        f"train(RunConfig.from_json(pathlib.Path({str(config)!r}).read_text()), {str(tmp_path / 'run')!r})\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert not {"tensorboard", "tensorflow"} & set(done.stdout.split())
    assert RunDirectory(tmp_path / "run").complete()
    assert not (tmp_path / "run" / "tensorboard").exists()
