"""Memory of the training loader over epochs and workers, against annotations in Python objects.

    python benchmarks/loader_memory.py [--images 118287] [--epochs 3]

A synthetic set with the annotation counts of COCO train2017 (7.3 boxes an image) and pictures of 32 pixels,
so that memory is that of annotations and loader, not of pixels. The peer, `objects`, is the usual way to hold
them: a torch Dataset over the lists and dicts that `json.load` gives (as dataset classes on pycocotools do),
loaded by a DataLoader with the same batches; counting references copies them into every forked worker, page
by page. Ours is `TrainingBatches` without augmentation.

Every case runs in a process of its own. Printed is the memory of that process and its workers together, less
what the process had before there was any data, at the end of each epoch; the growth from the first to the
last epoch; and the peer's figure of the last epoch over ours. (Proportional set size, which counts shared
pages once, without mapped files, whose share depends on what else the machine runs.) The aims are no growth
over epochs, and a total that hardly depends on the number of workers: each adds the interpreter's own pages.
Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).parent.parent))

from yolor_core.config import AugmentConfig
from yolor_core.data import ImageSet, TrainingBatches
from yolor_core.data.annotations import Annotations, Integers, Texts
from yolor_core.data.images import Pixels, Reader
from yolor_core.data.records import NONE, identify
from yolor_core.data.report import DataReport, Note

SIDE, BATCH, BOXES = 32, 64, 7.3
WORKERS = (0, 1, 4)
STILL = AugmentConfig(mosaic=0, scale=0, hsv_h=0, hsv_s=0, hsv_v=0, flip_horizontal=0)


class Flat(Reader):
    """Pictures of one colour."""

    def __call__(self, index: int) -> tuple[Pixels, list[Note]]:
        return np.full((SIDE, SIDE, 3), index % 256, np.uint8), []


def table(images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (m, 4) as corners, classes (m,), and where each image's begin (n + 1,)."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(BOXES, images)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    corner = rng.uniform(0, SIDE / 2, (starts[-1], 2))
    boxes = np.concatenate([corner, corner + rng.uniform(2, SIDE / 2, corner.shape)], axis=1)
    return boxes.astype(np.float32), rng.integers(0, 80, starts[-1]), starts


def ours(images: int, workers: int) -> Iterator[Iterator[object]]:
    """Epochs of TrainingBatches."""
    boxes, classes, starts = table(images)
    annotations = Annotations(
        tuple(str(c) for c in range(80)), tuple(range(80)), Integers(range(images)),
        Texts(f"{i:012d}.jpg" for i in range(images)), np.full((images, 2), SIDE), boxes, classes, starts,
        identify(np.full(len(classes), NONE), classes),
    )  # fmt: skip
    report = DataReport("synthetic", images=images)
    batches = TrainingBatches(
        ImageSet(annotations, report, Flat(), dict, ""), SIDE, BATCH, seed=0, workers=workers
    )
    epoch = 0
    while True:
        yield batches.epoch(epoch, STILL)
        epoch += 1


class Objects(Dataset[Any]):
    """Image records and their annotations as they come from JSON."""

    def __init__(self, images: int) -> None:
        boxes, classes, starts = table(images)
        self.records = [
            {"id": i, "file_name": f"{i:012d}.jpg", "width": SIDE, "height": SIDE} for i in range(images)
        ]
        corners, labels = boxes.tolist(), classes.tolist()
        self.annotations = [
            [
                {"id": r, "image_id": i, "category_id": labels[r], "bbox": corners[r], "iscrowd": 0}
                for r in range(starts[i], starts[i + 1])
            ]
            for i in range(images)
        ]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        record, own = self.records[index], self.annotations[index]
        pixels = np.full((3, record["height"], record["width"]), index % 256, np.uint8)
        targets = [[0, a["category_id"], *a["bbox"]] for a in own]
        return torch.from_numpy(pixels), torch.tensor(targets, dtype=torch.float32).reshape(-1, 6)


def objects(images: int, workers: int) -> Iterator[Iterator[object]]:
    """Epochs of the peer."""
    loader = DataLoader(
        Objects(images), BATCH, shuffle=True, num_workers=workers, collate_fn=_together,
        multiprocessing_context="fork" if workers else None,
    )  # fmt: skip
    while True:
        yield iter(loader)


def _together(samples: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.stack([s[0] for s in samples]), torch.cat([s[1] for s in samples])


def memory() -> float:
    """Proportional set size of this process and its children without mapped files, in MB.

    Of a file (a library), other processes of the machine may hold a changing share.
    """
    children = Path("/proc/self/task").glob("*/children")
    processes = ["self", *(pid for path in children for pid in path.read_text().split())]
    total = 0
    for process in processes:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += sum(int(x.split()[1]) for x in lines if x.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return total / 1024


def measure(kind: str, images: int, workers: int, epochs: int) -> list[float]:
    """Memory at the end of each epoch, while its workers are alive, less that before there was any data."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # that there are more workers than cores
    before, found = memory(), []
    source = {"ours": ours, "objects": objects}[kind](images, workers)
    for _, epoch in zip(range(epochs), source, strict=False):
        for _, _ in zip(range(-(-images // BATCH) - 1), epoch, strict=False):
            pass
        next(epoch)  # the last batch: the workers are done, but not yet gone
        found.append(memory() - before)
        for _ in epoch:
            pass
    return found


def main() -> None:
    """Print one line per loader and number of workers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=118_287)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--case", nargs=2, metavar=("KIND", "WORKERS"), help="measure one case, print JSON")
    options = parser.parse_args()
    if options.case:
        kind, workers = options.case
        print(json.dumps(measure(kind, options.images, int(workers), options.epochs)))
        return
    heads = "".join(f"{f'epoch {e + 1}':>10}" for e in range(options.epochs))
    print(f"{options.images:,} images, MB of all processes together")
    print(f"{'loader':10}{'workers':>8}{heads}{'growth':>9}{'ratio':>8}")
    for workers in WORKERS:
        found = {}
        for kind in ("objects", "ours"):
            command = [sys.executable, __file__, "--images", str(options.images)]
            command += ["--epochs", str(options.epochs), "--case", kind, str(workers)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            found[kind] = json.loads(done.stdout)
        for kind, values in found.items():
            shown = "".join(f"{value:>10.1f}" for value in values)
            growth, ratio = values[-1] - values[0], found["objects"][-1] / values[-1]
            print(f"{kind:10}{workers:>8}{shown}{growth:>9.1f}{ratio:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
