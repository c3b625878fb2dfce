"""Learning rate, momentum and accumulation against figures of the released loop."""

from __future__ import annotations

import pytest

from yolor_core.config import OptimiserConfig, PhaseConfig
from yolor_core.training.schedule import Schedule

CHAIN = (
    PhaseConfig(epochs=300, schedule_epochs=300),
    PhaseConfig(epochs=125, schedule_epochs=450),
    PhaseConfig(epochs=25, schedule_epochs=450),
)


@pytest.mark.parametrize(
    ("epoch", "factor"), [(1, 1.0), (299, 0.2001), (300, 0.4024), (425, 0.2066), (449, 0.2000)]
)
def test_the_chain_of_table_8_has_the_released_factors(epoch: int, factor: float) -> None:
    schedule = Schedule(
        OptimiserConfig(warmup_epochs=0, warmup_min_iterations=1), CHAIN, steps=1000, batch=64
    )
    assert schedule.at(epoch, 0).weights / 0.01 == pytest.approx(factor, abs=5e-5)


def test_warm_up_ramps_from_the_released_values() -> None:
    schedule = Schedule(OptimiserConfig(), CHAIN, steps=100, batch=64)
    assert schedule.warmup == 1000  # the floor: 3 epochs would be 300
    first = schedule.at(0, 0)
    assert (first.weights, first.bias, first.momentum) == (0.0, pytest.approx(0.1), pytest.approx(0.8))
    middle = schedule.at(5, 0)
    rate = 0.01 * schedule.factor(5, 300)
    assert middle.weights == pytest.approx(rate / 2)
    assert middle.bias == pytest.approx((0.1 + rate) / 2)
    assert middle.momentum == pytest.approx((0.8 + 0.937) / 2)
    after = schedule.at(20, 0)
    assert after.weights == after.bias == pytest.approx(0.01 * schedule.factor(19, 300))


def test_warm_up_uses_this_epochs_factor_and_the_rest_the_one_before() -> None:
    schedule = Schedule(OptimiserConfig(warmup_min_iterations=1), CHAIN, steps=10, batch=64)
    assert schedule.at(3, 0).weights == pytest.approx(0.01 * schedule.factor(3, 300))
    assert schedule.at(3, 1).weights == pytest.approx(0.01 * schedule.factor(2, 300))


@pytest.mark.parametrize(("batch", "accumulate"), [(64, 1), (16, 4), (128, 1), (48, 1), (20, 3)])
def test_accumulation_and_weight_decay_scale_with_the_batch(batch: int, accumulate: int) -> None:
    schedule = Schedule(OptimiserConfig(), CHAIN, steps=10, batch=batch)
    assert schedule.accumulate == accumulate
    assert schedule.weight_decay == pytest.approx(5e-4 * batch * accumulate / 64)
    assert schedule.at(200, 0).accumulate == accumulate
    assert schedule.at(0, 0).accumulate == 1


def test_epochs_belong_to_their_phases() -> None:
    schedule = Schedule(OptimiserConfig(), CHAIN, steps=10, batch=64)
    assert [schedule.phase(e)[0] for e in (0, 299, 300, 424, 425, 449)] == [0, 0, 300, 300, 425, 425]
    with pytest.raises(IndexError, match="450"):
        schedule.phase(450)
