"""`ablate compare`: two runs, or two files of detections from any project, on the same images."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ablations.options import aligned, completing, examples, json_option, print_json, read_results_option
from yolor_core.errors import counted

if TYPE_CHECKING:
    from analysis.comparison import Comparison, Difference
    from yolor_core.evaluation.detections import Detections

CLASSES, IMAGES = 10, 10  # that the text shows
SUFFIXES = (".json", ".json.gz", ".parquet")  # of files; a run has no such name


@click.command(
    "compare",
    epilog=examples(
        "ablate compare RUN_A RUN_B", "ablate compare a.json b.json --truth instances_val2017.json"
    ),
)
@click.argument("a", metavar="A", shell_complete=completing("runs"))
@click.argument("b", metavar="B", shell_complete=completing("runs"))
@click.option("--truth", metavar="FILE", help="COCO instances file that files of detections are scored on.")
@click.option(
    "--images-of",
    type=click.Choice(["A", "B", "both"], case_sensitive=False),
    help="Only the images that A, B or both have detections in.  [default: all]",
)
@click.option("--resamples", type=click.IntRange(min=100), default=10_000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the resampling.")
@read_results_option
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
    from ablations.plan import cores
    from analysis.comparison import compare
    from analysis.looks_wrong import all_notes, order_ranges, restricted
    from yolor_core.data.records import read_json
    from yolor_core.errors import DataError
    from yolor_core.evaluation.engine import Truth, match

    content = read_json(Path(truth)) if truth else None
    if truth:
        Truth.read(content, truth)  # messages then name the file
    arms = {arm: load(name, content, results) for arm, name in (("A", a), ("B", b))}
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
    one = Truth.read(arms["A"][0])
    same = arms["B"][0] is arms["A"][0]  # of --truth
    truths = {"A": one, "B": one if same else Truth.read(arms["B"][0])}
    matches = [match(truths[arm], detections, cores()) for arm, (_, detections) in arms.items()]
    try:
        found = compare(matches[0], matches[1], resamples, seed, cores())
    except DataError as error:
        raise DataError("; ".join([*notes, str(error)])) from None
    orders = {arm: order_ranges(truths[arm], detections) for arm, (_, detections) in arms.items()}
    notes += all_notes(arms, truths, orders)
    if as_json:
        told = {"a": a, "b": b, **asdict(found), "notes": notes, "orders": orders}
        print_json(told)
    else:
        click.echo(text(found, a, b, notes))


def load(name: str, truth: dict[str, Any] | None, results: Path) -> tuple[dict[str, Any], Detections]:
    """The annotations and the checked detections of one arm: of a file, else of a run.

    Raises RunError or DataError, naming what is missing or wrong.
    """
    from ablations.overview import find_run
    from analysis.comparison import renumbered, stored
    from yolor_core.errors import DataError
    from yolor_core.evaluation.engine import check_detections

    if is_file(name):
        if truth is None:
            raise DataError(
                f"{name} is a file of detections; name the annotations it is scored on with --truth FILE"
            )
        annotations, detections = truth, read_detections(Path(name))
    else:
        annotations, detections = stored(find_run(name, results))
        if truth is not None:
            whose = f"run {Path(name).name}"
            detections = renumbered(detections, annotations, truth, "the file of --truth", whose)
            annotations = truth
    try:
        check_detections(annotations, detections)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return annotations, detections


def is_file(name: str) -> bool:
    """Whether an arm is a file of detections; if not, it is a run."""
    return name.lower().endswith(SUFFIXES) or (os.path.exists(name) and not os.path.isdir(name))


def profile(name: str, results: Path) -> str | None:
    """The profile of an arm that is a run; None for a file."""
    from ablations.overview import find_run
    from yolor_core.runs.directory import RunDirectory

    if is_file(name):
        return None
    record = RunDirectory(find_run(name, results)).read_run() or {}
    found: str | None = record.get("config", {}).get("science", {}).get("profile")
    return found


def read_detections(path: Path) -> Detections:
    """A file of detections, told by its content. Raises DataError naming it."""
    from analysis.published.detections import detections_in
    from yolor_core.data.records import parse
    from yolor_core.errors import DataError, json_kind
    from yolor_core.evaluation.detections import UNREADABLE, Detections
    from yolor_core.runs.directory import why

    try:
        data = path.read_bytes()
        if data.startswith(b"PAR1"):
            return detections_in(io.BytesIO(data))
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read: {why(error)}") from None
    content = parse(data, path)
    if not isinstance(content, list):
        keys = f" with {', '.join(map(repr, list(content)[:5]))}" if isinstance(content, dict) else ""
        raise DataError(
            f"{path} holds {json_kind(content)}{keys}; a list of detections is needed (COCO's results "
            "format), or the Parquet file of a run"
        )
    return Detections.from_results(content, str(path))


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
        f"{found.resamples} resamples of {counted(found.image_count, 'image')}, the same for both. "
        "The intervals are of the images alone: training noise is not in them.",
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
