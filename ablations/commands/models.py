"""`ablate models`: every model and what it costs."""

from __future__ import annotations

import json
from typing import Any

import click

from ablations.columns import aligned
from ablations.options import json_option

HEAD = {
    "name": "name",
    "size": "size",
    "parameters": "parameters",
    "parameters_fused": "fused",
    "mflops": "MFLOPs",
    "mflops_fused": "MFLOPs fused",
    "mflops_torch": "torch MFLOPs",
}  # key of a record -> heading; mflops_table7 is in the JSON alone


@click.command("models")
@json_option
def command(as_json: bool) -> None:
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
                "mflops_fused": round(counts.mflops_fused, 4),
                "mflops_table7": round(counts.mflops_paper, 4),
                "mflops_torch": round(counts.mflops_torch, 4),
            }
        )
    return records


def text(records: list[dict[str, Any]]) -> str:
    """The records as aligned columns."""
    lines = [tuple(HEAD.values()), *(tuple(_shown(record[key]) for key in HEAD) for record in records)]
    return "\n".join(aligned(lines))


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4f}".replace(",", " ")
    return f"{value:,}".replace(",", " ") if isinstance(value, int) and value > 9999 else str(value)
