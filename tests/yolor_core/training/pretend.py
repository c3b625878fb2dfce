"""A second device that any machine has: it computes on the CPU, but keeps apart from it as a GPU does.

`PretendTensor` calls itself by the name of torch's place for devices of others ("private use"), so unchanged
code takes the branches of a GPU. What a GPU refuses is refused: an operator that is given tensors of both
devices. What a GPU is waited for is noted: reading values, shapes that depend on values, copies that are not
both asynchronous and from page-locked memory.

It cannot show what a GPU's own kernels do: numbers, autocast's lists of operators, memory, speed, NCCL.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch.utils import _pytree as pytree
from torch.utils._foreach_utils import _foreach_supported_types
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
KNOWN = ("2.11", "2.12")  # torch versions whose private interfaces are those used here
HALF = ("conv2d", "linear", "matmul", "mm", "addmm", "bmm", "baddbmm")  # of CUDA's list, what the models use
COPIES = ("aten::copy_", "aten::_to_copy", "aten::_foreach_copy_")
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
WAITING = ("torchvision::nms",)  # and what torch's own tags say

_waits: list[str] = []
_locked: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()  # "page-locked" memory


class MixedDevicesError(RuntimeError):
    """What CUDA calls "Expected all tensors to be on the same device"."""


class PretendTensor(torch.Tensor):
    """Says of itself what the tensor of the CPU is that it holds, but for the device."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> PretendTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    @property
    def data(self) -> torch.Tensor:
        """The same values without a graph; modules put the converted ones here."""
        return self.detach()

    @data.setter
    def data(self, values: torch.Tensor) -> None:
        if not isinstance(values, PretendTensor):
            raise MixedDevicesError(f"data of a tensor on {NAME} set to one on {values.device}")
        torch.Tensor.data.__set__(self, values)
        self.held = values.held

    def __repr__(self, **_: Any) -> str:
        return f"PretendTensor({self.held})"

    def tolist(self) -> Any:
        """The values in Python, for which a GPU is waited for once."""
        _waits.append("tolist")
        return self.held.tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As a tensor of the CPU, which is what a GPU's is after `map_location="cpu"`."""
        return self.held.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, *args, **(kwargs or {}))


def _run(func: Any, *args: Any, **kwargs: Any) -> Any:
    """An operator with tensors of this device among its arguments, or that makes one."""
    flat, spec = pytree.tree_flatten((args, kwargs))
    ours = [x for x in flat if isinstance(x, PretendTensor)]
    others = [x for x in flat if isinstance(x, torch.Tensor) and not isinstance(x, PretendTensor)]
    name = func.name().split(".")[0]
    _refuse_mixture(func, name, args, ours, others)
    if _waits_for_the_device(func, name, args, kwargs, ours, others):
        _waits.append(name)

    wrapped = {id(x.held): x for x in ours}
    plain = [x.held if isinstance(x, PretendTensor) else x for x in flat]
    plain_args, plain_kwargs = pytree.tree_unflatten(plain, spec)
    target = kwargs.get("device")
    if target is not None and torch.device(target).type == NAME:
        plain_kwargs["device"] = torch.device("cpu")
    plain_kwargs.pop("pin_memory", None)
    found = func(*plain_args, **plain_kwargs)
    if any(x.held.shape != x.shape for x in ours):
        raise NotImplementedError(f"{name} gives a tensor another size, which `PretendTensor` cannot follow")
    leaves = (target is not None and torch.device(target).type != NAME) or (
        name == "aten::copy_" and not isinstance(args[0], PretendTensor)
    )

    def wrap(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or leaves:
            return value
        return wrapped.get(id(value)) if id(value) in wrapped else PretendTensor(value)

    return pytree.tree_map(wrap, found)


def _refuse_mixture(func: Any, name: str, args: tuple, ours: list, others: list) -> None:
    """Raises MixedDevicesError where CUDA would."""
    if not ours or not others or name in COPIES:
        return
    into_ours = bool(args) and isinstance(args[0], PretendTensor)
    if name in INDEXING and into_ours:  # positions may come from the CPU, values only as a single number
        others = [x for x in args[2:] if isinstance(x, torch.Tensor) and not isinstance(x, PretendTensor)]
    elif torch.Tag.pointwise in func.tags and not _written(func, args, others):
        others = [x for x in others if x.dim()]  # a single number may come from the CPU
    if others:
        shapes = ", ".join(str(tuple(x.shape)) for x in others)
        raise MixedDevicesError(f"{name}: tensors on {NAME} and on cpu: {shapes}")


def _written(func: Any, args: tuple, others: list) -> bool:
    """Whether an operator writes into one of some tensors."""
    slots = [s for s, a in zip(args, func._schema.arguments, strict=False) if a.alias_info is not None]
    return any(slot is other for slot in slots for other in others)


def _waits_for_the_device(
    func: Any, name: str, args: tuple, kwargs: dict[str, Any], ours: list, others: list
) -> bool:
    if not ours:
        return False
    if name in COPIES:
        target = kwargs.get("device")
        leaves = target is not None and torch.device(target).type != NAME
        if not leaves and not others:
            return False
        asynchronous = bool(kwargs.get("non_blocking")) or any(x is True for x in args[2:])
        return not asynchronous or leaves or not all(x.untyped_storage() in _locked for x in others)
    if name in INDEXING:  # a mask's places have to be counted first; positions of the CPU are copied
        indices = [i for i in args[1] if i is not None]
        return any(i.dtype in (torch.bool, torch.uint8) or not isinstance(i, PretendTensor) for i in indices)
    wait = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
    return bool(wait & set(func.tags)) or name in WAITING


@contextmanager
def waits() -> Iterator[list[str]]:
    """Notes the operators inside that a GPU would be waited for."""
    _waits.clear()
    yield _waits


class Module:
    """What torch asks of `torch.cuda`, for this device."""

    @staticmethod
    def is_available() -> bool:
        return True

    is_initialized = is_available

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        pass

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    @staticmethod
    def get_device_name(device: torch.device) -> str:
        return "the CPU, pretending"

    @staticmethod
    def synchronize(device: torch.device) -> None:
        _waits.append("synchronize")

    @staticmethod
    def max_memory_allocated(device: torch.device) -> int:
        return 2**20


_libraries: list[torch.library.Library] = []  # what they register ends with them


@contextmanager
def device() -> Iterator[torch.device]:
    """The device; its name and operators stay known to torch for the rest of the process."""
    if not _libraries:
        _register()
    known, lock = _foreach_supported_types, torch.Tensor.pin_memory
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(..., device=)` copies as it does to any device
    known.append(PretendTensor)  # so that sums over many tensors take the path of a GPU
    torch.Tensor.pin_memory = _lock  # type: ignore[method-assign, assignment]
    try:
        # In this thread: whoever went backward before the device was known has made threads for no other.
        with torch.autograd.set_multithreading_enabled(False):
            yield torch.device(NAME, 0)
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
        known.remove(PretendTensor)
        torch.Tensor.pin_memory = lock  # type: ignore[method-assign]


def _register() -> None:
    _setup_privateuseone_for_python_backend(NAME, Module())
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(_run, "PrivateUse1")
    uncast = torch.library.Library("_", "IMPL")
    uncast.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    own = torch.library.Library("aten", "IMPL")
    for name in ("arange", "arange.start", "arange.start_step"):  # made of nothing, then given their size
        operator = torch.ops.aten.arange
        overload = getattr(operator, name.partition(".")[2] or "default")
        own.impl(name, partial(_run, overload), "PrivateUse1")
    for name in HALF:
        own.impl(name, _in_half(getattr(torch.ops.aten, name).default), "AutocastPrivateUse1")
    dist.Backend.register_backend("pretended", dist.ProcessGroupGloo, devices=[NAME])  # in place of NCCL
    _libraries.extend([everything, uncast, own])


def _in_half(operator: Any) -> Any:
    """An operator whose floating-point tensors autocast makes half, as CUDA's does."""

    def call(*args: Any, **kwargs: Any) -> Any:
        kind = torch.get_autocast_dtype(NAME)
        args = tuple(x.to(kind) if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in args)
        key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
        with torch._C._ExcludeDispatchKeyGuard(key):
            return operator(*args, **kwargs)

    return call


def _lock(values: torch.Tensor, device: Any = None) -> torch.Tensor:
    """In place of `Tensor.pin_memory`, which needs a driver: the same values, known as page-locked."""
    if values.untyped_storage() in _locked:
        return values
    values = values.clone()
    _locked.add(values.untyped_storage())
    return values
