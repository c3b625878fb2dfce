"""Names of the cfg flavour: `module_list.N`, N counting every layer of the darknet file.

Layers without tensors count too, so each block lists its layers in file order: names are parts of our
modules, words in brackets are layers that hold nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from torch import nn

from yolor_core.errors import WeightsError
from yolor_core.implicit.forms import Vector
from yolor_core.models import Detector
from yolor_core.models.blocks import CSP, CSP2, SPPCSP, Bottleneck, ConvBNAct
from yolor_core.models.neck import BottomUp, TopDown
from yolor_core.models.stems import DWT, ReOrg
from yolor_core.weights.layout import Entry, implicit_entries, leaf_entries

POOLS = "[maxpool] [route] " * 3
BLOCKS: dict[type[nn.Module], str] = {
    ReOrg: "[reorg]",
    DWT: "[dwt]",  # ours: the authors have no such layer
    Bottleneck: "reduce conv [shortcut]",
    CSP: "skip [route] enter body close [route] fuse",
    CSP2: "enter skip [route] body [route] fuse",
    SPPCSP: f"skip [route] enter before {POOLS} after [route] fuse",
    TopDown: "reduce [upsample] [route] lateral [route] block",
    BottomUp: "down [route] block",
}
SITES = ("fa", "pr")  # shift, control or alternate channels, in front of the predictor or behind it


def cfg_layout(model: Detector) -> list[Entry]:
    """See `layout.key_layout`."""
    _check_implicit(model)
    number = count()
    levels = list(model.level_names)
    parts = ["backbone.stem", "backbone.stages", "top"]
    parts += [f"up_{level.lower()}" for level in reversed(levels[:-1])]
    parts += [f"down_{level.lower()}" for level in levels[1:]]
    entries = [e for part in parts for e in _walk(model.get_submodule(part), part, number)]

    sites = [implicit.site for implicit in model.config.implicit]
    for site in sites:
        names = [f"module_list.{next(number)}" for _ in levels]
        entries += implicit_entries(model.implicit, "implicit", site, levels, names)
    for level in (level.lower() for level in levels):
        next(number)  # route to the neck's map
        entries += _walk(model.part("head", level), f"head_{level}", number)
        if "fa" in sites:
            next(number)
        predictor = f"predictor_{level}"
        entries += leaf_entries(
            model.part("predictor", level), predictor, f"module_list.{next(number)}.Conv2d"
        )
        if "pr" in sites:
            next(number)
        next(number)  # yolo
    return entries


def _walk(module: nn.Module, ours: str, number: Iterator[int]) -> Iterator[Entry]:
    if isinstance(module, ConvBNAct):
        layer = f"module_list.{next(number)}"
        yield from leaf_entries(module.conv, f"{ours}.conv", f"{layer}.Conv2d")
        yield from leaf_entries(module.bn, f"{ours}.bn", f"{layer}.BatchNorm2d")
    elif isinstance(module, (nn.Sequential, nn.ModuleList)):
        for name, child in module.named_children():
            yield from _walk(child, f"{ours}.{name}", number)
    elif type(module) in BLOCKS:
        for word in BLOCKS[type(module)].split():
            if not word.startswith("["):
                yield from _walk(module.get_submodule(word), f"{ours}.{word}", number)
            elif word != "[shortcut]" or module.add:
                next(number)
    elif not isinstance(module, nn.Identity):
        raise WeightsError(f"{type(module).__name__} has no counterpart in the authors' cfg files")


def _check_implicit(model: Detector) -> None:
    for site, level, module in model.implicit.walk():
        if site not in SITES or not all(isinstance(form, Vector) for form in module.forms):
            raise WeightsError(
                f"implicit knowledge at site {site!r} with form {module.config.form!r} on {level} has no "
                f"counterpart in the authors' cfg files; they have form 'vector' at {' and '.join(SITES)}"
            )
