"""From the names of a file to ours: by name where the names are known, else by order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from yolor_core.errors import WeightsError
from yolor_core.models import list_models
from yolor_core.models.architectures import ARCHITECTURES, Architecture
from yolor_core.weights.layout import Entry, named_layout

Shape = tuple[int, ...]
LISTED = 3  # names an error shows


class Match(NamedTuple):
    """Name in the file -> the entry it fills, and how they were brought together."""

    pairs: dict[str, Entry]
    how: Literal["name", "our own names", "order"]


def match(found: Mapping[str, Shape], layout: Sequence[Entry], model: str, label: str) -> Match:
    """Bring the tensors of a file together with those of a model.

    found: name -> shape, in the order of the file. Counters and anchors may be missing, nothing else; wavelet
    filters may not, because they are all that tells a DWT model from its ReOrg sister.
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
    return Match(pairs, how)  # type: ignore[arg-type]


MOST_CLASSES = 100_000  # more is a damaged file, not a detector


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


def twins(model: str) -> list[str]:
    """Models with the same tensors that differ in what no file of tensors shows: the activation."""

    def bare(name: str) -> Architecture:
        return replace(ARCHITECTURES[name], activation="silu", name="", size=0)

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
    shown = ", ".join(f"{name} {shape}" for name, shape in list(tensors.items())[:LISTED])
    more = f" and {len(tensors) - LISTED} more" if len(tensors) > LISTED else ""
    return f"{verb} {shown}{more}"
