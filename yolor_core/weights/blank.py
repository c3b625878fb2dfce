"""Models without numbers, to ask for names and shapes."""

from __future__ import annotations

import torch

from yolor_core.config import ModelConfig
from yolor_core.models import Detector, named_config
from yolor_core.models.architectures import ARCHITECTURES


def blank_model(config: ModelConfig | str, classes: int = 80) -> Detector:
    """The detector on the meta device: a moment's work at any size. Raises UnknownNameError."""
    if isinstance(config, str):
        config = named_config(config)
    with torch.device("meta"):
        return Detector(ARCHITECTURES[config.architecture], config, classes)
