"""Training samples a second of one process on one thread, against the loader of the released code.

    YOLOR_PEER=... python benchmarks/mosaic.py PATH [--split train2017] [--size 640] [--rounds 7] [--nine]

PATH is a COCO folder (default: `coco_multitask` in YOLOR_REAL_DATA), YOLOR_PEER a checkout of the released
repository's `paper` branch. The peer is its `utils.datasets.LoadImagesAndLabels`, given the same images and
boxes, mosaics of four independent images (`--nine`: `LoadImagesAndLabels9`), and the recipe of the CSP
models: translate 0, scale 0.5, its HSV gains and flips, no mixup. Both decode on demand and fill batches of
eight. Ours reads the image files, then a pack of the original files, then a pack of pixels decoded at the
size, each written to a temporary folder; one more row has the resized images in memory (`cache_images`).

The loaders take turns, batch by batch; a round is every image once. Printed are the median over rounds of the
processor's milliseconds per image, of images a second, and of the ratio to the peer in the same round. The
aims are 1.2 for files and 2.2 for decoded packs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.released import checkout, peer_modules
from yolor_core.config import AugmentConfig
from yolor_core.data import ImageSet, TrainingBatches
from yolor_core.data.coco import load_coco
from yolor_core.data.pack.write import plan_pack, write_pack

BATCH = 8
RECIPE = AugmentConfig(translate=0, scale=0.5, mosaic=1, mixup=0)


def peer_loader(root: Path, images: ImageSet, size: int, files: list[Path], nine: bool) -> Any:
    """The released loader on links to the same files, with the same boxes as label files."""
    peer = checkout()
    for folder in ("images", "labels"):
        (root / folder / "set").mkdir(parents=True)
    for index, file in enumerate(files):
        (root / "images" / "set" / file.name).symlink_to(file)
        w, h = images.sizes[index].tolist()
        boxes = images.boxes(index) / (w, h, w, h)
        rows = [
            f"{c} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}"
            for c, (x1, y1, x2, y2) in zip(images.classes(index), boxes, strict=True)
        ]
        (root / "labels" / "set" / f"{file.stem}.txt").write_text("\n".join(rows))
    with peer_modules(peer):
        datasets = importlib.import_module("utils.datasets")
    hyp = {
        "mosaic": 1.0, "mixup": 0.0, "degrees": 0.0, "shear": 0.0, "perspective": 0.0, "flipud": 0.0,
        "translate": RECIPE.translate, "scale": RECIPE.scale, "fliplr": RECIPE.flip_horizontal,
        "hsv_h": RECIPE.hsv_h, "hsv_s": RECIPE.hsv_s, "hsv_v": RECIPE.hsv_v,
    }  # fmt: skip
    kind = datasets.LoadImagesAndLabels9 if nine else datasets.LoadImagesAndLabels
    return kind(str(root / "images" / "set"), size, BATCH, augment=True, hyp=hyp)


def peer_epoch(loader: Any, seed: int) -> Iterator[object]:
    """Batches of the released loader in random order."""
    order = np.random.default_rng(seed).permutation(len(loader)).tolist()
    for start in range(0, len(order), BATCH):
        yield loader.collate_fn([loader[i] for i in order[start : start + BATCH]])


def take_turns(epochs: dict[str, Iterator[object]]) -> dict[str, float]:
    """Processor seconds that each loader needs for its epoch; they take turns batch by batch."""
    spent = dict.fromkeys(epochs, 0.0)
    left = dict(epochs)
    while left:
        for name, batches in list(left.items()):
            start = time.process_time()
            if next(batches, None) is None:
                del left[name]
            spent[name] += time.process_time() - start
    return spent


def prepare(
    options: argparse.Namespace, folder: Path
) -> tuple[dict[str, Callable[[int], Iterator[object]]], int]:
    """The loaders, each a function from a round's number to an epoch of batches, and the number of images."""
    augment = RECIPE.model_copy(update={"mosaic_images": 9 if options.nine else 4})
    sets = {"files": load_coco(options.path, options.split, use_packs=False)}
    for name, size in (("pack, original", None), ("pack, decoded", options.size)):
        plan = plan_pack(options.path, options.split, size, None if size is None else "train", folder / name)
        write_pack(plan.target, plan.reader, plan.about, lambda count: None)
        sets[name] = load_coco(options.path, options.split, folder / name)
    files = [plan.reader.path(i) for i in range(len(sets["files"]))]
    peer = peer_loader(folder, sets["files"], options.size, files, options.nine)
    batches = {f"ours, {name}": TrainingBatches(s, options.size, BATCH, seed=0) for name, s in sets.items()}
    batches["ours, cached"] = TrainingBatches(sets["files"], options.size, BATCH, seed=0, cache=True)
    loaders: dict[str, Callable[[int], Iterator[object]]] = {"peer": lambda number: peer_epoch(peer, number)}
    for name, source in batches.items():
        loaders[name] = partial(source.epoch, augment=augment)
    return loaders, len(files)


def main() -> None:
    """Print one line per loader."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    real = os.environ.get("YOLOR_REAL_DATA")
    default = Path(real) / "coco_multitask" if real else None
    parser.add_argument("path", type=Path, nargs="?" if default else None, default=default)
    parser.add_argument("--split", default="train2017")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--nine", action="store_true", help="mosaics of nine")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        loaders, count = prepare(options, Path(folder))
        take_turns({name: make(0) for name, make in loaders.items()})  # warms files, caches and code
        rounds = [
            take_turns({name: make(1 + number) for name, make in loaders.items()})
            for number in range(options.rounds)
        ]
    print(f"{count} images at {options.size}, mosaics of {9 if options.nine else 4}, {options.rounds} rounds")
    print(f"{'loader':24}{'ms':>9}{'images/s':>11}{'ratio':>8}")
    for name in loaders:
        seconds = statistics.median(spent[name] for spent in rounds) / count
        ratio = statistics.median(spent["peer"] / spent[name] for spent in rounds)
        print(f"{name:24}{seconds * 1e3:>9.2f}{1 / seconds:>11.0f}{ratio:>8.2f}")


if __name__ == "__main__":
    main()
