"""How long a training still takes, against simulated trainings whose durations are known."""

from __future__ import annotations

import pytest

from ablations.forecast import Forecast

START_UP, STEP, EVALUATION = 30.0, 2.0, 50.0  # seconds


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
