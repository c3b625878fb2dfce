"""`ablate evaluate`, `detect` and `features`: what trained weights score, find and hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ablations.options import completing, examples, json_option, print_json
from ablations.trained_model import (
    choose,
    find_images,
    settings,
    trained_model_options,
    with_classes_of,
)
from yolor_core.errors import ConfigError, counted

if TYPE_CHECKING:
    pass
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from ablations.options import read_results_option
from ablations.trained_model import class_names, device_option, need_detection, run_classes
from yolor_core.errors import DataError, YolorError

if TYPE_CHECKING:
    from yolor_core.config import RunConfig
    from yolor_core.runs.directory import RunDirectory

PRINTED = ("AP", "AR", "mAP", "F1", "recall", "AUC")  # what the names of printed scores start with
LONGEST = 255  # bytes of a name, on the usual file systems
KEPT = {".jpg", ".jpeg", ".png"}  # drawn in the format they came in; all others as PNG


@click.command(
    "evaluate",
    epilog=examples(
        "ablate evaluate --run results/runs/RUN",
        "ablate evaluate --model yolor_p6 --weights yolor_p6.pt --data /path/to/coco",
    ),
)
@trained_model_options
@click.option("--data", metavar="PATH", help="Folder in COCO's layout, or 'shapes'; a run's own by default.")
@click.option("--split", help="As in annotations/instances_<SPLIT>.json.  [default: the val split]")
@click.option("--size", type=int, metavar="PIXELS", help="Long side.  [default: the paper's, or the run's]")
@click.option("--batch", type=int, help="Images that share a rectangle.  [default: 32]")
@click.option("--confidence", type=float, help="Least objectness and score.  [default: 0.001]")
@click.option("--iou", type=float, help="Threshold of the suppression.  [default: 0.65]")
@click.option("--max-detections", type=int, metavar="N", help="In an image.  [default: 300]")
@json_option
def evaluate_command(
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
    if chosen.run is not None:
        torch.set_num_threads(chosen.run.execution.threads)  # sums depend on it in the last bit
    target = choose_device(device)
    found = predict(chosen.model.to(target), images, config, target)
    images.report.require_readable(len(images))
    result = evaluate(found, images)
    if "detection" in chosen.model.tasks:
        notes += truth_notes(images.coco, {"the model": found.found["detection"]})
    if as_json:
        told = {"notes": notes} if notes else {}
        print_json(result | {"settings": config.model_dump()} | told)
        return
    click.echo("\n".join([chosen.note, *(f"note: {each}" for each in notes)]))
    number = f", {counted(result['detections'], 'detection')}" if "detections" in result else ""
    click.echo(f"{counted(len(images), 'image')}{number}, size {config.size}")
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


@click.command(
    "detect", epilog=examples("ablate detect street.jpg photographs --run results/runs/RUN --out drawn")
)
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE...")
@trained_model_options
@click.option("--size", type=int, metavar="PIXELS", help="Long side.  [default: the paper's, or the run's]")
@click.option("--confidence", type=float, default=0.4, show_default=True)
@click.option("--iou", type=float, default=0.5, show_default=True, help="Threshold of the suppression.")
@click.option("--max-detections", type=int, metavar="N", help="In an image.  [default: 300]")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("detections"),
              show_default=True, metavar="FOLDER", help="Where the drawn copies go.")  # fmt: skip
@json_option
def detect(
    images: tuple[Path, ...],
    name: str | None,
    weights: Path | None,
    run_dir: Path | None,
    device: str,
    out: Path,
    as_json: bool,
    **given: Any,
) -> None:
    """Draw what a model finds in IMAGE..., files or folders, on copies of them.

    Of a folder every kind of picture that training reads, without the folders in it. Pictures are turned
    upright by EXIF. A run with several tasks draws its detection, one without detection is refused. Exit code
    1 when an image could not be read or drawn; the others are done all the same.
    """
    paths = expand(images)
    found = [path for path in paths if os.path.exists(path)]
    for path in paths:
        if path not in found:
            click.echo(f"{shown(path)}: no such file", err=True)
    if not found:
        click.get_current_context().exit(1)
    settings(None, **given)
    chosen = choose(name, weights, run_dir)
    need_detection(chosen, "draws boxes")

    from yolor_core.device import choose_device
    from yolor_core.evaluation.detect import detect_picture, draw, read_picture

    config, target = settings(chosen, **given), choose_device(device)
    names = class_names(chosen) or tuple(f"class {index}" for index in range(chosen.model.classes))
    model = chosen.model.to(target)
    records = []
    out.mkdir(parents=True, exist_ok=True)
    for path, drawn in zip(found, targets(found, out), strict=True):
        try:
            pixels = read_picture(path)
            detections = detect_picture(model, pixels, config, target)
            draw(pixels, detections, names).save(drawn)
        except ConfigError:
            raise
        except DataError as error:
            click.echo(shown(error), err=True)
            continue
        except (
            OSError,
            ValueError,
            MemoryError,
        ) as error:  # the disk is full, or one side is too long for JPEG
            click.echo(f"{shown(path)}: {drawn} cannot be written ({error or 'out of memory'})", err=True)
            continue
        records.append(
            {
                "image": shown(path),
                "drawn": str(drawn),
                "detections": [
                    {
                        "name": names[f.label],
                        "score": float(f"{f.score:.9g}"),
                        "box": [round(v, 3) for v in f.box],
                    }
                    for f in detections
                ],
            }
        )
        if not as_json:
            click.echo(f"{shown(path)}: {summary([names[f.label] for f in detections])} -> {drawn}")
    if as_json:
        print_json(records)
    click.get_current_context().exit(0 if len(records) == len(paths) else 1)


def shown(named: Path | Exception) -> str:
    """A text with a file's name in it, which on Linux may be no text at all."""
    return str(named).encode(errors="replace").decode()


def expand(paths: Sequence[Path]) -> list[Path]:
    """Files as they are, folders as the images in them; says what else is there.

    Raises DataError for a folder without images.
    """
    from yolor_core.data.decode import suffixes

    def files(path: Path) -> Iterator[Path]:
        if not os.path.isdir(path):
            yield path
            return
        try:
            there = [each for each in sorted(path.iterdir()) if not each.name.startswith(".")]
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from None
        inside = [each for each in there if each.suffix.lower() in suffixes() and not each.is_dir()]
        others = Counter(
            "of folders" if each.is_dir() else each.suffix.lower() or "without a suffix"
            for each in there
            if each not in inside
        )
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
        if not inside:
            raise DataError(
                f"{path}: no images in this folder, only {listed or 'nothing'}; "
                f"known by their names: {', '.join(sorted(suffixes()))}"
            )
        if others:
            click.echo(
                f"{path}: {others.total()} left out that are no images by their names: {listed}", err=True
            )
        yield from inside

    return list(dict.fromkeys(file for path in paths for file in files(path)))


def targets(paths: Sequence[Path], out: Path) -> list[Path]:
    """Where each drawn copy goes: <name>-detected.<suffix>, numbered where two images have one name.

    A name that would be too long for the disk is cut.
    """
    taken: set[str] = set()
    result = []
    for path in paths:
        suffix = path.suffix if path.suffix.lower() in KEPT else ".png"
        for number in count(1):
            end = f"-detected{f'-{number}' if number > 1 else ''}{suffix}"
            stem = os.fsdecode(os.fsencode(path.stem)[: LONGEST - len(end)])
            name = stem.encode(errors="ignore").decode() + end
            if name.lower() not in taken:
                break
        taken.add(name.lower())
        result.append(out / name)
    return result


def summary(names: Sequence[str]) -> str:
    """`2 person, 1 dog`, or `nothing`."""
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"


@click.command("features", epilog=examples("ablate features RUN --images 128"))
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=completing("runs"))
@click.option(
    "--images", type=click.IntRange(min=1), default=64, show_default=True, help="How many, the first of val."
)
@click.option(
    "--cells", type=click.IntRange(min=2), default=400, show_default=True, help="How many, on every level."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the choice of cells."
)
@click.option("--data", metavar="PATH", help="Folder of the images.  [default: the run's own]")
@device_option
@read_results_option
def features(
    runs: tuple[str, ...], images: int, cells: int, seed: int, data: str | None, device: str, results: Path
) -> None:
    """Write features.parquet into each RUN (a folder, or a name of `ablate status`) that is done.

    For cells with an object and cells without, on every level: the features before the implicit
    knowledge and after it, and what the predictor says with it and without.
    """
    import pyarrow.parquet as pq
    import torch

    from ablations.overview import find_run
    from yolor_core.device import choose_device
    from yolor_core.errors import InputError
    from yolor_core.evaluation.features import collect_features
    from yolor_core.runs.directory import RunDirectory, write_atomically

    target = choose_device(device)
    folders = [RunDirectory(find_run(name, results)) for name in runs]  # all, before the first takes its time
    for directory in folders:
        chosen = choose(None, None, directory.path)
        config = chosen.run
        assert config is not None
        if not config.science.model.detection:
            raise InputError(
                f"{directory.path} does not detect; features are taken in front of its predictors"
            )
        torch.set_num_threads(config.execution.threads)
        science, val = config.science, find_images(chosen, data, None)
        if data is not None and not _same_data(directory, config, data):
            click.echo(
                f"note: {data} does not hold the annotations and pictures that {chosen.note} was trained on; "
                "its features are of other pictures",
                err=True,
            )
        table = collect_features(
            chosen.model.to(target),
            val.with_classes(run_classes(directory.path, config), chosen.note),
            science.evaluation,
            science.train.loss,
            target,
            images,
            cells,
            seed,
        )
        write_atomically(directory.features, partial(pq.write_table, table, compression="zstd"))
        click.echo(f"{directory.features}: {counted(table.num_rows, 'cell')}")


def _same_data(directory: RunDirectory, config: RunConfig, data: str) -> bool:
    """Whether a folder, or "shapes", holds what a run was trained on; no where it lacks the run's splits."""
    from ablations.plan import data_config
    from yolor_core.data.fingerprint import annotation_fingerprint, data_fingerprint, written_shapes

    ours, known = config.data, (directory.read_run() or {}).get("fingerprint")
    try:
        here = data_config(data, "mini") if ours.kind == "shapes" else ours.model_copy(update={"root": data})
        if known == data_fingerprint(here):
            return True
        # Version 0.1.0 wrote down the annotations alone, which say nothing of the pictures of written shapes.
        return here.kind == "coco" and not written_shapes(here) and known == annotation_fingerprint(here)
    except YolorError:
        return False
