"""Where a model runs and how it computes there: device, precision, memory format, compilation, memory."""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from yolor_core.config import NumericsConfig
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


Model = TypeVar("Model", bound=nn.Module)
HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Numerics:
    """How one run computes on one device.

    A GPU's TF32 is a setting of the whole process: it is set here, to what `precision` says.
    """

    def __init__(self, config: NumericsConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.half = HALF.get(config.precision)
        if device.type == "cuda":
            rounded = config.precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = rounded
            torch.backends.cudnn.allow_tf32 = rounded
            torch.backends.cudnn.benchmark = True  # shapes rarely change

    def model(self, model: Model) -> Model:
        """Bring a model to the device and into the memory format."""
        model = model.to(self.device)
        return model.to(memory_format=torch.channels_last) if self.config.channels_last else model  # type: ignore[call-overload]

    def compile(self, model: nn.Module) -> None:
        """Compile a model in place where that is asked for; its state_dict stays as it is."""
        if self.config.compile:
            model.compile()

    def images(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> float32 in 0 to 1, on the device and in the memory format."""
        images = images.to(self.device, non_blocking=True)
        if self.config.channels_last:
            return images.to(torch.float32, memory_format=torch.channels_last) / 255
        return images.float() / 255

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision for what runs inside, if it is asked for."""
        return torch.autocast(self.device.type, self.half or torch.bfloat16, enabled=self.half is not None)

    def scaler(self) -> GradScaler:
        """Scales the loss so that float16 gradients do not vanish; does nothing at other precisions."""
        return GradScaler(self.device.type, enabled=self.config.precision == "float16")


# Numbers of glibc's malloc.h; both settings belong to the whole process.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed, instead of handing every large map back to the kernel.

    glibc fetches blocks beyond 32 MB from the kernel one by one and returns them at once, so a step on the
    CPU meets tens of thousands of fresh, zeroed pages. With the blocks kept the same step is shorter (see
    `benchmarks/training_step.py`) at about the same peak memory; results do not change. For another C
    library nothing is done and False returned.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc; Windows has no such handle
        return False
    # From now on memory comes from one growing heap, whose free end is never cut off.
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
