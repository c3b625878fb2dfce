"""`ablate speed`: images per second of models on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from ablations.options import json_option
from ablations.trained_model import require_model

COLUMNS = ("model", "size", "batch", "precision", "folded", "network/s", "end to end/s")


@click.command("speed")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--size",
    type=click.IntRange(min=32),
    metavar="PIXELS",
    help="Square input.  [default: the paper's test size]",
)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1, 32),
    show_default=True,
    help="Images at once. Repeatable.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Time for each figure, and the longest time of one batch.",
)
@json_option
def command(
    models: tuple[str, ...],
    size: int | None,
    batches: tuple[int, ...],
    device: str,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure images per second, with BatchNorm and implicit knowledge folded and not.

    'network' is the network alone, 'end to end' goes from pictures to boxes: letterbox, network, decoding and
    suppression of about 3000 candidates an image. Weights are those of initialisation. Single precision, on a
    GPU half precision too. A batch that would take longer than --seconds is not run.
    """
    for name in models:
        require_model(name)

    from yolor_core.device import choose_device
    from yolor_core.evaluation.speed import describe_device

    target = choose_device(device)
    where = describe_device(target)
    if as_json:
        records = [
            r | {"device": where} for name in models for r in measure(name, size, batches, target, seconds)
        ]
        click.echo(json.dumps(records, indent=1))
        return
    click.echo(f"device: {where}")
    click.echo(line(COLUMNS))
    for name in models:
        for record in measure(name, size, batches, target, seconds):
            click.echo(text(record))


def measure(
    name: str, size: int | None, batches: tuple[int, ...], device: Any, seconds: float
) -> Iterator[dict[str, Any]]:
    """One record per precision, folding and batch."""
    from dataclasses import asdict

    from yolor_core.evaluation.speed import measure_speed, settle
    from yolor_core.models import create_model
    from yolor_core.models.architectures import ARCHITECTURES

    side = size or ARCHITECTURES[name].size
    precisions = ("fp32", "fp16") if device.type == "cuda" else ("fp32",)
    for speed in measure_speed(settle(create_model(name)), side, batches, device, precisions, seconds):
        record = asdict(speed)
        record["images_per_second"] = record.pop("model")
        yield {"model": name, "size": side} | record


def text(record: dict[str, Any]) -> str:
    """A record as a line of the table."""
    rates = [record["images_per_second"], record["end_to_end"]]
    shown = ["-" if rate is None else f"{rate:.2f}" for rate in rates]
    folded = "yes" if record["folded"] else "no"
    cells = (record["model"], record["size"], record["batch"], record["precision"], folded, *shown)
    return f"{line(cells)}  {record['note']}".rstrip()


def line(cells: tuple[Any, ...]) -> str:
    """Cells in columns of fixed width, so that each line can be shown as soon as it is measured."""
    name, *rest = map(str, cells)
    widths = (6, 6, 10, 7, 10, 13)
    return f"{name:22}" + "".join(cell.rjust(width) for cell, width in zip(rest, widths, strict=True))
