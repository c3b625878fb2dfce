"""Nothing that a file asks for is run: names of programs are refused, all others are passed over."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import enum
import fractions
import functools
import io
import math
import operator
import os
import pathlib
import pickle
import platform
import sys
import time
import types
import uuid
import zipfile
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from tests.yolor_core.weights.fake_authors import authors_modules, save
from yolor_core.errors import WeightsError
from yolor_core.models import create_model, named_config
from yolor_core.weights import import_weights
from yolor_core.weights.checkpoint import find_tensors
from yolor_core.weights.formats import authors_state
from yolor_core.weights.importing import ZipContainer
from yolor_core.weights.inert import unpickle

SMALL = create_model(
    named_config("yolor-ssss-s2d").model_copy(update={"width": 0.125, "depth": 0.34}), seed=1
)


class Calls:
    """Pickles to a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def payloads(sentinel: Path) -> dict[str, Calls]:
    code = f"open({str(sentinel)!r}, 'w').close()"
    return {
        f"{os.system.__module__}.system": Calls(os.system, f"touch {sentinel}"),
        "builtins.exec": Calls(exec, code),
        "builtins.eval": Calls(eval, code),
        f"{open.__module__}.open": Calls(open, str(sentinel), "w"),
        "torch.hub.load": Calls(torch.hub.load, "repository", "model"),
        "torch.serialization.load": Calls(torch.load, "file"),
    }


NAMES = list(payloads(Path("x")))


def hidden_in_a_state_dict(payload: Calls) -> Any:
    return {"model": collections.OrderedDict(a=torch.ones(2), b=payload)}


def hidden_in_the_optimiser(payload: Calls) -> Any:
    return {"model": {"a": torch.ones(2)}, "optimizer": {"state": [payload]}}


def hidden_in_a_hook_of_a_module(payload: Calls) -> Any:
    layer = nn.Conv2d(1, 1, 1)
    layer._forward_hooks[0] = payload  # type: ignore[assignment]
    return {"model": layer}


def hidden_in_a_key(payload: Calls) -> Any:
    return {payload: torch.ones(2)}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "hide", [hidden_in_a_state_dict, hidden_in_the_optimiser, hidden_in_a_hook_of_a_module, hidden_in_a_key]
)
@pytest.mark.parametrize("name", NAMES)
def test_call_of_a_real_function_is_refused_by_name_and_not_made(
    name: str, hide: Callable[[Calls], Any], legacy: bool, tmp_path: Path
) -> None:
    sentinel, path = tmp_path / "sentinel", tmp_path / "bad.pt"
    save(hide(payloads(sentinel)[name]), path, legacy)
    with pytest.raises(WeightsError, match=rf"refused.* {name} ") as caught:
        import_weights(path, "yolor-ssss-s2d")
    assert "\n" not in str(caught.value)
    assert not sentinel.exists()


def test_call_of_any_other_function_is_not_made(tmp_path: Path) -> None:
    """getattr, which enumerations and time zones are pickled with, and a function that leaves a mark."""
    marker, path = tmp_path / "marker", tmp_path / "w.pt"
    state = authors_state(SMALL)
    calls = [Calls(os.mkdir, str(marker)), Calls(getattr, Calls(os.mkdir, str(marker)), "upper")]
    torch.save({"model": state, "extra": calls}, path)
    found, report = import_weights(path, SMALL.config)
    assert not marker.exists() and report.others == ("extra",)
    assert all(torch.equal(found[name], value) for name, value in SMALL.state_dict().items())
    pickle.loads(pickle.dumps(calls[0]))
    assert marker.exists()  # it would have run


class Colour(enum.Enum):
    RED = 1


class Point(NamedTuple):
    x: int


class Words(collections.UserDict[str, int]):
    pass


class Kept(torch.Tensor):
    pass


def extras() -> dict[str, Any]:
    """What trainers keep beside the weights."""
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    return {
        "paths": [Path("/a"), pathlib.PureWindowsPath("c:/a")],
        "times": [
            datetime.datetime.now(zone),
            datetime.datetime.now(datetime.UTC),
            datetime.timedelta(1),
            zone,
        ],
        "versions": [torch.__version__, platform.uname(), sys.version_info[:3]],
        "numbers": [3 + 4j, decimal.Decimal("0.1"), fractions.Fraction(1, 3), np.float64(0.1), np.arange(6)],
        "numpy": [
            np.array(["a"]),
            np.array([{}, None]),
            np.datetime64("2026-01-01"),
            np.random.default_rng(0),
        ],
        "containers": [collections.deque([1]), collections.Counter("aab"), Words(a=1), Point(3), range(3)],
        "bytes": [bytearray(b"x"), b"", b"\xff", slice(1, 2), uuid.uuid4(), types.SimpleNamespace(a=1)],
        "keys": {
            0.5: 1,
            None: 2,
            (1, (2, "a")): 3,
            frozenset({1}): 4,
            Colour.RED: 5,
            torch.float32: 6,
            1j: 7,
        },
        "sets": [{1, "a"}, frozenset({(1, 2)}), {Colour.RED}, {Path("a")}],
        "functions": [functools.partial(max, 1), math.sin, nn.Conv2d, operator.itemgetter(1), "".join],
        "torch": [torch.float16, torch.device("cpu"), torch.Size([1]), torch.Generator(), torch.strided],
        "scaler": torch.amp.GradScaler("cpu"),
        "optimiser": torch.optim.Adam([nn.Parameter(torch.ones(2, 2))]),
        "tensors": [torch.zeros(3, dtype=kind) for kind in (torch.uint16, torch.uint64, torch.complex64)],
        "eighths": [torch.ones(4).to(kind) for kind in (torch.float8_e4m3fn, torch.float8_e5m2)],
        "other tensors": [
            torch.eye(2).to_sparse(),
            torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
            torch.empty(2, device="meta"),
            torch.ones(2).as_subclass(Kept),
            torch.ones(2).untyped_storage(),
        ],
        "options": argparse.Namespace(lr=0.1),
        "error": ValueError("x"),
    }


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_what_trainers_keep_beside_the_weights_is_passed_over(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({**extras(), "model": authors_state(SMALL)}, path, pickle_protocol=protocol)
    found, report = import_weights(path, SMALL.config)
    assert all(torch.equal(found[name], value) for name, value in SMALL.state_dict().items())
    assert report.others == tuple(extras())


def test_weights_of_every_kind_that_holds_their_numbers(tmp_path: Path) -> None:
    """Subclasses, 8-bit floats, unsigned integers and numpy's arrays, row and column first."""
    names = list(authors_state(SMALL))
    kinds: list[Callable[[torch.Tensor], Any]] = [
        lambda t: nn.Parameter(t) if t.is_floating_point() else t,
        lambda t: t.as_subclass(Kept),
        lambda t: t.numpy(),
        lambda t: np.array(t.numpy(), order="F"),
        lambda t: t.numpy().astype(np.float64),
    ]
    state = {n: kinds[i % len(kinds)](v) for i, (n, v) in enumerate(authors_state(SMALL).items())}
    torch.save({"model": state}, tmp_path / "w.pt")
    found, _ = import_weights(tmp_path / "w.pt", SMALL.config)
    assert all(torch.equal(found[name], value) for name, value in SMALL.state_dict().items())
    for kind in (torch.uint16, torch.float8_e5m2):
        one = {n: v.abs().mul(4).to(kind) if n == names[0] else v for n, v in authors_state(SMALL).items()}
        torch.save({"model": one}, tmp_path / "w.pt")
        found, report = import_weights(tmp_path / "w.pt", SMALL.config)
        assert torch.equal(next(iter(found.values())), one[names[0]].float())
        assert report.cast_from == (str(kind)[6:],)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.to_sparse(),
        lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
        lambda t: t.to("meta"),
        lambda t: t.to(torch.complex64),
    ],
    ids=["sparse", "quantised", "meta", "complex"],
)
def test_weight_without_readable_numbers_is_named(change: Callable[[Any], Any], tmp_path: Path) -> None:
    state = authors_state(SMALL)
    name = next(iter(state))
    torch.save({"model": {**state, name: change(state[name])}}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=rf"{name} (at model is of a kind that cannot|has complex)"):
        import_weights(tmp_path / "w.pt", SMALL.config)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_bare_pickle_is_refused_by_name(protocol: int, tmp_path: Path) -> None:
    sentinel, path = tmp_path / "sentinel", tmp_path / "bad.pt"
    path.write_bytes(pickle.dumps(Calls(os.system, f"touch {sentinel}"), protocol))
    with pytest.raises(WeightsError, match=r"posix\.system|nt\.system"):
        import_weights(path, "yolor-ssss-s2d")
    assert not sentinel.exists()


def test_the_payload_would_have_run(tmp_path: Path) -> None:
    """The sentinel is not just absent because the payload is broken."""
    sentinel = tmp_path / "sentinel"
    pickle.loads(pickle.dumps(payloads(sentinel)["builtins.exec"]))
    assert sentinel.exists()


def test_a_whole_module_never_runs_its_own_setstate(tmp_path: Path) -> None:
    with authors_modules() as classes:
        classes["Model"].__setstate__ = lambda *_: pytest.fail("state was set by the authors' class")
        save({"model": classes["Model"]()}, tmp_path / "m.pt", legacy=False)
        with pytest.raises(WeightsError, match="no network"):
            import_weights(tmp_path / "m.pt", "yolor-ssss-s2d")


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


PROGRAMS = {
    "state for a function of ours": REBUILD + b"}S'x'\nI1\nsb.",
    "attributes of a stand-in's class": b"cmodels.yolo\nModel\n}S'x'\nI1\nsb.",
    "attributes of a container's class": b"ccollections\nOrderedDict\n}S'x'\nI1\nsb.",
    "state for a storage type": b"ctorch\nFloatStorage\n}S'dtype'\nI1\nsb.",
    "a tensor of no storage": REBUILD + b"(I1\nI0\n(I1\nt(I1\nttR.",
    "a reference of unknown kind": b"(S'file'\nS'/etc/passwd'\ntQ.",
    "an extension": b"\x82\x01.",
    "an object numbered two thousand million": b"N" + b"r\xff\xff\xff\x7f" + b".",
    "text longer than the file": b"\x8d\x00\x00\x00\x00\x00\x00\x00\x7f.",
    "no end": b"N",
    "an unknown instruction": b"\xff.",
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_hostile_program_is_one_clear_error(what: str) -> None:
    with pytest.raises(WeightsError, match=r"file: (refused|damaged)"):
        unpickle(io.BytesIO(PROGRAMS[what]), "file")


def rewrite(path: Path, member: str, change: Callable[[bytes], bytes], method: int = 0) -> None:
    """Change one member of an archive; its checksum is right again."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, change(data) if name.endswith(member) else data)


def _four(tmp_path: Path) -> Path:
    torch.save({"a.weight": torch.arange(4.0)}, tmp_path / "four.pt")
    return tmp_path / "four.pt"


TORN = {
    "larger than its storage": (b"K\x04\x85", b"K\x7f\x85"),
    "strides beyond its storage": (b"K\x01\x85", b"K\x7f\x85"),
}


@pytest.mark.parametrize("how", TORN)
def test_tensor_outside_of_its_numbers_is_damage(how: str, tmp_path: Path) -> None:
    path = _four(tmp_path)
    rewrite(path, "data.pkl", lambda data: data.replace(*TORN[how], 1))
    container = ZipContainer(path)
    with pytest.raises(WeightsError, match=r"damaged: a\.weight"):
        container.tensor(find_tensors(container.graph, "file").tensors["a.weight"], "a.weight")


SHAPES = {
    "negative": b"J\xff\xff\xff\xff\x85",
    "none": b"N\x85",
    "text": b"X\x01\x00\x00\x004\x85",
    "no tuple": b"K\x04",
    "beyond 64 bits": b"\x8a\x09" + b"\x01" * 9 + b"\x85",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_that_is_none_is_damage(shape: str, tmp_path: Path) -> None:
    path = _four(tmp_path)
    rewrite(path, "data.pkl", lambda data: data.replace(b"K\x04\x85", SHAPES[shape], 1))
    with pytest.raises(WeightsError, match=r"damaged.*shape is none"):
        import_weights(path, "yolor-ssss-s2d")


NESTED = b"K\x01" + b"2\x86" * 60  # (t, t) of (t, t) of ... : hashing or printing it takes 2 ** 60 steps
KEYS = {
    "setitem": b"\x80\x02}" + NESTED + b"K\x01s.",
    "setitems": b"\x80\x02}(" + NESTED + b"K\x01u.",
    "dict": b"\x80\x02(" + NESTED + b"K\x01d.",
    "additems": b"\x80\x04\x8f(" + NESTED + b"\x90.",
    "frozenset": b"\x80\x04(" + NESTED + b"\x91.",
    "set call": b"\x80\x02c__builtin__\nset\n](" + NESTED + b"e\x85R.",
    "mapping call": b"\x80\x02ccollections\nOrderedDict\n]](" + NESTED + b"K\x01ea\x85R.",
    "storage": b"\x80\x02(X\x07\x00\x00\x00storage" + NESTED + b"tQ.",
    "reference": b"\x80\x02" + NESTED + b"Q.",
}


@pytest.mark.parametrize("program", KEYS)
def test_nested_keys_that_take_for_ever_are_refused_at_once(program: str, tmp_path: Path) -> None:
    path = _four(tmp_path)
    rewrite(path, "data.pkl", lambda data: KEYS[program])
    began = time.process_time()
    with pytest.raises(WeightsError):
        import_weights(path, "yolor-ssss-s2d")
    assert time.process_time() - began < 60  # against 2 ** 60 steps


def two_pickles(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("again/data.pkl", b"N.")


def a_loop(path: Path) -> None:
    layer = nn.Sequential(nn.Conv2d(1, 1, 1))
    layer._modules["again"] = layer
    torch.save({"model": layer}, path)


def shadowed_methods(path: Path) -> None:
    state = collections.OrderedDict(a=torch.ones(2))
    state.get = state.keys = collections.OrderedDict  # type: ignore[method-assign, assignment]
    torch.save(state, path)


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "names that are no text": (
        lambda path: rewrite(path, "data.pkl", lambda data: b"\x80\x02}(K\x01K\x02N\x88u."),
        "no network in it",
    ),
    "two pickles": (two_pickles, "2 files data.pkl"),
    "compressed": (lambda path: rewrite(path, "data/0", bytes, zipfile.ZIP_DEFLATED), "compressed"),
    "a module that contains itself": (a_loop, "contains itself"),
    "a mapping whose methods are shadowed": (shadowed_methods, "its names are unknown"),
    "TorchScript": (lambda path: torch.jit.script(nn.ReLU()).save(path), "TorchScript"),
}


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("how", SPOILT)
def test_file_that_is_no_checkpoint_is_one_clear_error(how: str, tmp_path: Path) -> None:
    path = _four(tmp_path)
    spoil, message = SPOILT[how]
    spoil(path)
    with pytest.raises(WeightsError, match=message):
        import_weights(path, "yolor-ssss-s2d")
