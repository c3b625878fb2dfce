"""What writing a pack will do, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from yolor_core.data.coco import FileReader, file_reader, read_annotations
from yolor_core.data.images import Purpose
from yolor_core.data.pack.format import Description, file_name
from yolor_core.data.pack.reader import open_pack, require_unchanged
from yolor_core.data.pack.write import estimate, whole
from yolor_core.data.pictures import states
from yolor_core.errors import DataError

SMALLEST = 32  # pixels, as for training


@dataclass(frozen=True)
class Plan:
    """A pack to write: from which files, where to, and its estimated size in bytes."""

    target: Path
    reader: FileReader
    about: Description
    bytes: int


def purpose_of(split: str) -> Purpose:
    """What a split is for by its name: `val...` and `test...` are tested on, others trained on."""
    return "test" if split.startswith(("val", "test")) else "train"


def plan_pack(root: Path, split: str, size: int | None, purpose: Purpose | None, folder: Path) -> Plan:
    """The pack of a split of the COCO folder `root`: of original files, or decoded at `size` pixels.

    Raises DataError when the annotations cannot be used, image files are missing, or the size is too small.
    """
    if size is not None and size < SMALLEST:
        raise DataError(f"--decoded is {size}; at least {SMALLEST} pixels are needed")
    if size is None and purpose is not None:
        raise DataError(f"--purpose {purpose} is for decoded packs; add --decoded SIZE or leave it out")
    _, annotations, _, fingerprint = read_annotations(root, split)
    reader = file_reader(root, split, annotations)
    use = purpose or purpose_of(split)
    about = Description(
        kind="original" if size is None else "decoded",
        split=split,
        annotations=fingerprint,
        folder=str(reader.folder.relative_to(root)),
        size=size,
        purpose=None if size is None else use,
        whole=whole(reader, size),
    )
    return Plan(folder / file_name(split, size, use), reader, about, estimate(reader, size))


def is_right(plan: Plan) -> bool:
    """Whether the pack is there already. Raises DataError when something else has its place, or one of files
    that have changed."""
    if not plan.target.exists():
        return False
    try:
        files = plan.reader.files
        pack = open_pack(plan.target, plan.about.annotations, len(files))
        require_unchanged(pack, plan.reader.folder, files, states(plan.reader.folder, files))
    except DataError as error:
        raise DataError(f"{error}; --force writes it anew") from None
    return True
