"""Names of devices, memory formats, compilation, and memory of a training process on the CPU.

What a GPU does otherwise is in `training/test_devices.py`.
"""

from __future__ import annotations

import copy
import ctypes
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from yolor_core.config import ModelConfig, NumericsConfig
from yolor_core.device import Numerics, _why_not, choose_device, exchange_backend
from yolor_core.errors import ConfigError
from yolor_core.models import Detector, create_model

# Page faults of filling a large tensor again and again, once the heap has found its size.
PROGRAM = """
import resource, sys, torch
from yolor_core.device import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(50):
    torch.ones(2 ** 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2 ** 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str) -> int:
    """Page faults that the program counts."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_memory_is_used_again_without_fetching_fresh_pages() -> None:
    assert faults("keep") < 100
    assert faults("leave") > 100  # else there would be nothing to keep


@pytest.mark.parametrize("name", ["mps", "meta", "xpu:1", "gpu", "cuda:x", "tpu"])
def test_a_device_that_nothing_here_knows_is_refused_and_the_others_named(name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        choose_device(name)
    assert str(refused.value) == f"execution.device = '{name}'; allowed: auto, cpu, cuda, cuda:N"


@pytest.mark.parametrize(("name", "index"), [("auto", 1), ("cuda", 1), ("cuda:0", 0)])
def test_a_gpu_has_its_index(name: str, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    begun: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", begun.append)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # so that it is put back
    assert choose_device(name) == torch.device("cuda", index)
    assert begun == [torch.device("cuda", index)]


def test_a_full_gpu_is_no_missing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: full)
    model = create_model(ModelConfig(architecture="yolov4_csp_fast", width=0.0625, depth=0.33))
    with pytest.raises(torch.OutOfMemoryError):
        Numerics(NumericsConfig(compile=True), torch.device("cpu")).compile(model)


def test_tensors_are_exchanged_by_what_their_device_has() -> None:
    assert exchange_backend(torch.device("cpu")) == "gloo"
    assert exchange_backend(torch.device("cuda", 1)) == "cpu:gloo,cuda:nccl"


def test_float32_is_float32_on_a_gpu_for_commands_that_have_no_numerics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    before = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = True  # torch's default
        choose_device("cpu")
        assert torch.backends.cudnn.allow_tf32
        choose_device("cuda:0")
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before


def test_the_loss_is_scaled_as_one_process_would_scale_it() -> None:
    numerics = Numerics(NumericsConfig(precision="float16"), torch.device("cpu"))
    assert [numerics.scaler(ranks).get_scale() * ranks for ranks in (1, 2, 8)] == [2.0**16] * 3


def test_channels_last_reaches_the_model_and_the_images() -> None:
    numerics = Numerics(NumericsConfig(channels_last=True), torch.device("cpu"))
    model = numerics.model(torch.nn.Conv2d(3, 8, 3))
    images = numerics.images(torch.full((2, 3, 8, 8), 255, dtype=torch.uint8))
    assert model.weight.is_contiguous(memory_format=torch.channels_last)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert float(images.max()) == float(images.min()) == 1.0


def outputs_and_gradients(model: Detector, numerics: Numerics, images: Tensor) -> list[Tensor]:
    """In float32; the graph is gone through twice, as where tasks' gradients are compared."""
    with numerics.autocast():
        outputs = model(numerics.images(images))
    loss = torch.stack([y.float().square().mean() for y in outputs]).sum()
    first = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    second = torch.autograd.grad(loss, list(model.parameters()))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)
    statistics = [b for b in model.buffers() if b.is_floating_point()]
    return [t.detach().float().clone() for t in (*outputs, *first, *statistics)]


def distance(some: list[Tensor], others: list[Tensor]) -> float:
    """Median over the tensors of the relative distance of each."""
    apart = [float((a - b).norm() / b.norm()) for a, b in zip(some, others, strict=True) if float(b.norm())]
    return sorted(apart)[len(apart) // 2]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_model_computes_the_same_at_every_size_and_is_compiled_once(precision: str) -> None:
    torch.compiler.reset()
    cpu = torch.device("cpu")
    numerics = Numerics(
        NumericsConfig(precision=precision, channels_last=precision == "bfloat16", compile=True), cpu
    )
    config = ModelConfig(architecture="yolov4_csp_fast", width=0.0625, depth=0.33)
    exact = create_model(config, classes=80, seed=0).train()
    eager, compiled = (numerics.model(copy.deepcopy(exact)) for _ in range(2))
    before = counters["stats"]["unique_graphs"]
    numerics.compile(compiled)
    assert compiled.state_dict().keys() == eager.state_dict().keys()
    for batch, size in ((4, 64), (8, 64), (3, 96), (2, 128)):  # 8 is a number of channels as well
        g = torch.Generator().manual_seed(size)
        images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=g)
        reference = outputs_and_gradients(exact, Numerics(NumericsConfig(), cpu), images)
        ours = outputs_and_gradients(compiled, numerics, images)
        rounding = distance(outputs_and_gradients(eager, numerics, images), reference)
        assert distance(ours, reference) <= (1e-4 if precision == "float32" else 1.5 * rounding)
    # Two codes, one of them for the smallest maps; not one for each of 24 kinds of block and 4 sizes.
    assert counters["stats"]["unique_graphs"] - before == 2
    assert numerics.half or rounding < 1e-6


PROBLEM = """
import torch
from yolor_core.config import ModelConfig, NumericsConfig
from yolor_core.device import Numerics
from yolor_core.errors import ConfigError
from yolor_core.models import create_model
try:
    model = create_model(ModelConfig(architecture="yolov4_csp_fast", width=0.0625, depth=0.33))
    Numerics(NumericsConfig(compile=True), torch.device("cpu")).compile(model)
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize("lacking", ["a C++ compiler", "the headers of this Python"])
def test_what_a_machine_lacks_to_compile_is_named_before_a_run_begins(lacking: str, tmp_path: Path) -> None:
    found = shutil.which("g++")
    assert found is not None
    if "headers" in lacking:  # a compiler that does not look where they are
        headers = shlex.quote(f"-I{sysconfig.get_path('include')}")
        lines = (
            "#!/bin/bash",
            'for word; do [ "$word" = ' + headers + ' ] || words+=("$word"); done',
            f'exec {shlex.quote(found)} "${{words[@]}}"',
        )
        (tmp_path / "g++").write_text("\n".join(lines))
        (tmp_path / "g++").chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if k not in ("CXX", "TORCHINDUCTOR_CACHE_DIR")}
    done = subprocess.run(
        [sys.executable, "-c", PROBLEM],
        env=environment | {"PATH": str(tmp_path), "ABLATE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"numerics.compile = true: this machine lacks {lacking}")


def test_headers_that_a_compiler_does_not_name_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("Command '['/usr/bin/gcc', 'main.c']' returned non-zero exit status 1.")
    assert "cannot compile here (RuntimeError: Command" in _why_not(error)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert "lacks the headers of this Python" in _why_not(error)
