"""`ablate models`: every model and what it costs. `ablate speed`: images per second on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from ablations.options import aligned, completing, examples, json_option, print_json
from ablations.trained_model import require_model

HEAD = {
    "name": "name",
    "size": "size",
    "parameters": "parameters",
    "parameters_fused": "fused",
    "mflops": "MFLOPs",
    "mflops_fused": "MFLOPs fused",
    "mflops_torch": "torch MFLOPs",
}  # key of a record -> heading; mflops_table7 is in the JSON alone


@click.command("models", epilog=examples("ablate models"))
@json_option
def models_command(as_json: bool) -> None:
    """List every model: test size (pixels), parameters and MFLOPs, fused and not, torch's MFLOPs.

    Fused: BatchNorm is merged into the convolution in front of it.

    MFLOPs follow the paper's rule: 2 x (multiply-adds of convolutions + their bias outputs + 2 x elements of
    BatchNorm), and one per number that implicit knowledge multiplies. Activations, pooling, up-sampling,
    rearranged pixels and additions are free. Table 7 leaves out the multiplications on P6, likely by
    oversight; --json has its figure too, as mflops_table7.

    torch MFLOPs is the figure of torch.utils.flop_counter. It is lower because that counts convolutions and
    matrix products alone: no biases, no BatchNorm, no multiplications. It is the same fused and not.
    """
    records = describe()
    print_json(records) if as_json else click.echo(costs_text(records))


def describe() -> list[dict[str, Any]]:
    """One record per model, counted at its test size with 80 classes."""
    from yolor_core.models import count, list_models, named_config
    from yolor_core.models.architectures import ARCHITECTURES

    records = []
    for name in list_models():
        size = ARCHITECTURES[name].size
        counts = count(named_config(name), size)
        records.append(
            {
                "name": name,
                "size": size,
                "parameters": counts.parameters,
                "parameters_fused": counts.parameters_fused,
                "mflops": round(counts.mflops, 4),
                "mflops_fused": round(counts.mflops_fused, 4),
                "mflops_table7": round(counts.mflops_paper, 4),
                "mflops_torch": round(counts.mflops_torch, 4),
            }
        )
    return records


def costs_text(records: list[dict[str, Any]]) -> str:
    """The records as aligned columns."""
    lines = [tuple(HEAD.values()), *(tuple(_shown(record[key]) for key in HEAD) for record in records)]
    return "\n".join(aligned(lines))


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4f}".replace(",", " ")
    return f"{value:,}".replace(",", " ") if isinstance(value, int) and value > 9999 else str(value)


COLUMNS = ("model", "size", "batch", "precision", "folded", "network/s", "end to end/s")


@click.command("speed", epilog=examples("ablate speed yolor_p6 yolor-d6 --batch 1"))
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", shell_complete=completing("models"))
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
def speed(
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
        print_json(records)
        return
    click.echo(f"device: {where}")
    click.echo(line(COLUMNS))
    for name in models:
        for record in measure(name, size, batches, target, seconds):
            click.echo(speed_line(record))


def measure(
    name: str, size: int | None, batches: tuple[int, ...], device: Any, seconds: float
) -> Iterator[dict[str, Any]]:
    """One record per precision, folding and batch."""
    from dataclasses import asdict

    from yolor_core.device import is_gpu
    from yolor_core.evaluation.speed import measure_speed, settle
    from yolor_core.models import create_model
    from yolor_core.models.architectures import ARCHITECTURES

    side = size or ARCHITECTURES[name].size
    precisions = ("fp32", "fp16") if is_gpu(device) else ("fp32",)
    for speed in measure_speed(settle(create_model(name)), side, batches, device, precisions, seconds):
        record = asdict(speed)
        record["images_per_second"] = record.pop("model")
        yield {"model": name, "size": side} | record


def speed_line(record: dict[str, Any]) -> str:
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
