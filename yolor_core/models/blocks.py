"""Building blocks of backbone and neck, each in the two flavours of the released code.

cfg: every convolution has BatchNorm and activation directly behind it. yaml: the 1x1 convolutions next to a
concatenation are bare and the concatenation is normalised and activated instead. The parameter counts of
the paper can only be met by keeping the two apart. Blocks register their parts in the order of the released
state_dict, so that reference weights map by position.

All maps are (B, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from yolor_core.models.architectures import Activation, Flavour

BATCH_NORM_MOMENTUM = 0.03
ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "mish": nn.Mish}


@dataclass(frozen=True)
class Style:
    """What all blocks of a network share."""

    flavour: Flavour
    activation: Activation
    eps: float

    def norm(self, channels: int) -> nn.BatchNorm2d:
        """BatchNorm with the authors' constants."""
        return nn.BatchNorm2d(channels, eps=self.eps, momentum=BATCH_NORM_MOMENTUM)

    def act(self) -> nn.Module:
        """The activation."""
        return ACTIVATIONS[self.activation]()

    def branch(self, c_in: int, c_out: int) -> nn.Module:
        """The 1x1 convolution that ends in a concatenation."""
        if self.flavour == "cfg":
            return ConvBNAct(c_in, c_out, 1, 1, self)
        return nn.Conv2d(c_in, c_out, 1, bias=False)

    def joint(self, channels: int) -> nn.Module:
        """What follows a concatenation."""
        return nn.Identity() if self.flavour == "cfg" else BNAct(channels, self)


def normalised(x: Tensor, bn: nn.Module, act: nn.Module) -> Tensor:
    """What most of a step's memory traffic is for, and what `Numerics.compile` compiles; same shape."""
    y: Tensor = act(bn(x))
    return y


class BNAct(nn.Module):
    """BatchNorm and activation of a concatenation."""

    normalised: Callable[[Tensor, nn.Module, nn.Module], Tensor] = staticmethod(normalised)

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.bn = style.norm(channels)
        self.act = style.act()

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return self.normalised(x, self.bn, self.act)


class ConvBNAct(BNAct):
    """Convolution without bias (padding kernel // 2), BatchNorm, activation."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, style: Style) -> None:
        nn.Module.__init__(self)
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        self.bn = style.norm(c_out)
        self.act = style.act()

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H / stride, W / stride)."""
        return self.normalised(self.conv(x), self.bn, self.act)


class ConvAct(nn.Module):
    """What `ConvBNAct` becomes when it is folded: a convolution with bias, activation."""

    def __init__(self, conv: nn.Conv2d, act: nn.Module) -> None:
        super().__init__()
        self.conv, self.act = conv, act

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H / stride, W / stride)."""
        return self.act(self.conv(x))


class Bottleneck(nn.Module):
    """1x1 then 3x3 convolution, added to its input when `add`."""

    def __init__(self, channels: int, hidden: int, add: bool, style: Style) -> None:
        super().__init__()
        self.reduce = ConvBNAct(channels, hidden, 1, 1, style)
        self.conv = ConvBNAct(hidden, channels, 3, 1, style)
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        y = self.conv(self.reduce(x))
        return x + y if self.add else y


def bottlenecks(channels: int, repeats: int, add: bool, style: Style) -> nn.Sequential:
    """`repeats` bottlenecks of constant width."""
    return nn.Sequential(*(Bottleneck(channels, channels, add, style) for _ in range(repeats)))


class CrossStage(nn.Module):
    """Base of the CSP blocks: a main path and a skip path, concatenated and fused by a 1x1 convolution."""

    skip: nn.Module
    joint: nn.Module
    fuse: nn.Module

    def _register(self, order: str, **parts: nn.Module) -> None:
        """Register parts in `order`, which is the order of the released state_dict."""
        names = order.split()
        assert sorted(names) == sorted(parts), (names, sorted(parts))
        for name in names:
            self.add_module(name, parts[name])

    def _join(self, main: Tensor, skip: Tensor) -> Tensor:
        return self.fuse(self.joint(torch.cat((main, skip), dim=1)))


class CSP(CrossStage):
    """Bottleneck-CSP; with `closing` false the fusion-first block of the P6 family (CSPF)."""

    enter: nn.Module
    body: nn.Module
    close: nn.Module

    def __init__(self, c_in: int, channels: int, repeats: int, style: Style, closing: bool = True) -> None:
        super().__init__()
        half = channels // 2
        orders = {"cfg": "skip enter body close joint fuse", "yaml": "enter skip close fuse joint body"}
        self._register(
            orders[style.flavour],
            enter=ConvBNAct(c_in, half, 1, 1, style),
            body=bottlenecks(half, repeats, True, style),
            close=style.branch(half, half) if closing else nn.Identity(),
            skip=style.branch(c_in, half),
            joint=style.joint(2 * half),
            fuse=ConvBNAct(2 * half, channels, 1, 1, style),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, channels, H, W)."""
        return self._join(self.close(self.body(self.enter(x))), self.skip(x))


class CSP2(CrossStage):
    """The neck's block: the split happens behind the first convolution, bottlenecks have no residual."""

    enter: nn.Module
    body: nn.Module

    def __init__(self, c_in: int, channels: int, repeats: int, style: Style) -> None:
        super().__init__()
        orders = {"cfg": "enter skip body joint fuse", "yaml": "enter skip fuse joint body"}
        self._register(
            orders[style.flavour],
            enter=ConvBNAct(c_in, channels, 1, 1, style),
            body=bottlenecks(channels, repeats, False, style),
            skip=style.branch(channels, channels),
            joint=style.joint(2 * channels),
            fuse=ConvBNAct(2 * channels, channels, 1, 1, style),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, channels, H, W)."""
        x = self.enter(x)
        return self._join(self.body(x), self.skip(x))


class SPPCSP(CrossStage):
    """Spatial pyramid pooling in a CSP block, with `pairs` of 1x1 and 3x3 convolutions behind the pools."""

    enter: nn.Module
    before: nn.Module
    after: nn.Module

    def __init__(self, c_in: int, channels: int, style: Style, pairs: int = 1) -> None:
        super().__init__()
        after = nn.Sequential()
        for index in range(pairs):
            after.append(ConvBNAct(channels if index else 4 * channels, channels, 1, 1, style))
            after.append(ConvBNAct(channels, channels, 3, 1, style))
        orders = {"cfg": "skip enter before after joint fuse", "yaml": "enter skip before after joint fuse"}
        self._register(
            orders[style.flavour],
            enter=ConvBNAct(c_in, channels, 1, 1, style),
            before=nn.Sequential(
                ConvBNAct(channels, channels, 3, 1, style), ConvBNAct(channels, channels, 1, 1, style)
            ),
            after=after,
            skip=style.branch(c_in, channels),
            joint=style.joint(2 * channels),
            fuse=ConvBNAct(2 * channels, channels, 1, 1, style),
        )
        self.largest_first = style.flavour == "cfg"

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, channels, H, W)."""
        main = self.after(pyramid(self.before(self.enter(x)), self.largest_first))
        return self._join(main, self.skip(x))


def pyramid(x: Tensor, largest_first: bool) -> Tensor:
    """x and its max-pools of 5, 9 and 13 cells, (B, C, H, W) -> (B, 4C, H, W).

    A pool of 9 is a pool of 5 twice, one of 13 three times: the same values for a third of the work.
    """
    maps = [x]
    for _ in range(3):
        maps.append(nn.functional.max_pool2d(maps[-1], 5, stride=1, padding=2))
    return torch.cat(maps[::-1] if largest_first else maps, dim=1)


class DownC(nn.Module):
    """CSP down-sampling: a strided 3x3 convolution and a max-pool, concatenated."""

    def __init__(self, c_in: int, channels: int, style: Style) -> None:
        super().__init__()
        self.reduce = ConvBNAct(c_in, c_in, 1, 1, style)
        self.conv = ConvBNAct(c_in, channels // 2, 3, 2, style)
        self.pool = nn.MaxPool2d(2, 2)
        self.skip = ConvBNAct(c_in, channels // 2, 1, 1, style)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, channels, H / 2, W / 2)."""
        return torch.cat((self.conv(self.reduce(x)), self.skip(self.pool(x))), dim=1)


def downsample(c_in: int, channels: int, kind: str, style: Style) -> nn.Module:
    """Halve a map: a strided 3x3 convolution (`conv`) or `DownC` (`csp`)."""
    return DownC(c_in, channels, style) if kind == "csp" else ConvBNAct(c_in, channels, 3, 2, style)
