"""The parts of `python -m benchmarks.gpu`, which gives each a process of its own.

A part appends its figures to a file as it has them, one JSON object a line with the table that it belongs to,
so that a part which is killed leaves what it had.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import json
import multiprocessing
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import product, repeat
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ablations.costs import BACKWARD
from ablations.registry import resolve
from benchmarks.postprocess import across, decoded, fastest
from benchmarks.released import checkout
from benchmarks.training_step import CLASSES, ON_CPU, ON_GPU, SETTINGS, build_step, compare, random_batch
from yolor_core.config import EvaluationConfig, Execution, RunConfig, Science, ShapesConfig
from yolor_core.data import Batch, TrainingBatches, load_images, write_dataset
from yolor_core.data.layout import coco_config
from yolor_core.device import (
    HALF,
    choose_device,
    free_memory,
    is_gpu,
    peak_memory,
    reset_peak_memory,
    synchronize,
)
from yolor_core.errors import YolorError
from yolor_core.evaluation.postprocess import keep, select
from yolor_core.evaluation.predict import evaluate, predict
from yolor_core.evaluation.speed import describe_device, measure_speed, prepare, sample_pictures, settle
from yolor_core.identity import code_commit
from yolor_core.models import count, create_model
from yolor_core.runs.directory import RunDirectory
from yolor_core.training import train
from yolor_core.training.distributed import Place, Ranks, joined
from yolor_core.training.step import TrainingStep

ROOT = Path(__file__).parent.parent
TRAINEE = ROOT / "tests/yolor_core/training/trainee.py"
MODELS = {"csp-fast": 16, "p6-light": 8}  # images a step where nothing else is said
PRECISIONS = ("float16", "bfloat16", "float32", "tf32")
COCO_IMAGES = 118_287
RELEASED = EvaluationConfig(size=640)
EXACT = EvaluationConfig(size=640, suppression="exact")
WARMUP = 3  # steps after the first that do not count


@dataclass(frozen=True)
class Bench:
    """Where a part runs, at which size, and where its figures go."""

    device: torch.device
    tiny: bool
    work: Path  # shared by the parts: the packed images lie in it
    results: Path
    profile: str = "paper"  # of the experiments; tiny ones have `smoke`

    def emit(self, table: str, **figures: Any) -> None:
        """Append a row to a table."""
        on = "GPU" if is_gpu(self.device) else "CPU"
        with self.results.open("a") as file:
            file.write(json.dumps({"table": table, "on": on} | figures) + "\n")

    def science(self, experiment: str) -> Science:
        """An experiment as it is trained at the profile."""
        return resolve(experiment, "smoke" if self.tiny else self.profile)

    def batch(self, experiment: str) -> int:
        """Images of a step. At 64 px P6 is one cell: BatchNorm over two of those amplifies rounding."""
        return 4 if self.tiny else MODELS[experiment]

    @property
    def seconds(self) -> float:
        """How long a figure is measured."""
        return 0.05 if self.tiny else 1.0

    @functools.cache  # noqa: B019 - a process has one bench
    def flops(self, experiment: str) -> float:
        """Of training on one image, exactly as `ablations.costs` counts them for an estimate of hours."""
        science = self.science(experiment)
        return (1 + BACKWARD) * 1e6 * count(science.model, science.train.size, CLASSES).mflops

    @functools.cache  # noqa: B019 - as above
    def peak(self, precision: str) -> float:
        """FLOP/s of the product of two square matrices, the best of several runs."""
        kind, side = HALF.get(precision, torch.float32), 256 if self.tiny else 8192
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        left, right = (torch.randn(side, side, device=self.device).to(kind) for _ in range(2))
        product_of_both = waited(lambda: left @ right, self.device)
        return 2 * side**3 / fastest({"ms": product_of_both}, 2 if self.tiny else 30)["ms"] * 1e3


def begin(what: str) -> None:
    """Say what is measured next, for the report of a part that is stopped at it."""
    print(f"begins: {what}", flush=True)


def waited(call: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """The call, which then waits for the device."""

    def both() -> None:
        call()
        synchronize(device)

    return both


# A training step.


def step_of(
    bench: Bench, experiment: str, images: int, ranks: Ranks | None = None, **numerics: Any
) -> tuple[TrainingStep, Batch]:
    """The step of an experiment on so many images, with changes of its numerics, and a batch for it."""
    science = bench.science(experiment)
    recipe = science.train.model_copy(update={"batch": images})
    ways = science.numerics.model_copy(update=numerics)
    batch = random_batch(recipe.size, images)
    step = build_step(science.model, recipe, ways, ranks or Ranks(Place(), bench.device))
    return step, batch.pin_memory() if is_gpu(bench.device) else batch


def timed(step: TrainingStep, batches: Iterator[Batch], seconds: float) -> tuple[float, float]:
    """Images a second over some time, at least one step; and the share of it spent waiting for batches."""
    images, waited = 0, 0.0
    synchronize(step.numerics.device)
    start = now = time.perf_counter()
    while not images or now - start < seconds:
        batch = next(batches)
        waited += time.perf_counter() - now
        step(batch, SETTINGS)
        images += batch.total
        now = time.perf_counter()  # a step ends by waiting for its loss
    synchronize(step.numerics.device)
    now = time.perf_counter()
    return images / (now - start), waited / (now - start)


def measure(bench: Bench, experiment: str, images: int, **numerics: Any) -> dict[str, Any]:
    """Figures of whole training steps on a batch in memory. Raises OutOfMemoryError."""
    free(bench)
    science = bench.science(experiment)
    reset_peak_memory(bench.device)
    begin(f"{experiment}, {images} images, {numerics or 'numerics of the profile'}")
    start = time.perf_counter()
    step, batch = step_of(bench, experiment, images, **numerics)
    ways = step.numerics.config
    timed(step, repeat(batch), 0)
    ready = time.perf_counter() - start
    for _ in range(0 if bench.tiny else WARMUP):
        timed(step, repeat(batch), 0)
    rate, _ = timed(step, repeat(batch), bench.seconds)
    memory = peak_memory(bench.device)  # before `bench.peak`, whose matrices take some
    flops = rate * bench.flops(experiment)
    return {
        "experiment": experiment,
        "size": science.train.size,
        "images": images,
        "precision": ways.precision,
        "channels-last": ways.channels_last,
        "compiled": ways.compile,
        "images/s": rate,
        "TFLOP/s": flops / 1e12,
        "peak TFLOP/s": bench.peak(ways.precision) / 1e12,
        "share of peak": flops / bench.peak(ways.precision),
        "GiB": memory / 1024,
        "ready after s": ready,
    }


def free(bench: Bench) -> None:
    """Let go of the last measurement's memory."""
    gc.collect()
    free_memory(bench.device)


def fitting(bench: Bench, experiment: str, **numerics: Any) -> dict[str, Any]:
    """As `measure`, with half as many images as often as memory does not suffice."""
    images = bench.batch(experiment)
    while images > 1:
        with contextlib.suppress(torch.OutOfMemoryError):
            return measure(bench, experiment, images, **numerics)
        images //= 2
    return measure(bench, experiment, images, **numerics)


def training(bench: Bench) -> None:
    """Throughput at every precision and memory format."""
    few = [("bfloat16", True, "csp-fast"), ("float32", False, "p6-light")]
    for precision, last, experiment in few if bench.tiny else product(PRECISIONS, (False, True), MODELS):
        bench.emit("training", **fitting(bench, experiment, precision=precision, channels_last=last))


def compiled(bench: Bench) -> None:
    """The same with `numerics.compile`; getting ready holds a compilation, the first with an empty cache."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(bench.work / "compiled")
    few = [("float32", False, "csp-fast")]
    for precision, last, experiment in few if bench.tiny else product(PRECISIONS[:3], (False, True), MODELS):
        bench.emit(
            "compiled",
            **fitting(bench, experiment, precision=precision, channels_last=last, compile=True),
        )
        torch.compiler.reset()


def batches(bench: Bench) -> None:
    """Memory, throughput and the profile's `tflops` by images a GPU, at the numerics of the profile."""
    for images, experiment in product((2, 4) if bench.tiny else (8, 16, 4, 32, 2, 64, 1), MODELS):
        try:
            figures = measure(bench, experiment, images)
        except torch.OutOfMemoryError:
            bench.emit("batches", experiment=experiment, images=images, note="does not fit")
            continue
        bench.emit("batches", **figures)


BARRIER: Any = None  # of the processes of `shared`, in each of them


def shared(bench: Bench) -> None:
    """Throughput of several trainings side by side at the profile `small`, all of them together."""
    bench, experiment = replace(bench, profile="small"), "csp-fast"
    science, context = bench.science(experiment), multiprocessing.get_context("spawn")
    images = 2 if bench.tiny else science.train.batch
    for runs in (2,) if bench.tiny else (1, 4, 2):
        begin(f"{runs} of {experiment} side by side, {images} images each")
        with ProcessPoolExecutor(runs, context, _meet, (context.Barrier(runs),)) as pool:
            found = list(pool.map(_beside, *zip(*[(bench, experiment, images)] * runs, strict=True)))
        rate = sum(rate for rate, _ in found)
        bench.emit(
            "shared",
            experiment=experiment,
            size=science.train.size,
            images=images,
            runs_per_gpu=runs,
            precision=science.numerics.precision,
            **{"images/s": rate, "TFLOP/s": rate * bench.flops(experiment) / 1e12},
            **{"GiB each": max(memory for _, memory in found)},
        )


def _meet(barrier: Any) -> None:
    global BARRIER
    BARRIER = barrier
    torch.set_num_threads(1)


def _beside(bench: Bench, experiment: str, images: int) -> tuple[float, float]:
    """Images a second of one of several trainings while all of them run, and the GiB it takes."""
    try:
        step, batch = step_of(bench, experiment, images)
        timed(step, repeat(batch), bench.seconds)
        BARRIER.wait(timeout=60)
    except BaseException:
        BARRIER.abort()  # the others need not wait
        raise
    rate, _ = timed(step, repeat(batch), 3 * bench.seconds)
    return rate, peak_memory(bench.device) / 1024


# Data.


def packed(bench: Bench) -> Path:
    """The built-in shapes as a folder in COCO's layout, with a decoded pack; made once."""
    folder, size = bench.work / "shapes", 64 if bench.tiny else 640
    if not (folder / "packed").is_dir():
        train_images, val_images = (8, 4) if bench.tiny else (96, 32)
        write_dataset(ShapesConfig(train_images=train_images, val_images=val_images, size=size), folder)
        command = [sys.executable, "-m", "ablations", "data", "pack", str(folder), "--decoded", str(size)]
        subprocess.run(command, check=True)
    return folder


def data(bench: Bench) -> None:
    """The share of a training that waits for its loader, which reads a decoded pack and makes mosaics."""
    root = packed(bench)
    cores = len(os.sched_getaffinity(0))
    workers = 0 if bench.tiny else min(8, cores)  # as the profile
    for experiment in MODELS:
        begin(experiment)
        free(bench)
        science, images = bench.science(experiment), bench.batch(experiment)
        step, kept = step_of(bench, experiment, images)
        loader = TrainingBatches(
            load_images(coco_config(root), "train"),
            science.train.size, images, seed=0, workers=workers, pin=is_gpu(bench.device),
        )  # fmt: skip
        # An epoch as long as COCO's, so that none ends while it is measured.
        loader.positions = np.tile(loader.positions, COCO_IMAGES // len(loader.positions))
        stream = loader.epoch(0, science.train.phases[0].augment)
        timed(step, repeat(kept), 0)
        alone, _ = timed(step, repeat(kept), bench.seconds)
        timed(step, stream, 2 * bench.seconds)  # workers start, their queue fills and is used up
        rate, waiting = timed(step, stream, 3 * bench.seconds)
        start, loaded = time.perf_counter(), 0
        while time.perf_counter() - start < bench.seconds or not loaded:
            loaded += next(stream).total
        bench.emit(
            "data",
            **{"experiment": experiment, "images": images, "workers": workers, "cores": cores},
            **{"images/s without loader": alone, "with loader": rate, "share waiting": waiting},
            **{"loader alone": loaded / (time.perf_counter() - start)},
        )


# What must be right.


def tests(bench: Bench) -> None:
    """The tests marked `gpu`. Raises YolorError naming those that fail."""
    marked = [
        str(path)
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "mark.gpu" in path.read_text(encoding="utf-8")
    ]
    found = bench.work / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={found}"]
    subprocess.run([*command, *marked], cwd=ROOT, check=False)
    if not found.is_file():
        raise YolorError("pytest wrote no results; its own words are in the log")
    outcomes: dict[str, list[str]] = {"passed": [], "skipped": [], "failed": []}
    for case in ElementTree.parse(found).iter("testcase"):
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        kind = "skipped" if kinds == {"skipped"} else "failed" if kinds else "passed"
        outcomes[kind].append(str(case.get("name")))
    bench.emit("tests", **{kind: len(names) for kind, names in outcomes.items()})
    if outcomes["failed"]:
        raise YolorError(f"failed: {', '.join(outcomes['failed'])}")


def resume(bench: Bench) -> None:
    """A training that is killed and resumed beside two that are not. On a GPU these need not be equal."""
    precision = "float16" if is_gpu(bench.device) else "float32"
    epochs, images, step = (2, 8, 2) if bench.tiny else (4, 64, 21)
    config = RunConfig(
        experiment="csp-fast.add-fa",
        science=resolve(
            "csp-fast.add-fa", "smoke", [f"numerics.precision={precision}", f"train.epochs={epochs}"]
        ),
        data=ShapesConfig(train_images=images, val_images=8, size=64),
        execution=Execution(device=str(bench.device), tensorboard=False),
    )
    folder = bench.work / "resume"
    runs = {name: folder / name for name in ("first", "again", "killed")}
    folder.mkdir()
    (folder / "config.json").write_text(config.to_json())
    accident = [str(folder / "config.json"), str(runs["killed"]), "kill", "0", str(step)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, str(TRAINEE), *accident], env=environment, check=False)
    if killed.returncode != -9:
        raise YolorError(f"the training that was to be killed ended with {killed.returncode}")
    for name in ("first", "again", "killed"):
        begin(f"the training {name!r}")
        if train(config, runs[name]) != "done":
            raise YolorError(f"the training {name!r} did not finish")
    weights = {name: load_file(RunDirectory(path).weights) for name, path in runs.items()}
    for other, meaning in (("again", "a second training"), ("killed", "killed and resumed")):
        record = RunDirectory(runs[other]).read_run() or {}
        largest = max(_distance(weights["first"][key], weights[other][key]) for key in weights["first"])
        bench.emit(
            "resume",
            compared=meaning,
            resumes=record.get("resumes", 0),
            **{"largest difference of a weight": largest, "equal to the bit": largest == 0},
        )


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max())


def ddp(bench: Bench) -> None:
    """DistributedDataParallel over one process, by the backend that several would have.

    Not SyncBN: over one process PyTorch's is plain BatchNorm.
    """
    for experiment in MODELS:
        begin(experiment)
        rates, losses = [], []
        for together in (False, True):
            free(bench)
            with joined(bench.device, 60, group_of_one=together) as ranks:
                step, batch = step_of(bench, experiment, bench.batch(experiment), ranks)
                losses.append(sum(step(batch, SETTINGS).values()))
                rates.append(timed(step, repeat(batch), bench.seconds)[0])
                summed = ranks.add_up(torch.ones(3, device=bench.device)).tolist()
                if summed != [1.0] * 3 or ranks.gather(ranks.rank) != [0]:
                    raise YolorError(f"exchanges of one process: {summed}")
        bench.emit(
            "ddp",
            experiment=experiment,
            images=bench.batch(experiment),
            **{"images/s alone": rates[0], "with DDP": rates[1], "ratio": rates[1] / rates[0]},
            **{"first loss alone": losses[0], "first loss with DDP": losses[1]},
        )


# Inference.


def inference(bench: Bench) -> None:
    """Agreement with the CPU, suppression against the released way, evaluation, and `ablate speed`."""
    agreement(bench)
    same = suppression(bench)
    device, science = bench.device, bench.science("csp-fast")
    val = load_images(coco_config(packed(bench)), "val")
    model = settle(create_model(science.model, classes=len(val.names))).to(device)
    start = time.perf_counter()
    begin("evaluation")
    predictions = predict(model, val, science.evaluation, device)
    between = time.perf_counter()
    evaluate(predictions, val, official=False)
    bench.emit(
        "evaluation",
        experiment="csp-fast",
        images=len(val),
        **{
            "images/s of predictions": len(val) / (between - start),
            "scoring s": time.perf_counter() - between,
        },
    )
    precisions = ("fp32", "fp16") if is_gpu(device) else ("fp32",)
    for experiment in MODELS:
        science = bench.science(experiment)
        begin(f"inference of {experiment}")
        net = settle(create_model(science.model, classes=CLASSES))
        sizes = (1, 2) if bench.tiny else (1, 32)
        for speed in measure_speed(
            net, science.evaluation.size, sizes, device, precisions, bench.seconds / 2
        ):
            figures = asdict(speed)
            rates = {"network/s": figures.pop("model"), "end to end/s": figures.pop("end_to_end")}
            bench.emit("inference", experiment=experiment, **figures, **rates)
    if not same:
        raise YolorError("suppression leaves other boxes than the released way")


@torch.no_grad()
def agreement(bench: Bench) -> None:
    """The network's float32 outputs beside the CPU's, with convolutions rounded to TF32 and without."""
    model = settle(create_model(bench.science("csp-fast").model, classes=CLASSES)).eval()
    images = prepare(sample_pictures()[:2], bench.science("csp-fast").evaluation.size, model)
    expected = model(images)
    there = model.to(bench.device)
    for allowed in (True, False):  # torch's default, and ours
        torch.backends.cudnn.allow_tf32 = allowed
        found = there(images.to(bench.device))
        pairs = list(zip(found, expected, strict=True))
        worst = max(float((a.cpu() - b).abs().max() / b.abs().max()) for a, b in pairs)
        bench.emit(
            "agreement", **{"TF32 in convolutions": allowed, "largest difference / largest output": worst}
        )


def suppression(bench: Bench) -> bool:
    """Milliseconds of suppression in an image, from its candidates; whether the released way agrees."""
    same = True
    for candidates in (300,) if bench.tiny else (3_000, 14_000):
        found = select(decoded(candidates, seed=1, spread=0.2)[0].to(bench.device), RELEASED.confidence)
        ways = {
            "released": functools.partial(across, found, RELEASED),
            "ours": functools.partial(keep, found, RELEASED),
            "ours, exact": functools.partial(keep, found, EXACT),
        }
        equal = torch.equal(ways["released"](), ways["ours"]())
        times = fastest({w: waited(call, bench.device) for w, call in ways.items()}, 3 if bench.tiny else 20)
        bench.emit(
            "suppression",
            candidates=len(found.scores),
            **{f"{way} ms": ms for way, ms in times.items()},
            **{"released / ours": times["released"] / times["ours"], "same boxes": equal},
        )
        same &= equal
    return same


def peer(bench: Bench) -> None:
    """A training step against the released code's, by turns in processes of their own."""
    checkout()
    ways = ON_GPU if is_gpu(bench.device) else ON_CPU
    size, images, repeats = (64, 2, 1) if bench.tiny else (640, 8, 10)
    for model in ("small",) if bench.tiny else ("small", "P6"):
        for batch in (images, images // 4):
            begin(f"{model}, {batch} images")
            try:
                records = compare(model, ways, size, batch, 1, str(bench.device), repeats)
                break
            except RuntimeError as error:
                print(error, flush=True)
        else:
            raise YolorError(f"{model}: no comparison at {images} nor {images // 4} images, see the log")
        for record in records:
            bench.emit("peer", **record)


# The device.


def device(bench: Bench) -> None:
    """Facts that the figures depend on."""
    for fact, value in facts(bench.device):
        bench.emit("device", fact=fact, value=value)


def facts(where: torch.device) -> Iterable[tuple[str, Any]]:
    """Name and value of what is known here about the device and what drives it."""
    yield "device", describe_device(where)
    commit, changed = code_commit()
    yield "commit", f"{commit}{', with changes' if changed else ''}"
    if is_gpu(where):
        free_bytes, total = torch.cuda.mem_get_info(where)
        properties = torch.cuda.get_device_properties(where)
        yield "memory, GiB", round(total / 2**30, 2)
        yield "of it taken before this began, GiB", round((total - free_bytes) / 2**30, 2)
        yield "compute capability", f"{properties.major}.{properties.minor}"
        yield "multiprocessors", properties.multi_processor_count
        yield "GPUs visible", torch.cuda.device_count()
        yield "CUDA, cuDNN, NCCL", f"{torch.version.cuda}, {torch.backends.cudnn.version()}, {_nccl()}"
        yield from _nvidia_smi()
    yield "torch", torch.__version__
    yield "Python", platform.python_version()
    yield "kernel", platform.release()
    yield "processor", describe_device(torch.device("cpu"))
    yield "cores for this process", len(os.sched_getaffinity(0))
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    yield "memory of the machine, GiB", round(int(memory[1]) / 2**20, 1) if memory else None
    yield "C compiler", shutil.which(os.environ.get("CC", "cc")) or "none: numerics.compile needs one"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    yield "Python's headers", "found" if header.is_file() else "none: numerics.compile needs them on a GPU"


def _nccl() -> str:
    version: Any = torch.cuda.nccl.version()
    return ".".join(map(str, version))


NVIDIA = ("driver_version", "power.limit", "clocks.max.sm", "mig.mode.current", "ecc.mode.current")


def _nvidia_smi() -> Iterator[tuple[str, str]]:
    """What the driver's own tool says of the first visible GPU, where it is there."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    command = ["nvidia-smi", f"--query-gpu={','.join(NVIDIA)}", "--format=csv,noheader", "-i", first]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        yield "nvidia-smi", str(error)
        return
    yield from zip(NVIDIA, (value.strip() for value in answer.strip().split(",")), strict=False)


PARTS: dict[str, Callable[[Bench], None]] = {
    part.__name__: part
    for part in (device, training, tests, batches, data, resume, inference, ddp, shared, peer, compiled)
}


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)  # as `train` does
    try:
        bench = Bench(choose_device(given.device), given.tiny, given.work, given.results)
        PARTS[given.part](bench)
    except YolorError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
