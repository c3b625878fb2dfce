"""`ablate detect`: look at what a model finds in pictures."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import click

from ablations.options import json_option
from ablations.trained_model import choose, class_names, need_detection, settings, trained_model_options
from yolor_core.errors import ConfigError, DataError

LONGEST = 255  # bytes of a name, on the usual file systems
KEPT = {".jpg", ".jpeg", ".png"}  # drawn in the format they came in; all others as PNG


@click.command("detect")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE...")
@trained_model_options
@click.option("--size", type=int, metavar="PIXELS", help="Long side.  [default: the paper's, or the run's]")
@click.option("--confidence", type=float, default=0.4, show_default=True)
@click.option("--iou", type=float, default=0.5, show_default=True, help="Of the suppression.")
@click.option("--max-detections", type=int, metavar="N", help="In an image.  [default: 300]")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("detections"),
              show_default=True, metavar="FOLDER", help="Where the drawn copies go.")  # fmt: skip
@json_option
def command(
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
    from yolor_core.evaluation.pictures import detect_picture, draw, read_picture

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
                    {"name": names[f.label], "score": round(f.score, 5), "box": [round(v, 3) for v in f.box]}
                    for f in detections
                ],
            }
        )
        if not as_json:
            click.echo(f"{shown(path)}: {summary([names[f.label] for f in detections])} -> {drawn}")
    if as_json:
        click.echo(json.dumps(records, indent=1, ensure_ascii=False))
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
