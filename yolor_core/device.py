"""Where a model runs and how it computes there: device, precision, memory format, compilation, memory."""

from __future__ import annotations

import copy
import ctypes
import os
import resource
import sysconfig
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from yolor_core.config import NumericsConfig
from yolor_core.errors import ConfigError, summary
from yolor_core.models.blocks import BNAct, normalised
from yolor_core.runs.directory import cache_folder

KINDS = ("cpu", "cuda")  # of devices that this was written for


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """`auto` is the first GPU, or the CPU where there is none. Raises ConfigError for what is not there.

    `local_rank`: of several processes that train together, which one on this machine; with `auto` and `cuda`
    each takes a GPU of its own. On a GPU float32 is float32 in this process from now on: torch would round
    convolutions to TF32, and `evaluate` would then score a run otherwise than its training did; but a run
    trained with `numerics.precision=tf32` is scored in TF32 by its training and in float32 by `evaluate`.
    """
    device = _chosen(name, local_rank)
    if is_gpu(device):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return device


def _chosen(name: str, local_rank: int | None) -> torch.device:
    if local_rank is not None and name in ("auto", "cuda") and torch.cuda.is_available():
        visible = torch.cuda.device_count()
        if local_rank >= visible > 1:  # one visible GPU may be the scheduler's choice for this rank alone
            raise ConfigError(f"execution.device = {name!r}: rank {local_rank} here, but only {visible} GPUs")
        name = f"cuda:{local_rank % visible}"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    unknown = ConfigError(f"execution.device = {name!r}; allowed: auto, cpu, cuda, cuda:N")
    try:
        device = torch.device(name)
    except RuntimeError:  # which names twenty kinds of device, but not these
        raise unknown from None
    if device.type not in KINDS:
        raise unknown
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"execution.device = {name!r}, but torch sees no GPU here; allowed: auto, cpu")
    if name == "cuda":  # `init_process_group` refuses a device without an index
        device = torch.device("cuda", torch.cuda.current_device())
    if device.type == "cuda":
        torch.cuda.set_device(device)  # else page-locked memory would be another GPU's, and no count begun
    return device


def is_gpu(device: torch.device) -> bool:
    """Whether tensors there are computed on beside the CPU, which has to wait for them.

    Everything but the CPU: the tests' own device takes the branches of a GPU, and no code asks for "cuda".
    """
    return device.type != "cpu"


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given; the CPU has."""
    if is_gpu(device):
        torch.get_device_module(device).synchronize(device)


def peak_memory(device: torch.device) -> float:
    """The most MiB that tensors on the GPU have taken so far; on the CPU the most that the process has."""
    if is_gpu(device):
        return float(torch.get_device_module(device).max_memory_allocated(device)) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` of a GPU begin anew; a process keeps its peak."""
    if is_gpu(device):
        torch.get_device_module(device).reset_peak_memory_stats(device)


def free_memory(device: torch.device) -> None:
    """Give memory that no tensor uses back to the GPU; the CPU's is kept, see `keep_freed_memory`."""
    if is_gpu(device):
        torch.get_device_module(device).empty_cache()


def device_name(device: torch.device) -> str:
    """What the GPU calls itself, or "cpu"."""
    return str(torch.get_device_module(device).get_device_name(device)) if is_gpu(device) else "cpu"


def exchange_backend(device: torch.device) -> str:
    """What torch.distributed exchanges tensors with: gloo, beside it the GPU's own for tensors there."""
    if not is_gpu(device):
        return "gloo"
    return f"cpu:gloo,{device.type}:{dist.get_default_backend_for_device(device)}"


Model = TypeVar("Model", bound=nn.Module)
HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Numerics:
    """How one run computes on one device.

    A GPU's TF32 is a setting of the whole process: it is set here, to what `precision` says.
    """

    def __init__(self, config: NumericsConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.half = HALF.get(config.precision)
        if config.compile:
            _settings_of_the_compiler()
        if is_gpu(device):
            rounded = config.precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = rounded
            torch.backends.cudnn.allow_tf32 = rounded
            torch.backends.cudnn.benchmark = True  # shapes rarely change

    def model(self, model: Model) -> Model:
        """Bring a model to the device and into the memory format."""
        model = model.to(self.device)
        return model.to(memory_format=torch.channels_last) if self.config.channels_last else model  # type: ignore[call-overload]

    def use_kernels(self, model: nn.Module) -> None:
        """Let a model that is to be trained use the kernels of `models.cpu` where they are the faster way:
        in float32 on one thread of a CPU, and not compiled. Its state_dict and memory format stay."""
        half = self.half is not None
        if is_gpu(self.device) or half or self.config.compile or torch.get_num_threads() > 1:
            return
        from yolor_core.models.cpu import use_kernels  # numba takes a second to import

        use_kernels(model)

    def compile(self, model: nn.Module) -> None:
        """Compile a model's normalisations with their activations where asked for; its state_dict stays.

        They are compiled once for all blocks, sizes and batches, in half a minute. A whole model would take
        minutes for every architecture and size, and again for the last, smaller batch of an epoch. Later runs
        find the code in the user's cache (ABLATE_CACHE), or in TORCHINDUCTOR_CACHE_DIR where that is set.
        Raises ConfigError where this machine cannot compile, torch.OutOfMemoryError where the GPU is full.
        """
        if not self.config.compile:
            return
        compiled = torch.compile(normalised, dynamic=True)
        blocks = [module for module in model.modules() if isinstance(module, BNAct)]
        for block in blocks:
            block.normalised = compiled
        # Now, so that a machine that cannot says so before the run begins; and with the same example in every
        # attempt at a run, because its size decides in which order sums are taken, whatever the size.
        memory = torch.channels_last if self.config.channels_last else torch.contiguous_format
        for norm, act in {type(b.act): (b.bn, b.act) for b in blocks}.values():
            kind = self.half or norm.weight.dtype
            example = torch.ones(2, norm.num_features, 64, 64, device=self.device, dtype=kind)
            example = example.to(memory_format=memory).requires_grad_()
            try:
                with self.autocast():
                    compiled(example, copy.deepcopy(norm), act).sum().backward()
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                raise ConfigError(f"numerics.compile = true: {_why_not(error)}") from error

    def images(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> float32 in 0 to 1, on the device and in the memory format."""
        images = self.send(images)
        if self.config.channels_last:
            return images.to(torch.float32, memory_format=torch.channels_last) / 255
        return images.float() / 255

    def send(self, values: Tensor) -> Tensor:
        """Bring a tensor to the device, and do not wait until it is there."""
        if is_gpu(self.device) and not is_gpu(values.device):
            values = values.pin_memory()  # out of other memory CUDA may wait; does nothing where it is pinned
        return values.to(self.device, non_blocking=True)

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision for what runs inside, if it is asked for."""
        return torch.autocast(self.device.type, self.half or torch.bfloat16, enabled=self.half is not None)

    def scaler(self, ranks: int = 1) -> GradScaler:
        """Scales the loss so that float16 gradients do not vanish; does nothing at other precisions.

        Several ranks multiply the loss by their number before they average its gradients, so the scale begins
        lower by it: the same steps overflow on any number of ranks.
        """
        scale = 2.0**16 / ranks
        return GradScaler(self.device.type, init_scale=scale, enabled=self.config.precision == "float16")


def _settings_of_the_compiler() -> None:
    """Settings of the whole process: a cache for all runs, one code for all sizes, more than one backward."""
    from torch._inductor import config as inductor
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    folder = cache_folder() / "compiled"
    with suppress(OSError):  # else torch's default, a folder of this machine alone, set when it was imported
        folder.mkdir(parents=True, exist_ok=True)
        if os.environ.get("TORCHINDUCTOR_CACHE_DIR", default_cache_dir()) == default_cache_dir():
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    inductor.cpp_cache_precompile_headers = False  # 120 MB of cache to save a second
    torch._dynamo.config.force_parameter_static_shapes = False
    torch._dynamo.config.force_nn_module_property_static_shapes = False
    torch.fx.experimental._config.use_duck_shape = False  # sizes that are equal are so by chance
    torch._dynamo.config.optimize_ddp = False  # which cuts a model at buckets of parameters
    torch._functorch.config.donated_buffer = False  # `Conflict` goes through a graph more than once


HEADERS = "the headers of this Python (Python.h; a package such as python3-dev, or a module of the cluster)"
LACKING = {  # by what the compilers say
    "Python.h": HEADERS,
    "No working C++ compiler": "a C++ compiler (g++, or what CXX names)",
    "Failed to find C compiler": "a C compiler (gcc or clang, or what CC names)",
    "working triton installation": "Triton, which compiles for a GPU",
}


def _why_not(error: Exception) -> str:
    """Why compiling failed, in a line."""
    lacking = [what for sign, what in LACKING.items() if sign in str(error)]
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        lacking.append(HEADERS)  # Triton passes on no more than a status of the compiler
    if lacking:
        return f"this machine lacks {lacking[0]}. Without compilation the run would be another experiment"
    return f"cannot compile here ({summary(error)[:300]})"


# Numbers of glibc's malloc.h; both settings belong to the whole process.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed, instead of handing every large map back to the kernel.

    glibc fetches blocks beyond 32 MB from the kernel one by one and returns them at once, so a step on the
    CPU meets tens of thousands of fresh, zeroed pages. With the blocks kept the same step is shorter (see
    `benchmarks/training_step.py`) at about the same peak memory; results do not change. For another C
    library nothing is done and False returned.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc; Windows has no such handle
        return False
    # From now on memory comes from one growing heap, whose free end is never cut off.
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
