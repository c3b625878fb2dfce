"""A training step of this code against the released one: forward, loss, backward, SGD, EMA.

    YOLOR_PEER=<checkout of the released branch `paper`> python benchmarks/training_step.py
        [--device cpu] [--models P6 small] [--ways ...] [--size 640] [--batch 8] [--threads 2] [--repeats 5]
    python benchmarks/training_step.py --compile [mini-160 ...] [--threads 1] [--repeats 5]
    python benchmarks/training_step.py --core [mini-160 ...] [--repeats 5] [--seeds 2] [--epochs 2]

Same architecture (checked by the number of parameters), same batch of random images with 20 boxes each, same
number of threads. Every way runs in a process of its own, so that none meets memory another has warmed; they
take turns step by step, beginning with another one in every round, so that a busy machine disturbs all alike.
Every step updates weights and average, which is the dearest case: the recipe accumulates up to 64 images.

    way                   what runs
    released              the peer in float32
    released, float16     the peer with autocast and a scaler, as it trains on a GPU; a CPU emulates float16
    float32               ours in float32 (not among the default ways of a CPU)
    float16               ours as the profile `paper` has it
    float32, channels     ours with numerics.channels_last
    bfloat16, channels    ours with numerics.precision = bfloat16 and channels_last

Ratios are to `released` on a CPU, to `released, float16` on a GPU, where TF32 is off on both sides. Aims on a
CPU (ratio of the medians): P6 1.2 in float32 and 2.2 in bfloat16; small 1 and 1.7. `outside` is the share of
our step that is not forward, loss or backward (moving and scaling the batch, checks, SGD, EMA); aim 3 %. It
is a cost per parameter, so it halves when batch or area double; the default is the smallest size and batch
that a GPU of the published commands sees. On a GPU it is not known: the host does not wait for the parts.

With --compile, the step with `numerics.compile` against the same without, on the CPU; no peer is needed.
Seconds are of processor time: what compiling adds to the time up to the end of the first step, with an empty
cache and with a filled one; steps, by turns. Peak memory of either process.

With --core, on one thread in float32, the step with the kernels of `yolor_core.models.cpu` against the same
with PyTorch's operators, in processor time by turns; then whole trainings of csp-fast at the profile `mini`,
from the start of Python to the last file, and their AP by seed.

On one thread PyTorch gives 1x1 convolutions of fewer than 16 float32 images to a slower kernel, in both code
bases; they are then a third of the time and the ratio in float32 is smaller. P6 takes 20 GiB, 8 at 320 px.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.released import ReleasedStep, checkout
from yolor_core.config import ModelConfig, NumericsConfig, PhaseConfig, TrainConfig
from yolor_core.data import Batch
from yolor_core.device import Numerics, choose_device, is_gpu, keep_freed_memory, synchronize
from yolor_core.models import create_model
from yolor_core.tasks.base import build_losses
from yolor_core.training.distributed import Place, Ranks
from yolor_core.training.schedule import Settings
from yolor_core.training.state import MovingAverage, TrainingState, build_optimiser
from yolor_core.training.step import TrainingStep

CLASSES, BOXES = 80, 20
MODELS = {"P6": "yolor-p6", "small": "yolor-ssss-s2d"}  # the same names in both code bases
AIMS = {"P6": (1.2, 2.2), "small": (1.0, 1.7)}  # float32, bfloat16, on a CPU
RELEASED = {"released": None, "released, float16": torch.float16}
OURS = {
    "float32": NumericsConfig(),
    "float16": NumericsConfig(precision="float16"),
    "float32, channels": NumericsConfig(channels_last=True),
    "bfloat16, channels": NumericsConfig(precision="bfloat16", channels_last=True),
    "compiled": NumericsConfig(compile=True),
    "operators": NumericsConfig(),  # PyTorch's alone: without our kernels
}
MINI = {"width": 0.125, "depth": 0.33}
CASES = {  # of --compile and --core: model, pixels, batch
    "mini-96": (ModelConfig(architecture="yolov4_csp_fast", **MINI), 96, 16),
    "mini-128": (ModelConfig(architecture="yolov4_csp_fast", **MINI), 128, 8),
    "mini-160": (ModelConfig(architecture="yolov4_csp_fast", **MINI), 160, 8),
    "mini-192": (ModelConfig(architecture="yolov4_p6_light", **MINI), 192, 8),
    "mini-256": (ModelConfig(architecture="yolov4_p7", **MINI), 256, 8),
    "csp-fast-640": (ModelConfig(architecture="yolov4_csp_fast"), 640, 2),
    "p6-light-1280": (ModelConfig(architecture="yolov4_p6_light"), 1280, 1),
}
ON_CPU = ("released", "float32, channels", "bfloat16, channels")  # the first is what others are compared with
ON_GPU = ("released, float16", "released", "float32", "float16", "bfloat16, channels")
SETTINGS = Settings(
    weights=1e-4, bias=1e-4, momentum=0.937, accumulate=1
)  # a step of the optimiser each time


def random_batch(size: int, images: int) -> Batch:
    """Noise with `BOXES` boxes an image, widths and heights 2 to 32 % of the image."""
    g = torch.Generator().manual_seed(0)
    count = BOXES * images
    columns = (
        torch.arange(images).repeat_interleave(BOXES)[:, None].float(),
        torch.randint(0, CLASSES, (count, 1), generator=g).float(),
        torch.rand(count, 2, generator=g),
        0.02 * 16 ** torch.rand(count, 2, generator=g),
        torch.full((count, 1), -1.0),  # no identities
    )
    pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8, generator=g)
    return Batch(pixels, torch.cat(columns, 1), tuple(range(images)), 0, images)


def build_step(
    model: ModelConfig | str,
    config: TrainConfig,
    numerics: NumericsConfig,
    ranks: Ranks,
    classes: int = CLASSES,
) -> TrainingStep:
    """The step that `train` takes, for a configuration or a name of `list_models`."""
    ways = Numerics(numerics, ranks.device)
    network = ways.model(create_model(model, classes=classes))
    network.train()
    optimiser = config.optimiser
    state = TrainingState(
        network,
        MovingAverage(network, optimiser.ema_decay, optimiser.ema_updates),
        build_optimiser(network, optimiser, optimiser.weight_decay),
        ways.scaler(),
    )
    return TrainingStep(state, build_losses(network, config), config, ways, ranks, seed=0)


class Stopwatch:
    """Adds up the seconds spent in one method of one object."""

    def __init__(self, owner: object, name: str) -> None:
        self.seconds = 0.0
        self._call: Callable[..., Any] = getattr(owner, name)
        setattr(owner, name, self)

    def __call__(self, *arguments: Any) -> Any:
        start = time.perf_counter()
        try:
            return self._call(*arguments)
        finally:
            self.seconds += time.perf_counter() - start


class Ours:
    """Our step, and how much of it goes into forward, loss and backward."""

    def __init__(
        self, name: ModelConfig | str, numerics: NumericsConfig, batch: Batch, device: torch.device
    ) -> None:
        size, images = batch.images.shape[-1], len(batch.images)
        config = TrainConfig(size=size, batch=images, phases=(PhaseConfig(epochs=1, schedule_epochs=1),))
        self.step = step = build_step(name, config, numerics, Ranks(Place(), device))
        self.batch, self.model = batch, step.state.model
        self.shares: list[float] = []
        self._network = Stopwatch(step, "_forward_and_backward")
        self._images = Stopwatch(step.numerics, "images")  # called within it

    def __call__(self) -> None:
        self._network.seconds = self._images.seconds = 0.0
        start = time.perf_counter()
        self.step(self.batch, SETTINGS)
        whole = time.perf_counter() - start
        self.shares.append(1 - (self._network.seconds - self._images.seconds) / whole)

    def outside(self) -> float | None:
        """Share of a step that is not forward, loss or backward; the median of all so far."""
        return None if is_gpu(self.step.numerics.device) else statistics.median(self.shares)


class Released:
    """The peer's step."""

    def __init__(self, name: str, half: torch.dtype | None, batch: Batch, device: torch.device) -> None:
        self.step, self.batch = ReleasedStep(name, CLASSES, device, half), batch
        self.model = self.step.model

    def __call__(self) -> None:
        self.step(self.batch.images, self.batch.targets[:, :6])

    def outside(self) -> None:
        """Not known: its step is one piece."""


def without_kernels() -> None:
    """Let this process train by PyTorch's operators alone."""
    # The process is this benchmark's own; nothing outside it sees the change.
    Numerics.use_kernels = lambda *_: None  # type: ignore[method-assign]


def serve(pipe: Connection, way: str, name: Any, size: int, batch: int, threads: int, where: str) -> None:
    """In a process of its own: take a step when asked, answer with its seconds, of time and of processors.

    First the number of parameters, and the seconds of processors up to the end of the first step; last
    `outside` and the peak memory (GiB).
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    if way == "operators":
        without_kernels()
    device, drawn = choose_device(where), random_batch(size, batch)
    if is_gpu(device):
        drawn = drawn.pin_memory()
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, False  # as `Numerics` for ours
    case: Ours | Released
    with contextlib.redirect_stdout(io.StringIO()):
        if way in RELEASED:
            case = Released(name, RELEASED[way], drawn, device)
        else:
            if not is_gpu(device):
                keep_freed_memory()  # as training on the CPU does
            case = Ours(name, OURS[way], drawn, device)
        case()
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        began = sum(of.ru_utime + of.ru_stime for of in usage)
        pipe.send((sum(p.numel() for p in case.model.parameters()), began))
        while pipe.recv():
            synchronize(device)
            start, used = time.perf_counter(), time.process_time()
            case()
            synchronize(device)
            pipe.send((time.perf_counter() - start, time.process_time() - used))
    pipe.send((case.outside(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))


class Process:
    """One way, in its process."""

    def __init__(self, way: str, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.way, self.times, self.used = way, list[float](), list[float]()
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=serve, args=(there, way, *arguments), daemon=True)
        self._process.start()
        there.close()
        try:
            self.parameters, self.began = self._answer()
        except RuntimeError:
            self.__exit__()
            raise

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # and its memory is free for a smaller batch
        self._process.join()

    def step(self) -> None:
        """Take a step."""
        self._pipe.send(True)
        seconds, used = self._answer()
        self.times.append(seconds)
        self.used.append(used)

    def end(self) -> tuple[float | None, float]:
        """End the process; the share `outside` and the peak memory (GiB)."""
        self._pipe.send(False)
        outside, memory = self._answer()
        return outside, memory

    def _answer(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(
                f"the process of {self.way!r} ended with {self._process.exitcode}, which is often lack of "
                "memory: a smaller --batch"
            ) from None


def compare(
    model: str, ways: Sequence[str], size: int, batch: int, threads: int, device: str, repeats: int
) -> list[dict[str, Any]]:
    """Time the ways on one model; a record for each, with its ratios to the first.

    Raises RuntimeError where the process of a way dies.
    """
    with contextlib.ExitStack() as running:
        processes = [
            running.enter_context(Process(way, MODELS[model], size, batch, threads, device)) for way in ways
        ]
        return _by_turns(MODELS[model], size, batch, processes, repeats)


def _by_turns(
    name: str, size: int, batch: int, processes: Sequence[Process], repeats: int
) -> list[dict[str, Any]]:
    count = processes[0].parameters
    assert all(process.parameters == count for process in processes)
    _take_turns(processes, repeats)
    reference = processes[0].times
    return [
        {
            "model": name,
            "size": size,
            "batch": batch,
            "way": process.way,
            "median s": statistics.median(process.times),
            "fastest s": min(process.times),
            "ratio": statistics.median(reference) / statistics.median(process.times),
            "ratio of fastest": min(reference) / min(process.times),
            "outside": process.end()[0],
            "parameters": count,
        }
        for process in processes
    ]


def _take_turns(processes: Sequence[Process], repeats: int) -> None:
    for repeat in range(repeats):
        for place in range(len(processes)):
            processes[(place + repeat) % len(processes)].step()


def compare_compiled(case: str, threads: int, repeats: int) -> None:
    """Print the line of a case, in seconds of processor time."""
    where = (*CASES[case], threads, "cpu")
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # all of its work in processes that are waited for
    with tempfile.TemporaryDirectory() as cache, Process("float32", *where) as eager:
        os.environ["ABLATE_CACHE"] = cache
        with Process("compiled", *where) as first:
            first.end()
        with Process("compiled", *where) as compiled:
            _take_turns([eager, compiled], repeats)
            (_, plain), (_, other) = eager.end(), compiled.end()
    fastest = min(eager.used), min(compiled.used)
    medians = statistics.median(eager.used), statistics.median(compiled.used)
    print(
        f"{case:15}{where[2]:>6}{first.began - eager.began:>9.1f}{compiled.began - eager.began:>9.1f}"
        f"{fastest[0]:>9.3f}{fastest[1]:>10.3f}{fastest[0] / fastest[1]:>8.2f}{medians[0] / medians[1]:>8.2f}"
        f"{plain:>7.2f}{other:>10.2f}",
        flush=True,
    )


def compare_kernels(case: str, repeats: int) -> None:
    """Print the line of a case, in milliseconds of processor time."""
    where = (*CASES[case], 1, "cpu")
    with Process("operators", *where) as plain, Process("float32", *where) as ours:
        _take_turns([plain, ours], repeats)
    fastest, medians = ((pick(plain.used), pick(ours.used)) for pick in (min, statistics.median))
    print(
        f"{case:15}{where[2]:>6}{fastest[0] * 1e3:>12.1f}{fastest[1] * 1e3:>9.1f}"
        f"{fastest[0] / fastest[1]:>8.2f}{medians[0] / medians[1]:>9.2f}",
        flush=True,
    )


def train_mini(way: str, seed: int, epochs: int, answer: Connection) -> None:
    """In a process of its own: train csp-fast at `mini`; the seconds of its processor, and AP in percent."""
    from ablations.plan import plan_runs
    from yolor_core.runs.directory import RunDirectory
    from yolor_core.training.loop import train

    warnings.simplefilter("ignore")
    if way == "operators":
        without_kernels()
    overrides = [f"train.epochs={epochs}", "execution.tensorboard=false"]
    with tempfile.TemporaryDirectory() as folder:
        (run,) = plan_runs(["csp-fast"], "mini", [seed], overrides, results=Path(folder))
        train(run.config, run.run_dir)
        last = RunDirectory(run.run_dir).read_metrics()[-1]
    answer.send((time.process_time(), 100 * last["AP"]))


def compare_trainings(seeds: int, epochs: int) -> None:
    """Print whole trainings by turns."""
    context = multiprocessing.get_context("spawn")
    spent: dict[str, list[float]] = {"operators": [], "float32": []}
    for seed in range(seeds):
        for way in spent:
            here, there = context.Pipe()
            process = context.Process(target=train_mini, args=(way, seed, epochs, there))
            process.start()
            seconds, ap = here.recv()
            process.join()
            spent[way].append(seconds)
            print(f"mini, {epochs} epochs, seed {seed}, {way:10}{seconds:>8.1f} s, AP {ap:.2f}", flush=True)
    plain, ours = map(sum, spent.values())
    print(f"mini, {epochs} epochs, whole trainings: ratio {plain / ours:.2f}")


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument(
        "--ways", nargs="+", choices=[*RELEASED, *OURS], help="by default those of the device"
    )
    parser.add_argument("--size", type=int, default=640, help="pixels, a multiple of 64")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", nargs="*", choices=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--core", nargs="*", choices=CASES, metavar="CASE", help="as --compile")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of --core")
    parser.add_argument("--epochs", type=int, default=2, help="of these trainings")
    options = parser.parse_args()
    if options.core is not None:
        print(f"{'case':15}{'batch':>6}{'operators':>12}{'kernels':>9}{'fastest':>8}{'medians':>9}")
        for case in options.core or ("mini-96", "mini-128", "mini-160"):
            compare_kernels(case, options.repeats)
        if options.seeds:
            compare_trainings(options.seeds, options.epochs)
        return
    if options.compile is not None:
        print(f"{'':15}{'':>6}{'to compile, s':>18}{'step, s':>19}{'ratio':>16}{'peak, GiB':>17}")
        print(
            f"{'case':15}{'batch':>6}{'first':>9}{'later':>9}{'eager':>9}{'compiled':>10}{'fastest':>8}"
            f"{'medians':>8}{'eager':>7}{'compiled':>10}"
        )
        for case in options.compile or CASES:
            compare_compiled(case, options.threads, options.repeats)
        return
    checkout()
    ways = options.ways or (ON_GPU if is_gpu(choose_device(options.device)) else ON_CPU)
    for model in options.models:
        try:
            records = compare(
                model, ways, options.size, options.batch, options.threads, options.device, options.repeats
            )
        except RuntimeError as error:
            sys.exit(str(error))
        print(
            f"\n{model}: {MODELS[model]}, {records[0]['parameters']:,} parameters, {options.batch} images of "
            f"{options.size} pixels on {options.device}, {options.threads} thread(s), {options.repeats} "
            f"rounds, load {os.getloadavg()[0]:.1f}"
        )
        print(
            f"{'way':20}{'median s':>10}{'fastest s':>11}{'ratio':>8}{'fastest':>9}{'aim':>6}{'outside':>9}"
        )
        for record in records:
            line = f"{record['way']:20}{record['median s']:>10.3f}{record['fastest s']:>11.3f}"
            line += f"{record['ratio']:>8.2f}{record['ratio of fastest']:>9.2f}"
            if record["outside"] is not None:
                aim = AIMS[model][record["way"].startswith("bfloat16")]
                line += f"{aim:>6}{record['outside']:>9.1%}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
