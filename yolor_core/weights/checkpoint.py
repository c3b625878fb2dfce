"""From what a checkpoint saved to named tensors: the averaged network if there is one, else the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from yolor_core.errors import WeightsError
from yolor_core.weights.inert import StandIn, StoredTensor

MOST_TENSORS = 100_000  # of one network; more is a module that contains itself many times over
PLACES = ("ema", "model", "state_dict")  # in this order: the average is what the authors test


class Found(NamedTuple):
    """Named tensors, where in the checkpoint they were, and whether a whole module was saved there."""

    tensors: dict[str, StoredTensor]
    place: str
    whole: bool


def find_tensors(graph: Any, label: str) -> Found:
    """The network of a checkpoint.

    A checkpoint is a state_dict, a module, or a dict that has one under `ema`, `model` or `state_dict`; `ema`
    is taken where there is one, because it is the averaged network that the authors evaluate.
    Raises WeightsError when there is none of it.
    """
    for place, candidate in _candidates(graph):
        whole = isinstance(candidate, StandIn)
        tensors = dict(_module_tensors(candidate, label)) if whole else _plain_tensors(candidate)
        if tensors:
            return Found(_without_wrapper(tensors), place, whole)
    keys = [repr(key[:40]) for key in graph if isinstance(key, str)][:8] if isinstance(graph, dict) else []
    content = f"keys {', '.join(keys)}" if isinstance(graph, dict) else _sort(graph)
    raise WeightsError(f"{label}: no network in it: neither a state_dict nor a module ({content})")


def _candidates(graph: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(graph, dict):
        for place in PLACES:
            value = graph.get(place)
            if isinstance(value, StandIn) and "_modules" not in value.contents:
                value = value.contents.get("ema")  # a ModelEMA around the module
            if value is not None:
                yield place, value
    yield "the file itself", graph


def _plain_tensors(value: Any) -> dict[str, StoredTensor]:
    if not isinstance(value, Mapping):
        return {}
    return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, StoredTensor)}


def _module_tensors(root: StandIn, label: str) -> Iterator[tuple[str, StoredTensor]]:
    """As nn.Module.state_dict: own parameters, own persistent buffers, then the children's, in order."""
    count = 0
    stack: list[tuple[str, StandIn, int]] = [("", root, 0)]
    while stack:
        prefix, module, depth = stack.pop()
        contents = module.contents
        transient = contents.get("_non_persistent_buffers_set")
        transient = transient if isinstance(transient, (set, list, tuple)) else ()
        buffers = {k: v for k, v in _items(contents, "_buffers") if k not in transient}
        own = {**dict(_items(contents, "_parameters")), **buffers}
        for name, value in own.items():
            if isinstance(value, StoredTensor):
                yield f"{prefix}{name}", value
                count += 1
        if depth > 100 or count > MOST_TENSORS or len(stack) > MOST_TENSORS:
            raise WeightsError(f"{label}: damaged: its module contains itself")
        children = [(f"{prefix}{name}.", child, depth + 1) for name, child in _items(contents, "_modules")]
        stack.extend(child for child in reversed(children) if isinstance(child[1], StandIn))


def _items(contents: dict[str, Any], kind: str) -> Iterator[tuple[str, Any]]:
    value = contents.get(kind)
    if isinstance(value, Mapping):
        yield from ((key, item) for key, item in value.items() if isinstance(key, str))


def _without_wrapper(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Without the `module.` that parallel training puts in front of every name."""
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _sort(value: Any) -> str:
    return f"an object of {value.origin}" if isinstance(value, StandIn) else f"a {type(value).__name__}"
