"""`ablate evaluate`: the scores of trained weights, AP by pycocotools and those of the other tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ablations.options import json_option
from ablations.trained_model import Chosen, choose, settings, trained_model_options, with_classes_of
from yolor_core.errors import ConfigError

if TYPE_CHECKING:
    from yolor_core.data import ImageSet

PRINTED = ("AP", "AR", "mAP", "F1", "recall", "AUC")  # what the names of printed scores start with


@click.command("evaluate")
@trained_model_options
@click.option("--data", metavar="PATH", help="Folder in COCO's layout, or 'shapes'; a run's own by default.")
@click.option("--split", help="As in annotations/instances_<SPLIT>.json.  [default: the val split]")
@click.option("--size", type=int, metavar="PIXELS", help="Long side.  [default: the paper's, or the run's]")
@click.option("--batch", type=int, help="Images that share a rectangle.  [default: 32]")
@click.option("--confidence", type=float, help="Of objectness and score.  [default: 0.001]")
@click.option("--iou", type=float, help="Of the suppression.  [default: 0.65]")
@click.option("--max-detections", type=int, metavar="N", help="In an image.  [default: 300]")
@json_option
def command(
    name: str | None,
    weights: Path | None,
    run_dir: Path | None,
    device: str,
    data: str | None,
    split: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Score weights on a dataset: the twelve COCO numbers, with the authors' test settings.

    Letterboxed rectangular batches, no more than 300 detections an image, suppression at IoU 0.65. Further
    tasks of the model are scored too: classification of whole images, embedding of the ground-truth boxes.
    Classes are matched by name, whatever their ids and order; data with other classes are refused.
    """
    settings(None, **given)
    chosen = choose(name, weights, run_dir)

    import torch

    from yolor_core.device import choose_device
    from yolor_core.evaluation.coco import truth_notes
    from yolor_core.evaluation.predict import evaluate, predict

    config = settings(chosen, **given)
    images, notes = find_images(chosen, data, split), list[str]()
    if chosen.model.tasks != ("embedding",):  # that one knows no classes
        images, notes = with_classes_of(chosen, images)
    if "detection" in chosen.model.tasks:
        notes += truth_notes(images.coco)
    if chosen.run is not None:
        torch.set_num_threads(chosen.run.execution.threads)  # sums depend on it in the last bit
    target = choose_device(device)
    found = predict(chosen.model.to(target), images, config, target)
    images.report.require_readable(len(images))
    result = evaluate(found, images)
    if as_json:
        told = {"notes": notes} if notes else {}
        click.echo(json.dumps(result | {"settings": config.model_dump()} | told, indent=1))
        return
    click.echo("\n".join([chosen.note, *(f"note: {each}" for each in notes)]))
    number = f", {result['detections']} detections" if "detections" in result else ""
    click.echo(f"{len(images)} images{number}, size {config.size}")
    for task in chosen.model.tasks:
        start = f"{task}: " if len(chosen.model.tasks) > 1 or task != "detection" else ""
        click.echo(start + percentages(result[task]))


def percentages(scores: dict[str, Any]) -> str:
    """`AP 21.3  AP50 43.0`: the scores of a task in one line, without counts and lists; - where undefined."""
    return "  ".join(
        f"{name} {'-' if value is None else f'{100 * value:.1f}'}"
        for name, value in scores.items()
        if name.startswith(PRINTED)
    )


def find_images(chosen: Chosen, data: str | None, split: str | None) -> ImageSet:
    """The images to score: of `data`, else those the run was evaluated on."""
    from ablations.plan import data_config
    from yolor_core.config import CocoConfig, DataConfig
    from yolor_core.data import load_images

    config: DataConfig
    if data is None:
        if chosen.run is None:
            raise ConfigError("--data missing; a folder in COCO's layout is needed")
        config = chosen.run.data
    elif data == "shapes":
        own = chosen.run.data if chosen.run is not None else None
        config = own if own is not None and own.kind == "shapes" else data_config(data, "mini")
    else:
        split = split or _val_split(Path(data))
        config = CocoConfig(root=data, train=split, val=split)
    if split is not None:
        if config.kind == "shapes":
            raise ConfigError("--split belongs to a folder in COCO's layout, not to shapes")
        config = config.model_copy(update={"val": split})
    if data is None and config.kind == "coco" and not Path(config.root).is_dir():
        raise ConfigError(
            f"{config.root}: no such folder; {chosen.note} was trained there. Name the folder where "
            "its data are now with --data PATH"
        )
    return load_images(config, "val")


def _val_split(root: Path) -> str:
    """The folder's val split, or its only one. Raises ConfigError when that is not clear."""
    from yolor_core.data.layout import USUAL, annotation_file, splits

    found = splits(root)
    usual = [val for _, val in USUAL if val in found]
    if usual or len(found) == 1:
        return (usual or found)[0]
    if not found:
        annotation_file(root, USUAL[0][1])  # raises, saying what is missing
    raise ConfigError(f"{root} has no usual val split; give --split, one of: {', '.join(found)}")
