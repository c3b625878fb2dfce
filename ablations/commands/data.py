"""`ablate data`: write the synthetic dataset out as files; convert, check and pack a dataset."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ablations.options import Folder, examples, print_json
from yolor_core.errors import ConfigError, DataError, counted

if TYPE_CHECKING:
    from yolor_core.data.report import DataReport

MOST_PRINTED = 3  # examples of a kind; JSON has up to ten


@click.group("data", epilog=examples("ablate data check /path/to/coco"))
def command() -> None:
    """Write the synthetic dataset out, convert VOC and YOLO folders, check, split or pack a COCO folder."""


@command.command("make", epilog=examples("ablate data make pictures --train-images 100"))
@click.argument("folder", type=Folder(path_type=Path, file_okay=False))
@click.option("--seed", type=int, help="Which dataset.  [default: 0]")
@click.option("--train-images", type=int, metavar="N", help="Images of the train split.")
@click.option("--val-images", type=int, metavar="N", help="Images of the val split.")
@click.option("--size", type=int, metavar="PIXELS", help="Long side of the images.")
@click.option(
    "--version", type=int, help="1: objects of fixed sizes; 2: scaled with the image.  [default: 1]"
)
def make(folder: Path, **parameters: int | None) -> None:
    """Write the synthetic shapes to FOLDER: train/, val/ and annotations/, in COCO's layout.

    Training on the folder (`--data FOLDER`) gives the same numbers as training on the shapes drawn on demand.
    """
    from pydantic import ValidationError

    from yolor_core.config import ShapesConfig, explain
    from yolor_core.data.shapes.dataset import write_dataset

    try:
        config = ShapesConfig.model_validate({k: v for k, v in parameters.items() if v is not None})
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    write_dataset(config, folder)
    click.echo(f"wrote {config.train_images} train and {config.val_images} val images to {folder}")


@command.command(
    "convert",
    epilog=examples(
        "ablate data convert /path/to/voc coco --val 0.2",
        "ablate data convert coco split-anew --val 0.2 --groups groups.json",
    ),
)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=Folder(path_type=Path))
@click.option(
    "--from",
    "form",
    type=click.Choice(["voc", "yolo", "coco"]),
    help="The form of SOURCE.  [default: told by its files]",
)
@click.option(
    "--classes", metavar="FILE|A,B", help="Names in their order: a file with one a line, or a list."
)
@click.option(
    "--val", type=float, metavar="SHARE", help="Split anew, with this share for validation, e.g. 0.2."
)
@click.option("--seed", type=int, help="Which split --val makes.  [default: 0]")
@click.option(
    "--groups",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Pictures of a group stay in one split; as `ablate data check --near --groups-out` writes them.",
)
@click.option(
    "--zero-based", is_flag=True, help="VOC's corners count from 0 and end past the box: w = xmax - xmin."
)
@click.option("--clip", is_flag=True, help="Cut boxes that leave their picture to it, instead of an error.")
@click.option(
    "--difficult",
    type=click.Choice(["keep", "crowd"]),
    default="keep",
    show_default=True,
    help="VOC's difficult objects: as others, or iscrowd, neither trained on nor scored.",
)
@click.option(
    "--unlabelled",
    type=click.Choice(["refuse", "empty", "skip"]),
    help="Pictures without a label file: an error, empty, or left out.  [default: refuse; YOLO: empty]",
)
@click.option(
    "--copy", is_flag=True, help="Copy the pictures.  [default: hard links, copies where there are none]"
)
def convert(
    source: Path, target: Path, classes: str | None, zero_based: bool, clip: bool, **options: Any
) -> None:
    """Write TARGET in COCO's layout from SOURCE: a Pascal VOC or YOLO folder, its data.yaml or .data file, or
    a folder in COCO's layout, which --val splits anew.

    VOC's boxes count from 1 with both ends included: x = xmin - 1, w = xmax - xmin + 1. Splits are those of
    ImageSets/Main, data.yaml, folders train and val or annotation files, else --val makes them. SOURCE is
    not changed, and TARGET must not be there; after an error it is not.
    """
    from yolor_core.data.convert import Conversion, convert
    from yolor_core.data.label_files import FORMS, Reading
    from yolor_core.data.label_folders import names_of
    from yolor_core.errors import some_of

    names = None if classes is None else names_of(classes)
    done = convert(source, target, Conversion(classes=names, reading=Reading(zero_based, clip), **options))
    click.echo(f"{source}: {FORMS[done.form]}")
    for split, content in done.contents.items():
        images, objects = content["images"], content["annotations"]
        without = len(images) - len({each["image_id"] for each in objects})
        crowds = sum(each["iscrowd"] for each in objects)
        more = f", {crowds} of them crowds" * bool(crowds) + f"; {without} without objects" * bool(without)
        click.echo(f"  {split}: {counted(len(images), 'image')}, {counted(len(objects), 'object')}{more}")
    classes_found = Counter(each["category_id"] for c in done.contents.values() for each in c["annotations"])
    categories = next(iter(done.contents.values()))["categories"]
    listed = some_of([f"{each['name']} ({classes_found[each['id']]})" for each in categories], 20)
    click.echo(f"  {counted(len(categories), 'class')}: {listed}")
    for note in done.notes:
        click.echo(f"  {note}")
    if not {"train", "val"} <= done.contents.keys():
        click.echo("  `ablate train` needs the splits train and val; --val SHARE makes them")
    total = sum(len(content["images"]) for content in done.contents.values())
    kind = "hard links" if done.linked == total else f"{done.linked} hard links, {total - done.linked} copies"
    click.echo(f"wrote {target} ({kind}); `ablate data check {shlex.quote(str(target))}` checks it")


@command.command("check", epilog=examples("ablate data check /path/to/coco"))
@click.argument("path", type=Folder(path_type=Path))
@click.option("--train", help="Name of the train split, as in annotations/instances_<NAME>.json.")
@click.option("--val", help="Name of the val split.")
@click.option(
    "--near",
    "look_near",
    is_flag=True,
    help="Look for pictures that overlap (crops of one photograph) or are near copies, too.",
)
@click.option(
    "--groups-out",
    type=Folder(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --near: write which images belong together, for a split without twins, as JSON.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(
    ctx: click.Context,
    path: Path,
    train: str | None,
    val: str | None,
    look_near: bool,
    groups_out: Path | None,
    as_json: bool,
) -> None:
    """Read every annotation, decode every image of the dataset at PATH, and compare its splits.

    Without --train and --val, every split that is there. Packs of them are checked byte by byte, and against
    the image files. Exit code 0: sound, perhaps with notes; 1: a split has no box, a pack is damaged or was
    made of other annotations or pictures, or there are findings marked with `!`, which make numbers wrong:
    any of some kinds, 1 in 100 of others (docs/data-check.md); 2: the dataset cannot be used.
    """
    from yolor_core.data.check import check_images, load_splits, sound
    from yolor_core.data.layout import beside
    from yolor_core.data.near import Near, check_new
    from yolor_core.data.pack.reader import pack_folder
    from yolor_core.data.pack.write import verify_packs

    if groups_out is not None:
        if not look_near:
            raise ConfigError(f"--groups-out {groups_out} needs --near, which finds what belongs together")
        check_new(groups_out)
    names = _splits(path, [name for name in (train, val) if name])
    images = load_splits(path, names)
    near = Near(images, _bar) if look_near else None
    reports = check_images(images, near)
    if near is not None and groups_out is not None:
        near.write(groups_out)
    folder = pack_folder(path, None)
    packs = {name: verify_packs(path, name, folder, each) for name, each in images.items()}
    if as_json:
        content = {name: report.as_dict() for name, report in reports.items()}
        for name, found in packs.items():
            content[name]["packs"] = [
                {"path": str(p.path), "content": p.title, "problem": p.problem} for p in found
            ]
        print_json(content)
    else:
        for used, unused in beside(path, names):
            click.echo(f"{unused.name} is not read: {used.name} is there too")
        for name, report in reports.items():
            _print(name, report)
            for pack in packs[name]:
                click.echo(f"  {pack.path.name} ({pack.title}): {pack.problem or 'sound'}")
        if near is not None and groups_out is not None:
            many = f"{counted(len(near.places), 'image')} in {counted(near.count, 'group')}"
            click.echo(f"wrote {groups_out}: {many}")
    damaged = any(pack.problem for found in packs.values() for pack in found)
    ctx.exit(0 if all(sound(report) for report in reports.values()) and not damaged else 1)


@command.command("pack", epilog=examples("ablate data pack /path/to/coco --decoded 640 --estimate"))
@click.argument("path", type=Folder(path_type=Path))
@click.option("--split", "names", multiple=True, metavar="NAME", help="A split; repeatable.  [default: all]")
@click.option(
    "--decoded",
    type=int,
    metavar="SIZE",
    help="Store pixels, larger images resized to SIZE.  [default: the bytes of the files]",
)
@click.option(
    "--purpose",
    type=click.Choice(["train", "test"]),
    help="How larger images are resized.  [default: test for splits named val... or test..., else train]",
)
@click.option(
    "--out",
    type=Folder(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where to write.  [default: ABLATE_PACKS, else PATH/packed]",
)
@click.option("--estimate", "only_estimate", is_flag=True, help="Print the sizes and write nothing.")
@click.option("--force", is_flag=True, help="Overwrite packs that are there.")
@click.pass_context
def pack(
    ctx: click.Context,
    path: Path,
    names: tuple[str, ...],
    decoded: int | None,
    purpose: Literal["train", "test"] | None,
    out: Path | None,
    only_estimate: bool,
    force: bool,
) -> None:
    """Write all images of each split of the dataset at PATH into one file, which training then reads.

    Training and evaluation see the same pixels and boxes as without, and all processes of a machine share
    the file in memory. Decoded pixels take more space and spare decoding. A pack resized for training at
    SIZE is used for that alone, one in which no image had to be made smaller for everything. Exit code 1:
    with --decoded more than a tenth of a split cannot be decoded.
    """
    from yolor_core.data.pack.reader import pack_folder
    from yolor_core.data.pack.write import check_space, gigabytes, is_right, plan_pack, write_pack
    from yolor_core.data.report import MOST_UNREADABLE

    folder = out or pack_folder(path, None)
    plans = [plan_pack(path, name, decoded, purpose, folder) for name in _splits(path, names)]
    for plan in plans:
        click.echo(
            f"{plan.target}: {counted(len(plan.reader.files), 'image')}, {plan.about.title()}, "
            f"about {gigabytes(plan.bytes)}"
        )
    if only_estimate:
        return
    wanted = [plan for plan in plans if force or not is_right(plan)]
    for plan in plans:
        if plan not in wanted:
            click.echo(
                f"{plan.target} is there and belongs to these annotations and pictures (`ablate data check` "
                "reads every byte); --force writes it anew"
            )
    check_space(folder, sum(plan.bytes for plan in wanted))
    problem = False
    for plan in wanted:
        files = plan.reader.files
        with click.progressbar(length=len(files), label=plan.target.name) as bar:
            notes = write_pack(plan.target, plan.reader, plan.about, bar.update).notes
        click.echo(f"wrote {plan.target}, {gigabytes(plan.target.stat().st_size)}")
        lost = [files[position] for position, kind, _ in notes if kind == "unreadable"]
        if lost:
            named = f"{', '.join(lost[:5])}{' ...' if len(lost) > 5 else ''}"
            click.echo(f"{len(lost)} of {len(files)} images cannot be decoded: {named}", err=True)
        problem |= len(lost) > MOST_UNREADABLE * len(files)
    ctx.exit(1 if problem else 0)


def _splits(path: Path, names: Sequence[str]) -> list[str]:
    """The named splits, else all. Raises DataError when there are none."""
    from yolor_core.data.layout import splits

    if not path.is_dir():
        raise DataError(f"{path}: no such folder")
    found = list(dict.fromkeys(names)) or splits(path)
    if not found:
        raise DataError(f"{path}: there is no annotations/instances_<split>.json")
    return found


def _bar(what: str, items: Sequence[Any]) -> Iterator[Any]:
    """The items, with a line on the terminal that says how far they are."""
    if not sys.stderr.isatty():
        yield from items
        return
    with click.progressbar(items, label=what, file=sys.stderr) as bar:
        yield from bar


def _print(name: str, report: DataReport) -> None:
    from yolor_core.data.report import KINDS

    click.echo(
        f"{name}: {counted(report.images, 'image')}, {counted(report.annotations, 'annotation')}, "
        f"{counted(report.boxes, 'box')} to train on"
    )
    if report.identity_source == "identity":
        click.echo(
            f"  {counted(report.identities, 'identity')}, {report.identities_once} of them of a single box; "
            f"{counted(report.boxes_without_identity, 'box')} without one"
        )
    else:
        click.echo(f"  no field 'identity': categories ({report.identities}) stand in as identities")
    if report.without_boxes:
        click.echo(f"!        {report.without_boxes}")
    for kind in sorted(KINDS, key=lambda kind: not report.serious(kind)):
        count, finding = report.count(kind), report.findings[kind]
        if not count:
            continue
        _, meaning, effect, _ = KINDS[kind]
        click.echo(f"{'!' if report.serious(kind) else ' '} {count:6d} {meaning}{effect and f': {effect}'}")
        for line in filter(None, (finding.summary, *finding.examples[:MOST_PRINTED])):
            click.echo(f"           {line}")
        if count > MOST_PRINTED:
            click.echo(f"           and {count - MOST_PRINTED} more")
