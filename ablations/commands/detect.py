"""`ablate detect`: look at what a model finds in pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from ablations.options import json_option
from ablations.trained_model import choose, class_names, need_detection, settings, trained_model_options
from yolor_core.errors import DataError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
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

    A run with several tasks draws its detection, one without detection is refused. Exit code 1 when an image
    could not be read; the others are done all the same.
    """
    from yolor_core.device import choose_device
    from yolor_core.evaluation.pictures import detect_picture, draw, read_picture

    paths = expand(images)
    chosen = choose(name, weights, run_dir)
    need_detection(chosen, "draws boxes")
    config, target = settings(chosen, **given), choose_device(device)
    names = class_names(chosen) or tuple(f"class {index}" for index in range(chosen.model.classes))
    model = chosen.model.to(target)
    records, failed = [], False
    out.mkdir(parents=True, exist_ok=True)
    for path, drawn in zip(paths, targets(paths, out), strict=True):
        try:
            pixels = read_picture(path)
        except DataError as error:
            click.echo(str(error), err=True)
            failed = True
            continue
        found = detect_picture(model, pixels, config, target)
        draw(pixels, found, names).save(drawn)
        records.append(
            {
                "image": str(path),
                "drawn": str(drawn),
                "detections": [
                    {"name": names[f.label], "score": round(f.score, 5), "box": [round(v, 3) for v in f.box]}
                    for f in found
                ],
            }
        )
        if not as_json:
            click.echo(f"{path}: {summary([names[f.label] for f in found])} -> {drawn}")
    if as_json:
        click.echo(json.dumps(records, indent=1, ensure_ascii=False))
    click.get_current_context().exit(1 if failed else 0)


def expand(paths: Sequence[Path]) -> list[Path]:
    """Files as they are, folders as the images in them. Raises DataError for a folder without images."""

    def files(path: Path) -> Iterator[Path]:
        if not path.is_dir():
            yield path
            return
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        if not inside:
            raise DataError(f"{path}: no images in this folder ({', '.join(sorted(SUFFIXES))})")
        yield from inside

    return list(dict.fromkeys(file for path in paths for file in files(path)))


def targets(paths: Sequence[Path], out: Path) -> list[Path]:
    """Where each drawn copy goes: <name>-detected.<suffix>, numbered where two images have one name."""
    taken: set[str] = set()
    result = []
    for path in paths:
        suffix = path.suffix if path.suffix.lower() in KEPT else ".png"
        stem, number = f"{path.stem}-detected", 1
        while f"{stem}{suffix}" in taken:
            number += 1
            stem = f"{path.stem}-detected-{number}"
        taken.add(f"{stem}{suffix}")
        result.append(out / f"{stem}{suffix}")
    return result


def summary(names: Sequence[str]) -> str:
    """`2 person, 1 dog`, or `nothing`."""
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"
