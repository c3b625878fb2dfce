"""The authors' names for the tensors of a model, in the order of their state_dict; files are matched to them.

Two rules, one per flavour. cfg: `module_list.N`, N counting every layer of the darknet file; layers without
tensors count too, so each block lists its layers in file order: names are parts of our modules, words in
brackets are layers that hold nothing. yaml: `model.N`, N counting the layer list, then the attribute names of
its blocks. Both are read off the built model, so width, depth and classes may be anything.

What is known of the result: for the eight models with reference outputs (yolor_csp, yolor_csp_fast, yolor_p6,
yolov4_csp, yolov4_p6_light, yolor-p6, yolor-ssss-dwt, yolor-ssss-s2d) names, order and shapes equal the
authors' listing. All others follow from the same rules; the released layer lists of yolor_csp_x, yolor_w6,
yolov4_csp_x, yolov4_p6, yolov4_p7, yolor-w6, yolor-e6, yolor-d6 and yolov4-p5/p6/p7 put their layers where
these rules do. Names that the authors never released are ours: DWT in the cfg flavour, SSS, YOLOR-S; U5R5
has YOLOv5's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import Literal

import torch
from torch import Tensor, nn

from yolor_core.config import ModelConfig
from yolor_core.errors import WeightsError, some_of
from yolor_core.implicit.forms import Vector
from yolor_core.models import Detector, list_models
from yolor_core.models.architectures import ARCHITECTURES, Architecture
from yolor_core.models.blocks import CSP, CSP2, SPPCSP, BNAct, Bottleneck, ConvBNAct, DownC
from yolor_core.models.build import blank_model
from yolor_core.models.trunk import C3, DWT, SPPC3, BottomUp, ReOrg, TopDown

Shape = tuple[int, ...]
LISTED = 3  # names an error shows
MOST_CLASSES = 100_000  # more is a damaged file, not a detector
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

    Raises WeightsError for a folded model, for tasks other than detection, for anchors of the data, and for
    implicit knowledge that the authors' code base of this flavour cannot express.
    """
    check_detection_only(model, "the authors' code")
    if model.config.anchors != "released":
        raise WeightsError(
            "the authors' code has its anchors in its own configuration, and this model's are by k-means on "
            "its training boxes; export it as safetensors or ONNX, which hold them"
        )
    if model.folded:
        raise WeightsError("a folded model has no counterpart in the authors' code; give the unfolded one")
    if model.architecture.flavour == "cfg":
        return cfg_layout(model)
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


def implicit_entries(model: Detector, site: str, theirs: list[str]) -> Iterator[Entry]:
    """Entries of one site by level: a vector of C numbers is a parameter `implicit` of shape (1, C, 1, 1)."""
    for level, name in zip(model.level_names, theirs, strict=True):
        ours = f"implicit.sites.{site}.{level}.forms.0.z"
        yield Entry(f"{name}.implicit", ours, (1, model.get_parameter(ours).numel(), 1, 1), "implicit")


POOLS = "[maxpool] [route] " * 3
CFG_BLOCKS: dict[type[nn.Module], str] = {
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
    """Names of the cfg flavour, see `key_layout`."""
    _check_implicit_cfg(model)
    number = count()
    levels = list(model.level_names)
    parts = ["backbone.stem", "backbone.stages", "top"]
    parts += [f"up_{level.lower()}" for level in reversed(levels[:-1])]
    parts += [f"down_{level.lower()}" for level in levels[1:]]
    entries = [e for part in parts for e in _walk_cfg(model.get_submodule(part), part, number)]

    sites = [implicit.site for implicit in model.config.kept]
    for site in sites:
        names = [f"module_list.{next(number)}" for _ in levels]
        entries += implicit_entries(model, site, names)
    for level in (level.lower() for level in levels):
        next(number)  # route to the neck's map
        entries += _walk_cfg(model.part("head", level), f"head_{level}", number)
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


def _walk_cfg(module: nn.Module, ours: str, number: Iterator[int]) -> Iterator[Entry]:
    if isinstance(module, ConvBNAct):
        layer = f"module_list.{next(number)}"
        yield from leaf_entries(module.conv, f"{ours}.conv", f"{layer}.Conv2d")
        yield from leaf_entries(module.bn, f"{ours}.bn", f"{layer}.BatchNorm2d")
    elif isinstance(module, (nn.Sequential, nn.ModuleList)):
        for name, child in module.named_children():
            yield from _walk_cfg(child, f"{ours}.{name}", number)
    elif type(module) in CFG_BLOCKS:
        for word in CFG_BLOCKS[type(module)].split():
            if not word.startswith("["):
                yield from _walk_cfg(module.get_submodule(word), f"{ours}.{word}", number)
            elif word != "[shortcut]" or module.add:
                next(number)
    elif not isinstance(module, nn.Identity):
        raise WeightsError(f"{type(module).__name__} has no counterpart in the authors' cfg files")


def _check_implicit_cfg(model: Detector) -> None:
    for site, level, module in model.implicit.walk():
        if site not in SITES or not all(isinstance(form, Vector) for form in module.forms):
            raise WeightsError(
                f"implicit knowledge at site {site!r} with form {module.config.form!r} on {level} has no "
                f"counterpart in the authors' cfg files; they have form 'vector' at {' and '.join(SITES)}"
            )


# Our part = their attribute, in the order of their state_dict.
YAML_BLOCKS: dict[type[nn.Module], str] = {
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
    """Names of the yaml flavour, see `key_layout`."""
    lists = _check_implicit_yaml(model)
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
            entries += _walk_yaml(module, part, theirs)
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


def _walk_yaml(module: nn.Module, ours: str, theirs: str) -> Iterator[Entry]:
    if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
        yield from leaf_entries(module, ours, theirs)
    elif isinstance(module, nn.Sequential):
        for name, child in module.named_children():
            yield from _walk_yaml(child, f"{ours}.{name}", f"{theirs}.{name}")
    elif type(module) in YAML_BLOCKS:
        for pair in YAML_BLOCKS[type(module)].split():
            part, _, attribute = pair.partition("=")
            name = f"{theirs}.{attribute}" if attribute else theirs
            yield from _walk_yaml(module.get_submodule(part), f"{ours}.{part}", name)
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
    """The last layer: anchors in strides and in pixels, then predictors, then implicit knowledge."""
    pixels = torch.tensor(model.architecture.anchors, dtype=torch.float32) * model.config.anchor_scale
    strides = torch.tensor(model.strides, dtype=torch.float32)[:, None, None]
    anchors = {"anchors": pixels / strides, "anchor_grid": pixels.reshape(model.levels, 1, -1, 1, 1, 2)}
    entries = [Entry(f"{theirs}.{n}", None, tuple(v.shape), "constant", v) for n, v in anchors.items()]
    for number, level in enumerate(model.level_names):
        part = f"predictor_{level.lower()}"
        entries += leaf_entries(model.get_submodule(part), part, f"{theirs}.m.{number}")
    for site, attribute in lists.items():
        targets = [f"{theirs}.{attribute}.{number}" for number in range(model.levels)]
        entries += implicit_entries(model, site, targets)
    return entries


def _check_implicit_yaml(model: Detector) -> dict[str, str]:
    lists = {}
    for implicit in model.config.kept:
        attribute = IMPLICIT.get((implicit.site, implicit.operator))
        if attribute is None or implicit.form != "vector":
            raise WeightsError(
                f"implicit knowledge at site {implicit.site!r} ({implicit.operator}, {implicit.form}) has no "
                "counterpart in the authors' yaml models; they have vectors added at fa and multiplied at pr"
            )
        lists[implicit.site] = attribute
    return dict(sorted(lists.items()))


def match(
    found: Mapping[str, Shape], layout: Sequence[Entry], model: str, label: str
) -> tuple[dict[str, Entry], str]:
    """Bring the tensors of a file together with those of a model.

    Returns the entry that each name of the file fills, and whether by name, our own names or order.

    found: name -> shape, in the order of the file. Counters and anchors may be missing, nothing else; wavelet
    filters, under the authors' yaml names, may not, because they are all that tells a DWT model from its
    sister with ReOrg. Other files have none, see `twins`.
    Files whose names are neither the authors' nor ours are taken by order if count, kinds and shapes agree.
    Raises WeightsError naming what is missing, left over or of another shape, and which models would fit.
    """
    theirs = {entry.name: entry for entry in layout}
    ours = {entry.ours: entry for entry in layout if entry.ours is not None}
    if len(found.keys() & theirs.keys()) * 2 >= min(len(found), len(theirs)):
        pairs, how = _by_name(found, theirs, model, label), "name"
    elif len(found.keys() & ours.keys()) * 2 >= min(len(found), len(ours)):
        pairs, how = _by_name(found, ours, model, label), "our own names"
    else:
        pairs, how = _by_order(found, layout, model, label), "order"
    for name, entry in pairs.items():
        if not _same_shape(found[name], entry, how):
            raise WeightsError(
                f"{label} is not {model}: {name} has shape {found[name]}, {model} has {entry.shape} there"
                + suggestion(found, model)
            )
    return pairs, how


def classes_of(found: Mapping[str, Shape], anchors: int) -> int | None:
    """How many classes the predictors of a file tell apart, or None if they do not say.

    Predictors are the convolutions with a bias: `x.bias` without a running mean beside it.
    """
    rows = {
        shape[0]
        for name, shape in found.items()
        if name.endswith(".bias")
        and len(shape) == 1
        and len(found.get(f"{name.removesuffix('bias')}weight", ())) == 4
    }
    if len(rows) != 1:
        return None
    outputs, rest = divmod(rows.pop(), anchors)
    return outputs - 5 if rest == 0 and 5 < outputs <= MOST_CLASSES else None


def fitting_models(found: Mapping[str, Shape]) -> list[str]:
    """Registered models whose tensors have exactly these shapes, in this order, in either naming.

    Where the names decide too, only those with these names.
    """
    shapes = [_flat(shape) for name, shape in found.items() if not _optional(name)]
    fitting, named = [], []
    for name in list_models():
        classes = classes_of(found, ARCHITECTURES[name].anchors_per_level)
        if classes is None:
            continue
        entries = named_layout(name, classes)
        if [_flat(e.shape) for e in entries if e.kind not in ("counter", "constant")] == shapes:
            fitting.append(name)
            constants = {entry.name for entry in entries if ".xfm." in entry.name}
            if found.keys() <= {entry.name for entry in entries} and constants <= found.keys():
                named.append(name)
    return named or fitting


def twins(model: str, stem_known: bool) -> list[str]:
    """Models with the same tensors that differ in what no file of tensors shows: the activation.

    Unless the stem is known, which the authors' yaml files alone tell, also those that differ in whether
    their stem begins with ReOrg or with wavelets (DWT), which have no weights.
    """

    def bare(name: str) -> Architecture:
        known = ARCHITECTURES[name]
        stem = tuple(replace(each, kind="reorg") if each.kind == "dwt" else each for each in known.stem)
        return replace(known, activation="silu", name="", size=0, stem=known.stem if stem_known else stem)

    return [name for name in list_models() if name != model and bare(name) == bare(model)]


def suggestion(found: Mapping[str, Shape], model: str) -> str:
    """The end of an error: which models the file may be of."""
    fitting = [name for name in fitting_models(found) if name != model]
    if fitting:
        return f"; its shapes are those of {' and '.join(fitting)}"
    total = sum(math.prod(shape) for shape in found.values())
    return f"; no registered model has its {len(found)} tensors of {total} numbers"


def _by_name(
    found: Mapping[str, Shape], known: Mapping[str, Entry], model: str, label: str
) -> dict[str, Entry]:
    needed = {n: e for n, e in known.items() if e.kind not in ("counter", "constant") or ".xfm." in n}
    missing = {n: needed[n].shape for n in needed if n not in found}
    extra = {n: found[n] for n in found if n not in known}
    if missing or extra:
        parts = [_listed("lacks", missing)] if missing else []
        parts += [_listed("has, beyond it,", extra)] if extra else []
        raise WeightsError(f"{label} is not {model}: it {' and '.join(parts)}" + suggestion(found, model))
    return {name: known[name] for name in found}


def _by_order(
    found: Mapping[str, Shape], layout: Sequence[Entry], model: str, label: str
) -> dict[str, Entry]:
    names = [name for name in found if not _optional(name)]
    entries = [entry for entry in layout if entry.kind not in ("counter", "constant")]
    if len(names) != len(entries):
        raise WeightsError(
            f"{label} is not {model}: its names are unknown (first: {next(iter(found), None)}) and it has "
            f"{len(names)} tensors, {model} {len(entries)}" + suggestion(found, model)
        )
    for name, entry in zip(names, entries, strict=True):
        last = {name.rpartition(".")[2], entry.name.rpartition(".")[2]}
        if entry.kind == "norm" and len(last) != 1:  # weight, bias, mean and variance have the same shape
            raise WeightsError(
                f"{label} is not {model}: by order, {name} would be {entry.name}" + suggestion(found, model)
            )
    return dict(zip(names, entries, strict=True))


def _optional(name: str) -> bool:
    """Whether a tensor of this name is a counter or a constant in the authors' code."""
    last = name.rpartition(".")[2]
    return last in ("num_batches_tracked", "anchors", "anchor_grid") or ".xfm." in name


def _same_shape(found: Shape, entry: Entry, how: str) -> bool:
    if entry.kind == "implicit" and how != "name":  # (C,) of ours is (1, C, 1, 1) of theirs
        return _flat(found) == _flat(entry.shape)
    return found == entry.shape


def _flat(shape: Shape) -> Shape:
    """A shape without what a vector of numbers may be wrapped in."""
    return (math.prod(shape),) if shape[:1] == (1,) and shape[2:] == (1, 1) else shape


def _listed(verb: str, tensors: Mapping[str, Shape]) -> str:
    return f"{verb} {some_of([f'{name} {shape}' for name, shape in tensors.items()], LISTED)}"
