"""Images per second of training on a device, as a share of what the device can do, and with real data.

    python benchmarks/throughput.py [--device cuda] [--models yolov4_csp_fast:640:32 yolov4_p6_light:1280:8]
        [--precision bfloat16 float16] [--compile off on] [--steps 20] [--root COCO] [--workers 8] [--json]

For every model (name:pixels:batch), precision and compile setting:

* images/s of whole training steps (forward, loss, backward, SGD, EMA) on one batch kept in memory;
* peak: FLOP/s of those steps as a share of a large matrix product's at the same precision, measured in the
  same run. FLOPs are three times the forward pass's (`ablate models` shows them; multiply-adds of
  convolutions only, as for the product). Float16 on a CPU is emulated and not worth measuring;
* loaded images/s and stall: the same with batches from the real loader, mosaics included, and the share of
  the time in which the step waits for one. Data: COCO below --root, from its pack where there is one, else
  the built-in shapes at the model's size, which are drawn on demand and dearer than decoding.

Channels-last is on unless --no-channels-last. A model that does not fit is reported as such.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from training_step import SETTINGS, build_step, random_batch

from yolor_core.config import AugmentConfig, CocoConfig, NumericsConfig, ShapesConfig
from yolor_core.data import Batch, TrainingBatches, load_images
from yolor_core.device import HALF, choose_device
from yolor_core.models import count
from yolor_core.training.step import TrainingStep

MODELS = ("yolov4_csp_fast:640:32", "yolov4_p6_light:1280:8")

FILLING = 2  # steps with loaded batches that do not count


@dataclass
class Line:
    """One measurement; rates in images per second, shares between 0 and 1."""

    model: str
    size: int
    batch: int
    precision: str
    compile: bool
    images_per_second: float | None = None
    tera_flops: float | None = None
    share_of_peak: float | None = None
    first_step_seconds: float | None = None  # compilation is in it
    gpu_gib: float | None = None
    loaded_images_per_second: float | None = None
    stall: float | None = None
    note: str = ""


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(device: torch.device, precision: str, side: int) -> float:
    """FLOP/s of the product of two square matrices, the best of several runs."""
    kind = HALF.get(precision, torch.float32)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    best, repeats = float("inf"), 10 if device.type == "cuda" else 2
    for _ in range(4):
        synchronise(device)
        start = time.perf_counter()
        for _ in range(repeats):
            left @ right
        synchronise(device)
        best = min(best, (time.perf_counter() - start) / repeats)
    return 2 * side**3 / best


def timed_steps(step: TrainingStep, batches: Iterator[Batch], steps: int) -> tuple[int, float, float]:
    """(images, seconds in all, seconds waiting for batches) of some steps."""
    images, waited = 0, 0.0
    synchronise(step.numerics.device)
    start = time.perf_counter()
    for _ in range(steps):
        before = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - before
        step(batch, SETTINGS)
        images += batch.total
    synchronise(step.numerics.device)
    return images, time.perf_counter() - start, waited


def loaded(line: Line, options: argparse.Namespace, pin: bool) -> TrainingBatches:
    """Batches of the real loader; of the shapes enough for an epoch of all steps."""
    data: CocoConfig | ShapesConfig
    if options.root:
        data = CocoConfig(root=options.root, train=options.split)
    else:
        data = ShapesConfig(train_images=line.batch * (options.steps + FILLING), val_images=1, size=line.size)
    images = load_images(data, "train")
    return TrainingBatches(images, line.size, line.batch, seed=0, workers=options.workers, pin=pin)


def forever(batches: TrainingBatches) -> Iterator[Batch]:
    """Epoch after epoch, whole batches only."""
    for epoch in itertools.count():
        for batch in batches.epoch(epoch, AugmentConfig()):
            if batch.total == batches.batch:
                yield batch


def measure(line: Line, options: argparse.Namespace, device: torch.device, peak_flops: float) -> None:
    """Fill the line's figures."""
    numerics = NumericsConfig.model_validate(
        {"precision": line.precision, "channels_last": options.channels_last, "compile": line.compile}
    )
    drawn = random_batch(line.size, line.batch)
    data = None if options.no_data else loaded(line, options, pin=device.type == "cuda")
    classes = 80 if data is None else max(len(data.images.names), 1)
    drawn.targets[:, 1] %= classes
    step = build_step(line.model, numerics, line.size, line.batch, device, classes)
    kept = drawn.pin_memory() if device.type == "cuda" else drawn
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    line.first_step_seconds = timed_steps(step, iter([kept]), 1)[1]
    timed_steps(step, itertools.repeat(kept), options.warmup)
    images, seconds, _ = timed_steps(step, itertools.repeat(kept), options.steps)
    line.images_per_second = images / seconds
    flops = 3 * count(line.model, line.size, classes).flops_torch * line.images_per_second
    line.tera_flops, line.share_of_peak = flops / 1e12, flops / peak_flops
    if device.type == "cuda":
        line.gpu_gib = torch.cuda.max_memory_allocated(device) / 2**30
    if data is None:
        return
    source = forever(data)
    timed_steps(step, source, FILLING)  # the workers start, the queue fills
    images, seconds, waited = timed_steps(step, source, options.steps)
    line.loaded_images_per_second, line.stall = images / seconds, waited / seconds


def row(line: Line) -> str:
    """The line of the table."""

    def cell(value: float | None, form: str, width: int) -> str:
        return f"{'-' if value is None else format(value, form):>{width}}"

    return (
        f"{line.model:18}{line.size:>6}{line.batch:>6}  {line.precision:10}"
        f"{'on' if line.compile else 'off':>7}"
        f"{cell(line.images_per_second, '.2f', 10)}{cell(line.tera_flops, '.3f', 9)}"
        f"{cell(line.share_of_peak, '.1%', 7)}{cell(line.first_step_seconds, '.1f', 9)}"
        f"{cell(line.gpu_gib, '.1f', 6)}{cell(line.loaded_images_per_second, '.2f', 10)}"
        f"{cell(line.stall, '.1%', 7)}  {line.note}"
    )


HEAD = (
    f"{'model':18}{'size':>6}{'batch':>6}  {'precision':10}{'compile':>7}{'images/s':>10}{'TFLOP/s':>9}"
    f"{'peak':>7}{'first s':>9}{'GiB':>6}{'loaded/s':>10}{'stall':>7}"
)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="NAME:PIXELS:BATCH")
    parser.add_argument("--precision", nargs="+", default=["bfloat16", "float16"])
    parser.add_argument("--compile", nargs="+", choices=("off", "on"), default=["off", "on"])
    parser.add_argument("--no-channels-last", dest="channels_last", action="store_false")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3, help="steps behind the first that do not count")
    parser.add_argument("--matrix", type=int, default=0, help="side of the product; 8192, on a CPU 2048")
    parser.add_argument("--root", help="folder of COCO; by default the built-in shapes")
    parser.add_argument("--split", default="train2017")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1, help="of a CPU")
    parser.add_argument("--no-data", action="store_true", help="leave the loader out")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    return parser.parse_args()


def main() -> None:
    """Print the table or JSON."""
    options = parse()
    device = choose_device(options.device)
    name = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {options.threads} thread(s)"
    )
    torch.set_num_threads(options.threads)
    side = options.matrix or (8192 if device.type == "cuda" else 2048)
    peaks = {precision: peak(device, precision, side) for precision in options.precision}
    if not options.json:
        print(f"{name}; product of {side} x {side} matrices, TFLOP/s: ", end="")
        print(", ".join(f"{precision} {value / 1e12:.3f}" for precision, value in peaks.items()))
        print(HEAD, flush=True)
    lines = []
    for model, precision, compiled in itertools.product(options.models, options.precision, options.compile):
        architecture, size, batch = model.split(":")
        line = Line(architecture, int(size), int(batch), precision, compiled == "on")
        try:
            measure(line, options, device, peaks[precision])
        except torch.OutOfMemoryError:
            line.note = "does not fit into the GPU's memory"
        lines.append(line)
        if not options.json:
            print(row(line), flush=True)
        torch.compiler.reset()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if options.json:
        print(json.dumps({"device": name, "peak_flops": peaks, "lines": [asdict(line) for line in lines]}))


if __name__ == "__main__":
    main()
