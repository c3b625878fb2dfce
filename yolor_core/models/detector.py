"""The detector: backbone, neck, and per level head, implicit knowledge and predictor; further tasks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available

from yolor_core.config import ModelConfig, TasksConfig
from yolor_core.errors import FoldingError, InputError
from yolor_core.implicit.sites import ImplicitKnowledge, Site
from yolor_core.models.architectures import Architecture
from yolor_core.models.blocks import Style
from yolor_core.models.trunk import (
    Backbone,
    NeckParts,
    build_csp_neck,
    build_v5_neck,
    scaled_channels,
    scaled_repeats,
)
from yolor_core.tasks import TASKS
from yolor_core.tasks.base import Head, TaskWeights, TrunkMaps, TrunkShape, predictor_conv


def by_anchor(predictor: nn.Conv2d, *maps: Tensor) -> Tensor:
    """One map (B, C, H, W) per anchor -> (B, anchors x outputs, H, W): each anchor's rows see its own."""
    assert predictor.bias is not None
    parts = zip(maps, predictor.weight.chunk(len(maps)), predictor.bias.chunk(len(maps)), strict=True)
    return torch.cat([nn.functional.conv2d(x, w, b) for x, w, b in parts], dim=1)


class Detector(nn.Module):
    """One-stage anchor-based detector on the levels P3 and up, and branches for further tasks (section 5.4).

    Per level: predictions = PR(predictor(FA(head(neck map)))), where FA and PR are implicit sites or nothing.
    What no task of the configuration reads is not built.
    Modules are registered in the order of the authors' state_dict, which depends on the flavour. Parameters
    are unset until `initialise` or a checkpoint fills them; `create_model` does both.
    """

    folded = False  # whether `fold` made it: no BatchNorm behind convolutions, no implicit knowledge
    # (levels, anchors, 2): width and height in pixels; in the state_dict where they are of the data
    anchors: Tensor

    def __init__(
        self,
        architecture: Architecture,
        config: ModelConfig,
        classes: int = 80,
        identities: int = 0,
        weighting: TasksConfig | None = None,
    ) -> None:
        super().__init__()
        self.architecture, self.config, self.classes = architecture, config, classes
        self.tasks = config.tasks
        self.level_names, self.levels = architecture.level_names, architecture.levels
        self.strides = list(architecture.strides)
        self.outputs = 5 + classes  # x, y, w, h, objectness, classes
        self.anchors_per_level = architecture.anchors_per_level
        shape = (self.levels, self.anchors_per_level, 2)
        self.register_buffer("anchors", torch.empty(shape), persistent=config.anchors != "released")
        self.reset_anchors()

        style = Style(architecture.flavour, architecture.activation, architecture.batch_norm_eps)
        self.backbone = Backbone(architecture, config.width, config.depth, style)
        channels = self.backbone.channels  # also those of the heads
        kept = config.kept
        implicit = ImplicitKnowledge(kept, self.level_names, channels, self.anchors_per_level, self.outputs)
        predictors = [
            predictor_conv(c, added, self.anchors_per_level * self.outputs)
            for c, added in zip(channels, implicit.added, strict=True)
        ]
        for level, predictor in zip(self.level_names, predictors, strict=True):
            if any(len(site.forms) > 1 for site in implicit.feature_sites(level)):
                # the module's own `forward`, because tools that count operations go by the exact class
                predictor.__dict__["forward"] = partial(by_anchor, predictor)
        trunk = TrunkShape(self.level_names, tuple(self._neck_channels()), tuple(channels), config.width)
        branches: dict[str, Head] = {}
        read = set(self.level_names if config.detection else ())
        for branch in config.branches:
            head = TASKS[branch.task].load("head")
            branches[branch.task] = head(branch, trunk, classes, identities, implicit.of("fa"))
            read |= set(head.reads_heads(self.level_names))
        self.head_levels = [level for level in self.level_names if level in read]
        self._register(self._build_neck(style), implicit, predictors)
        self.branches = nn.ModuleDict(branches)
        self.task = TaskWeights(self.tasks, weighting or TasksConfig())

    def _neck_channels(self) -> list[int]:
        if self.architecture.neck == "v5":
            return self.backbone.channels
        stages = self.architecture.stages[-self.levels :]
        # the neck of a level is half as wide as its backbone stage
        return [scaled_channels(stage.channels // 2, self.config.width) for stage in stages]

    def _build_neck(self, style: Style) -> NeckParts:
        architecture, channels = self.architecture, self.backbone.channels
        repeats = scaled_repeats(architecture.neck_repeats, self.config.depth)
        if architecture.neck == "v5":
            return build_v5_neck(channels, repeats, style)
        widths = self._neck_channels()
        return build_csp_neck(channels, widths, repeats, architecture.down, architecture.spp_pairs, style)

    def _register(self, neck: NeckParts, implicit: ImplicitKnowledge, predictors: list[nn.Conv2d]) -> None:
        """Add the modules in state_dict order: cfg puts all heads last, yaml each behind its neck block."""
        heads = [
            head if level in self.head_levels else None
            for level, head in zip(self.level_names, neck.heads, strict=True)
        ]
        detection = self.config.detection
        names = [name.lower() for name in self.level_names]
        self.top = neck.top
        for name, module in zip(reversed(names[:-1]), neck.ups, strict=True):
            self.add_module(f"up_{name}", module)
        downs = [None, *neck.downs]
        if self.architecture.flavour == "cfg":
            for name, module in zip(names[1:], neck.downs, strict=True):
                self.add_module(f"down_{name}", module)
            self.implicit = implicit
            for name, head, predictor in zip(names, heads, predictors, strict=True):
                if head is not None:
                    self.add_module(f"head_{name}", head)
                if detection:
                    self.add_module(f"predictor_{name}", predictor)
            return
        for name, down, head in zip(names, downs, heads, strict=True):
            if down is not None:
                self.add_module(f"down_{name}", down)
            if head is not None:
                self.add_module(f"head_{name}", head)
        for name, predictor in zip(names, predictors, strict=True):
            if detection:
                self.add_module(f"predictor_{name}", predictor)
        self.implicit = implicit

    def part(self, kind: str, level: str) -> Any:
        """The module `up`, `down`, `head` or `predictor` of a level such as "P4"."""
        return getattr(self, f"{kind}_{level.lower()}")

    def predictors(self) -> dict[str, nn.Conv2d]:
        """Detection's 1x1 convolution with bias from features to anchors x outputs channels, by level."""
        levels = self.level_names if self.config.detection else ()
        return {level: self.part("predictor", level) for level in levels}

    def reset_anchors(self) -> None:
        """Set the anchor buffer from the architecture, times the configured scale."""
        values = torch.tensor(self.architecture.anchors, dtype=torch.float32) * self.config.anchor_scale
        self.anchors.copy_(values)

    def describe_levels(self) -> list[dict[str, Any]]:
        """Name, stride (pixels), channels and anchors (width, height; pixels) by level, finest first."""
        return [
            {
                "name": name,
                "stride": stride,
                "channels": channels,
                "anchors": [[round(side, 3) for side in pair] for pair in anchors.tolist()],
            }
            for name, stride, channels, anchors in zip(
                self.level_names, self.strides, self.backbone.channels, self.anchors, strict=True
            )
        ]

    def features(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> the heads' maps (B, channels, H / stride, W / stride), finest first.

        Of those levels alone that a task reads.
        """
        return list(self.maps(images).head.values())

    def maps(self, images: Tensor) -> TrunkMaps:
        """(B, 3, H, W) -> what the trunk gives to the tasks."""
        maps = self.backbone(images)
        x = self.top(maps[-1])
        kept = []
        for index in reversed(range(self.levels - 1)):
            x, keep = self.part("up", self.level_names[index])(x, maps[index])
            kept.append(keep)
        outputs = [x]
        for level in self.level_names[1:]:
            x = self.part("down", level)(x, kept.pop())
            outputs.append(x)
        neck = dict(zip(self.level_names, outputs, strict=True))
        return TrunkMaps(neck, {level: self.part("head", level)(neck[level]) for level in self.head_levels})

    def forward(self, images: Tensor) -> Any:
        """Images (B, 3, H, W), values 0 to 1 -> raw predictions of every task.

        Detection: logits (B, anchors, H / stride, W / stride, 5 + classes), a list of one tensor per level,
        finest first. A model of detection alone gives this list; all others give a dictionary by task, with
        what each task's head gives (`tasks.classification`, `tasks.embedding`).
        Raises InputError for images it cannot take.
        """
        self.check(images)
        try:
            maps = self.maps(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                f"one image of {images.shape[2]} x {images.shape[3]} pixels in training: it is one cell at "
                f"stride {self.strides[-1]}, of which BatchNorm has no variance; allowed: two images or "
                "more, or a larger one"
            ) from None
        found: dict[str, Any] = {}
        if self.config.detection:
            found["detection"] = self._detect(maps)
        for task, head in self.branches.items():
            found[task] = head(maps)
        return found["detection"] if self.tasks == ("detection",) else found

    def _detect(self, maps: TrunkMaps) -> list[Tensor]:
        shape = (self.anchors_per_level, self.outputs)
        raw = (self.predict(level, x) for level, x in maps.head.items())
        return [y.unflatten(1, shape).permute(0, 1, 3, 4, 2) for y in raw]

    def predict(self, level: str, x: Tensor, without: Collection[Site] = ()) -> Tensor:
        """Raw predictions (B, anchors x outputs, H, W) of a level for its features x (B, channels, H, W).

        Sites in `without` have the value that changes nothing.
        """
        y = self.part("predictor", level)(*self.implicit.before(x, level, without))
        return self.implicit.after(y, level, without)

    def train(self, mode: bool = True) -> Self:
        """As in torch. Raises FoldingError for a folded detector, whose normalisation is gone."""
        if mode and self.folded:
            raise FoldingError("a folded detector cannot be trained; train the model that it was made from")
        return super().train(mode)

    def check(self, images: Tensor) -> None:
        """Raise InputError unless images are a non-empty floating (B, 3, H, W) of whole cells."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise InputError(f"images of shape {tuple(images.shape)}; allowed: (batch, 3, height, width)")
        if not images.is_floating_point():
            raise InputError(f"images of type {images.dtype}; allowed: floating point, values 0 to 1")
        weight = next(self.parameters())
        if images.device != weight.device:
            raise InputError(f"images on {images.device}, but the model is on {weight.device}")
        if images.dtype != weight.dtype and not _casts(images.device.type):
            raise InputError(f"images of type {images.dtype}; this model takes {weight.dtype}")
        batch, _, height, width = images.shape
        if batch == 0 and not self.training:  # in training, a rank's share of a small last batch
            raise InputError("an empty batch; at least one image is needed")
        stride = self.strides[-1]
        if height % stride or width % stride or not height or not width:
            next_height, next_width = (max(-(-side // stride), 1) * stride for side in (height, width))
            raise InputError(
                f"images of {height} x {width} pixels; both sides have to be multiples of {stride}, "
                f"the next valid size is {next_height} x {next_width}"
            )


def _casts(device: str) -> bool:
    """Whether autocast is on for this kind of device, so that types may be mixed."""
    return is_autocast_available(device) and torch.is_autocast_enabled(device)


def decode(raw: Sequence[Tensor], strides: Sequence[int], anchors: Tensor) -> Tensor:
    """Raw logits (B, anchors, ny, nx, 5 + classes) per level -> (B, N, 5 + classes).

    With p the sigmoid of the logits, s the stride and (aw, ah) the anchor of cell (cx, cy):
    x = (2 p0 - 1/2 + cx) s, y = (2 p1 - 1/2 + cy) s, w = (2 p2)^2 aw, h = (2 p3)^2 ah, all in pixels;
    objectness and class scores follow as they are. Rows are ordered level, anchor, row, column.
    anchors: (levels, anchors, 2) in pixels.
    """
    rows = []
    for logits, stride, sizes in zip(raw, strides, anchors, strict=True):
        _, _, ny, nx, _ = logits.shape
        if logits.dtype in (torch.float16, torch.bfloat16):  # too coarse for pixel coordinates
            logits = logits.float()
        p = logits.sigmoid()
        cy, cx = torch.meshgrid(
            torch.arange(ny, device=p.device, dtype=p.dtype),
            torch.arange(nx, device=p.device, dtype=p.dtype),
            indexing="ij",
        )
        xy = (2 * p[..., 0:2] - 0.5 + torch.stack((cx, cy), dim=-1)) * stride
        wh = (2 * p[..., 2:4]).square() * sizes.to(p)[None, :, None, None, :]
        rows.append(torch.cat((xy, wh, p[..., 4:]), dim=-1).flatten(1, 3))
    return torch.cat(rows, dim=1)
