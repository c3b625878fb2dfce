"""A run small enough to train in a second or two."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from yolor_core.config import (
    AugmentConfig,
    EvaluationConfig,
    Execution,
    ImplicitConfig,
    ModelConfig,
    OptimiserConfig,
    PhaseConfig,
    RunConfig,
    Science,
    ShapesConfig,
    TrainConfig,
)

TINY_OPTIMISER = OptimiserConfig(nominal_batch=4, warmup_min_iterations=2, warmup_epochs=0.5, ema_updates=5)


@pytest.fixture
def tiny() -> Callable[..., RunConfig]:
    """Build a tiny run: `tiny(implicit=(...), phases=(...), seed=0, **execution)`."""

    def build(
        implicit: tuple[ImplicitConfig, ...] = (),
        phases: tuple[PhaseConfig, ...] = (PhaseConfig(epochs=2, schedule_epochs=2),),
        optimiser: OptimiserConfig = TINY_OPTIMISER,
        seed: int = 0,
        **execution: object,
    ) -> RunConfig:
        model = ModelConfig(
            architecture="yolov4_csp_fast", width=0.0625, depth=0.33, anchor_scale=0.2, implicit=implicit
        )
        science = Science(
            profile="test",
            model=model,
            train=TrainConfig(size=64, batch=4, phases=phases, optimiser=optimiser),
            evaluation=EvaluationConfig(size=64, batch=4),
        )
        data = ShapesConfig(train_images=10, val_images=5, size=64)
        return RunConfig(
            experiment="tiny",
            seed=seed,
            science=science,
            data=data,
            execution=Execution.model_validate(execution),
        )

    return build


@pytest.fixture
def chain() -> tuple[PhaseConfig, ...]:
    """Two phases, the second with a 9-mosaic and mixup, from the averaged weights."""
    nine = AugmentConfig(mosaic_images=9, mixup=0.5, translate=0.2)
    return (
        PhaseConfig(epochs=2, schedule_epochs=2),
        PhaseConfig(epochs=1, schedule_epochs=3, augment=nine, start_from_average=True),
    )
