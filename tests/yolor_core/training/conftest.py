"""A run small enough to train in a second or two, and two of them that are trained once for all tests."""

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
from yolor_core.runs.directory import RunDirectory
from yolor_core.training import train

ADD_FA = ImplicitConfig(site="fa", operator="add")
TINY_OPTIMISER = OptimiserConfig(nominal_batch=4, warmup_min_iterations=2, warmup_epochs=0.5, ema_updates=5)


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def chain() -> tuple[PhaseConfig, ...]:
    """Two phases, the second with a 9-mosaic and mixup, from the averaged weights."""
    nine = AugmentConfig(mosaic_images=9, mixup=0.5, translate=0.2)
    return (
        PhaseConfig(epochs=2, schedule_epochs=2),
        PhaseConfig(epochs=1, schedule_epochs=3, augment=nine, start_from_average=True),
    )


@pytest.fixture(scope="session")
def plain_run(tiny: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """`tiny()` after an undisturbed training, with its checkpoint. To be read or copied only."""
    folder = tmp_path_factory.mktemp("plain")
    assert train(tiny(keep_checkpoint=True), folder) == "done"
    return RunDirectory(folder)


@pytest.fixture(scope="session")
def implicit_run(tiny: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """`tiny(implicit=(ADD_FA,))` after an undisturbed training. To be read only."""
    folder = tmp_path_factory.mktemp("implicit")
    assert train(tiny(implicit=(ADD_FA,)), folder) == "done"
    return RunDirectory(folder)
