"""Which device a model runs on."""

from __future__ import annotations

import torch

from yolor_core.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """`auto` is the first GPU, or the CPU where there is none. Raises ConfigError for what is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"execution.device = {name!r}: {error}; allowed: auto, cpu, cuda, cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"execution.device = {name!r}, but torch sees no GPU here; allowed: auto, cpu")
    return device
