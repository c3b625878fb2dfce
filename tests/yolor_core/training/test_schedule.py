"""Learning rate, momentum and accumulation against figures of the released loop."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

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


@pytest.mark.parametrize("warmup", [8, 20, 25, 29, 30, 31, 60, 75])
def test_every_iteration_has_the_rates_of_torchs_scheduler_stepped_after_each_epoch(warmup: int) -> None:
    """Ends of the warm-up inside an epoch of ten iterations, at its edges, and after the whole run."""
    config = OptimiserConfig(warmup_epochs=0, warmup_min_iterations=warmup)
    ours = Schedule(config, (PhaseConfig(epochs=6, schedule_epochs=6),), steps=10, batch=16)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(2)]
    optimiser = torch.optim.SGD(groups, lr=config.lr0, momentum=config.momentum)
    weights, bias = optimiser.param_groups
    scheduler = LambdaLR(optimiser, lambda epoch: ours.factor(epoch, 6))
    scheduler.last_epoch = -1  # as released: its first step sets the factor of epoch 0 again
    for epoch, step in itertools.product(range(6), range(10)):
        share = (10 * epoch + step) / warmup
        if share <= 1:
            target = config.lr0 * ours.factor(epoch, 6)
            weights["lr"] = share * target
            bias["lr"] = (1 - share) * 0.1 + share * target
            momentum, accumulate = (1 - share) * 0.8 + share * 0.937, round(1 + 3 * share)
        expected = (weights["lr"], bias["lr"], momentum, accumulate)
        assert ours.at(epoch, step) == pytest.approx(expected, abs=1e-12), (epoch, step)
        optimiser.step()
        if step == 9:
            scheduler.step()


def test_the_factor_of_the_epoch_in_which_the_warm_up_ends_stays_to_the_end_of_the_next() -> None:
    """At the paper's scale it ends with the first iteration of the fourth epoch, at `mini` too."""
    schedule = Schedule(OptimiserConfig(), CHAIN, steps=1849, batch=64)
    assert schedule.warmup == 3 * 1849
    rates = [schedule.at(*place).weights / 0.01 for place in [(3, 0), (3, 1), (4, 0), (4, 1848), (5, 0)]]
    assert rates == pytest.approx([schedule.factor(e, 300) for e in (3, 3, 3, 3, 4)], rel=1e-12)


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
