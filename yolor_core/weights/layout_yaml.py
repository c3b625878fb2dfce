"""Names of the yaml flavour: `model.N`, N counting the layer list, then the attribute names of its blocks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from yolor_core.errors import WeightsError
from yolor_core.models import Detector
from yolor_core.models.blocks import CSP, CSP2, SPPCSP, BNAct, Bottleneck, ConvBNAct, DownC
from yolor_core.models.stems import DWT, ReOrg
from yolor_core.models.v5 import C3, SPPC3
from yolor_core.weights.layout import Entry, anchor_constants, implicit_entries, leaf_entries

# Our part = their attribute, in the order of their state_dict.
BLOCKS: dict[type[nn.Module], str] = {
    ConvBNAct: "conv=conv bn=bn",
    BNAct: "bn=",  # the norm of a concatenation belongs to the block itself
    Bottleneck: "reduce=cv1 conv=cv2",
    CSP: "enter=cv1 skip=cv2 close=cv3 fuse=cv4 joint=bn body=m",
    CSP2: "enter=cv1 skip=cv2 fuse=cv3 joint=bn body=m",
    SPPCSP: "enter=cv1 skip=cv2 before.0=cv3 before.1=cv4 after.0=cv5 after.1=cv6 joint=bn fuse=cv7",
    DownC: "reduce=cv1 conv=cv2 skip=cv3",
    C3: "enter=cv1 skip=cv2 fuse=cv3 body=m",
    SPPC3: "reduce=cv1 expand=cv2",  # its pooling; the C3 inside is a layer of its own
}
IMPLICIT = {("fa", "add"): "ia", ("pr", "multiply"): "im"}
# A layer: the part of our model it is, or a word in brackets for one that holds nothing.
Layer = tuple[str, str]


def yaml_layout(model: Detector) -> list[Entry]:
    """See `layout.key_layout`."""
    lists = _check_implicit(model)
    entries: list[Entry] = []
    layers = list(_layers(model))
    for number, (part, attribute) in enumerate(layers):
        theirs = f"model.{number}{attribute}"
        if part.startswith("["):
            continue
        module = model.get_submodule(part)
        if isinstance(module, DWT):
            entries += _wavelet(theirs)
        else:
            entries += _walk(module, part, theirs)
    return entries + _detect(model, f"model.{len(layers)}", lists)


def _layers(model: Detector) -> Iterator[Layer]:
    levels = [level.lower() for level in model.level_names]
    v5 = model.architecture.neck == "v5"
    stem = [name for name, _ in model.get_submodule("backbone.stem").named_children()]
    if v5:  # YOLOv5's Focus is one layer of rearrangement and convolution
        yield "backbone.stem.1", ".conv"
    else:
        for name in stem:
            reorg = isinstance(model.get_submodule(f"backbone.stem.{name}"), ReOrg)
            yield "[reorg]" if reorg else f"backbone.stem.{name}", ""
    for number, stage in model.get_submodule("backbone.stages").named_children():
        for name, module in stage.named_children():
            part = f"backbone.stages.{number}.{name}"
            yield part, ""
            if isinstance(module, SPPC3):
                yield f"{part}.block", ""
    if not v5:
        yield "top", ""
    for level in reversed(levels[:-1]):
        yield f"up_{level}.reduce", ""
        yield "[upsample]", ""
        if not v5:
            yield f"up_{level}.lateral", ""
        yield "[concat]", ""
        yield f"up_{level}.block", ""
    for index, level in enumerate(levels):
        if index:
            yield f"down_{level}.down", ""
            yield "[concat]", ""
            yield f"down_{level}.block", ""
        if not v5:
            yield f"head_{level}", ""


def _walk(module: nn.Module, ours: str, theirs: str) -> Iterator[Entry]:
    if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
        yield from leaf_entries(module, ours, theirs)
    elif isinstance(module, nn.Sequential):
        for name, child in module.named_children():
            yield from _walk(child, f"{ours}.{name}", f"{theirs}.{name}")
    elif type(module) in BLOCKS:
        for pair in BLOCKS[type(module)].split():
            part, _, attribute = pair.partition("=")
            name = f"{theirs}.{attribute}" if attribute else theirs
            yield from _walk(module.get_submodule(part), f"{ours}.{part}", name)
    elif not isinstance(module, nn.Identity):
        raise WeightsError(f"{type(module).__name__} has no counterpart in the authors' yaml models")


def _wavelet(theirs: str) -> list[Entry]:
    """The Haar filters that the authors' DWT keeps: low and high pass, along columns and rows."""
    root = torch.tensor(0.5).sqrt()
    low, high = torch.stack((root, root)), torch.stack((root, -root))
    filters: dict[str, Tensor] = {
        "h0_col": low.reshape(1, 1, 2, 1),
        "h1_col": high.reshape(1, 1, 2, 1),
        "h0_row": low.reshape(1, 1, 1, 2),
        "h1_row": high.reshape(1, 1, 1, 2),
    }
    return [Entry(f"{theirs}.xfm.{k}", None, tuple(v.shape), "constant", v) for k, v in filters.items()]


def _detect(model: Detector, theirs: str, lists: dict[str, str]) -> list[Entry]:
    """The last layer: anchors, then predictors, then implicit knowledge."""
    names = ("anchors", "anchor_grid")
    constants = zip(names, anchor_constants(model), strict=True)
    entries = [Entry(f"{theirs}.{n}", None, tuple(v.shape), "constant", v) for n, v in constants]
    for number, level in enumerate(model.level_names):
        part = f"predictor_{level.lower()}"
        entries += leaf_entries(model.get_submodule(part), part, f"{theirs}.m.{number}")
    for site, attribute in lists.items():
        targets = [f"{theirs}.{attribute}.{number}" for number in range(model.levels)]
        entries += implicit_entries(model.implicit, "implicit", site, list(model.level_names), targets)
    return entries


def _check_implicit(model: Detector) -> dict[str, str]:
    lists = {}
    for implicit in model.config.implicit:
        attribute = IMPLICIT.get((implicit.site, implicit.operator))
        if attribute is None or implicit.form != "vector":
            raise WeightsError(
                f"implicit knowledge at site {implicit.site!r} ({implicit.operator}, {implicit.form}) has no "
                "counterpart in the authors' yaml models; they have vectors added at fa and multiplied at pr"
            )
        lists[implicit.site] = attribute
    return dict(sorted(lists.items()))
