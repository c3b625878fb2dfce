"""Precision, memory format and compilation of a run, as `NumericsConfig` says."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from yolor_core.config import NumericsConfig

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
