"""`ablate models`: every model and what it costs."""

from __future__ import annotations

import json
from typing import Any

import click

from ablations.options import json_option


@click.command("models")
@json_option
def command(as_json: bool) -> None:
    """List every model: test size (pixels), parameters, parameters when fused, MFLOPs (not fused)."""
    records = describe()
    click.echo(json.dumps(records, indent=1) if as_json else text(records))


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
            }
        )
    return records


def text(records: list[dict[str, Any]]) -> str:
    """The records as aligned columns."""
    lines = [("name", "size", "parameters", "fused", "MFLOPs")]
    for record in records:
        name, size, parameters, fused, mflops = record.values()
        numbers = (f"{parameters:,}", f"{fused:,}", f"{mflops:,.4f}")
        lines.append((name, str(size), *(number.replace(",", " ") for number in numbers)))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )
