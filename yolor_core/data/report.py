"""What was found in a dataset and what was done about it: counts, and the first offenders by name."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

log = logging.getLogger(__name__)

MOST_EXAMPLES = 10


class Kind(NamedTuple):
    """A kind of finding, in words.

    unit: what is counted, "images", "boxes" (annotations) or "classes"; meaning: what follows the number;
    effect: what it does to training and to which score; serious: the share of all of its unit in the split
    from which on `ablate data check` ends with code 1, None for never.
    """

    unit: Literal["images", "boxes", "classes"]
    meaning: str
    effect: str = ""
    serious: float | None = None


KINDS = {
    "crowd": Kind("boxes", "crowd regions", "no targets in training, ignored by the evaluation as in COCO"),
    "clipped": Kind("boxes", "boxes partly outside their image", "clipped to it for training"),
    "dropped": Kind(
        "boxes",
        "boxes without area inside their image",
        "left out of training; each is a miss to pycocotools, which no detection can match",
    ),
    "renamed": Kind("classes", "categories that share a name", "told apart as 'name (id)'"),
    "empty": Kind("images", "images without annotations", "kept as background"),
    "unreadable": Kind("images", "images that cannot be decoded", "replaced by grey without boxes", 0.0),
    "resized": Kind(
        "images", "images whose pixels have another size than the annotation file says", "scaled to it", 0.0
    ),
    "rotated": Kind("images", "images turned upright by EXIF", "only then they have the annotated size"),
    "turned": Kind(
        "images",
        "images turned upright by EXIF whose size cannot tell whether their boxes are upright, too",
        "as annotation tools show them; where boxes are of the stored pixels, remove the orientation",
    ),
    "stored": Kind(
        "images",
        "images left as stored against their EXIF orientation",
        "only so they have the annotated size; `ablate detect` turns them",
    ),
    "metadata": Kind("images", "images with damaged metadata", "left out, the pixels are whole"),
    "converted": Kind("images", "images converted to 8-bit RGB"),
    "dark": Kind(
        "images",
        "16-bit images that use 14 bits or fewer",
        "dark or black to the model, which sees the upper 8 of 16 bits; scale their samples to 16 bits",
    ),
}
WARNED = ("unreadable", "resized")


class Note(NamedTuple):
    """One finding: its kind (a key of KINDS), what it is about (an id), and a sentence that names it."""

    kind: str
    key: int
    text: str


@dataclass
class Finding:
    """All findings of one kind; a thing found twice counts once."""

    keys: set[int] = field(default_factory=set)
    examples: list[str] = field(default_factory=list)


@dataclass
class DataReport:
    """Counts of a split after cleaning, with up to MOST_EXAMPLES named offenders of each kind.

    The kinds that concern pixels are filled in while images are read.
    """

    source: str
    images: int = 0
    annotations: int = 0
    boxes: int = 0  # training targets that are left after cleaning
    identities: int = 0  # different ones among these
    identity_source: str = "category"  # or "identity", the field of the annotations
    identities_once: int = 0  # identities of a single box
    boxes_without_identity: int = 0
    findings: dict[str, Finding] = field(default_factory=lambda: {kind: Finding() for kind in KINDS})

    def add(self, notes: Iterable[Note]) -> None:
        """Count notes; an image is reported (and warned of) once, however often it is read."""
        for note in notes:
            finding = self.findings[note.kind]
            if note.key in finding.keys:
                continue
            finding.keys.add(note.key)
            if len(finding.examples) < MOST_EXAMPLES:
                finding.examples.append(note.text)
            if note.kind in WARNED:
                log.warning("%s: %s", note.kind, note.text)

    def count(self, kind: str) -> int:
        """Number of different things of a kind."""
        return len(self.findings[kind].keys)

    def serious(self, kind: str) -> bool:
        """Whether there is so much of a kind that numbers of the split are not what they seem."""
        unit, share, count = KINDS[kind].unit, KINDS[kind].serious, self.count(kind)
        every = self.images if unit == "images" else self.annotations if unit == "boxes" else 1
        return share is not None and 0 < count >= share * every

    @property
    def without_boxes(self) -> str | None:
        """One line on a split without anything to learn or find, else None; crowds are no boxes."""
        if self.boxes:
            return None
        rest = f"{self.crowd} crowd regions and {self.dropped} boxes without area inside their image"
        return f"{self.source}: not a single box: {self.annotations} annotations, among them {rest}"

    @property
    def crowd(self) -> int:
        """Crowd regions."""
        return self.count("crowd")

    @property
    def clipped(self) -> int:
        """Boxes that were clipped to their image."""
        return self.count("clipped")

    @property
    def dropped(self) -> int:
        """Boxes that are not trained on because nothing of them is left."""
        return self.count("dropped")

    @property
    def empty(self) -> int:
        """Images without annotations."""
        return self.count("empty")

    @property
    def unreadable(self) -> int:
        """Images found undecodable so far."""
        return self.count("unreadable")

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON content: counts for every kind, examples where there are any."""
        found: dict[str, Any] = {
            kind: {"count": len(finding.keys), "examples": list(finding.examples)}
            for kind, finding in self.findings.items()
        }
        return {
            "source": self.source,
            "images": self.images,
            "annotations": self.annotations,
            "boxes": self.boxes,
            "identities": {
                "count": self.identities,
                "source": self.identity_source,
                "once": self.identities_once,
                "boxes_without": self.boxes_without_identity,
            },
            **found,
        }
