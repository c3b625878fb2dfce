"""Where a folder in COCO's layout keeps its files. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yolor_core.config import CocoConfig
from yolor_core.errors import DataError

COCO_NAMES = tuple(
    """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
    stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe,
    backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball
    bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife,
    spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair,
    couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone,
    microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier,
    toothbrush""".replace("\n    ", " ").split(", ")
)


USUAL = (("train2017", "val2017"), ("train", "val"), ("train2014", "val2014"))


def annotation_file(root: Path, split: str) -> Path:
    """`<root>/annotations/instances_<split>.json`, or that with .gz, the ending in any case of letters.

    Raises DataError, naming the splits there are, if missing.
    """
    path = root / "annotations" / f"instances_{split}.json"
    if path.is_file():
        return path
    found = _annotation_files(root)
    if split in found:
        return found[split]
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    there = f"splits found: {', '.join(found)}" if found else "no annotations/instances_<split>.json is there"
    raise DataError(f"{path}: no such file; {there}")


def splits(root: Path) -> list[str]:
    """Names of the splits that have an instances file."""
    return sorted(_annotation_files(root))


def _annotation_files(root: Path) -> dict[str, Path]:
    """By split; the plain file where there is a gzipped one beside it."""
    found = {}
    for ending in (".json.gz", ".json"):
        for path in sorted((root / "annotations").glob("instances_*"), reverse=True):
            if path.name.lower().endswith(ending):
                found[path.name[len("instances_") : -len(ending)]] = path
    return dict(sorted(found.items()))


def beside(root: Path, names: Sequence[str]) -> list[tuple[Path, Path]]:
    """Annotation files of splits that are not read, each after the one that is."""
    used = [annotation_file(root, name) for name in names]
    twins = ((path, path.with_name(f"{path.name}.gz")) for path in used)
    return [(path, twin) for path, twin in twins if twin.is_file()]


def image_folder(root: Path, split: str) -> Path:
    """`<root>/<split>` or `<root>/images/<split>`. Raises DataError if neither is a folder."""
    candidates = (root / split, root / "images" / split)
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise DataError(
        f"no image folder for split {split!r}: neither {candidates[0]} nor {candidates[1]} is there"
    )


def coco_config(root: Path) -> CocoConfig:
    """Configuration of a folder, with the splits that are there: train2017 and val2017, or train and val.

    Raises DataError, naming the splits that were found, when neither pair is complete.
    """
    found = splits(root)
    for train, val in USUAL:
        if train in found and val in found:
            return CocoConfig(root=str(root), train=train, val=val)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    pairs = ", ".join(f"{train} and {val}" for train, val in USUAL)
    raise DataError(
        f"{root}: annotations/instances_<split>.json is needed for two splits ({pairs}); "
        f"found: {', '.join(found) or 'none'}"
    )
