"""A folder of Pascal VOC or YOLO as one in COCO's layout, or one in that layout split anew.

It is wholly written, or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from yolor_core.data.label_files import FORMS, Entry, Form, Heard, Labelled, Reading, plain, read_labels
from yolor_core.data.label_folders import EVERY, SPLITS, Layout, find_layout
from yolor_core.data.records import read_json
from yolor_core.errors import ConfigError, DataError, some_of

Difficult = Literal["keep", "crowd"]
Unlabelled = Literal["refuse", "empty", "skip"]
Groups = Mapping[Path, "int | str"]  # of the pictures that are in one
ANEW = "--val SHARE splits the pictures anew"
HINT = "--unlabelled empty takes such pictures for ones without objects, skip leaves them out"


@dataclass(frozen=True)
class Conversion:
    """What of a conversion is not said by the folder itself.

    form: None tells it by the files. classes: names in the order that they get. val: the share of pictures
    for validation, by the seed; pictures of one group of the file `groups` stay together. difficult: what
    becomes of VOC's difficult objects. unlabelled: what becomes of pictures without a label file; None is
    "refuse" for VOC and "empty" for YOLO, where such a file is left out for a picture without objects.
    copy: pictures are copied also where they can be hard links.
    """

    form: Form | None = None
    classes: Sequence[str] | None = None
    val: float | None = None
    seed: int | None = None  # 0
    groups: Path | None = None
    reading: Reading = field(default_factory=Reading)
    difficult: Difficult = "keep"
    unlabelled: Unlabelled | None = None
    copy: bool = False


@dataclass(frozen=True)
class Converted:
    """What was written. contents: of the annotation files by split; notes: what to tell, a line each; linked:
    pictures that are hard links, of all."""

    form: Form
    contents: dict[str, dict[str, Any]]
    notes: list[str]
    linked: int


def convert(source: Path, target: Path, how: Conversion) -> Converted:
    """Write `target`/annotations/instances_<split>.json and `target`/<split>/ for each split.

    Images are numbered from 1 over all splits in the order of their names, annotations from 1 in each file.
    Raises ConfigError for options that do not fit, DataError for a folder that cannot be converted as it is,
    naming file and entry, and for a target that is there.
    """
    if os.path.lexists(target):
        raise DataError(f"{target}: it is there already; choose another folder")
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{target}: it would be inside {source}, which is not changed; choose another folder")
    if how.val is not None and not 0 < how.val < 1:
        raise ConfigError(
            f"--val is {how.val:g}; a share of the pictures between 0 and 1 is needed, e.g. 0.2"
        )
    if how.val is None and how.seed is not None:
        raise ConfigError("--seed says which split --val makes, and --val is not given")
    if how.classes is not None:
        twice = [name for name, count in Counter(how.classes).items() if count > 1 or not name]
        if twice:
            raise ConfigError(
                f"--classes has {twice[0]!r} more than once" if twice[0] else "--classes has an empty name"
            )
    groups = None if how.groups is None else read_groups(how.groups)
    layout = find_layout(source, how.form, how.classes)
    _refuse_options(source, layout.form, how)
    of_pictures = _of_pictures(groups, how.groups, layout)
    if how.unlabelled == "skip":  # first, as --val is a share of what is left
        left = {split: _with_labels(entries, layout, "skip") for split, entries in layout.splits.items()}
        layout.splits = {split: entries for split, entries in left.items() if entries or split != "test"}
        _refuse_empty(layout.splits, layout.heard)
    splits = _choose_splits(layout, how, of_pictures)
    if layout.form == "coco":
        return _converted(target, layout, splits, _kept(splits), how)
    splits = {split: _with_labels(entries, layout, how.unlabelled) for split, entries in splits.items()}
    splits = {split: entries for split, entries in splits.items() if entries or split != "test"}
    _refuse_empty(splits, layout.heard)
    names = dict(enumerate(how.classes)) if how.classes else layout.names
    entries = [entry for entries in splits.values() for entry in entries]
    found = {one.picture: one for one in read_labels(layout.form, entries, names, how.reading, layout.heard)}
    layout.heard.refuse()
    labelled = {split: [found[entry.picture] for entry in entries] for split, entries in splits.items()}
    return _converted(target, layout, splits, _contents(layout, labelled, names, how), how)


def _converted(
    target: Path,
    layout: Layout,
    splits: Mapping[str, Sequence[Entry]],
    contents: dict[str, dict[str, Any]],
    how: Conversion,
) -> Converted:
    pictures = {split: [entry.picture for entry in entries] for split, entries in splits.items()}
    linked = _write(target, pictures, contents, how.copy)
    return Converted(layout.form, contents, layout.heard.notes(), linked)


def _refuse_options(source: Path, form: Form, how: Conversion) -> None:
    of_voc: dict[str, object] = {
        "--zero-based": how.reading.zero_based,
        "--difficult": how.difficult != "keep",
    }
    of_both: dict[str, object] = {
        "--classes": how.classes,
        "--clip": how.reading.clip,
        "--unlabelled": how.unlabelled,
    }
    refused: dict[str, object] = {"voc": {}, "yolo": of_voc, "coco": of_voc | of_both}[form]
    for option in (option for option, given in refused.items() if given):
        whose = "Pascal VOC" if option in of_voc else "Pascal VOC and YOLO"
        said = "COCO's layout" if form == "coco" else "YOLO's form"
        raise ConfigError(f"{option} is for {whose}; {source} is in {said}")


def read_groups(path: Path) -> dict[str, int | str]:
    """The group of each picture, by file name, of a file as `ablate data check --near` writes it.

    Raises DataError for any other content.
    """
    content = read_json(path)
    groups = content.get("groups") if isinstance(content, dict) else None
    if not isinstance(groups, dict) or not groups:
        raise DataError(f"{path}: key 'groups' with an object of file names and their groups is needed")
    for name, group in groups.items():
        if isinstance(group, bool) or not isinstance(group, int | str):
            raise DataError(f"{path}: {name}: group is {group!r}; a whole number or a text is needed")
    return groups


def _of_pictures(groups: Mapping[str, int | str] | None, path: Path | None, layout: Layout) -> Groups | None:
    """Groups by picture. A key is a file name, or `split/name` where two splits have a file of the name, both
    as the annotations have them or as the converted folder will.

    Raises DataError, naming the file `path`, for names of no picture.
    """
    if groups is None:
        return None
    found, unknown = {}, dict(groups)
    for split, entries in layout.splits.items():
        for picture in (entry.picture for entry in entries):
            of, name = layout.called.get(picture, (split, picture.name))
            keys = (name, f"{of}/{name}", picture.name, f"{split}/{picture.name}")
            key = next((each for each in keys if each in groups), None)
            if key is not None:
                found[picture] = groups[key]
                unknown.pop(key, None)
    if unknown:
        raise DataError(
            f"{path}: {len(unknown)} of its {len(groups)} names are no picture of {layout.heard.source}: "
            f"{some_of([*unknown], 3)}; remove them, or have `ablate data check --near --groups-out` write a "
            "file for these pictures"
        )
    return found


def _refuse_empty(splits: Mapping[str, Sequence[Entry]], heard: Heard) -> None:
    empty = [split for split, entries in splits.items() if not entries]
    if empty:
        where = f"no pictures are in {' and '.join(empty)}" if any(empty) else "no picture has a label file"
        raise DataError(f"{heard.source}: {where}")


def _choose_splits(layout: Layout, how: Conversion, groups: Groups | None) -> dict[str, list[Entry]]:
    """The entries of each split, sorted by the names of their pictures; no name is in a split twice."""
    heard, splits = layout.heard, layout.splits
    if how.val is None and EVERY in splits:
        raise DataError(f"{heard.source}: nothing says which pictures are for validation; --val SHARE does")
    if how.val is not None:
        test = splits.get("test", [])
        rest: dict[str, Entry] = {}
        for entry in (entry for split in splits if split != "test" for entry in splits[split]):
            first = rest.setdefault(os.path.realpath(entry.picture), entry)
            if not _alike(first, entry, layout.form):
                what = f"the same file as {heard.name(first.picture)}, with other labels; remove one of them"
                heard.problem(entry.picture, what)
            elif first != entry:
                heard.note("pictures that are the file of another, taken once", heard.name(entry.picture))
        for entry in test:
            rest.pop(os.path.realpath(entry.picture), None)
        pool = _sorted([*rest.values()], heard)
        heard.refuse()
        train, val = _split(pool, how.val, how.seed or 0, groups or {}, heard)
        splits = {"train": train, "val": val, **({"test": test} if test else {})}
    where: dict[str, tuple[str, Entry]] = {}
    for split, entries in splits.items():
        for entry in entries:
            other, first = where.setdefault(os.path.realpath(entry.picture), (split, entry))
            if other != split:
                hint = ANEW if _alike(first, entry, layout.form) else ""
                heard.problem(entry.picture, f"in {other} and in {split}", hint)
    chosen = {split: _sorted(splits[split], heard) for split in SPLITS if split in splits}
    heard.refuse()
    if groups is not None:
        _judge_groups(chosen, groups, how, heard)
    _refuse_empty(chosen, heard)
    return chosen


def _alike(one: Entry, other: Entry, form: Form) -> bool:
    """Whether two entries of one file have the same labels. In COCO's layout each has a record of its own."""
    if one == other or form == "coco":
        return one == other
    first, second = (b"" if entry.label is None else entry.label.read_bytes() for entry in (one, other))
    return first == second


def _sorted(entries: Sequence[Entry], heard: Heard) -> list[Entry]:
    first: dict[str, Path] = {}
    for entry in entries:
        other = first.setdefault(entry.picture.name, entry.picture)
        if other != entry.picture:
            heard.problem(entry.picture, f"two pictures of one name, the other is {heard.name(other)}")
    return sorted(entries, key=lambda entry: entry.picture.name)


def _split(
    pool: Sequence[Entry], share: float, seed: int, groups: Groups, heard: Heard
) -> tuple[list[Entry], list[Entry]]:
    """Entries for training and for validation, groups whole.

    Groups come in the order of a hash of seed and first name, which no library's generator can change, and
    go to validation where they do not exceed its share. Raises DataError where that leaves a split empty.
    """
    units: dict[object, list[Entry]] = defaultdict(list)
    for entry in pool:
        picture = entry.picture
        units[("group", groups[picture]) if picture in groups else picture].append(entry)

    def order(unit: list[Entry]) -> bytes:
        return hashlib.sha256(f"{seed} {unit[0].picture.name}".encode("utf-8", "surrogateescape")).digest()

    wanted = min(max(round(share * len(pool)), 1), len(pool) - 1)
    val: list[Entry] = []
    for unit in sorted(units.values(), key=order):
        if len(val) + len(unit) <= wanted:
            val += unit
    if not val:
        if len(pool) < 2:
            raise DataError(f"{heard.source}: one picture cannot be split into train and val")
        raise DataError(
            f"{heard.source}: none of the {len(units)} groups of {len(pool)} pictures is small enough for "
            f"the {wanted} for validation that --val asks for"
        )
    chosen = set(val)
    return [entry for entry in pool if entry not in chosen], val


def _judge_groups(
    splits: Mapping[str, Sequence[Entry]], groups: Groups, how: Conversion, heard: Heard
) -> None:
    """Tell what groups say of splits. Raises DataError where they are of other pictures, or torn by the lists
    of the folder."""
    places: dict[int | str, dict[str, str]] = defaultdict(dict)  # a name in each split, by group
    missing = []
    for split, entries in splits.items():
        for entry in entries:
            if entry.picture in groups:
                places[groups[entry.picture]].setdefault(split, entry.picture.name)
            else:
                missing.append(entry.picture.name)
    for name in missing:
        heard.note("pictures in no group, split one by one", name)
    for group, names in places.items():
        if len(names) < 2:
            continue
        example = f"group {group}: {' and '.join(f'{name} in {split}' for split, name in names.items())}"
        if how.val is None:
            hint = "test is never split anew: move one away" if "test" in names else ANEW
            heard.problem(how.groups or heard.source, f"{example}: torn by the folder's own splits", hint)
        else:
            heard.note("groups that are in the folder's own test split, too", example)
    heard.refuse()


def _with_labels(entries: Sequence[Entry], layout: Layout, unlabelled: Unlabelled | None) -> list[Entry]:
    """Those of entries that are converted, as to whether they have a label file."""
    heard, policy = layout.heard, unlabelled or ("refuse" if layout.form == "voc" else "empty")
    without = [entry for entry in entries if entry.label is None]
    if entries and len(without) == len(entries) and unlabelled is None:
        place = "of its name" if layout.form == "voc" else "beside it, or in `labels` where it is in `images`"
        what = f"no label file {place}; none of the {len(entries)} pictures of its split has one"
        heard.problem(without[0].picture, what, HINT)
    elif policy == "refuse":
        for entry in without:
            heard.problem(entry.picture, "it has no label file", HINT)
    for entry in without if policy != "refuse" else ():
        what = "taken for ones without objects" if policy == "empty" else "left out"
        heard.note(f"pictures without a label file, {what}", heard.name(entry.picture))
    return [entry for entry in entries if entry.label or policy != "skip"]


def _kept(splits: Mapping[str, Sequence[Entry]]) -> dict[str, dict[str, Any]]:
    """Content of the annotation files of pictures in COCO's layout: all that theirs say, numbered anew.

    Raises DataError where the files have different categories, or a split gets pictures of files that state
    different size limits or licences.
    """
    paths = sorted({entry.label for entries in splits.values() for entry in entries if entry.label})
    said = {path: read_json(path) for path in paths}
    for path in paths[1:]:
        if said[path]["categories"] != said[paths[0]]["categories"]:
            raise DataError(f"{path}: its categories are not those of {paths[0].name}")
    # No two pictures of a folder that is converted have one name.
    image_of: dict[tuple[Path | None, str], dict[str, Any]]
    image_of = {(path, Path(each["file_name"]).name): each for path in paths for each in said[path]["images"]}
    of_image: dict[tuple[Path | None, int], list[dict[str, Any]]] = defaultdict(list)
    for path in paths:
        for each in said[path]["annotations"]:
            of_image[path, each["image_id"]].append(each)
    contents: dict[str, dict[str, Any]] = {}
    identifier = 0
    for split, entries in splits.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for entry in entries:
            identifier, name = identifier + 1, entry.picture.name
            image = image_of[entry.label, name]
            images.append({**image, "id": identifier, "file_name": name})
            for each in of_image[entry.label, image["id"]]:
                annotations.append({**each, "id": len(annotations) + 1, "image_id": identifier})
        own = sorted({entry.label for entry in entries if entry.label})
        contents[split] = {**_head(own, said), "images": images, "annotations": annotations}
    return contents


def _head(paths: Sequence[Path], said: Mapping[Path, dict[str, Any]]) -> dict[str, Any]:
    """What stands beside images and annotations in the file of pictures from these files."""
    head = dict(said[paths[0]])
    for path in paths[1:]:
        limits = [(each.get("info") or {}).get("size_limits") for each in (head, said[path])]
        if limits[0] != limits[1]:
            raise DataError(f"{path}: its info.size_limits are not those of {paths[0].name}; make them alike")
        if said[path].get("licenses") != head.get("licenses"):
            licences = {each.get("id"): each for each in head.get("licenses") or []}
            for each in said[path].get("licenses") or []:
                if licences.setdefault(each.get("id"), each) != each:
                    raise DataError(f"{path}: licence {each.get('id')} is another one in {paths[0].name}")
            head["licenses"] = [*licences.values()]
    return head


def _contents(
    layout: Layout, labelled: Mapping[str, Sequence[Labelled]], names: Mapping[int, str], how: Conversion
) -> dict[str, dict[str, Any]]:
    """Content of the annotation files. Category ids begin at 1 and follow YOLO's numbers, the order of
    --classes, or the alphabet, names that are numbers by their value."""
    if not names:
        used = {each.name for images in labelled.values() for one in images for each in one.objects}
        number = used and all(name.isdecimal() for name in used)
        names = dict(enumerate(sorted(used, key=(lambda name: (int(name), name)) if number else None)))
    if not names:
        raise DataError(f"{layout.heard.source}: no file has an object")
    category = {name: number + 1 for number, name in names.items()}
    info = {"description": f"converted from {FORMS[layout.form]}"}
    if layout.form == "voc":
        info["coordinates"] = "from 0, ends excluded" if how.reading.zero_based else "from 1, ends included"
    contents = {}
    identifier = 0
    for split, pictures in labelled.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for one in pictures:
            identifier += 1
            width, height = one.size
            images.append({"id": identifier, "file_name": one.picture.name, "width": width, "height": height})
            for each in one.objects:
                crowd = each.difficult and how.difficult == "crowd"
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": identifier,
                    "category_id": category[each.name],
                    "bbox": list(each.box),
                    "area": plain(each.box[2] * each.box[3]),
                    "iscrowd": int(crowd),
                }
                if each.difficult:
                    annotation["difficult"] = 1
                    kept = "kept as others are (--difficult crowd has them ignored)"
                    what = f"objects marked difficult, {'now crowds' if crowd else kept}"
                    layout.heard.note(what, one.picture.name)
                annotations.append(annotation)
        categories = [{"id": number + 1, "name": name} for number, name in sorted(names.items())]
        contents[split] = {
            "info": info, "images": images, "annotations": annotations, "categories": categories
        }  # fmt: skip
    return contents


def _write(
    target: Path, pictures: Mapping[str, Sequence[Path]], contents: Mapping[str, Any], copy: bool
) -> int:
    """Write everything beside the target, then give it its name; returns how many pictures are hard links."""
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    linked = 0
    try:
        (partial / "annotations").mkdir(parents=True)
        for split, paths in pictures.items():
            (partial / split).mkdir()
            for path in paths:
                linked += _place(path, partial / split / path.name, copy)
            text = json.dumps(contents[split], separators=(",", ":"), allow_nan=False)
            (partial / "annotations" / f"instances_{split}.json").write_text(text, encoding="utf-8")
        partial.rename(target)
    except OSError as error:
        place = target if str(partial) in str(error.filename or partial) else error.filename
        raise DataError(f"{place}: {error.strerror or error}; nothing was converted") from None
    except ValueError as error:
        raise DataError(
            f"{target}: an annotation holds a number that JSON has not ({error}); nothing was converted"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return linked


def _place(picture: Path, target: Path, copy: bool) -> bool:
    """A picture under another name; whether it is a hard link."""
    if not copy:
        with contextlib.suppress(OSError):  # another file system, or one without links
            os.link(os.path.realpath(picture), target)
            return True
    shutil.copyfile(picture, target)
    return False
