"""Which device a model runs on."""

from __future__ import annotations

import torch

from yolor_core.errors import ConfigError


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """`auto` is the first GPU, or the CPU where there is none. Raises ConfigError for what is not there.

    `local_rank`: of several processes that train together, which one on this machine; with `auto` and `cuda`
    each takes a GPU of its own.
    """
    if local_rank is not None and name in ("auto", "cuda") and torch.cuda.is_available():
        visible = torch.cuda.device_count()
        if local_rank >= visible > 1:  # one visible GPU may be the scheduler's choice for this rank alone
            raise ConfigError(f"execution.device = {name!r}: rank {local_rank} here, but only {visible} GPUs")
        device = torch.device("cuda", local_rank % visible)
        torch.cuda.set_device(device)
        return device
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"execution.device = {name!r}: {error}; allowed: auto, cpu, cuda, cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"execution.device = {name!r}, but torch sees no GPU here; allowed: auto, cpu")
    return device
