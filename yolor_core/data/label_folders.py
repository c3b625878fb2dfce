"""Folders of Pascal VOC, YOLO and COCO's layout: which pictures they have, and in which split."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from yolor_core.data.coco import files_of, read_annotations
from yolor_core.data.decode import suffixes
from yolor_core.data.label_files import Entry, Form, Heard, lines, why
from yolor_core.data.layout import splits as coco_splits
from yolor_core.errors import DataError

EVERY = ""  # the split of pictures of which nothing says where they belong
#: What splits are called in names of folders, lists and keys, by what they become.
SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
PICTURES = ("jpegimages", "images")
NAMES = ("classes.txt", "_darknet.labels")
NOTHING: tuple[object, ...] = ("", "~", "null", [])


@dataclass
class Layout:
    """Where a folder has what. names: YOLO's classes by number; splits: their entries by split, EVERY where
    nothing says which; every list of entries is sorted by the picture's path. called: of pictures in COCO's
    layout the name of their split and their own, as the annotations have them."""

    form: Form
    names: dict[int, str]
    splits: dict[str, list[Entry]]
    heard: Heard
    called: dict[Path, tuple[str, str]] = field(default_factory=dict)


def find_layout(source: Path, form: Form | None, classes: Sequence[str] | None) -> Layout:
    """The pictures and label files of a folder, or of the folder of a data.yaml or .data file.

    `classes` replace the names that a YOLO folder gives itself. Raises DataError where the folder is of no
    known form or of two, or has neither pictures nor names.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    # Absolute, as paths in lists may be: a picture has one path.
    source = Path(os.path.abspath(source))
    root = source if source.is_dir() else source.parent
    files = list(_walk(root))
    if form is None:
        form = _form(source, root, files)
    layout = Layout(form, {}, {}, Heard(root))
    if form == "voc":
        if not source.is_dir():
            raise DataError(f"{source}: a file; Pascal VOC's annotations are in a folder")
        _find_voc(root, files, layout)
    elif form == "coco":
        _find_coco(root, layout)
    else:
        _find_yolo(source, root, files, classes, layout)
    layout.heard.refuse()
    if not any(layout.splits.values()):
        raise DataError(f"{source}: no pictures are there")
    return layout


def _walk(root: Path) -> Iterator[Path]:
    """All files below a folder, links followed, without hidden ones and those that macOS adds to archives."""
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n != "__MACOSX")
        yield from (Path(folder, n) for n in sorted(names) if not n.startswith("."))


def _form(source: Path, root: Path, files: Sequence[Path]) -> Form:
    voc = any(path.suffix.lower() == ".xml" for path in files)
    yolo = not source.is_dir() or any(
        (path.parent == root and path.suffix.lower() in (".yaml", ".yml", ".data"))
        or (path.suffix == ".txt" and "labels" in path.relative_to(root).parts[:-1])
        for path in files
    )
    if voc and yolo and source.is_dir():
        raise DataError(
            f"{source}: it has XML files as Pascal VOC and labels as YOLO; say --from voc or yolo"
        )
    if not voc and not yolo and source.is_dir() and coco_splits(root):
        return "coco"
    if not voc and not any(path.suffix.lower() in (".txt", ".yaml", ".yml", ".data") for path in files):
        raise DataError(
            f"{source}: neither XML files, as of Pascal VOC, nor label files, as of YOLO, nor "
            "annotations/instances_<split>.json, as of COCO, are there"
        )
    return "voc" if voc and not yolo else "yolo"


def _pictures(files: Iterable[Path], folder: Path) -> list[Path]:
    return [p for p in files if p.suffix.lower() in suffixes() and p.is_relative_to(folder)]


def _children(folder: Path) -> dict[str, Path]:
    """Folders in a folder, by name in small letters."""
    return {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}


def _split_folders(folder: Path) -> dict[str, Path]:
    """Folders of splits, by what the splits become: of train, train2017, valid and so on.

    Raises DataError for two of one split.
    """
    found: dict[str, Path] = {}
    for name, path in _children(folder).items():
        split = _split_of(name)
        if split and found.setdefault(split, path) != path:
            raise DataError(
                f"{folder}: {found[split].name} and {path.name} would both be {split}; move one away"
            )
    return {split: found[split] for split in SPLITS if split in found}


def _split_of(name: str) -> str | None:
    """What a name such as train2017 or valid becomes."""
    plain = re.sub(r"(?<=[a-z])\d{4}$", "", name.lower())
    return next((split for split, names in SPLITS.items() if plain in names), None)


def _tell_unused(pictures: Iterable[Path], layout: Layout) -> None:
    used = {entry.picture for entries in layout.splits.values() for entry in entries}
    for picture in pictures:
        if picture not in used:
            layout.heard.note("pictures in no split of the folder, left out", layout.heard.name(picture))


# COCO's layout


def _find_coco(root: Path, layout: Layout) -> None:
    """Every entry's label is the annotation file of its split."""
    for name in coco_splits(root):
        path, annotations, _, _ = read_annotations(root, name)
        split = _split_of(name)
        if split is None:
            layout.heard.note("annotation files of no split train, val or test, left out", path.name)
        elif split in layout.splits:
            raise DataError(f"{root}: two annotation files would both be {split}, one is {path.name}")
        else:
            folder = files_of(root, name, annotations.files)
            layout.splits[split] = [Entry(folder / file, path) for file in annotations.files]
            layout.called |= {folder / file: (name, file) for file in annotations.files}
            files = Counter(posixpath.normpath(file) for file in annotations.files)
            twice = [file for file, count in files.items() if count > 1]
            for file in twice:
                layout.heard.problem(path, f"{file} is the file of two images")


# Pascal VOC


def _find_voc(root: Path, files: Sequence[Path], layout: Layout) -> None:
    units = _voc_units(root)
    for split, (folder, labelled, images) in units.items():
        xml = [p for p in files if p.suffix.lower() == ".xml" and p.is_relative_to(labelled)]
        labels = _by_stem(xml, layout.heard, "XML files")
        pictures = _by_stem(_pictures(files, images), layout.heard, "pictures")
        if not labels:
            layout.heard.problem(labelled, "no XML files are there")
        entries = {stem: Entry(picture, labels.get(stem)) for stem, picture in pictures.items()}
        orphans = {stem: path for stem, path in labels.items() if stem not in pictures}
        listed = _lists(folder, entries, orphans, layout.heard) if split == EVERY else {}
        if not listed:
            for path in orphans.values():
                layout.heard.problem(path, f"no picture of that name in {layout.heard.name(images)}")
            listed = {split: list(entries.values())}
        layout.splits.update(listed)
        if split == EVERY:
            _tell_unused(pictures.values(), layout)
    if EVERY not in units:
        _tell_unused(_pictures(files, root), layout)


def _voc_units(root: Path) -> dict[str, tuple[Path, Path, Path]]:
    """By split, EVERY where folders do not say: a folder, and those of its XML files and pictures.

    Raises DataError for a folder of several, such as VOCdevkit.
    """

    def places(folder: Path) -> tuple[Path, Path, Path]:
        children = _children(folder)
        images = next((children[name] for name in PICTURES if name in children), folder)
        return folder, children.get("annotations", folder), images

    here = places(root)
    if here[1] != root:
        labels, pictures = _split_folders(here[1]), _split_folders(here[2])
        if labels and labels.keys() == pictures.keys():
            return {split: (root, labels[split], pictures[split]) for split in labels}
        return {EVERY: here}
    splits = _split_folders(root)
    if splits:
        return {split: places(folder) for split, folder in splits.items()}
    whole = [each for each in _children(root).values() if {"annotations", "jpegimages"} <= {*_children(each)}]
    if whole:
        raise DataError(f"{root}: no Annotations are there; give {' or '.join(map(str, whole))}")
    return {EVERY: here}


def _by_stem(paths: Iterable[Path], heard: Heard, what: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        first = found.setdefault(path.stem, path)
        if first != path:
            heard.problem(path, f"two {what} of one name, the other is {heard.name(first)}")
    return found


def _lists(
    folder: Path, entries: Mapping[str, Entry], orphans: Mapping[str, Path], heard: Heard
) -> dict[str, list[Entry]]:
    """The splits of ImageSets/Main, or ImageSets; nothing where it has no list of these names."""
    sets = _children(folder).get("imagesets")
    places = [] if sets is None else [_children(sets).get("main", sets), sets]
    found: dict[str, list[Entry]] = {}
    for split in (*SPLITS, "trainval"):
        path = next((p for place in places if (p := place / f"{split}.txt").is_file()), None)
        if path is None or (split == "trainval" and ("train" in found or "val" in found)):
            continue
        chosen: dict[str, Entry] = {}
        for number, line in lines(path, heard):
            given = PurePosixPath(line)
            stem = given.stem if line not in entries and given.suffix.lower() in suffixes() else line
            if stem not in entries:
                what = "its XML file has no picture" if stem in orphans else "there is no such picture"
                heard.problem(path, f"line {number}: {line}: {what}")
            elif stem in chosen:
                heard.problem(path, f"line {number}: {line} is listed twice")
            else:
                chosen[stem] = entries[stem]
        found["train" if split == "trainval" else split] = [chosen[stem] for stem in sorted(chosen)]
    return found


# YOLO


def _find_yolo(
    source: Path, root: Path, files: Sequence[Path], classes: Sequence[str] | None, layout: Layout
) -> None:
    config = source if source.is_file() else _config(root, files)
    said = {} if config is None else _read_config(config)
    if "kpt_shape" in said:
        raise DataError(f"{config}: kpt_shape: labels of key points are not read, only boxes and polygons")
    bases = [root]
    if config is not None and config.suffix.lower() == ".data":
        bases.append(root.parent)  # paths are relative to where Darknet is started
    elif isinstance(said.get("path"), str) and (root / said["path"]).is_dir():
        bases.insert(0, root / said["path"])
    own: list[str] = []
    if classes:
        layout.names = dict(enumerate(classes))
        with contextlib.suppress(DataError):  # the folder may have no names, or bad ones
            own = [*_class_names(config, said, bases, files).values()]
        if sorted(own) == sorted(classes) and own != list(classes):
            raise DataError(
                f"{root}: --classes has the folder's own names in another order ({', '.join(own)}); labels "
                "have numbers, so one class would get another's name: leave --classes out"
            )
    else:
        layout.names = _class_names(config, said, bases, files)
        _tell_other_names(config, files, layout)
    folders = set()
    for split, names in SPLITS.items():
        value = next((said[name] for name in names if said.get(name, "") not in NOTHING), None)
        if value is None:
            continue
        pictures: dict[Path, None] = {}
        for item in value if isinstance(value, list) else [value]:
            place = _there(str(item), bases)
            if place is None:
                layout.heard.problem(config or root, f"{split}: {item}: no such folder or list")
            elif place.is_dir():
                found = [path for path in _walk(place) if path.suffix.lower() in suffixes()]
                pictures.update(dict.fromkeys(found))
                folders.add(split)
            else:
                for picture in _listed(place, bases, layout.heard):
                    if picture in pictures:
                        layout.heard.note("pictures listed again, taken once", layout.heard.name(picture))
                    pictures[picture] = None
        layout.splits[split] = [_entry(picture) for picture in sorted(pictures)]
    if not layout.splits:
        images = next((path for name, path in _children(root).items() if name in PICTURES), root)
        places = _split_folders(images) or _split_folders(root) or {EVERY: images}
        folders.update(places)
        for split, folder in places.items():
            layout.splits[split] = [_entry(picture) for picture in _pictures(files, folder)]
    _refuse_orphans(layout, folders)
    _refuse_shared(layout)
    _tell_unused(_pictures(files, root), layout)


def _refuse_shared(layout: Layout) -> None:
    """One label file for two pictures, e.g. a.jpg and a.png."""
    owner: dict[Path, Path] = {}
    for entry in (entry for entries in layout.splits.values() for entry in entries):
        other = owner.setdefault(entry.label, entry.picture) if entry.label else entry.picture
        if other != entry.picture and os.path.realpath(other) != os.path.realpath(entry.picture):
            what = f"its label file is that of {layout.heard.name(other)}, too"
            layout.heard.problem(entry.picture, what)


def _there(item: str, bases: Sequence[Path]) -> Path | None:
    """Where a path of a data.yaml or list leads: below the first folder that has it, as Ultralytics also with
    a leading ../ too many."""
    tails = [item, item[3:]] if item.startswith("../") else [item]
    places = (base / tail for tail in tails for base in bases)
    return next((Path(os.path.normpath(place)) for place in places if os.path.exists(place)), None)


def _listed(path: Path, bases: Sequence[Path], heard: Heard) -> Iterator[Path]:
    """The pictures of a list: one path a line."""
    for number, line in lines(path, heard):
        place = _there(line, [path.parent, *bases])
        if place is None or not place.is_file():
            heard.problem(path, f"line {number}: {line}: there is no such picture")
        else:
            yield place


def _entry(picture: Path) -> Entry:
    """A picture with its label: in `labels` in place of the last `images` of its path, else beside it."""
    parts = list(picture.parts)
    places = [k for k, part in enumerate(parts[:-1]) if part.lower() in PICTURES]
    candidates = [picture]
    if places:
        parts[places[-1]] = "labels"
        candidates.insert(0, Path(*parts))
    labels = (path.with_suffix(".txt") for path in candidates)
    return Entry(picture, next((path for path in labels if path.is_file()), None))


def _refuse_orphans(layout: Layout, splits: Iterable[str]) -> None:
    """Labels without a picture in the folders of splits that have all that is there."""
    used = {entry.label for entries in layout.splits.values() for entry in entries if entry.label}
    folders = {entry.label.parent for split in splits for entry in layout.splits[split] if entry.label}
    for folder in sorted(folders):
        for path in sorted(folder.glob("*.txt")):
            if path not in used and path.name not in NAMES and not path.name.startswith((".", "README")):
                layout.heard.problem(path, "no picture of that name is there")


def _class_names(
    config: Path | None, said: Mapping[str, Any], bases: Sequence[Path], files: Sequence[Path]
) -> dict[int, str]:
    """Names by class number, from the configuration or the one file of names. Raises DataError for none."""
    value, source = said.get("names"), config
    if isinstance(value, str) and value:
        source = _there(value, bases)
        if source is None:
            raise DataError(f"{config}: names: {value}: no such file")
        value = read_names(source)
    elif not value:
        found = {tuple(read_names(p)): p for p in files if p.name in NAMES or p.suffix == ".names"}
        if len(found) != 1:
            there = f"several differ: {', '.join(map(str, found.values()))}" if found else "no class names"
            raise DataError(
                f"{bases[-1]}: {there}; one is needed: names in data.yaml, {NAMES[0]}, *.names, or --classes"
            )
        ((names, source),) = found.items()
        value = list(names)
    pairs = value if isinstance(value, dict) else dict(enumerate(value))
    for key, name in pairs.items():
        if not re.fullmatch(r"\d{1,9}", str(key)) or not isinstance(name, str) or not name.strip():
            raise DataError(f"{source}: names: {key}: {name}; a number from 0 and a name are needed")
    names_by_number = {int(key): name.strip() for key, name in pairs.items()}
    for what, values in (("number", map(int, pairs)), ("name", names_by_number.values())):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise DataError(f"{source}: names: the {what} {twice[0]} is given twice")
    count = next((said[key] for key in ("nc", "classes") if isinstance(said.get(key), str)), None)
    if count is not None and count != str(len(names_by_number)):
        raise DataError(
            f"{config}: {count} classes are said, and {len(names_by_number)} names are in {source}"
        )
    return dict(sorted(names_by_number.items()))


def _tell_other_names(config: Path | None, files: Sequence[Path], layout: Layout) -> None:
    """Files of names beside a configuration that gives each number another name than it does."""
    for path in files:
        if config is not None and (path.name in NAMES or path.suffix == ".names"):
            with contextlib.suppress(DataError):  # it is not needed
                if dict(enumerate(read_names(path))) != layout.names:
                    what = f"files with other class names than {config.name}, or in another order, not read"
                    layout.heard.note(what, layout.heard.name(path))


def names_of(text: str) -> list[str]:
    """Class names of a file of that name, or those of the text, between commas.

    Raises DataError for the name of a file that is not there.
    """
    path = Path(text)
    if path.is_file() or "/" in text or path.suffix in (".txt", ".names"):
        return read_names(path)
    return [name.strip() for name in text.split(",")]


def read_names(path: Path) -> list[str]:
    """Class names of a file, one a line. Raises DataError for an empty line between them."""
    try:
        rows = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {why(error)}") from None
    empty = [number for number, row in enumerate(rows, 1) if not row.strip()]
    if empty or not rows:
        raise DataError(f"{path}: line {empty[0] if empty else 1}: empty; a class name a line is needed")
    return [row.strip() for row in rows]


def _config(root: Path, files: Sequence[Path]) -> Path | None:
    """The data.yaml or .data file of a folder, if it has one. Raises DataError for several."""
    there = [p for p in files if p.parent == root and p.suffix.lower() in (".yaml", ".yml", ".data")]
    found = [p for p in there if p.stem.lower() == "data"]
    for path in () if found else there:
        with contextlib.suppress(DataError):  # a file of something else
            if {"names", "train"} & _read_config(path).keys():
                found.append(path)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(
            f"{root}: several describe the data: {names}; give the path of one in place of the folder"
        )
    return found[0] if found else None


class _Texts(yaml.BaseLoader):
    """Reads every value as the text it is written as, so that a class called no or 010 stays so."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """As the base's. Raises YAMLError for a key given twice, of which the base takes the last."""
        keys = Counter(key.value for key, _ in node.value if isinstance(key.value, str))
        twice = [key for key, count in keys.items() if count > 1]
        if twice:
            raise yaml.YAMLError(f"key {twice[0]} is given twice")
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def _read_config(path: Path) -> dict[str, Any]:
    """The keys of a data.yaml, or of a .data file of Darknet. Raises DataError where it has none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".data":
            pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
            return {key.strip(): value.strip() for key, _, value in pairs}
        content = yaml.load(text, _Texts)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: keys such as train, val and names are needed")
    return content
