"""TensorBoard's event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from yolor_core.config import PhaseConfig, RunConfig
from yolor_core.runs.directory import RunDirectory
from yolor_core.training import tensorboard, train
from yolor_core.training.progress import IMPLICIT, History
from yolor_core.training.tensorboard import EventFiles, tag

FOUR = (PhaseConfig(epochs=4, schedule_epochs=4),)
NOTHING = History(*IMPLICIT).table
Tiny = Callable[..., RunConfig]


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
    real, calls = tensorboard._write, iter(range(1000))

    def full_at_first(path: Path, data: bytes) -> None:
        if next(calls) < 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, data)

    monkeypatch.setattr(tensorboard, "_write", full_at_first)
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
