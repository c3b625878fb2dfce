"""Every architecture as data: what makes a P6 a P6 is one row of a table. No torch here.

Names follow the authors: with underscores the models of their main branch (cfg flavour), with hyphens those
of their paper branch (yaml flavour); the flavours differ in where the CSP blocks normalise (see `blocks`).

The paper's ablation baselines are `yolov4_csp_mish`, `yolov4_csp_fast` and `yolov4_p6_light`, all with Mish.
`yolov4_csp` is the file of that name in the main branch: the same graph with SiLU.

`Architecture.implicit` says which representations a *name* stands for (yolor_csp = yolov4_csp with + iFA and
x iPR). A `ModelConfig` is literal: it builds what its own `implicit` lists and nothing else, so an ablation
baseline can never gain implicit knowledge from its name. `yolor_core.models.named_config` turns a name into
the literal configuration.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Flavour = Literal["cfg", "yaml"]
Activation = Literal["silu", "mish"]
Down = Literal["conv", "csp"]
Pair = tuple[float, float]

FIRST_LEVEL = 3  # the finest prediction is made at P3, stride 8


@dataclass(frozen=True)
class StemLayer:
    """One layer of a stem: `reorg` and `dwt` halve the map and multiply the channels by four."""

    kind: Literal["conv", "down", "reorg", "dwt"]
    channels: int = 0  # output channels of conv and down
    stride: int = 1


@dataclass(frozen=True)
class Stage:
    """Down-sampling (unless `down` is false) followed by a block of `repeats` bottlenecks."""

    block: Literal["bottleneck", "csp", "cspf", "c3", "sppc3"]
    channels: int
    repeats: int
    down: bool = True


@dataclass(frozen=True)
class Architecture:
    """A detector at width 1 and depth 1; channels and repeats are scaled when it is built."""

    flavour: Flavour
    activation: Activation
    stem: tuple[StemLayer, ...]
    stages: tuple[Stage, ...]  # the last `levels` of them feed the neck
    anchors: tuple[tuple[Pair, ...], ...]  # per level: (width, height) in pixels
    neck_repeats: int
    size: int  # test size of the paper, pixels
    down: Down = "conv"  # how backbone and neck halve a map
    neck: Literal["csp", "v5"] = "csp"
    spp_pairs: int = 1  # pairs of 1x1 and 3x3 convolutions behind the pools of SPPCSP
    implicit: tuple[tuple[str, str], ...] = ()  # (site, operator) that the name stands for
    name: str = ""

    @property
    def levels(self) -> int:
        """Number of prediction levels."""
        return len(self.anchors)

    @property
    def anchors_per_level(self) -> int:
        """Anchors in every cell of a level."""
        return len(self.anchors[0])

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell of each level: 8, 16, 32 ..."""
        return tuple(2 ** (FIRST_LEVEL + index) for index in range(self.levels))

    @property
    def level_names(self) -> tuple[str, ...]:
        """P3, P4, P5 ..."""
        return tuple(f"P{FIRST_LEVEL + index}" for index in range(self.levels))

    @property
    def batch_norm_eps(self) -> float:
        """The authors' two code bases differ in it; the momentum is 0.03 in both."""
        return 1e-4 if self.flavour == "cfg" else 1e-3


def _anchors(text: str) -> tuple[tuple[Pair, ...], ...]:
    """`"12,16 19,36 | 36,75 76,55"` -> levels of (width, height)."""

    def pair(item: str) -> Pair:
        width, height = item.split(",")
        return float(width), float(height)

    return tuple(tuple(pair(item) for item in level.split()) for level in text.split("|"))


def _stages(block: str, channels: tuple[int, ...], repeats: tuple[int, ...]) -> tuple[Stage, ...]:
    return tuple(Stage(block, c, n) for c, n in zip(channels, repeats, strict=True))  # type: ignore[arg-type]


CSP_ANCHORS = _anchors("12,16 19,36 40,28 | 36,75 76,55 72,146 | 142,110 192,243 459,401")
P6_ANCHORS = _anchors(
    "19,27 44,40 38,94 | 96,68 86,152 180,137 | 140,301 303,264 238,542 | 436,615 739,380 925,792"
)
V5_ANCHORS = _anchors("10,13 16,30 33,23 | 30,61 62,45 59,119 | 116,90 156,198 373,326")
LARGE_ANCHORS = {
    5: _anchors("13,17 31,25 24,51 61,45 | 48,102 119,96 97,189 217,184 | 171,384 324,451 616,618 800,800"),
    6: _anchors(
        "13,17 31,25 24,51 61,45 | 61,45 48,102 119,96 97,189 | 97,189 217,184 171,384 324,451 |"
        " 324,451 545,357 616,618 1024,1024"
    ),
    7: _anchors(
        "13,17 22,25 27,66 55,41 | 57,88 112,69 69,177 136,138 | 136,138 287,114 134,275 268,248 |"
        " 268,248 232,504 445,416 640,640 | 812,393 477,808 1070,908 1408,1408"
    ),
}

REORG, DWT = StemLayer("reorg"), StemLayer("dwt")
STEM_CSP = (StemLayer("conv", 32), StemLayer("conv", 64, 2))
STEM_P6 = (REORG, StemLayer("conv", 64), StemLayer("conv", 128, 2))  # P6-light, P6, W6
STEM_E6 = (REORG, StemLayer("conv", 80), StemLayer("down", 160, 2))  # E6, D6


def _fast_stem(rearrange: StemLayer) -> tuple[StemLayer, ...]:
    """The "-fast" stem: counts cannot tell ReOrg from DWT, both are parameter-free."""
    return (rearrange, StemLayer("conv", 64))


IMPLICIT = (("fa", "add"), ("pr", "multiply"))  # what every released YOLOR model carries: + iFA, x iPR


def _csp(activation: Activation, stem: tuple[StemLayer, ...] = STEM_CSP) -> Architecture:
    """YOLOv4-CSP family, three levels."""
    stages = _stages("csp", (128, 256, 512, 1024), (2, 8, 8, 4))
    first = Stage("bottleneck", 64, 1, down=False)
    return Architecture("cfg", activation, stem, (first, *stages), CSP_ANCHORS, neck_repeats=2, size=640)


def _csp_x() -> Architecture:
    """The wider and deeper YOLOv4-CSP; its very first convolution is not widened."""
    stem = (StemLayer("conv", 32), StemLayer("conv", 80, 2))
    stages = _stages("csp", (160, 320, 640, 1280), (3, 10, 10, 5))
    first = Stage("bottleneck", 80, 1, down=False)
    return Architecture(
        "cfg", "silu", stem, (first, *stages), CSP_ANCHORS, neck_repeats=3, size=640, spp_pairs=2
    )


def _small() -> Architecture:
    """YOLOR-S of the authors' list of models (not in the paper): half the width, a third of the depth."""
    stem = (StemLayer("conv", 16), StemLayer("conv", 32, 2))
    stages = _stages("csp", (64, 128, 256, 512), (1, 3, 3, 1))
    first = Stage("bottleneck", 32, 1, down=False)
    return Architecture("yaml", "silu", stem, (first, *stages), CSP_ANCHORS, neck_repeats=1, size=640)


def _sss(rearrange: StemLayer) -> Architecture:
    """YOLOR-Y4-SSS: half the width, a third of the depth, the stem only rearranges pixels (3 -> 12 -> 48)."""
    stages = _stages("csp", (128, 256, 512), (3, 3, 1))
    first = Stage("csp", 64, 1, down=False)
    return Architecture(
        "yaml", "silu", (rearrange,) * 2, (first, *stages), CSP_ANCHORS, neck_repeats=1, size=640
    )


def _ssss(rearrange: StemLayer) -> Architecture:
    """YOLOR-Y4-SSSS: as SSS, with pixels rearranged down to P3 at once (3 -> 12 -> 48 -> 192)."""
    stages = _stages("csp", (256, 512), (3, 1))
    first = Stage("csp", 128, 3, down=False)
    return Architecture(
        "yaml", "silu", (rearrange,) * 3, (first, *stages), CSP_ANCHORS, neck_repeats=1, size=640
    )


def _p6(
    flavour: Flavour,
    activation: Activation,
    channels: tuple[int, ...],
    repeats: tuple[int, ...],
    stem: tuple[StemLayer, ...] = STEM_P6,
    down: Down = "conv",
) -> Architecture:
    """P6 family, four levels, fusion-first CSP stages P2 to P6."""
    first, *rest = _stages("cspf", channels, repeats)
    start = Stage("cspf", first.channels, first.repeats, down=False)
    return Architecture(
        flavour, activation, stem, (start, *rest), P6_ANCHORS, neck_repeats=3, size=1280, down=down
    )


def _large(flavour: Flavour, top: int) -> Architecture:
    """ScaledYOLOv4 P5, P6 and P7 with four anchors per cell; P7 is 1.25 times as wide."""
    wide = 5 if top == 7 else 4
    channels = tuple(c * wide // 4 for c in (128, 256, 512, 1024, 1024, 1024)[: top - 1])
    stem = (StemLayer("conv", 8 * wide), StemLayer("conv", 16 * wide, 2))
    first = Stage("csp", 16 * wide, 1, down=False)
    stages = _stages("csp", channels, (3, 15, 15, 7, 7, 7)[: top - 1])
    size = {5: 896, 6: 1280, 7: 1536}[top]
    return Architecture(
        flavour, "mish", stem, (first, *stages), LARGE_ANCHORS[top], neck_repeats=3, size=size
    )


def _u5() -> Architecture:
    """U5R5-S of Table A1: YOLOv5 release 5, size s."""
    stem = (REORG, StemLayer("conv", 32))
    stages = (*_stages("c3", (64, 128, 256), (1, 3, 3)), Stage("sppc3", 512, 1))
    return Architecture("yaml", "silu", stem, stages, V5_ANCHORS, neck_repeats=1, size=640, neck="v5")


def _yolor(base: Architecture) -> Architecture:
    """The same network under a name that stands for + iFA and x iPR."""
    return replace(base, implicit=IMPLICIT)


# channels and repeats of the stages P2 to P6
LIGHT = (128, 256, 384, 512, 640)
WIDE = (128, 256, 512, 768, 1024)
WIDER = (160, 320, 640, 960, 1280)
SHALLOW, DEEP = (3, 7, 7, 3, 3), (3, 15, 15, 7, 7)

_TABLE = {
    # the paper's ablation baselines
    "yolov4_csp_mish": _csp("mish"),
    "yolov4_csp_fast": _csp("mish", _fast_stem(REORG)),
    "yolov4_csp_fast_dwt": _csp("mish", _fast_stem(DWT)),
    "yolov4_p6_light": _p6("cfg", "mish", LIGHT, SHALLOW),
    # main branch, cfg flavour
    "yolov4_csp": _csp("silu"),
    "yolov4_csp_x": _csp_x(),
    "yolov4_p6": _large("cfg", 6),
    "yolov4_p7": _large("cfg", 7),
    "yolor_csp": _yolor(_csp("silu")),
    "yolor_csp_fast": _yolor(_csp("mish", _fast_stem(REORG))),
    "yolor_csp_x": _yolor(_csp_x()),
    "yolor_p6": _yolor(_p6("cfg", "silu", LIGHT, SHALLOW)),
    "yolor_w6": _yolor(_p6("cfg", "silu", WIDE, SHALLOW)),
    # paper branch, yaml flavour
    "yolor-p6": _yolor(_p6("yaml", "silu", LIGHT, SHALLOW)),
    "yolor-w6": _yolor(_p6("yaml", "silu", WIDE, SHALLOW)),
    "yolor-e6": _yolor(_p6("yaml", "silu", WIDER, SHALLOW, STEM_E6, "csp")),
    "yolor-d6": _yolor(_p6("yaml", "silu", WIDER, DEEP, STEM_E6, "csp")),
    "yolor-s": _yolor(_small()),
    "yolor-sss-dwt": _yolor(_sss(DWT)),
    "yolor-sss-s2d": _yolor(_sss(REORG)),
    "yolor-ssss-dwt": _yolor(_ssss(DWT)),
    "yolor-ssss-s2d": _yolor(_ssss(REORG)),
    # the baselines of Table A1: the same networks without implicit knowledge
    "yolov4-sss-dwt": _sss(DWT),
    "yolov4-sss-s2d": _sss(REORG),
    "yolov4-ssss-dwt": _ssss(DWT),
    "yolov4-ssss-s2d": _ssss(REORG),
    # ScaledYOLOv4-large, yaml flavour
    "yolov4-p5": _large("yaml", 5),
    "yolov4-p6": _large("yaml", 6),
    "yolov4-p7": _large("yaml", 7),
    # YOLOv5 release 5
    "u5r5-s": _u5(),
    "u5r5-s-implicit": _yolor(_u5()),
}

ARCHITECTURES: dict[str, Architecture] = {name: replace(row, name=name) for name, row in _TABLE.items()}
