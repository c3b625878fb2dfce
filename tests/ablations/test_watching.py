"""What a person reads while `ablate train` goes on."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

import yolor_core.training
from ablations.cli import main
from ablations.plan import plan_runs
from ablations.planned import PlannedRun
from ablations.watching import (
    Forecast,
    TrainingWatch,
    conclusion,
    evaluated_epochs,
    introduction,
)
from yolor_core.config import CocoConfig
from yolor_core.errors import RunError
from yolor_core.training.progress import Moment, Watch

COUNTS = {"train": {"images": 640, "boxes": 2276}, "val": {"images": 200, "boxes": 700}}
RECORD = {"parameters": 580562, "data_report": COUNTS, "device": "cpu", "ranks": 1}
LOSSES = {"loss/box": 0.0612, "loss/obj": 0.3211, "loss/cls": 0.6948}
AP = {"AP": 0.213, "AP50": 0.432, "AP75": 0.189}
START_UP, STEP, EVALUATION = 30.0, 2.0, 50.0  # seconds


def planned(
    experiment: str = "csp-fast.add-fa",
    profile: str = "mini",
    overrides: Sequence[str] = (),
    results: Path | None = None,
) -> PlannedRun:
    *_, run = plan_runs([experiment], profile, overrides=overrides, fingerprint="f", results=results)
    return run


def moment(epoch: int, step: int, epochs: int = 24) -> Moment:
    return Moment(epoch, epochs, step, 80, seconds=0.1 * step, images=8 * step, losses=LOSSES if step else {})


def epoch_record(epoch: int, **more: Any) -> dict[str, Any]:
    return {"epoch": epoch, **LOSSES, "seconds": 8.0, "images_per_second": 80.0, **more}


def words(text: str, name: str) -> str:
    """The text of the row of that name."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(name + " ")]
    return line.strip().removeprefix(name).strip()


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_introduction_says_what_is_trained() -> None:
    run = planned()
    text = introduction(run, RECORD, moment(0, 0))
    first, second, *_ = text.splitlines()
    assert first == "YOLOv4-CSP-fast, + iFA: csp-fast.add-fa, seed 0, profile mini"
    assert second.strip().startswith("against csp-fast: ") and second.endswith("(Tables 1, 4, 6)")
    assert words(text, "model") == "yolov4_csp_fast at width 0.125, depth 0.33, 580,562 parameters"
    assert words(text, "data").endswith("640 images with 2,276 boxes to train on, 200 to evaluate")
    assert words(text, "training") == "24 epochs of 80 steps, batch 8, 128 pixels, float32"
    assert words(text, "where") == "cpu"
    assert words(text, "folder") == str(run.run_dir)
    assert "changed" not in text and "resumes" not in text


def test_the_introduction_names_a_baseline_changes_ranks_and_a_resume() -> None:
    overrides = ["train.optimiser.lr0=0.5", "numerics.precision=bfloat16", "numerics.compile=true"]
    run = planned("csp-fast", "proxy", overrides)
    text = introduction(run, RECORD | {"ranks": 8, "device": "H100"}, moment(3, 34, 30))
    assert "the baseline of Tables 1, 2, 4, 5, 6, 7" in text
    assert words(text, "changed") == (
        "train.optimiser.lr0=0.5, numerics.precision=bfloat16, numerics.compile=True"
    )
    assert words(text, "training") == "30 epochs of 80 steps, batch 16, 640 pixels, bfloat16, compiled"
    assert words(text, "where") == "8 ranks, each on H100"
    assert "of which 1 in 4 is used" in words(text, "data")
    assert words(text, "resumes") == "after 3 of 30 epochs and 34 of 80 steps"
    continued = introduction(run, RECORD | {"continues": "other"}, moment(24, 0, 30))
    assert words(continued, "resumes") == "after 24 of 30 epochs, continuing other"


def test_the_introduction_names_changed_data_and_the_splits_of_a_folder(tmp_path: Path) -> None:
    run = planned(overrides=["train.batch=4", "data.train_images=60"])
    text = introduction(run, RECORD, moment(0, 0))
    assert words(text, "changed") == "train.batch=4, data.train_images=60"
    own = run.config.model_copy(update={"experiment": "mine"})
    text = introduction(PlannedRun(run.run_id, own, run.run_dir), RECORD, moment(0, 0))
    assert words(text, "changed") == "data.train_images=60"
    folder = run.config.model_copy(update={"data": CocoConfig(root=str(tmp_path), train="a", val="b")})
    text = introduction(PlannedRun(run.run_id, folder, run.run_dir), RECORD, moment(0, 0))
    assert words(text, "data").startswith(f"{tmp_path}, a/b: 640 images")
    assert words(text, "changed") == "train.batch=4"


def test_an_experiment_of_the_users_own_is_introduced_too() -> None:
    run = planned()
    own = run.config.model_copy(update={"experiment": "mine"})
    text = introduction(PlannedRun(run.run_id, own, run.run_dir), RECORD, moment(0, 0))
    assert text.startswith("mine: mine, seed 0") and "against" not in text and "changed" not in text


def test_the_conclusion_names_commands_that_work(tmp_path: Path) -> None:
    run = planned(results=tmp_path / "my results")
    text = conclusion(run)
    assert words(text, "files") == str(run.run_dir)
    assert words(text, "tables") == f"ablate tables 1 4 6 --profile mini --results '{tmp_path}/my results'"
    assert "curves" not in text
    (run.run_dir / "tensorboard").mkdir(parents=True)
    assert words(conclusion(run), "curves") == f"tensorboard --logdir '{run.run_dir}/tensorboard'"
    assert "tables" not in conclusion(planned(overrides=["train.epochs=2"]))  # no table shows such a run


@pytest.mark.parametrize(("every", "wanted"), [(0, [24]), (6, [6, 12, 18, 24]), (7, [7, 14, 21, 24])])
def test_epochs_to_be_evaluated(every: int, wanted: list[int]) -> None:
    assert evaluated_epochs(planned(overrides=[f"execution.evaluate_every={every}"]).config) == wanted


def test_plain_lines_tell_epochs_and_a_heartbeat_within_long_ones() -> None:
    clock, output = Clock(), io.StringIO()
    run = planned()
    watch = TrainingWatch(run, Console(file=output, width=40), clock)
    watch.started(RECORD, moment(0, 0), [])
    begin = len(output.getvalue().splitlines())

    def said() -> list[str]:
        return output.getvalue().splitlines()[begin:]

    for step in range(81):  # a second each
        watch.stepped(moment(0, step))
        clock.now += 1.0
    heartbeats = said()
    assert len(heartbeats) == 2  # after 30 seconds each
    assert heartbeats[0] == (
        "epoch 1/24  step 31/80  box 0.0612  obj 0.3211  cls 0.6948  80 images/s  32:19 left"
    )
    watch.epoch_finished(epoch_record(1))
    assert said()[2].startswith("epoch  1/24  box 0.0612  obj 0.3211  cls 0.6948   0:08  80 images/s  ")
    assert said()[2].endswith(" left")
    watch.evaluating(0, 7)
    clock.now += 31
    watch.evaluating(3, 7)
    assert said()[3].startswith("epoch 2/24  evaluating, batch 3/7  ")
    watch.epoch_finished(epoch_record(24, **AP))
    assert said()[4].endswith("80 images/s  AP 21.3  AP50 43.2  AP75 18.9")
    assert "\x1b" not in output.getvalue()


@pytest.mark.parametrize("width", [50, 80, 120])
def test_a_terminal_shows_the_run_and_the_present_epoch(width: int) -> None:
    clock, output = Clock(), io.StringIO()
    console = Console(file=output, width=width, height=30, force_terminal=True, _environ={})
    run = planned()
    with TrainingWatch(run, console, clock) as watch:
        watch.started(RECORD, moment(2, 0), [epoch_record(1, **AP), epoch_record(2, AP=None)])
        for step in (0, 40):
            clock.now += 4.0
            watch.stepped(moment(2, step))
        head, row = drawn(watch, width)
        assert len(head) <= width and len(row) <= width
        shown = dict(zip(head.split(), row.split(), strict=False))
        assert row.startswith("csp-fast.add-") and shown["state"] == "running"
        assert (shown["epoch"], shown["loss"], shown["AP"]) == ("2/24", "1.077", "21.3")
        assert shown["left"] == "2:57"  # 1,720 steps of 0.1 s, 4 evaluations of 12.5
        if width >= 80:
            assert (shown["step"], shown["time"]) == ("40/80", "0:08")
        if width >= 120:
            assert "box 0.0612  obj 0.3211  cls 0" in row
        watch.evaluating(2, 7)
        if width >= 120:
            assert "evaluating, batch 2/7  AP50 43.2" in drawn(watch, width)[1]
        watch.epoch_finished(epoch_record(3, AP=0.3, AP50=0.5))
        assert drawn(watch, width)[1].split()[2] == "3/24"
        assert "30.0" in drawn(watch, width)[1].split()
    plain = output.getvalue()
    assert "epoch  3/24  box 0.0612" in plain.replace("\x1b[2K", "")
    assert plain.count("\x1b[?25l") == plain.count("\x1b[?25h") == 1  # the cursor is shown again


def drawn(watch: TrainingWatch, width: int) -> list[str]:
    """The live lines as they stand."""
    screen = Console(file=io.StringIO(), width=width, record=True)
    assert watch.live is not None
    screen.print(watch.live.get_renderable())
    return [line.rstrip() for line in screen.export_text().splitlines() if line.strip()]


@pytest.fixture
def ablate_train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """`ablate train` with the given function in place of `train`."""

    def call(train: Callable[..., str]) -> Result:
        monkeypatch.setattr(yolor_core.training, "train", train, raising=False)
        arguments = ["train", "csp-fast", "--profile", "smoke", "--results", str(tmp_path)]
        return CliRunner().invoke(main, arguments)

    return call


def test_a_request_to_stop_is_answered_at_once_and_ends_with_130(ablate_train: Callable[..., Result]) -> None:
    def train(config: Any, run_dir: Any, stop: Callable[[], bool], watch: Watch) -> str:
        watch.started(RECORD, moment(0, 0), [])
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop() and stop()
        return "preempted"

    result = ablate_train(train)
    assert result.exit_code == 130
    assert result.stdout.count("stopping: the run saves its work first") == 1
    assert "preempted: " in result.stdout and "files" not in result.stdout
    assert result.stderr == "interrupted; the same command goes on from here\n"


def test_a_training_that_fails_leaves_one_line(ablate_train: Callable[..., Result]) -> None:
    def train(config: Any, run_dir: Any, stop: Callable[[], bool], watch: Watch) -> str:
        watch.started(RECORD, moment(0, 0), [])
        raise RunError("loss/box is not finite")

    result = ablate_train(train)
    assert (result.exit_code, result.stderr) == (2, "ablate: loss/box is not finite\n")


@pytest.mark.parametrize("state", ["done", "preempted"])
def test_only_the_first_of_several_ranks_speaks(
    ablate_train: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    watches = []

    def train(config: Any, run_dir: Any, stop: Callable[[], bool], watch: Watch | None = None) -> str:
        watches.append(watch)
        return state

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    result = ablate_train(train)
    assert result.output == result.stderr == "" and watches == [None]
    assert result.exit_code == (0 if state == "done" else 130)
    monkeypatch.setenv("RANK", "0")
    assert f"{state}: epoch" in ablate_train(train).stdout
    assert isinstance(watches[1], TrainingWatch)


# How long it still takes, against simulated trainings whose durations are known


class Simulation:
    """A run of 10 epochs of 20 steps, evaluated after 5 and 10, on a clock of its own."""

    def __init__(self, epoch: int = 0, step: int = 0) -> None:
        self.now = 1000.0
        self.forecast = Forecast(10, 20, (5, 10), 8.0, lambda: self.now)
        self.forecast.start(epoch, step)
        self.now += START_UP
        self.errors: list[float] = []
        self.guesses: list[float | None] = []
        for self.epoch in range(epoch, 10):
            self.run_epoch(step if self.epoch == epoch else 0)

    def run_epoch(self, first: int) -> None:
        for step in range(first + 1, 21):
            self.now += STEP
            if step % 3 == 1:  # not every step is told
                self.forecast.step(self.epoch, step)
                self.note()
        if self.epoch + 1 in (5, 10):
            self.forecast.evaluate(self.epoch + 1)
            for _ in range(4):
                self.note()
                self.now += EVALUATION / 4
                self.forecast.evaluate(self.epoch + 1)
        self.forecast.finish_epoch(self.epoch + 1)
        self.note()

    def note(self) -> None:
        self.guesses.append(self.forecast.remaining)
        if self.forecast.evaluations:
            self.errors.append((self.forecast.remaining or 0.0) - self.left())

    def left(self) -> float:
        """Seconds that the simulation has still to go, from its own script."""
        end = 1000.0 + START_UP + 200 * STEP + 2 * EVALUATION
        return end - self.now


def test_the_forecast_is_exact_once_an_evaluation_was_measured() -> None:
    simulation = Simulation()
    assert len(simulation.errors) > 30
    assert max(map(abs, simulation.errors)) < 1e-6


def test_nothing_is_forecast_before_anything_was_measured() -> None:
    simulation = Simulation()
    assert simulation.guesses[0] is None
    # Start-up is no part of a step: 196 steps are left, and two evaluations of 8 steps' images each.
    assert simulation.guesses[1] == pytest.approx(196 * STEP + 2 * 0.5 * 8 * STEP)


def test_an_evaluation_that_takes_longer_than_the_last_leaves_the_steps() -> None:
    now = [0.0]
    forecast = Forecast(2, 10, (1, 2), clock=lambda: now[0])
    forecast.step(0, 0)
    for epoch, seconds in ((1, 5.0), (2, 100.0)):
        now[0] += 10.0
        forecast.evaluate(epoch)
        now[0] += seconds
        if epoch == 1:
            forecast.finish_epoch(epoch)
            assert forecast.remaining == pytest.approx(10.0 + 5.0)
    assert forecast.remaining == 0.0


@pytest.mark.parametrize(("epoch", "step"), [(6, 7), (9, 20)])
def test_a_resumed_run_is_measured_anew(epoch: int, step: int) -> None:
    simulation = Simulation(epoch, step)
    assert simulation.forecast.done == 200
    assert simulation.forecast.remaining in (None, pytest.approx(0.0))
    steps = 200 - 20 * epoch - step
    assert simulation.forecast.evaluations == 1
    if steps:
        assert simulation.forecast.step_seconds == pytest.approx(STEP)
