"""From a name or a configuration to a model ready to train."""

from __future__ import annotations

import torch
from pydantic import ValidationError

from yolor_core.config import ImplicitConfig, ModelConfig, TasksConfig, explain
from yolor_core.errors import ConfigError, UnknownNameError
from yolor_core.models.architectures import ARCHITECTURES
from yolor_core.models.detector import Detector
from yolor_core.models.initialisation import initialise
from yolor_core.tasks.base import LEAST_IDENTITIES


def list_models() -> list[str]:
    """The names that `create_model` accepts, in the order of the table."""
    return list(ARCHITECTURES)


def named_config(name: str) -> ModelConfig:
    """The full-size model a name stands for, its implicit knowledge spelled out.

    `named_config("yolor_csp")` lists + iFA and x iPR; a ModelConfig with `architecture="yolor_csp"` and no
    `implicit` is the bare network, because a configuration means exactly what it lists.
    Raises UnknownNameError.
    """
    if name not in ARCHITECTURES:
        raise UnknownNameError("model", name, ARCHITECTURES)
    implicit = ARCHITECTURES[name].implicit
    return ModelConfig(
        architecture=name, implicit=tuple(ImplicitConfig(site=s, operator=o) for s, o in implicit)
    )


def create_model(
    config: ModelConfig | str,
    classes: int = 80,
    seed: int | None = 0,
    device: torch.device | str | None = None,
    identities: int = 0,
    weighting: TasksConfig | None = None,
) -> Detector:
    """Build a detector and draw its initial values.

    config: a ModelConfig, taken literally, or a name from `list_models`. seed: None leaves the parameters
    unset, for weights that are loaded next. The global random state is not touched. identities: of the
    training data, for the embedding task. weighting: of the tasks' losses, fixed by default.
    Raises UnknownNameError, ConfigError for a number of classes below 1, for a configuration that contradicts
    itself, and for the embedding task with fewer than 3 identities.
    """
    if type(classes) is not int or classes < 1:
        raise ConfigError(f"classes = {classes!r}: a whole number from 1 is needed")
    if isinstance(config, str):
        config = named_config(config)
    try:  # `model_copy` checks nothing
        config = ModelConfig.model_validate(config.model_dump())
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    if "embedding" in config.tasks and identities < LEAST_IDENTITIES:
        raise ConfigError(
            f"identities = {identities}: the embedding task needs at least {LEAST_IDENTITIES}, because its "
            "softmax is scaled by sqrt(2) ln(identities - 1), which vanishes for 2"
        )
    with torch.device("meta"):  # no time and no random numbers spent on values that are replaced
        model = Detector(ARCHITECTURES[config.architecture], config, classes, identities, weighting)
    model.to_empty(device=device or "cpu")
    if seed is None:
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
        model.reset_anchors()
    else:
        initialise(model, seed)
    return model
