"""From files to a model that is ready to evaluate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from yolor_core.config import ModelConfig, RunConfig
from yolor_core.errors import ConfigError, RunError, WeightsError
from yolor_core.models import Detector, create_model
from yolor_core.models.architectures import ARCHITECTURES
from yolor_core.runs.directory import RunDirectory
from yolor_core.weights.importing import Report, import_weights


def load_model(name: str | ModelConfig, path: Path | str, key: str | None = None) -> tuple[Detector, Report]:
    """A model with the weights of a file of any known format (see `import_weights`), in eval mode."""
    state, report = import_weights(path, name, key)
    model = create_model(name, classes=report.classes, seed=None)
    model.load_state_dict(state)
    return model.eval(), report


def load_run(path: Path | str) -> tuple[Detector, RunConfig]:
    """The averaged model that a finished run left, in eval mode, and the run's configuration.

    Raises RunError when there is no finished run, WeightsError when its weights do not fit its configuration.
    """
    run = RunDirectory(path)
    record = run.read_run()
    if record is None:
        raise RunError(f"{run.path} is not a run directory: there is no run.json")
    if not run.weights.exists():
        state = (run.read_state() or {}).get("state", "unknown")
        if state == "done":
            raise RunError(
                f"{run.weights} is missing although the run is done: launch it again, unless it is of a "
                "published study, which has none"
            )
        raise RunError(
            f"{run.path} has no weights yet (state: {state}); they are written at the end of training"
        )
    config = RunConfig.from_json(json.dumps(record["config"]))
    try:
        tensors = load_file(run.weights)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{run.weights}: damaged or truncated safetensors file ({error})") from None
    science = config.science.model
    classes, identities = _counts(tensors, ARCHITECTURES[science.architecture].anchors_per_level)
    weighting = config.science.train.tasks
    try:
        model = create_model(science, classes, seed=None, identities=identities, weighting=weighting)
        model.load_state_dict(tensors)
    except (RuntimeError, ConfigError) as error:
        raise WeightsError(
            f"{run.weights} does not fit the configuration in {run.run.name}: {error}"
        ) from None
    return model.eval(), config


def _counts(tensors: Mapping[str, Tensor], anchors: int) -> tuple[int, int]:
    """(classes, identities) that the tensors of a run are made for; 80 where no task knows classes."""
    detection, tags = tensors.get("predictor_p3.bias"), tensors.get("branches.classification.linear.bias")
    classes = 80
    if detection is not None:
        classes = detection.numel() // anchors - 5
    elif tags is not None:
        classes = tags.numel()
    names = tensors.get("branches.embedding.classifier.bias")
    return max(classes, 1), 0 if names is None else names.numel()
