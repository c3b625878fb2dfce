"""The authors' names for the tensors of a model, in the order of their state_dict.

Two rules, one per flavour: `layout_cfg` counts the layers of a darknet file, `layout_yaml` those of a layer
list. Both are read off the built model, so width, depth and classes may be anything.

What is known of the result: for the eight models with reference outputs (yolor_csp, yolor_csp_fast, yolor_p6,
yolov4_csp, yolov4_p6_light, yolor-p6, yolor-ssss-dwt, yolor-ssss-s2d) names, order and shapes equal the
authors' listing. All others follow from the same rules; the released layer lists of yolor_csp_x, yolor_w6,
yolov4_csp_x, yolov4_p6, yolov4_p7, yolor-w6, yolor-e6, yolor-d6 and yolov4-p5/p6/p7 put their layers where
these rules do. Names that the authors never released are ours: DWT in the cfg flavour, SSS, YOLOR-S; U5R5
has YOLOv5's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from yolor_core.config import ModelConfig
from yolor_core.errors import WeightsError
from yolor_core.models import Detector
from yolor_core.models.knowledge import ImplicitKnowledge
from yolor_core.weights.blank import blank_model

Kind = Literal["weight", "norm", "counter", "implicit", "constant"]


@dataclass(frozen=True)
class Entry:
    """One tensor of the authors' state_dict."""

    name: str  # theirs
    ours: str | None  # in our state_dict; None for constants, which follow from the architecture
    shape: tuple[int, ...]  # theirs
    kind: Kind
    constant: Tensor | None = None  # its value, for constants


@lru_cache(maxsize=128)
def named_layout(model: str | ModelConfig, classes: int = 80) -> tuple[Entry, ...]:
    """`key_layout` of a registered model or any configuration. Raises UnknownNameError."""
    return tuple(key_layout(blank_model(model, classes)))


def key_layout(model: Detector) -> list[Entry]:
    """The authors' state_dict of a model, which may be on the meta device.

    Raises WeightsError for a folded model, for tasks other than detection, and for implicit knowledge that
    the authors' code base of this flavour cannot express.
    """
    check_detection_only(model, "the authors' code")
    if getattr(model, "folded", False):
        raise WeightsError("a folded model has no counterpart in the authors' code; give the unfolded one")
    if model.architecture.flavour == "cfg":
        from yolor_core.weights.layout_cfg import cfg_layout

        return cfg_layout(model)
    from yolor_core.weights.layout_yaml import yaml_layout

    return yaml_layout(model)


def check_detection_only(model: Detector, holder: str) -> None:
    """Raises WeightsError for a model that has other tasks than detection, or not even that."""
    if model.tasks != ("detection",):
        raise WeightsError(
            f"{holder} has detection alone, and this model's tasks are {', '.join(model.tasks)}; export it "
            "as safetensors, which holds every task"
        )


def leaf_entries(module: nn.Module, ours: str, theirs: str) -> Iterator[Entry]:
    """Entries of a convolution or a BatchNorm: the tensors have the same names on both sides."""
    norm: Kind = "norm" if isinstance(module, nn.BatchNorm2d) else "weight"
    for name, tensor in module.state_dict().items():
        kind: Kind = "counter" if name == "num_batches_tracked" else norm
        yield Entry(f"{theirs}.{name}", f"{ours}.{name}", tuple(tensor.shape), kind)


def implicit_entries(
    knowledge: ImplicitKnowledge, ours: str, site: str, levels: list[str], theirs: list[str]
) -> Iterator[Entry]:
    """Entries of one site: a vector of C numbers is a parameter `implicit` of shape (1, C, 1, 1)."""
    for level, name in zip(levels, theirs, strict=True):
        prefix = f"{ours}.sites.{site}.{level}.forms.0.z"
        size = knowledge.get_parameter(f"sites.{site}.{level}.forms.0.z").numel()
        yield Entry(f"{name}.implicit", prefix, (1, size, 1, 1), "implicit")


def anchor_constants(model: Detector) -> tuple[Tensor, Tensor]:
    """The yaml detector's buffers: anchors in strides (levels, na, 2), in pixels (levels, 1, na, 1, 1, 2)."""
    pixels = torch.tensor(model.architecture.anchors, dtype=torch.float32) * model.config.anchor_scale
    strides = torch.tensor(model.strides, dtype=torch.float32)[:, None, None]
    return pixels / strides, pixels.reshape(model.levels, 1, -1, 1, 1, 2)
