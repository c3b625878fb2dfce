"""`ablate data`: write the synthetic dataset out as files, or check a dataset before training on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations.options import Folder
from yolor_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from yolor_core.data.report import DataReport


@click.group("data")
def command() -> None:
    """Write the synthetic dataset out, or check a COCO folder."""


@command.command("make")
@click.argument("folder", type=Folder(path_type=Path, file_okay=False))
@click.option("--seed", type=int, help="Which dataset.  [default: 0]")
@click.option("--train-images", type=int, metavar="N", help="Images of the train split.")
@click.option("--val-images", type=int, metavar="N", help="Images of the val split.")
@click.option("--size", type=int, metavar="PIXELS", help="Long side of the images.")
def make(folder: Path, **parameters: int | None) -> None:
    """Write the synthetic shapes to FOLDER: train/, val/ and annotations/, in COCO's layout.

    Training on the folder (`--data FOLDER`) gives the same numbers as training on the shapes drawn on demand.
    """
    from pydantic import ValidationError

    from yolor_core.config import ShapesConfig, explain
    from yolor_core.data.write import write_dataset

    try:
        config = ShapesConfig.model_validate({k: v for k, v in parameters.items() if v is not None})
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    write_dataset(config, folder)
    click.echo(f"wrote {config.train_images} train and {config.val_images} val images to {folder}")


@command.command("check")
@click.argument("path", type=Folder(path_type=Path))
@click.option("--train", help="Name of the train split, as in annotations/instances_<NAME>.json.")
@click.option("--val", help="Name of the val split.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(ctx: click.Context, path: Path, train: str | None, val: str | None, as_json: bool) -> None:
    """Read every annotation and decode every image of the dataset at PATH.

    Without --train and --val, every split that is there. Exit code 0: sound; 1: an image cannot be decoded or
    has another size than annotated; 2: the dataset cannot be used.
    """
    from yolor_core.data.check import check_splits, sound
    from yolor_core.data.layout import splits

    if not path.is_dir():
        raise DataError(f"{path}: no such folder")
    names = list(dict.fromkeys(name for name in (train, val) if name)) or splits(path)
    if not names:
        raise DataError(f"{path}: there is no annotations/instances_<split>.json")
    reports = check_splits(path, names)
    if as_json:
        click.echo(json.dumps({name: report.as_dict() for name, report in reports.items()}, indent=1))
    else:
        for name, report in reports.items():
            _print(name, report)
    ctx.exit(0 if all(sound(report) for report in reports.values()) else 1)


def _print(name: str, report: DataReport) -> None:
    from yolor_core.data.report import KINDS

    click.echo(
        f"{name}: {report.images} images, {report.annotations} annotations, {report.boxes} boxes to train on"
    )
    for kind, meaning in KINDS.items():
        count = report.count(kind)
        if not count:
            continue
        click.echo(f"  {count:6d} {meaning}")
        examples = report.findings[kind].examples
        for example in examples:
            click.echo(f"           {example}")
        if count > len(examples):
            click.echo(f"           and {count - len(examples)} more")
