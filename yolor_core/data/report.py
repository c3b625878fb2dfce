"""What was found in a dataset and what was done about it: counts, and the first offenders by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from yolor_core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

MOST_EXAMPLES = 10
MOST_UNREADABLE = 0.1  # of the images of a split, beyond which neither training nor a score means anything


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
    "shares": Kind(
        "boxes",
        "boxes in shares of the picture where pixels belong",
        "as pixels they are dots or all in one corner: nothing is learnt (box loss near 0), AP is near 0",
        0.01,
    ),
    "corners": Kind(
        "boxes",
        "boxes that read as corners, x1 y1 x2 y2, where x, y, width and height belong",
        "widths and heights are too large in training and in every score",
        0.01,
    ),
    "centres": Kind(
        "boxes",
        "boxes that read as centre x, centre y, width, height",
        "they are half a width and height too far right and down, in training and in every score",
        0.01,
    ),
    "negative": Kind(
        "boxes",
        "boxes of negative width or height",
        "left out of training; each is a miss to pycocotools, which no detection can match",
        0.0,
    ),
    "areas": Kind(
        "boxes",
        "boxes whose area cannot be that of an object of theirs",
        "COCO's sizes go by `area`: APS, APM, APL, ARS, ARM and ARL are of the wrong boxes (below 1024 is "
        "small, below 0 counts in no score)",
        0.01,
    ),
    "repeated": Kind(
        "boxes",
        "boxes given twice, of the same class in the same image",
        "targets of training twice; to the evaluation a repeat is a miss, so that AP cannot reach 100",
        0.01,
    ),
    "file_twice": Kind(
        "images",
        "images whose file is listed before under another id",
        "they weigh twice; a right detection of an object that one entry alone has is false in the other",
        0.0,
    ),
    "shared": Kind(
        "images",
        "images whose pixels are those of an image of another split",
        "what is scored was trained on, so that AP says nothing about new pictures",
        0.01,
    ),
    "near_shared": Kind(
        "images",
        "images that look like one of another split (perceptual hash; mirrored and re-encoded ones too)",
        "if they are copies, what is scored was trained on",
        0.01,
    ),
    "overlap_shared": Kind(
        "images",
        "images that show a quarter or more of one of another split (`--near`: crops of one photograph, the "
        "same place taken again)",
        "what is scored was trained on in part; split by `--groups-out`",
        0.01,
    ),
    "copies": Kind(
        "images", "images whose pixels are those of an earlier image of the split", "the picture weighs twice"
    ),
    "near_copies": Kind(
        "images",
        "images that look like an earlier one of the split",
        "if they are copies, the picture weighs twice",
    ),
    "overlaps": Kind(
        "images",
        "images that show a quarter or more of an earlier one of the split (`--near`)",
        "the place weighs twice; a random split has it on both sides",
    ),
    "above_100": Kind(
        "images",
        "images with more than 100 objects",
        "pycocotools takes 100 detections of a class in an image: further boxes are misses, so that AP and "
        "AR of the class cannot reach 100",
    ),
    "one_split": Kind(
        "classes",
        "classes with boxes in this split and none in another",
        "in training alone a class is never scored; in validation alone its AP is 0 and counts in the mean",
    ),
    "unused": Kind(
        "classes", "classes without a box in any split", "not learnt, and left out of the mean over classes"
    ),
    "annotation_zero": Kind(
        "boxes",
        "annotation with id 0",
        "counts as missed even where it is found: pycocotools, whose scores these are, takes a match with it "
        "for none",
    ),
    "ignore": Kind(
        "boxes",
        "boxes with `ignore` or `difficult` set",
        "without effect, as pycocotools replaces `ignore` by `iscrowd`: they are trained on and scored like "
        "others; `iscrowd` 1 has a box ignored",
    ),
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
    "outside": Kind(
        "images", "images whose file names lead outside the folder", "a copy of it reads the same files"
    ),
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
    """All findings of one kind; a thing found twice counts once. counted: those found at once, without keys;
    summary: a sentence on them all."""

    keys: set[int] = field(default_factory=set)
    counted: int = 0
    summary: str = ""
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

    def count_rows(
        self, kind: str, rows: NDArray[np.int64], text: Callable[[int], str], summary: str = ""
    ) -> None:
        """Count rows of a table that are of a kind; `text` names one, `summary` says what of them all."""
        finding = self.findings[kind]
        finding.counted += len(rows)
        if len(rows):
            finding.summary = summary
        finding.examples += [text(int(row)) for row in rows[: MOST_EXAMPLES - len(finding.examples)]]

    def require_readable(
        self, images: int, unreadable: set[int] | None = None, all_read: bool = True
    ) -> None:
        """Raises DataError when more than MOST_UNREADABLE of so many images cannot be decoded.

        `unreadable` are the ids of those found by all processes; None: those found by this one. `all_read`:
        whether every image was looked at.
        """
        found = self.findings["unreadable"]
        count = len(found.keys if unreadable is None else unreadable)
        if count > MOST_UNREADABLE * images:
            named = "; ".join(found.examples[:3])
            number = f"{count}" if all_read else f"at least {count}"
            raise DataError(
                f"{self.source}: {number} of {images} images cannot be decoded; up to "
                f"{100 * MOST_UNREADABLE:.0f} % are replaced by grey{f': {named}' if named else ''}. "
                "`ablate data check` finds them all"
            )

    def count(self, kind: str) -> int:
        """Number of different things of a kind."""
        return len(self.findings[kind].keys) + self.findings[kind].counted

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
        crowd, dropped = self.count("crowd"), self.count("dropped")
        rest = f"{crowd} crowd regions and {dropped} boxes without area inside their image"
        return f"{self.source}: not a single box: {self.annotations} annotations, among them {rest}"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON content: counts for every kind, examples where there are any."""
        found: dict[str, Any] = {
            kind: {"count": self.count(kind), "examples": list(finding.examples)}
            | ({"summary": finding.summary} if finding.summary else {})
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
