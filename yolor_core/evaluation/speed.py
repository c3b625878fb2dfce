"""Images per second of a detector: the network alone, and from pictures to detections.

Tables 9 and A1 to A3 quote such figures; they belong to the device they were measured on, so it is named.
"""

from __future__ import annotations

import copy
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from yolor_core.config import EvaluationConfig, ShapesConfig
from yolor_core.data import load_images
from yolor_core.data.images import letterbox, resize
from yolor_core.device import device_name, free_memory, is_gpu, synchronize
from yolor_core.errors import InputError
from yolor_core.evaluation.postprocess import select, suppress
from yolor_core.evaluation.predict import of_task
from yolor_core.models import Detector, decode, fold

CANDIDATES = 3000  # an image, in suppression: about what a trained model leaves at the authors' confidence
PICTURES = 8  # different ones; a larger batch repeats them
PICTURE_SIZE = 640  # pixels, long side, as most photographs of COCO
TYPES = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass(frozen=True)
class Speed:
    """One measurement. Rates are medians; None where `note` says why nothing was measured."""

    precision: str
    folded: bool
    batch: int
    model: float | None = None  # images per second, network alone
    end_to_end: float | None = None  # letterbox, network, decoding and suppression
    candidates: int | None = None  # an image, that suppression compared
    repeats: int = 0  # timed runs of the network behind the median
    note: str = ""


@torch.no_grad()
def measure_speed(
    model: Detector,
    size: int,
    batches: Sequence[int],
    device: torch.device,
    precisions: Sequence[str],
    seconds: float,
) -> Iterator[Speed]:
    """Measure at each precision, as it is and folded, at each batch, the smaller ones first.

    size: pixels of the square input. seconds: of timed repeats per figure, after a run that warms up. A batch
    that would take longer than this, judging from the batch before, is not run and says so; neither is
    one for which the GPU's memory does not suffice. Weights may be those of initialisation: the confidence is
    then set so that CANDIDATES an image reach suppression, as trained weights would make it.

    A model of several tasks computes all of them; what follows the network is detection's.

    Raises InputError for a size that the model cannot take and for fp16 on a CPU, ConfigError for a model
    without the detection task.
    """
    if "fp16" in precisions and not is_gpu(device):
        raise InputError("precision fp16 on a CPU: it has no fast half precision; allowed: fp32")
    model.check(next(model.parameters()).new_empty(1, 3, size, size))
    pictures = sample_pictures()
    for precision in precisions:
        for folded in (False, True):
            net = (fold(model) if folded else copy.deepcopy(model)).eval().to(device, TYPES[precision])
            per_image = 0.0
            for batch in sorted(set(batches)):
                expected = per_image * batch
                if expected > seconds:
                    note = f"not run: about {expected:.0f} s a batch, the limit is {seconds:g} s"
                    yield Speed(precision, folded, batch, note=note)
                    continue
                try:
                    speed, per_image = _measure(net, size, batch, pictures, seconds, precision)
                except torch.OutOfMemoryError:
                    free_memory(device)
                    yield Speed(precision, folded, batch, note="not run: out of GPU memory")
                    continue
                yield speed


def _measure(
    net: Detector, size: int, batch: int, pictures: list[np.ndarray], seconds: float, precision: str
) -> tuple[Speed, float]:
    """The measurement, and seconds per image of the network alone."""
    device = net.anchors.device
    batch_of = [pictures[i % len(pictures)] for i in range(batch)]
    images = prepare(batch_of, size, net)
    forward, repeats = median_seconds(lambda: net(images), seconds, device)
    decoded = decode(of_task(net(images[:1]), "detection"), net.strides, net.anchors)
    config = EvaluationConfig(size=size, confidence=confidence_for(decoded[0], CANDIDATES))
    candidates = len(select(decoded[0], config.confidence).scores)

    def whole() -> None:
        raw = of_task(net(prepare(batch_of, size, net)), "detection")
        suppress(decode(raw, net.strides, net.anchors), config)

    end_to_end, _ = median_seconds(whole, seconds, device)
    speed = Speed(precision, net.folded, batch, batch / forward, batch / end_to_end, candidates, repeats)
    return speed, forward / batch


def prepare(pictures: Sequence[np.ndarray], size: int, net: Detector) -> Tensor:
    """Letterboxed pictures as the network's input, (B, 3, size, size) on its device and of its type."""
    stack = np.stack([letterbox(resize(picture, size, "test"), size, size)[0] for picture in pictures])
    weight = next(net.parameters())
    images = torch.from_numpy(stack).to(weight.device).permute(0, 3, 1, 2)
    return images.to(weight.dtype, memory_format=torch.contiguous_format) / 255


def sample_pictures() -> list[np.ndarray]:
    """uint8 RGB pictures from the built-in dataset."""
    images = load_images(ShapesConfig(size=PICTURE_SIZE, train_images=1, val_images=PICTURES), "val")
    return [images.image(index) for index in range(PICTURES)]


@torch.no_grad()
def settle(model: Detector) -> Detector:
    """Give the BatchNorms of an untrained model the statistics of the sample pictures, in place.

    With those of initialisation the signal dies out on the way and every cell predicts the same.
    """
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    training = model.training
    model.train()(prepare(sample_pictures()[:2], 4 * model.strides[-1], model))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.train(training)


def confidence_for(rows: Tensor, candidates: int) -> float:
    """The threshold that `candidates` products of objectness and score exceed; rows (N, 5 + classes)."""
    products = (rows[:, 5:] * rows[:, 4:5]).flatten()
    if candidates >= len(products):
        return 0.0
    return float(products.topk(candidates + 1).values[-1])


def median_seconds(call: Callable[[], object], seconds: float, device: torch.device) -> tuple[float, int]:
    """Median over repeats that take `seconds` together (at least one), after one that is not counted."""
    times: list[float] = []
    began = 0.0
    while not times or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        call()
        synchronize(device)
        if began:
            times.append(time.perf_counter() - start)
        else:
            began = time.perf_counter()
    return statistics.median(times), len(times)


def describe_device(device: torch.device) -> str:
    """Name of the GPU, or of the processor with torch's number of threads."""
    if is_gpu(device):
        return device_name(device)
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        name = found[0] if found else name
    return f"{name}, {torch.get_num_threads()} threads"
