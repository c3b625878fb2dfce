"""From what a checkpoint saved to named tensors: the averaged network if there is one, else the network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor

from yolor_core.errors import WeightsError
from yolor_core.weights.inert import NumpyArray, StandIn, StoredTensor

MOST_TENSORS = 100_000  # of one network; more is a module that contains itself many times over
MOST_ENTRIES = 2_000_000  # of a checkpoint, as often as it has them
DEEPEST = 6  # keys above a network
#: Where trainers keep the network that they train, in this order.
PLACES = ("model", "state_dict", "model_state_dict", "module", "net", "network", "weights", "params")
AVERAGED = {"ema", "swa", "avg", "average", "averaged", "averaging", "averager", "shadow", "polyak"}
NOT_AVERAGED = {"online", "backup", "collected", "current", "raw", "student"}  # beside an average of them
OPTIMISERS = ("optim", "sched", "scaler", "grad", "lr")
BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "anchors", "anchor_grid")
WRAPPERS = ("module", "_orig_mod")  # put in front of every name by parallel training, averaging, compilation
ROOTS = ("model.", "module_list.", *(f"{wrapper}." for wrapper in WRAPPERS))
#: Of an average, not of a network.
COUNTERS = ("n_averaged", "steps", "step", "decay", "num_updates", "initted")

Stored = StoredTensor | Tensor
HOLDERS = (StoredTensor, Tensor, StandIn, Mapping, list, tuple)


class Found(NamedTuple):
    """Named tensors, the key they were under, what they are, and what else the checkpoint has."""

    tensors: dict[str, Stored]
    key: str
    content: str  # as "a state_dict at ema.module"
    network: str  # averaged, raw, or the only one
    others: tuple[str, ...]  # top-level keys that were not read


@dataclass(frozen=True, eq=False)
class _Network:
    """Tensors that belong together. `says`: which key of the path calls them averaged, -1 for none."""

    path: tuple[str, ...]
    tensors: dict[str, Stored]
    kind: str
    says: int
    unread: dict[str, str]

    @property
    def key(self) -> str:
        return ".".join(self.path) or "the file itself"

    def big(self) -> bool:
        """Whether it can be a network: one has kernels, not only numbers and vectors."""
        return any(len(tensor.shape) > 1 for tensor in self.tensors.values())

    def unlike(self, other: _Network) -> bool:
        """Whether any tensor has another place in the file."""
        pairs = zip(self.tensors.values(), other.tensors.values(), strict=False)
        same = all(a is b or (isinstance(a, StoredTensor) and a == b) for a, b in pairs)
        return len(self.tensors) != len(other.tensors) or not same


def find_tensors(graph: Any, label: str, key: str | None = None) -> Found:
    """The network of a checkpoint: the one under `key`, else the averaged one, else the only one.

    A checkpoint is a state_dict, a module, or has one or more under keys, `DEEPEST` at most. Averaged is what
    a key calls so (ema, swa, averaged, shadow ...), apart from trainers that exchange the two when they save:
    MMEngine, and Lightning's WeightAveraging. An average of the parameters alone is completed by the other
    network's buffers.
    Raises WeightsError when there is no network, none under `key`, more than one to choose from, an average
    that does not fit the network it is of, or a tensor of a kind that cannot be read.
    """
    searched = isinstance(graph, (StandIn, Mapping))
    networks = _exchanged(graph, _own_words(list(_Search(label).walk(graph)) if searched else []))
    networks = [n for n in networks if n.big() or n.path == () or n.path[0] in PLACES]
    averaged = [n for n in networks if n.says >= 0 and n.big()]
    raw = [n for n in networks if n.says < 0]
    if key is not None:
        chosen = _named(networks, key, label)
    elif averaged:
        chosen = _single(averaged, "averaged networks", label, networks)
        if raw and chosen.path[-1:] == ("ema_",):
            raise WeightsError(
                f"{label}: has a second network under names with ema_, which trainers exchange with the "
                f"first when they save; choose with --key: {_keys(networks)}"
            )
    elif raw:
        chosen = _trained(raw) or _single(raw, "networks", label, networks)
        twins = [n for n in raw if n.tensors.keys() == chosen.tensors.keys() and n.unlike(chosen)]
        if twins:  # an average under a name that says nothing, as of a teacher
            _single([chosen, *twins], "whole networks", label, networks)
    else:
        names = (
            [repr(name[:40]) for name in graph if isinstance(name, str)] if isinstance(graph, dict) else []
        )
        content = f"keys {', '.join(names[:8])}" if isinstance(graph, dict) else _sort(graph)
        raise WeightsError(f"{label}: no network in it: neither a state_dict nor a module ({content})")
    tensors, content = chosen.tensors, f"{chosen.kind} at {chosen.key}"
    if chosen in averaged and (other := _trained(raw)):
        tensors = _completed(chosen, other, label)
        if added := len(tensors) - len(chosen.tensors):
            content += f" with {added} buffers of {other.key}"
    for name, origin in chosen.unread.items():
        raise WeightsError(f"{label}: {name} at {chosen.key} is of a kind that cannot be read ({origin})")
    network = "averaged" if chosen in averaged else "raw" if averaged else "only"
    others = (
        [name for name in graph if isinstance(name, str)] if isinstance(graph, dict) and chosen.path else []
    )
    return Found(tensors, chosen.key, content, network, tuple(o for o in others if o != chosen.path[0]))


class _Search:
    """All networks of a checkpoint, with a budget against graphs that contain themselves."""

    def __init__(self, label: str) -> None:
        self.label, self.left = label, MOST_ENTRIES

    def walk(
        self, value: Any, path: tuple[str, ...] = (), says: int = -1, optimiser: bool = False
    ) -> Iterator[_Network]:
        """Networks in `value`, each with its path; in an optimiser averaged ones only."""
        whole = isinstance(value, StandIn) and "_modules" in value.contents
        entries = dict(self._module(value)) if whole else _entries(value)
        self.left -= len(entries) + 1
        if self.left < 0:
            raise WeightsError(f"{self.label}: damaged: it contains itself")
        tensors = {name: item for name, item in entries.items() if isinstance(item, (StoredTensor, Tensor))}
        if tensors and (says >= 0 or not optimiser):
            listed = "a list of tensors" if isinstance(value, (list, tuple)) else "a state_dict"
            unread = {
                n: i.origin for n, i in entries.items() if isinstance(i, StandIn) and "._rebuild" in i.origin
            }
            yield from self._split(tensors, path, "a whole module" if whole else listed, says, unread)
        for name, item in entries.items() if len(path) < DEEPEST and not whole else ():
            if name not in tensors:
                words = _words(name) | _words(
                    item.origin.rpartition(".")[2] if isinstance(item, StandIn) else ""
                )
                within = optimiser or any(word.startswith(OPTIMISERS) for word in words)
                known = AVERAGED - {"avg", "average"} if within else AVERAGED
                here = len(path) if words & known else -1 if words & NOT_AVERAGED else says
                yield from self.walk(item, (*path, name), here, within)

    def _module(self, root: StandIn) -> Iterator[tuple[str, StoredTensor | StandIn]]:
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
                if isinstance(value, (StoredTensor, StandIn)):
                    yield f"{prefix}{name}", value
                    count += 1
            if depth > 100 or count > MOST_TENSORS or len(stack) > MOST_TENSORS:
                raise WeightsError(f"{self.label}: damaged: its module contains itself")
            children = [
                (f"{prefix}{name}.", child, depth + 1) for name, child in _items(contents, "_modules")
            ]
            stack.extend(child for child in reversed(children) if isinstance(child[1], StandIn))

    def _split(
        self, tensors: Mapping[str, Stored], path: tuple[str, ...], kind: str, says: int, unread: Any = None
    ) -> Iterator[_Network]:
        """One network, or an averaged one beside it under names of its own, as `model_ema.conv.weight`."""
        tensors, unread = _without_wrapper(tensors), unread or {}
        groups: dict[str, dict[str, Stored]] = {"": {}}
        for name, tensor in tensors.items():
            first = name.partition(".")[0] if "." in name else "ema_" if name.startswith("ema_") else ""
            first = first if _words(first) & AVERAGED else ""
            groups.setdefault(first, {})[name[len(first) :].removeprefix(".")] = tensor
        for first, group in groups.items():
            inner = (*path, first) if first else path
            known = len(path) if first else -1 if len(groups) > 1 else says
            if group:
                yield _Network(inner, _without_wrapper(group), kind, known, {} if first else unread)


def _entries(value: Any) -> dict[str, Any]:
    """What is in a container or an object and may hold tensors; numpy's arrays are tensors here."""
    if isinstance(value, StandIn):
        pairs: Any = {**value.contents, **value.items}.items()
    else:
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
    return {
        str(name): item.stored or item if isinstance(item, NumpyArray) else item
        for name, item in pairs
        if isinstance(item, HOLDERS) and isinstance(name, (str, int))
    }


def _words(name: str) -> set[str]:
    """`modelEMA_state2` -> model, ema, state."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def _own_words(networks: list[_Network]) -> list[_Network]:
    """Of several in one average, those that are called so themselves: `ema.shadow`, not `ema.model`."""

    def demoted(one: _Network) -> bool:
        within = one.path[: one.says + 1]
        return any(n.path[: one.says + 1] == within and n.says > one.says for n in networks)

    return [replace(n, says=-1) if n.says >= 0 and demoted(n) else n for n in networks]


def _exchanged(graph: Any, networks: list[_Network]) -> list[_Network]:
    """MMEngine's EMAHook and Lightning's WeightAveraging put the average where the network was."""
    keys = graph if isinstance(graph, dict) else {}
    meta = keys.get("meta")
    mmengine = "message_hub" in keys or (isinstance(meta, dict) and "mmengine_version" in meta)
    if (mmengine and "ema_state_dict" in keys) or "current_model_state" in keys:
        says = {"state_dict": 0, "ema_state_dict": -1, "current_model_state": -1}
        return [replace(n, says=says[n.key]) if n.key in says else n for n in networks]
    return networks


def _named(networks: Sequence[_Network], key: str, label: str) -> _Network:
    for fits in (lambda n: n.key == key, lambda n: n.key.startswith(f"{key}.")):
        fitting = [network for network in networks if fits(network)]
        if len(fitting) == 1:
            return fitting[0]
    raise WeightsError(f"{label}: no network at {key}; there is one at: {_keys(networks)}")


def _single(fitting: Sequence[_Network], what: str, label: str, known: Sequence[_Network]) -> _Network:
    """The only network, or one whose tensors are all the same. Raises WeightsError for a choice."""
    if any(network.unlike(fitting[0]) for network in fitting):
        raise WeightsError(f"{label}: has {len(fitting)} {what}; choose with --key: {_keys(known)}")
    return fitting[0]


def _trained(networks: Sequence[_Network]) -> _Network | None:
    """The network that is trained, as far as that is clear."""
    for place in PLACES:
        for network in networks:
            if network.path == (place,):
                return network
    flat = [network for network in networks if not network.path and network.big()]
    within = [network for network in networks if network.path and network.path[0] in PLACES]
    fitting = flat or within or [network for network in networks if network.big()] or networks
    return fitting[0] if fitting and not any(n.unlike(fitting[0]) for n in fitting) else None


def _completed(average: _Network, other: _Network, label: str) -> dict[str, Stored]:
    """The average with what it does not average: the other network's buffers.

    Names are the other's, the average's own may lack their dots or be the places in a list.
    """
    full = other.tensors
    learnt = [name for name in full if not name.endswith(BUFFERS) and ".xfm." not in name]
    if average.tensors.keys() >= set(learnt):
        return {**{name: average.tensors.get(name, full[name]) for name in full}, **average.tensors}
    if average.kind == "a list of tensors":
        found = dict(zip(learnt, average.tensors.values(), strict=False))
    else:
        bare = {_bare(name): tensor for name, tensor in average.tensors.items()}
        found = {name: bare[_bare(name)] for name in full if _bare(name) in bare}
    same = all(tuple(found[name].shape) == tuple(full[name].shape) for name in found)
    if found.keys() >= set(learnt) and len(found) == len(average.tensors) and same:
        return {name: found.get(name, full[name]) for name in full}
    if any(name.endswith("running_mean") for name in average.tensors):
        return average.tensors  # a whole network, under names of its own
    raise WeightsError(
        f"{label}: the averaged network at {average.key} has {len(average.tensors)} tensors, which do not "
        f"fit the {len(learnt)} learnt ones at {other.key}; --key {other.key} reads that one as it is"
    )


def _bare(name: str) -> str:
    return re.sub(r"[._]", "", name)


def _keys(networks: Sequence[_Network]) -> str:
    return ", ".join(dict.fromkeys(network.key for network in networks if network.path))


def _items(contents: dict[str, Any], kind: str) -> Iterator[tuple[str, Any]]:
    value = contents.get(kind)
    if isinstance(value, Mapping):
        yield from ((key, item) for key, item in value.items() if isinstance(key, str))


def _without_wrapper(tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """Without an average's counters, and what parallel training and the like put in front of all names."""
    names = [name for name in tensors if name not in COUNTERS]
    result = {name: tensors[name] for name in names} if names else dict(tensors)
    while result:
        first = next(iter(result)).partition(".")[0]
        inner = {name.removeprefix(f"{first}."): tensor for name, tensor in result.items()}
        wrapped = all(name.startswith(f"{first}.") for name in result)
        if not wrapped or (first not in WRAPPERS and not all(name.startswith(ROOTS) for name in inner)):
            break
        result = inner
    return result


def _sort(value: Any) -> str:
    return f"an object of {value.origin}" if isinstance(value, StandIn) else f"a {type(value).__name__}"
