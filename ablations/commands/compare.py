"""`ablate compare`: two runs, or two files of detections from any project, on the same images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ablations.columns import aligned
from ablations.options import json_option, results_option

if TYPE_CHECKING:
    from analysis.comparison import Comparison, Difference
    from yolor_core.evaluation.detections import Detections

CLASSES, IMAGES = 10, 10  # that the text shows


@click.command("compare")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--truth", metavar="FILE", help="COCO instances file that files of detections are scored on.")
@click.option(
    "--images-of",
    type=click.Choice(["A", "B", "both"], case_sensitive=False),
    help="Only the images that A, B or both have detections in.  [default: all]",
)
@click.option("--resamples", type=click.IntRange(min=100), default=10_000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the resamples.")
@results_option
@json_option
def command(
    a: str,
    b: str,
    truth: str | None,
    images_of: str | None,
    resamples: int,
    seed: int,
    results: Path,
    as_json: bool,
) -> None:
    """Compare B with A: every COCO score, each class, and the images that changed most.

    A and B are runs (a folder, or a name of `ablate status`), or files of detections in COCO's results format
    (.json) or of a run (.parquet), with --truth. Both are scored on the same resamples of the images. The
    intervals say how the difference might come out on other images; how it might come out in another training
    they cannot say: for that, run several seeds and see `ablate tables`. Notes above the scores say what
    looks wrong with the annotations and detections.
    """
    from ablations.machine import cores
    from analysis.comparison import compare
    from analysis.looks_wrong import all_notes, order_ranges, restricted
    from yolor_core.errors import DataError
    from yolor_core.evaluation.engine import Truth, check_detections, match

    content = json_file(Path(truth)) if truth else None
    arms = {arm: load(name, content, results) for arm, name in (("A", a), ("B", b))}
    for boxes, detections in arms.values():
        check_detections(Truth.read(boxes), detections)
    profiles = {arm: known for arm, name in (("A", a), ("B", b)) if (known := profile(name, results))}
    notes = []
    if len(set(profiles.values())) > 1:
        notes.append(f"different profiles: A is a run of {profiles['A']}, B of {profiles['B']}")
    if images_of is not None:
        images = len(arms["A"][0]["images"])
        arms = restricted(arms, images_of)
        notes.append(
            f"scored on {len(arms['A'][0]['images'])} of {images} images: those that {images_of} "
            f"{'have' if images_of == 'both' else 'has'} detections in"
        )
    truths = {arm: Truth.read(boxes) for arm, (boxes, _) in arms.items()}
    matches = [match(truths[arm], detections) for arm, (_, detections) in arms.items()]
    try:
        found = compare(matches[0], matches[1], resamples, seed, cores())
    except DataError as error:
        raise DataError("; ".join([*notes, str(error)])) from None
    orders = {arm: order_ranges(truths[arm], detections) for arm, (_, detections) in arms.items()}
    notes += all_notes(arms, truths, orders)
    if as_json:
        told = {"a": a, "b": b, **asdict(found), "notes": notes, "orders": orders}
        click.echo(json.dumps(told, indent=1, ensure_ascii=False))
    else:
        click.echo(text(found, a, b, notes))


def load(name: str, truth: dict[str, Any] | None, results: Path) -> tuple[dict[str, Any], Detections]:
    """The annotations and detections of one arm. Raises RunError or DataError, naming what is missing."""
    from ablations.overview import find_run
    from analysis.other_images import renumbered, stored
    from analysis.published.detections import read_detections
    from yolor_core.errors import DataError
    from yolor_core.evaluation.detections import Detections

    path = Path(name)
    if path.suffix not in (".json", ".parquet"):
        annotations, detections = stored(find_run(name, results))
        if truth is None:
            return annotations, detections
        return truth, renumbered(detections, annotations, truth, "the file of --truth", f"run {path.name}")
    if truth is None:
        raise DataError(
            f"{name} is a file of detections; name the annotations it is scored on with --truth FILE"
        )
    if path.suffix == ".json":
        entries = json_file(path, list)
        return truth, Detections.from_results(entries)
    try:
        return truth, read_detections(path)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{name} cannot be read: {error}") from None


def profile(name: str, results: Path) -> str | None:
    """The profile of an arm that is a run; None for a file."""
    from ablations.overview import find_run
    from yolor_core.runs.directory import RunDirectory

    if Path(name).is_file():
        return None
    record = RunDirectory(find_run(name, results)).read_run() or {}
    found: str | None = record.get("config", {}).get("science", {}).get("profile")
    return found


def json_file(path: Path, kind: type = dict) -> Any:
    """The content of a JSON file. Raises DataError naming it."""
    from yolor_core.errors import DataError

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, kind):
        wanted = "a list of detections" if kind is list else "a COCO instances file"
        raise DataError(f"{path} holds {type(content).__name__}; {wanted} is needed")
    return content


def text(found: Comparison, a: str, b: str, notes: Sequence[str] = ()) -> str:
    """For a terminal."""
    lines = [f"A: {a}", f"B: {b}", *(f"note: {note}" for note in notes), ""]
    lines += _grid(("", "A", "B", "B - A", "95 % (percentile)", "95 % (BCa)"), found.metrics)
    known = [each for each in found.classes if each.delta is not None]
    lines += ["", f"classes that differ most, of {len(found.classes)}"]
    lines += _grid(("AP of", "A", "B", "B - A", "95 % (percentile)"), known[:CLASSES])
    lines += ["", "images that differ most, and what each adds to the difference of AP"]
    lines += [f"{image:>12}  {part:+.3f}" for image, part in found.images[:IMAGES]]
    lines += [
        "",
        f"{found.resamples} resamples of {found.image_count} images, the same for both. The intervals are of "
        "the images alone: training noise is not in them.",
        *found.warnings,
    ]
    return "\n".join(lines)


def _grid(head: tuple[str, ...], rows: Any) -> list[str]:
    return aligned([head, *(_line(row)[: len(head)] for row in rows)])


def _line(row: Difference) -> tuple[str, ...]:
    return (
        row.name,
        _shown(row.a),
        _shown(row.b),
        _shown(row.delta, "+"),
        _span(row.percentile),
        _span(row.bca),
    )


def _shown(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.2f}"


def _span(interval: tuple[float, float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:+.2f} to {interval[1]:+.2f}"
